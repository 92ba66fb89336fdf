"""The Dagster instance of a home."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import filelock
from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef

from harmonizer_assets.core.errors import ConfigurationError, InputError, StoreError
from harmonizer_assets.core.home import ENVIRONMENT_VARIABLE, Home

EVENT_BATCH_SIZE: Final = "500"
"""Events per transaction; Dagster's own default is one."""

LLM_POOL: Final = "llm_endpoint"
"""Steps that may ask a model: as many of them at a time as the pool allows, over all runs."""

_NO_COMPUTE_LOGS: Final = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
    "config": {},
}
_DAGSTER_YAML: Final = """\
# Written by the Harmonizer when the home was made, and not changed afterwards: edit as you like.
# Runs, schedules and sensors are kept in SQLite files beside this one. A server with many users
# wants PostgreSQL: see deploy/dagster.postgres.yaml in the repository.
event_log_storage:
  module: harmonizer_assets.event_log
  class: BatchingSqliteEventLogStorage
  config:
    base_dir:
      env: DAGSTER_HOME
concurrency:
  runs:
    max_concurrent_runs: 2
  pools:
    # One step at a time asks the model's endpoint, with as many calls in flight as it bears.
    granularity: op
    default_limit: 1
run_coordinator:
  module: harmonizer_assets.run_coordinator
  class: RetryingRunCoordinator
  config:
    # Runs wait for each other here; Dagster's own five seconds would be half of a short run.
    dequeue_interval_seconds: 2
    # A code server that has just been killed is started again meanwhile.
    max_user_code_failure_retries: 3
    user_code_failure_retry_delay: 15
run_retries:
  # Runs whose process was killed go on by themselves; those that failed wait for a cause removed.
  enabled: true
  max_retries: 3
  retry_on_asset_or_op_failure: false
freshness:
  enabled: true
run_monitoring:
  enabled: true
  start_timeout_seconds: 300
  # A run that was killed gives back its place in the pools.
  free_slots_after_run_end_seconds: 60
telemetry:
  enabled: false
nux:
  enabled: false
"""


def prepare_instance(home: Home) -> None:
    """Make the instance's folder and dagster.yaml, and set the environment that Dagster reads.

    Raises:
        StoreError: the home cannot be written to.
    """
    home.ensure()
    config = home.dagster / "dagster.yaml"
    try:
        if not config.exists():
            partial = config.with_name(f".{config.name}.{os.getpid()}")
            partial.write_text(_DAGSTER_YAML, encoding="utf-8")
            partial.replace(config)
    except OSError as error:
        raise StoreError(f"{config}: cannot be written ({error.strerror})") from error
    os.environ.update(instance_environment(home))


def instance_environment(home: Home) -> dict[str, str]:
    """The environment variables that make Dagster use the home's instance."""
    return {
        "DAGSTER_HOME": str(home.dagster),
        ENVIRONMENT_VARIABLE: str(home.root),
        "DAGSTER_EVENT_BATCH_SIZE": os.environ.get("DAGSTER_EVENT_BATCH_SIZE", EVENT_BATCH_SIZE),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


@contextmanager
def sole_daemon(home: Home) -> Iterator[None]:
    """Hold the right to run the daemon of a home's instance; a process that dies gives it back.

    Raises:
        InputError: another `harmonizer ui` serves the home. Two daemons would launch everything
            twice.
    """
    lock = filelock.FileLock(home.locks / "daemon.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InputError(
            f"{home.root} is served already by another `harmonizer ui`: use that one, or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def open_instance(home: Home) -> Iterator[DagsterInstance]:
    """Open the instance of a home for runs in this process; they show in the web UI.

    What steps write to stdout and stderr is not captured: Dagster starts two processes per step
    for that, and redirects the terminal meanwhile.

    Raises:
        StoreError: the home cannot be written to.
        ConfigurationError: the home's dagster.yaml has been edited into something invalid.
    """
    prepare_instance(home)
    try:
        # Dagster's SQLite storages do not expect two processes to make their tables at once.
        with filelock.FileLock(home.locks / "dagster.lock"):
            instance = DagsterInstance.from_ref(
                InstanceRef.from_dir(
                    str(home.dagster), overrides={"compute_logs": _NO_COMPUTE_LOGS}
                )
            )
            _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage
    except Exception as error:
        raise ConfigurationError(
            f"{home.dagster / 'dagster.yaml'}: Dagster cannot use it: {error}"
        ) from error
    with instance:
        yield instance
