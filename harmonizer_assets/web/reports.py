"""The reports, as the web UI serves them under `/reports/`."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.written_reports import REPORTS
from harmonizer_assets.web.guard import App, Receive, Scope, Send
from harmonizer_assets.web.links import report_link

_HEADERS: Final = {
    "Cache-Control": "no-store",
    # A page shares its origin with the web UI: the sandbox takes that from it.
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
}
_LIST: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Harmonization reports</title>
<style>body {{ font: 1rem/1.6 sans-serif; margin: 2rem }}</style>
<h1>Harmonization reports</h1>
<p>The newest first.</p>
<ul>
{links}
</ul>
</html>
"""


def with_reports(app: App, home: Home) -> App:
    """Add a home's reports to an application: a list of them, and each page that is on it."""
    reports = _reports_app(home)

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        own = scope["type"] == "http" and re.match(f"{REPORTS}(/|$)", scope["path"])
        await (reports if own else app)(scope, receive, send)

    return run


def _reports_app(home: Home) -> Starlette:
    def index(_: Request) -> Response:
        return HTMLResponse(_list_page(_listed(home)), headers=_HEADERS)

    def page(request: Request) -> Response:
        listed = {page.name: page for page in _listed(home)}
        try:
            return HTMLResponse(_read(listed[request.path_params["name"]]), headers=_HEADERS)
        except (KeyError, OSError):
            return PlainTextResponse("There is no such report.\n", status_code=404)

    routes = [Route("/", index), Route("/{name:path}", page)]
    return Starlette(routes=[Mount(REPORTS, routes=routes)])


def _listed(home: Home) -> list[Path]:
    """List the pages in the home's folder of reports, newest first, without links and dotfiles."""
    try:
        with os.scandir(home.reports) as entries:
            found = [
                (entry.stat(follow_symlinks=False).st_mtime_ns, Path(entry.path))
                for entry in entries
                if entry.name.endswith(".html")
                and not entry.name.startswith(".")
                and entry.is_file(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []
    return [path for _, path in sorted(found, reverse=True)]


def _read(file: Path) -> bytes:
    """Read a file that has just been listed, unless a link has taken its place."""
    with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), "rb") as opened:
        return opened.read()


def _list_page(pages: Sequence[Path]) -> str:
    links = (
        f'<li><a href="{html.escape(report_link(page))}">{html.escape(page.stem)}</a></li>'
        for page in pages
    )
    return _LIST.format(links="\n".join(links))
