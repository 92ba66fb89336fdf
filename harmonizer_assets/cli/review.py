"""Open the review page: `harmonizer review`."""

from __future__ import annotations

import urllib.error
import urllib.request

import click

from harmonizer_assets.cli.options import home_option
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.web.links import REVIEW
from harmonizer_assets.web.processes import DEFAULT_PORT, LOOPBACK


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port on which `harmonizer ui` serves the home.",
)
@click.option("--no-open", is_flag=True, help="Print the address and open no browser.")
@home_option
def review(*, home: Home, port: int, no_open: bool) -> None:
    """Open the page on which people review findings; `harmonizer ui` must be running."""
    from harmonizer_assets.web.review.app import SERVED, home_mark

    address = f"http://{LOOPBACK}:{port}"
    if _answer(f"{address}{SERVED}") != home_mark(home):
        raise InputError(
            f"nothing serves {home.root} on port {port}: start `harmonizer ui`, or give its --port"
        )
    click.echo(f"{address}{REVIEW}/")
    if not no_open:
        click.launch(f"{address}{REVIEW}/")


def _answer(address: str) -> str | None:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError, ValueError):
        return None
