"""Serve the web UI: `harmonizer ui`."""

from __future__ import annotations

import os
import sys

import click

from harmonizer_assets.cli.options import home_option
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.web.processes import DEFAULT_PORT, serve


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port of the web UI; it has reports under /reports/, the review under /review/.",
)
@home_option
def ui(*, home: Home, port: int) -> None:
    """Serve Dagster's web UI and daemon, on the loopback interface only."""
    from harmonizer_assets.cli.served import command
    from harmonizer_assets.core.base.settings import Settings
    from harmonizer_assets.dagster_compat.instance import (
        instance_environment,
        prepare_instance,
        sole_daemon,
    )
    from harmonizer_assets.web.review.access import token_of

    prepare_instance(home)
    token_of(Settings.load(home.settings_file).review, os.environ)
    with sole_daemon(home):
        click.echo(f"http://127.0.0.1:{port} (stop with Ctrl-C)")
        sys.stdout.flush()
        code = serve(command(), port, instance_environment(home))
    sys.exit(code)
