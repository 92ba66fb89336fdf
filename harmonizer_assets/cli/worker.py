"""Work on units from a queue: `harmonizer worker`."""

from __future__ import annotations

import os

import click

from harmonizer_assets.cli.options import home_option
from harmonizer_assets.core.base.home import Home


@click.command()
@click.option(
    "--store",
    "stores",
    multiple=True,
    help="Work for this store only; may be repeated [default: that of the home].",
)
@click.option("--queue", help="Name of the queue [setting: units.queue].")
@click.option(
    "--processes", type=click.IntRange(1, 256), help="How many [setting: units.processes]."
)
@click.option(
    "--attempts",
    type=click.IntRange(1, 20),
    help="How often a unit is tried; the same as for the run [setting: units.attempts].",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 43_000),
    help="The longest that an attempt may take; the same as for the run [setting: units.seconds].",
)
@home_option
def worker(
    *,
    home: Home,
    stores: tuple[str, ...],
    queue: str | None,
    processes: int | None,
    attempts: int | None,
    seconds: float | None,
) -> None:
    """Work on units from the queue that HARMONIZER_BROKER_URL names, until a signal ends it.

    With --store it needs no home: neither tables nor vector index.
    """
    # Before NumPy is imported: there is one process per core.
    from harmonizer_assets.core.base.threads import ONE_THREAD, cores

    os.environ.update(ONE_THREAD)
    from harmonizer_assets.core.base.settings import Settings
    from harmonizer_assets.core.store.objects import open_store
    from harmonizer_assets.core.units.executors.celery import make_worker_app, run_worker
    from harmonizer_assets.core.units.spread import make_broker, store_url

    given = {"queue": queue, "processes": processes, "attempts": attempts, "seconds": seconds}
    settings = Settings.load(home.settings_file).units.model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )
    urls = stores or (store_url(settings, home),)
    for url in urls:
        open_store(url, settings.store_endpoint_url)
    broker = make_broker(settings)
    app = make_worker_app(broker, urls, settings.store_endpoint_url)
    broker.declare(app)
    click.echo(f"working on units of {', '.join(urls)} from the queue {broker.queue}")
    run_worker(app, settings.processes or cores())
