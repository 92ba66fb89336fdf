"""Reporting of many events at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Final

from dagster import DagsterEvent, DagsterInstance, EventLogEntry

EVENT_BATCH_SIZE: Final = 500
"""Events that are stored together."""


def report_events(
    instance: DagsterInstance,
    run_id: str,
    job_name: str,
    step_key: str | None,
    events: Iterable[DagsterEvent],
) -> None:
    """Store events of a step in batches of `EVENT_BATCH_SIZE`, in order.

    `DagsterInstance.report_dagster_event` stores the same entries, in batches only where the
    environment has DAGSTER_EVENT_BATCH_SIZE. Storages without batches store one by one. Events of
    jobs (started, failed, ...) do not belong here: they would not change the run's status.

    When `events` raises, the events that it has yielded before are stored nevertheless.

    Args:
        instance: whose event log is written to.
        run_id: of the run that the events are part of.
        job_name: of that run.
        step_key: of the step; None for events of no step.
        events: consumed once, as batches fill up.
    """
    waiting: list[EventLogEntry] = []
    try:
        for event in events:
            waiting.append(_entry(run_id, job_name, step_key, event))
            if len(waiting) == EVENT_BATCH_SIZE:
                # Removed first: a batch that could not be stored must not be stored again below.
                batch, waiting = waiting, []
                instance.event_log_storage.store_event_batch(batch)
    finally:
        if waiting:
            instance.event_log_storage.store_event_batch(waiting)


def _entry(run_id: str, job_name: str, step_key: str | None, event: DagsterEvent) -> EventLogEntry:
    return EventLogEntry(
        error_info=None,
        level=logging.INFO,
        user_message="",
        run_id=run_id,
        timestamp=time.time(),
        step_key=step_key,
        job_name=job_name,
        dagster_event=event,
    )
