"""The review page of a home: served behind the guard as `harmonizer ui` does, and asked by HTTP.

`python -m harmonizer_tests.support.review_page HOME` serves one in a process that can be killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.records.label import LabelKey
from harmonizer_assets.web.guard import Guard
from harmonizer_assets.web.review.app import with_review
from harmonizer_assets.web.review.keys import key_text
from harmonizer_tests.support.web import Answer, ask, served_app

JSON: Final = "application/json"
ROOT: Final = Path(__file__).parents[2]


def review_app(home: Home, environment: Mapping[str, str] | None = None) -> Guard:
    """The page of a home beside another application, both behind the guard."""
    settings = Settings.load(home.settings_file)
    other = Starlette(routes=[Route("/{path:path}", lambda _: PlainTextResponse("other"))])
    app = with_review(other, home, settings, environment or {})
    return Guard(app, settings.web.allowed_origins)


@dataclass(frozen=True)
class Reviewer:
    """A person at a browser, as far as HTTP shows one."""

    port: int
    name: str = "ann"
    headers: Mapping[str, str] = field(default_factory=dict)

    def get(self, path: str = "", key: LabelKey | None = None, **headers: str) -> Answer:
        address = f"/review/{path}"
        if key is not None:
            address += f"?key={quote(key_text(key), safe='')}"
        return ask(self.port, address, **self._cookie(), **headers)

    def post(self, path: str, content: Any, **headers: str) -> Answer:
        given = {"Content_Type": JSON, **self._cookie(), **headers}
        return ask(self.port, f"/review/{path}", "POST", json.dumps(content), **given)

    def answer(self, *labels: LabelKey, verdict: str = "wrong", **said: Any) -> Answer:
        content = {
            "labels": [key_text(key) for key in labels],
            "verdict": verdict,
            "proposal_shown": True,
            **said,
        }
        return self.post("answer", content)

    def _cookie(self) -> dict[str, str]:
        return {"Cookie": f"harmonizer_reviewer={quote(self.name, safe='')}", **self.headers}


@contextmanager
def reviewing(home: Home, environment: Mapping[str, str] | None = None) -> Iterator[Reviewer]:
    """Serve the page of a home; yield ann, who reviews it."""
    with served_app(review_app(home, environment)) as port:
        yield Reviewer(port)


@contextmanager
def review_process(home: Home) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The page of a home in a process of its own; yield it and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(home.root)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def _serve(home: Home) -> None:
    config = uvicorn.Config(review_app(home), port=0, log_level="error", lifespan="off")
    listening = config.bind_socket()
    listening.listen()
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    _serve(Home(Path(sys.argv[1])))
