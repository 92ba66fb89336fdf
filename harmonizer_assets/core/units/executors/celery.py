"""Units on the workers of a queue, through Celery: `harmonizer worker` on any number of machines.

A message names the unit and its store, and nothing else. There is no result backend: results are
in the store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

from harmonizer_assets.core.base.errors import WorkersError
from harmonizer_assets.core.base.extras import needs_extra
from harmonizer_assets.core.base.memory import keep_free_memory
from harmonizer_assets.core.store.objects import ObjectStore, open_store
from harmonizer_assets.core.units.executors.base import Executor, watch
from harmonizer_assets.core.units.executors.brokers import TASK, Broker
from harmonizer_assets.core.units.store import UnitStore
from harmonizer_assets.core.units.unit import is_name
from harmonizer_assets.core.units.work import Outcome, Work

if TYPE_CHECKING:
    from celery import Celery

_log = logging.getLogger(__name__)

_RETRIES: Final = {
    "max_retries": 60,
    "interval_start": 0.2,
    "interval_step": 0.5,
    "interval_max": 2,
}
"""A broker that is gone is waited for, for about two minutes."""
_OVERDUE: Final = 3.0
"""Times the longest attempt, after which the message of a unit counts as lost."""
_SECONDS_BETWEEN_LOOKS: Final = 2.0
"""Between two looks into the broker's queue of dead letters."""


def make_app(broker: Broker) -> Celery:
    """Make the Celery application of a broker; nothing is requested yet.

    Raises:
        ConfigurationError: the extra is not installed.
        WorkersError: the broker cannot be reached.
    """
    with needs_extra("celery", "units on a queue"):
        from celery import Celery
    app = Celery("harmonizer", broker=broker.broker_url, set_as_current=False)
    with broker.errors():
        options = broker.options()
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=False,
        task_reject_on_worker_lost=True,
        task_default_queue=broker.queue,
        task_queues=[broker.task_queue()],
        task_create_missing_queues=False,
        task_default_delivery_mode="persistent",
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_lost_wait=1.0,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        enable_utc=True,
    )
    app.conf.update(options)
    return app


class CeleryExecutor(Executor):
    """Sends units to the workers of a queue, and watches the store for their results."""

    def __init__(self, store: UnitStore, broker: Broker, most_waiting: int) -> None:
        """Connect to the broker.

        Args:
            store: holds the units; must be one that the workers can reach.
            broker: of the queue.
            most_waiting: units in the queue and in work at once.

        Raises:
            ConfigurationError: the extra is not installed, or the queue has other settings.
            WorkersError: the broker cannot be reached.
        """
        self.most_waiting = most_waiting
        self.overdue_after = _OVERDUE * broker.seconds
        self._store = store
        self._broker = broker
        self._app = make_app(broker)
        broker.declare(self._app)
        self._looked = time.monotonic()

    def submit(self, unit: str) -> None:
        """Send a message; see `Executor.submit`."""
        with self._broker.errors():
            self._app.send_task(
                TASK,
                kwargs={"unit": unit, "store": self._store.objects.url},
                queue=self._broker.queue,
                retry=True,
                retry_policy=_RETRIES,
            )

    def finished(self, units: Collection[str], seconds: float) -> list[str]:
        """Watch the store, and the broker's dead letters; see `Executor.finished`."""
        ended = watch(self._store, units, seconds)
        if not ended and time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
            self._looked = time.monotonic()
            for unit in self._dead_units().intersection(units):
                self._store.bury(unit)
        return ended

    def _dead_units(self) -> set[str]:
        """Look which units the broker has given up; one that does not answer is asked later."""
        try:
            return self._broker.dead_units(self._app)
        except WorkersError as error:
            _log.warning("%s; results that are there are committed all the same", error)
            return set()

    def close(self) -> None:
        """Close the connections; see `Executor.close`."""
        self._app.close()


def make_worker_app(broker: Broker, stores: Collection[str], endpoint_url: str | None) -> Celery:
    """Make the application of a worker, with the one task that it takes.

    Args:
        broker: of the queue.
        stores: URLs of the stores that it works for; messages that name others are refused.
        endpoint_url: of a server that speaks S3, where it is not Amazon's.
    """
    app = make_app(broker)
    from celery.exceptions import Reject

    works: dict[str, Work] = {}

    def attempt(unit: str, url: str) -> Outcome:
        if url not in works:
            store: ObjectStore = open_store(url, endpoint_url)
            works[url] = Work(UnitStore(store), broker.attempts, broker.seconds)
        return works[url].attempt(unit)

    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def unit_task(*_: Any, **message: Any) -> None:
        unit, url = message.get("unit"), message.get("store")
        if set(message) != {"unit", "store"} or not is_name(unit) or url not in stores:
            raise Reject("the message names no unit of a store that this worker works for")
        try:
            outcome = attempt(str(unit), str(url))
        except Exception as error:
            # The store cannot be reached, say. The broker counts the delivery.
            raise Reject(str(error), requeue=broker.requeues) from error
        if outcome is Outcome.AGAIN:
            raise Reject("it failed", requeue=broker.requeues)
        if outcome is Outcome.DEAD:
            raise Reject("it has failed as often as it may")

    return app


def run_worker(app: Celery, processes: int) -> None:
    """Work until a signal ends this process: units that are in work are finished first."""
    keep_free_memory()
    app.worker_main(
        [
            "worker",
            "--pool=prefork",
            f"--concurrency={processes}",
            "--loglevel=INFO",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )
