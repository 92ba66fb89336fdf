"""The patient storages in PostgreSQL, when the server ends a connection under a statement.

The server's messages are German: no text may matter.
"""

from __future__ import annotations

import threading

import pytest
import sqlalchemy
from dagster import DagsterRun
from dagster._core.utils import make_new_run_id

from harmonizer_tests.support.events import ASSET, materialized
from harmonizer_tests.support.served import wait_for

pytest.importorskip("dagster_postgres", reason="the extra `postgres` is not installed")


@pytest.mark.parametrize(
    ("locked", "events"),
    [
        ("event_logs", [materialized(ASSET, "a", 0)]),
        # The event itself is stored by then, and its asset is not.
        ("asset_keys", [materialized(ASSET, "a", 0)]),
        ("asset_keys", [materialized(ASSET, "a", 0), materialized(ASSET, "b", 1)]),
    ],
)
def test_an_event_is_stored_once_whatever_was_stored_when_its_connection_was_lost(
    german_url, locked, events
):
    from harmonizer_assets.dagster_compat.event_log_postgres import BatchingPostgresEventLogStorage

    storage = BatchingPostgresEventLogStorage(german_url)
    engine = sqlalchemy.create_engine(german_url, poolclass=sqlalchemy.NullPool)

    def store() -> None:
        storage.store_event_batch(events) if len(events) > 1 else storage.store_event(events[0])

    storing = threading.Thread(target=store)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")
        storing.start()
        wait_for(lambda: have_waited_in_vain(engine), 30)
    storing.join(30)
    assert not storing.is_alive()
    with engine.connect() as connection:
        stored = connection.exec_driver_sql("SELECT partition FROM event_logs ORDER BY id")
        assert [row[0] for row in stored] == [event.dagster_event.partition for event in events]
        tagged = connection.exec_driver_sql("SELECT DISTINCT event_id FROM asset_event_tags")
        assert tagged.rowcount == len(events)


def have_waited_in_vain(engine: sqlalchemy.Engine) -> bool:
    """End the connections that wait for a lock; whether there were any."""
    with engine.connect() as connection:
        ended = connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return ended.rowcount > 0


def test_a_read_whose_connection_is_lost_is_done_again(german_url):
    from harmonizer_assets.dagster_compat.postgres import PatientRunStorage

    engine = sqlalchemy.create_engine(german_url, poolclass=sqlalchemy.NullPool)
    storage = PatientRunStorage(german_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
        read = []
        reading = threading.Thread(target=lambda: read.append(storage.get_runs()))
        reading.start()
        wait_for(lambda: have_waited_in_vain(engine), 30)
        connection.rollback()
        reading.join(30)
    assert read == [[]]


@pytest.mark.parametrize("locked", ["runs", "run_tags"])
def test_a_run_is_stored_once_with_its_tags_when_its_connection_is_lost(german_url, locked):
    from harmonizer_assets.dagster_compat.postgres import PatientRunStorage

    engine = sqlalchemy.create_engine(german_url, poolclass=sqlalchemy.NullPool)
    storage = PatientRunStorage(german_url)
    run = DagsterRun("harmonize_partitions", run_id=make_new_run_id(), tags={"who": "it's | 日本"})
    with engine.begin() as connection:
        connection.exec_driver_sql(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")
        adding = threading.Thread(target=storage.add_run, args=(run,))
        adding.start()
        wait_for(lambda: have_waited_in_vain(engine), 30)
        connection.rollback()
        adding.join(30)
    assert [(found.run_id, found.tags) for found in storage.get_runs()] == [(run.run_id, run.tags)]
    assert storage.get_run_tags(["who"]) == [("who", {"it's | 日本"})]
