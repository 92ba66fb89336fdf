"""Who may use the review page, and who is using it.

The guard of the web UI has seen every request before: what arrives here was sent by a page of the
web UI, by a link to one, or by a program.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import Response

from harmonizer_assets.core.base.errors import ConfigurationError, InputError
from harmonizer_assets.core.base.settings import ReviewSettings
from harmonizer_assets.web.guard import LOOPBACK_HOSTS, host_name
from harmonizer_assets.web.links import REVIEW

_MAX_NAME: Final = 80
_REVIEWER: Final = "harmonizer_reviewer"
_TOKEN: Final = "harmonizer_review_token"
_YEAR: Final = 365 * 24 * 3600


def token_of(settings: ReviewSettings, environment: Mapping[str, str]) -> str | None:
    """Read the token that the review page asks for; None where the settings name none.

    Raises:
        ConfigurationError: the variable that they name is not set.
    """
    if settings.token_env is None:
        return None
    token = environment.get(settings.token_env, "").strip()
    if not token:
        raise ConfigurationError(
            f"[review] token_env names {settings.token_env}, which is not set: set it to the token "
            "that the review page is to ask for"
        )
    return token


class Access:
    """Decides which requests may see the page, with or without a token."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def is_allowed(self, request: Request) -> bool:
        """Return whether a request has the token or, where there is none, needs none."""
        if self._token is None:
            return host_name(request.headers.get("host", "").lower()) in LOOPBACK_HOSTS
        return _equal(request.cookies.get(_TOKEN, ""), _proof(self._token))

    @property
    def has_token(self) -> bool:
        """Whether people can get in with a token."""
        return self._token is not None

    def let_in(self, request: Request, response: Response, token: str) -> bool:
        """Remember in a cookie that somebody knows the token; return whether they do."""
        if self._token is None or not _equal(token.strip(), self._token):
            return False
        _remember(request, response, _TOKEN, _proof(self._token), None)
        return True


def reviewer_of(request: Request) -> str | None:
    """Return the name of the person who reviews; None where it was not given yet."""
    return unquote(request.cookies.get(_REVIEWER, "")) or None


def remember_reviewer(request: Request, response: Response, name: str) -> None:
    """Remember the name of the person who reviews.

    Raises:
        InputError: it is empty, too long or not printable.
    """
    name = " ".join(name.split())
    if not name or len(name) > _MAX_NAME or not name.isprintable():
        raise InputError(f"a name has 1 to {_MAX_NAME} letters")
    _remember(request, response, _REVIEWER, quote(name, safe=""), _YEAR)


def _remember(
    request: Request, response: Response, name: str, value: str, seconds: int | None
) -> None:
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path=REVIEW,
        secure=request.headers.get("origin", "").startswith("https:"),
        httponly=True,
        samesite="strict",
    )


def _proof(token: str) -> str:
    """Derive what the cookie holds, so that the token itself is kept nowhere."""
    return hmac.new(token.encode(), b"harmonizer review page", hashlib.sha256).hexdigest()


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
