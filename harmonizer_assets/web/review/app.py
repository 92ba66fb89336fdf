"""The review page as the web UI serves it under `/review/`."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles

from harmonizer_assets.core.base.errors import HarmonizerError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.web.guard import App, Message, Receive, Scope, Send
from harmonizer_assets.web.links import REVIEW
from harmonizer_assets.web.review.access import Access, token_of
from harmonizer_assets.web.review.site import Site

SERVED: Final = f"{REVIEW}/served"
"""Address that says which home is served; see `home_mark`."""

_STATIC: Final = Path(__file__).parent / "static"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
}


def with_review(
    app: App, home: Home, settings: Settings, environment: Mapping[str, str] = os.environ
) -> App:
    """Add the review page of a home to an application.

    Raises:
        ConfigurationError: the settings name a token that is not set.
    """
    access = Access(token_of(settings.review, environment))
    review = _with_headers(_review_app(home, settings, access))

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        own = scope["type"] == "http" and re.match(f"{REVIEW}(/|$)", scope["path"])
        await (review if own else app)(scope, receive, send)

    return run


def home_mark(home: Home) -> str:
    """Return what tells a home from others without naming its folder."""
    return hashlib.sha256(os.fsencode(home.root.resolve())).hexdigest()


def _review_app(home: Home, settings: Settings, access: Access) -> Starlette:
    site = Site(home, settings, access)
    pages = [
        Route("/", site.queue),
        Route("/item", site.item),
        Route("/list", site.list),
        Route("/image", site.image),
        Route("/reviewer", site.name_reviewer, methods=["POST"]),
        Route("/answer", site.answer, methods=["POST"]),
        Route("/undo", site.undo, methods=["POST"]),
        Route("/reopen", site.reopen, methods=["POST"]),
    ]
    return Starlette(
        routes=[
            Mount(f"{REVIEW}/static", StaticFiles(directory=_STATIC)),
            Route(SERVED, lambda _: PlainTextResponse(home_mark(home))),
            Route(f"{REVIEW}/token", site.take_token, methods=["POST"]),
            Mount(REVIEW, _closed(Router(pages), site, access)),
        ],
        exception_handlers={HarmonizerError: site.failed},
    )


def _closed(app: App, site: Site, access: Access) -> App:
    """Show an application only to those who may see it."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        allowed = access.is_allowed(request)
        await (app if allowed else site.closed(request))(scope, receive, send)

    return run


def _with_headers(app: App) -> App:
    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await app(scope, receive, send_with_headers)

    return run
