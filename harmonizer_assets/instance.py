"""The Dagster instance of a home."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import filelock
from dagster import DagsterInstance

from harmonizer_assets.core.home import Home

EVENT_BATCH_SIZE: Final = "500"

_DAGSTER_YAML: Final = """\
# Written once by the Harmonizer; edit as you like.
# A server with many users wants PostgreSQL: see dagster-postgres.
event_log_storage:
  module: harmonizer_assets.event_log
  class: BatchingSqliteEventLogStorage
  config:
    base_dir: {base}/history/runs
run_storage:
  module: dagster._core.storage.runs
  class: SqliteRunStorage
  config:
    base_dir: {base}/history
schedule_storage:
  module: dagster._core.storage.schedules
  class: SqliteScheduleStorage
  config:
    base_dir: {base}/schedules
concurrency:
  runs:
    max_concurrent_runs: 4
telemetry:
  enabled: false
nux:
  enabled: false
"""


def prepare_instance(home: Home) -> None:
    """Write the instance's dagster.yaml and set the environment that Dagster reads.

    Raises:
        StoreError: the home cannot be written to.
    """
    home.ensure()
    config = home.dagster / "dagster.yaml"
    if not config.exists():
        config.write_text(_DAGSTER_YAML.format(base=home.dagster), encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(home.dagster)
    os.environ["HARMONIZER_HOME"] = str(home.root)
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", EVENT_BATCH_SIZE)
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")


@contextmanager
def open_instance(home: Home) -> Iterator[DagsterInstance]:
    """Open the instance of a home; runs in it show in the web UI."""
    prepare_instance(home)
    with DagsterInstance.from_config(str(home.dagster)) as instance:
        # Dagster's SQLite storages do not expect two processes to make their tables at once.
        with filelock.FileLock(home.locks / "dagster.lock"):
            _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage
        yield instance
