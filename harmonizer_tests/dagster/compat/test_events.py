"""Reporting of many events, by what Dagster stores when it reports them one by one."""

from __future__ import annotations

import pytest
from dagster import DagsterEvent, DagsterInstance, EventLogEntry

from harmonizer_assets.dagster_compat.events import EVENT_BATCH_SIZE, report_events
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.support.events import ASSET, batch, materialized


def events(entries: list[EventLogEntry]) -> list[DagsterEvent]:
    return [entry.get_dagster_event() for entry in entries]


def stored(instance: DagsterInstance, run_id: str) -> list[EventLogEntry]:
    return [entry._replace(run_id="", timestamp=0.0) for entry in instance.all_logs(run_id)]


@pytest.fixture(params=["the home's", "one that does not batch"])
def any_instance(request, home):
    if request.param == "the home's":
        with open_instance(home) as instance:
            yield instance
    else:
        with DagsterInstance.ephemeral() as instance:
            yield instance


def test_a_report_stores_the_entries_that_dagsters_own_reports_store(any_instance):
    for event in events(batch()):
        any_instance.report_dagster_event(event, "singly")
    report_events(any_instance, "together", "harmonize", "score", events(batch()))
    expected = stored(any_instance, "singly")
    assert len(expected) == len(batch())
    assert stored(any_instance, "together") == expected


def test_events_are_stored_in_batches_as_they_come(instance, monkeypatch):
    sizes: list[int] = []
    storage = type(instance.event_log_storage)
    store = storage.store_event_batch
    monkeypatch.setattr(
        storage,
        "store_event_batch",
        lambda self, entries: (sizes.append(len(entries)), store(self, entries))[1],
    )

    def coming():
        for number in range(2 * EVENT_BATCH_SIZE + 1):
            assert len(sizes) == number // EVENT_BATCH_SIZE
            yield materialized(ASSET, f"m{number}", number).get_dagster_event()

    report_events(instance, "run", "harmonize", "score", coming())
    assert sizes == [EVENT_BATCH_SIZE, EVENT_BATCH_SIZE, 1]
    report_events(instance, "run", "harmonize", "score", [])
    assert len(sizes) == 3


def test_what_was_yielded_before_a_failure_is_stored(instance):
    def failing():
        yield from events(batch())
        raise RuntimeError("the tenth fails")

    with pytest.raises(RuntimeError, match="the tenth fails"):
        report_events(instance, "run", "harmonize", "score", failing())
    assert len(stored(instance, "run")) == len(batch())


def test_a_batch_that_cannot_be_stored_is_an_error_and_not_stored_again(instance, monkeypatch):
    calls: list[int] = []

    def refuse(self, entries):
        calls.append(len(entries))
        raise OSError("the disk is full")

    monkeypatch.setattr(type(instance.event_log_storage), "store_event_batch", refuse)
    many = events([materialized(ASSET, f"m{i}", i) for i in range(EVENT_BATCH_SIZE + 5)])
    with pytest.raises(OSError, match="the disk is full"):
        report_events(instance, "run", "harmonize", "score", many)
    assert calls == [EVENT_BATCH_SIZE]
