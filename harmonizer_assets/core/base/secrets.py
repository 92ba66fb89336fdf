"""Errors of other packages, turned into ours, and the secrets that their texts may hold.

Clients of endpoints, buckets and databases quote what they were given: a key, a URL with a
password, an answer that repeats either. Their errors are not shown, stored or chained to ours;
whatever is, goes through `redacted`.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NoReturn
from urllib.parse import unquote, urlsplit

from harmonizer_assets.core.base.errors import HarmonizerError
from harmonizer_assets.core.base.interrupts import raise_interrupt_in

REPLACEMENT: Final = "[secret]"

_NAMES: Final = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL|WEBHOOK")
"""In names of environment variables whose values are secret."""
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_USER: Final = re.compile(r"(?<=://)[^\s/?#]*@")
_TOKENS: Final = re.compile(r"(?i:\bbearer\s+)\S+|\b(?:sk|pk|rk|gsk|xai)[-_][\w*.-]{6,}")
"""What is a secret by its form, also where an endpoint has shortened it."""
_SHORTEST: Final = 8
"""Shorter values, such as the `none` of a local server, are no secrets but words."""
_SHORTEST_PART: Final = 4
"""The same of the parts of a password in a URL."""


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Replace the secrets of the environment in a text, and what looks like one.

    Args:
        text: of an error, a log line or a traceback.
        environment: variables with secrets; by default those of this process.
    """
    for secret in _secrets(os.environ if environment is None else environment):
        text = text.replace(secret, REPLACEMENT)
    return _TOKENS.sub(REPLACEMENT, _USER.sub(f"{REPLACEMENT}@", text))


@contextmanager
def translated(
    ours: Callable[[Exception], HarmonizerError], *kinds: type[Exception]
) -> Iterator[None]:
    """Raise errors of another package as one of ours, which is not chained to them.

    Args:
        ours: makes the error; should name the class of the other one rather than quote it.
        kinds: of errors; by default all. Ours pass as they are.
    """
    try:
        yield
    except HarmonizerError:
        raise
    except Exception as error:
        raise_interrupt_in(error)
        if kinds and not isinstance(error, kinds):
            raise
        _raise_alone(ours(error))


@contextmanager
def secrets_removed() -> Iterator[None]:
    """Replace an error that shows a known secret, itself or in one that it is chained to.

    Used around all that a run does, for errors that nobody has foreseen.
    """
    try:
        yield
    except Exception as error:
        raise_interrupt_in(error)
        shown = "".join(traceback.format_exception(error))
        if redacted(shown) == shown:
            raise
        if isinstance(error, HarmonizerError):
            _raise_alone(type(error)(str(error)))
        _raise_alone(HarmonizerError(f"unexpected {type(error).__name__}: {error}"))


def _raise_alone(error: HarmonizerError) -> NoReturn:
    """Raise an error without its secrets, chained to none."""
    error.args = (redacted(str(error)),)
    try:
        raise error
    finally:
        # `from None` hides the other error, but keeps it, with the request that it holds.
        error.__context__ = None


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """List the secrets of an environment and their parts, the longest first."""
    found: set[str] = set()
    for name, given in environment.items():
        value = given.strip()
        if _NAMES.search(name.upper()) and len(value) >= _SHORTEST:
            found.add(value)
        if _URL.fullmatch(value):
            found |= _parts(value, whole="WEBHOOK" in name.upper())
    return sorted(found | {unquote(secret) for secret in found}, key=len, reverse=True)


def _parts(url: str, *, whole: bool) -> set[str]:
    """List the secret parts of a URL: its password and, where all of it is secret, path and query.

    A password with unescaped `@`, `:` or `/` is read in pieces by whoever parses the URL.
    """
    user, at, _ = url.partition("://")[2].rpartition("@")
    password = user.partition(":")[2] if at else ""
    pieces = re.split("[@:/?#]", password)
    for separator in re.finditer("[@:/?#]", password):
        pieces += [password[: separator.start()], password[separator.end() :]]
    if whole:
        parts = urlsplit(url)
        pieces += re.split("[/&=?]", f"{parts.path}/{parts.query}")
    return {piece for piece in (password, *pieces) if len(piece) >= _SHORTEST_PART}
