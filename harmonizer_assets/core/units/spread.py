"""Which executor scores the labels of a run, by the settings of the home."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from harmonizer_assets.core.base.errors import ConfigurationError, StoreBusyError
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

WORTH_LABELS: Final = 40_000
"""Labels from which processes can pay: with 20,000 they were as fast as the run itself."""
WORTH_PROCESSES: Final = 3
"""Processes from which they pay: two are hardly faster than the run itself, which gathers votes in
several threads, and need twice its memory. Half of its time is spent in one thread."""
LABELS_PER_PROCESS: Final = 5_000
"""A process that has less to do is not worth its memory and the second that it takes to start."""


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
        if run.stale:
            with _lock(home).held():
                yield from _in_units(settings, home, run, scorer)

    def spread_where_it_pays(
        run: StageRun, scorer: Callable[[], SimilarityScorer]
    ) -> Iterator[PartitionResult]:
        with ExitStack() as stack:
            processes = _processes_that_pay(settings, home, run, scorer)
            if not processes or not _is_taken(_lock(home, timeout=0.0), stack):
                yield from score_here(run, scorer)
                return
            chosen = {"executor": "processes", "processes": processes}
            yield from _in_units(settings.model_copy(update=chosen), home, run, scorer)
            # Nobody has asked for units, so nobody looks for those that have failed: the next run
            # tries their partitions again, as a run that scores by itself does.
            unit_store(settings, home).clear()

    return spread_where_it_pays if settings.executor == "auto" else spread


def _processes_that_pay(
    settings: UnitSettings,
    home: Home,
    run: StageRun,
    scorer: Callable[[], SimilarityScorer],
) -> int:
    """Say how many processes are faster than the run's own; 0 where none are."""
    labels = sum(run.labels.get(partition, 0) for partition in run.stale)
    most = min(settings.processes or cores(), max(1, labels // LABELS_PER_PROCESS))
    if run.stale and settings.store is None and any(home.units.glob("*/*")):
        # A run that was killed has left results.
        return most
    if labels < WORTH_LABELS or most < WORTH_PROCESSES:
        return 0
    # Where Chroma finds similar words, the run is busier than its workers would be.
    return most if scorer().similar_words.exact is not None else 0


def _is_taken(lock: Lock, stack: ExitStack) -> bool:
    """Hold a lock until the stack is closed, unless another run holds it."""
    try:
        stack.enter_context(lock.held())
    except StoreBusyError:
        return False
    return True


def _in_units(
    settings: UnitSettings,
    home: Home,
    run: StageRun,
    scorer: Callable[[], SimilarityScorer],
) -> Iterator[PartitionResult]:
    """Score the labels of a run in units; the caller holds the lock."""
    from harmonizer_assets.core.units.commit import Committer

    store = unit_store(settings, home)
    with make_executor(store, settings) as executor:
        committer = Committer(run, store, executor, labels_per_unit=settings.labels_per_unit)
        yield from committer.results(scorer)


def _lock(home: Home, timeout: float | None = None) -> Lock:
    """Return the lock of a home's units: two runs would remove each other's."""
    return Lock(home.locks / "units.lock", "having units computed", timeout)


def make_executor(store: UnitStore, settings: UnitSettings) -> Executor:
    """Start the executor that the settings name; `inline` and `auto` are none.

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
