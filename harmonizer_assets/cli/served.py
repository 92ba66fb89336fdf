"""The processes that `harmonizer ui` starts: `python -m harmonizer_assets.cli.served`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings

_MODULE: Final = ("-m", "harmonizer_assets.cli.served")


def command() -> list[str]:
    """Return the command that serves the web UI and runs the daemon of HARMONIZER_HOME."""
    return [sys.executable, *_MODULE, "dev", "-m", "harmonizer_assets.definitions"]


def main(process: str, arguments: Sequence[str]) -> None:
    """Run `dagster dev`, or the web server that it starts, with the options of Dagster's own.

    Args:
        process: `dev` or `web-server`.
        arguments: of the process.
    """
    from harmonizer_assets.dagster_compat.web_server import run_dev, run_web_server

    if process == "dev":
        run_dev(arguments, [*_MODULE, "web-server"])
    else:
        run_web_server(arguments, _guarded)


def _guarded(app: Any) -> Any:
    from harmonizer_assets.web.guard import Guard
    from harmonizer_assets.web.reports import with_reports
    from harmonizer_assets.web.review.app import with_review

    home = Home.resolve()
    settings = Settings.load(home.settings_file)
    served = with_review(with_reports(app, home), home, settings)
    return Guard(served, settings.web.allowed_origins)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
