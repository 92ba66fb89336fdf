"""Which executor scores the labels of a run, by the settings of the home."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.locks import Lock
from harmonizer_assets.core.base.settings import UnitSettings
from harmonizer_assets.core.base.threads import cores
from harmonizer_assets.core.records.reports import PartitionResult
from harmonizer_assets.core.score.stage import ComputeScores, SimilarityScorer, score_here
from harmonizer_assets.core.stages.run import StageRun

if TYPE_CHECKING:
    from harmonizer_assets.core.units.executors.base import Executor
    from harmonizer_assets.core.units.executors.brokers import Broker
    from harmonizer_assets.core.units.store import UnitStore

# A run that scores in its own process imports nothing of what units need.

BROKER_VARIABLE: Final = "HARMONIZER_BROKER_URL"


def store_url(settings: UnitSettings, home: Home) -> str:
    """Return the URL of the store of a home's units."""
    return settings.store or home.units.as_uri()


def unit_store(settings: UnitSettings, home: Home) -> UnitStore:
    """Open the store of a home's units; nothing is read yet.

    Raises:
        ConfigurationError: the URL is none, or the extra for it is not installed.
    """
    from harmonizer_assets.core.store.objects import open_store
    from harmonizer_assets.core.units.store import UnitStore

    return UnitStore(open_store(store_url(settings, home), settings.store_endpoint_url))


def clear_units(settings: UnitSettings, home: Home) -> None:
    """Delete all units of a home and what was made of them, once no run waits for any."""
    with _lock(home).held():
        unit_store(settings, home).clear()


def score_by(settings: UnitSettings, home: Home) -> ComputeScores:
    """Choose who scores the labels of a run; nothing is started yet."""
    if settings.executor == "inline":
        return score_here

    def spread(run: StageRun, scorer: Callable[[], SimilarityScorer]) -> Iterator[PartitionResult]:
        if not run.stale:
            return
        from harmonizer_assets.core.units.commit import Committer

        store = unit_store(settings, home)
        with _lock(home).held(), make_executor(store, settings) as executor:
            committer = Committer(
                run,
                store,
                executor,
                labels_per_unit=settings.labels_per_unit,
            )
            yield from committer.results(scorer)

    return spread


def _lock(home: Home) -> Lock:
    """Return the lock of a home's units: two runs would remove each other's."""
    return Lock(home.locks / "units.lock", "having units computed")


def make_executor(store: UnitStore, settings: UnitSettings) -> Executor:
    """Start the executor that the settings name; `inline` is none.

    Raises:
        ConfigurationError: an extra is not installed, or broker or function are not named.
        WorkersError: the broker cannot be reached.
    """
    if settings.executor == "processes":
        from harmonizer_assets.core.units.executors.processes import ProcessExecutor

        return ProcessExecutor(
            store,
            settings.processes or cores(),
            settings.attempts,
            settings.seconds,
            settings.store_endpoint_url,
        )
    if settings.executor == "lambda":
        from harmonizer_assets.core.units.executors.aws_lambda import LambdaExecutor

        if settings.function is None:
            raise ConfigurationError(
                '[units] executor = "lambda" needs the name of a function: set [units] function'
            )
        return LambdaExecutor(
            store, settings.function, settings.attempts, settings.seconds, settings.most_waiting
        )
    from harmonizer_assets.core.units.executors.celery import CeleryExecutor

    return CeleryExecutor(store, make_broker(settings), settings.most_waiting)


def make_broker(settings: UnitSettings) -> Broker:
    """Find the broker that the environment names; nothing is requested yet.

    Raises:
        ConfigurationError: there is no URL, or it is of no broker that is supported.
    """
    from harmonizer_assets.core.units.executors.brokers import broker_of

    return broker_of(broker_url(), settings.queue, settings.attempts, settings.seconds)


def broker_url(environment: Mapping[str, str] = os.environ) -> str:
    """Read the URL of the broker from the environment.

    Raises:
        ConfigurationError: there is none.
    """
    url = environment.get(BROKER_VARIABLE, "")
    if not url:
        raise ConfigurationError(
            f"set {BROKER_VARIABLE} to the URL of the broker, such as amqp://user:password@host, "
            "redis://host or sqs://"
        )
    return url
