"""The guard of the web UI: which requests come from the people who use it.

The web UI asks for no password. A page of another site that the same browser shows could send it
requests all the same, or read it through a host name that it points to this machine. The guard
refuses both, before the web UI sees the request.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})

_HOST: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")
_SETTING: Final = "allow it with `[web] allowed_origins` in harmonizer.toml"
_HEADERS: Final = (
    # Another site must neither frame a page, to have people click in it, nor load it as a part.
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)
_POLICY_VIOLATION: Final = 1008
"""Code of a websocket that is closed by policy, RFC 6455."""


class Guard:
    """ASGI middleware that passes requests from the web UI's own pages and from programs.

    A request passes when all of this holds; otherwise it is answered with 403 and the reason.

    - `Host` names the loopback interface or the host of an allowed origin.
    - `Origin`, which browsers send with requests that change something and with websockets, is that
      of the web UI itself or an allowed one. Programs send none.
    - A browser that says so in `Sec-Fetch-Site` was not sent by another site, unless it is to show
      the answer as a page.
    - What is no GET is a POST of JSON, which a page of another site cannot send; GraphQL is not
      run for a GET.
    """

    def __init__(self, app: App, allowed_origins: Iterable[str] = ()) -> None:
        """Guard an application.

        Args:
            app: what is guarded; lifespan events reach it as they are.
            allowed_origins: those of the web UI besides the loopback interface, such as
                `https://labels.example.com`; see `WebSettings`.
        """
        self._app = app
        self._origins = frozenset(allowed_origins)
        self._hosts = LOOPBACK_HOSTS | {host_name(_netloc(origin)) for origin in self._origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a connection on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        reason = self._why_refused(scope)
        if reason is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason})
        else:
            await _refuse(send, reason)

    def _why_refused(self, scope: Scope) -> str | None:
        headers = _Headers(scope)
        host = headers.only("host")
        if host is None or host_name(host) not in self._hosts:
            return f"The web UI is not served under this host name: {_SETTING}."
        origin = headers.only("origin")
        if headers.has("origin") and not self._is_own(origin, host):
            return f"The request comes from another origin: {_SETTING}."
        if not headers.has("origin") and _sent_by_another_site(scope, headers):
            return f"The request comes from a page of another site: {_SETTING}."
        if scope["type"] == "http":
            return _why_method_refused(scope, headers)
        return None

    def _is_own(self, origin: str | None, host: str) -> bool:
        if origin is None:
            return False
        own = origin == f"http://{host}" and host_name(host) in LOOPBACK_HOSTS
        return own or origin in self._origins


class _Headers:
    """The headers of a connection, in lower case."""

    def __init__(self, scope: Scope) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            values = self._values.setdefault(name.decode("latin-1").lower(), [])
            values.append(value.decode("latin-1").strip().lower())

    def has(self, name: str) -> bool:
        return name in self._values

    def only(self, name: str) -> str | None:
        """Return the value of a header that stands there once."""
        values = self._values.get(name, [])
        return values[0] if len(values) == 1 else None


def _netloc(origin: str) -> str:
    return origin.partition("://")[2]


def host_name(netloc: str) -> str | None:
    """Return the name in `NAME` or `NAME:PORT`, None where it is neither."""
    found = _HOST.fullmatch(netloc)
    return found["name"] if found else None


def _sent_by_another_site(scope: Scope, headers: _Headers) -> bool:
    """Return whether a browser says that another site asks, other than by a link to a page."""
    if headers.only("sec-fetch-site") not in {"cross-site", "same-site"}:
        return False
    is_page = headers.only("sec-fetch-dest") == "document" and not _is_graphql(scope)
    return not (is_page and scope["type"] == "http" and scope["method"] == "GET")


def _why_method_refused(scope: Scope, headers: _Headers) -> str | None:
    if scope["method"] in {"GET", "HEAD"}:
        # With this header the answer is the page of GraphiQL, which runs nothing by itself.
        if _is_graphql(scope) and "text/html" not in (headers.only("accept") or ""):
            return "GraphQL is run for a POST of JSON only."
        return None
    content_type = (headers.only("content-type") or "").partition(";")[0].strip()
    if scope["method"] != "POST" or content_type != "application/json":
        return "Only a POST with the content type application/json can change something."
    return None


def _is_graphql(scope: Scope) -> bool:
    return str(scope["path"]).rstrip("/").endswith("/graphql")


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in _HEADERS}
            others = [item for item in message.get("headers", ()) if item[0].lower() not in ours]
            message = {**message, "headers": [*others, *_HEADERS]}
        await send(message)

    return send_with_headers


async def _refuse(send: Send, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    status = HTTPStatus.FORBIDDEN.value
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})
