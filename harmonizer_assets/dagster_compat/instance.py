"""The Dagster instance of a home."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from dagster import DagsterInstance

from harmonizer_assets.core.base.errors import (
    ConfigurationError,
    InputError,
    StoreBusyError,
    StoreError,
)
from harmonizer_assets.core.base.files import write_atomically
from harmonizer_assets.core.base.home import ENVIRONMENT_VARIABLE, Home
from harmonizer_assets.core.base.locks import Lock
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.dagster_compat.event_texts import replace_links
from harmonizer_assets.dagster_compat.events import EVENT_BATCH_SIZE

_HELP_OF_SQLALCHEMY: Final = "\n(Background on this error"
"""Where the part of an error begins that is about SQLAlchemy."""
LLM_POOL: Final = "llm_endpoint"
"""The pool of steps that may ask a model; it limits how many run at a time, over all runs."""

"""How long one other process may be opening the instance."""

_IN_PROCESS: Final[Mapping[str, Any]] = {
    # Dagster starts two processes per step to capture what it prints, and redirects the terminal.
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
        "config": {},
    },
    "telemetry": {"enabled": False},
}
"""Sections of dagster.yaml that differ for runs of the command line."""

_DAGSTER_YAML: Final = """\
# Written by the Harmonizer when the home was made, and not changed afterwards: edit as you like.
# Runs, schedules and sensors are kept in SQLite files beside this one. A server with many users
# wants PostgreSQL: see deploy/dagster.postgres.yaml in the repository.
event_log_storage:
  module: harmonizer_assets.dagster_compat.event_log
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
  module: harmonizer_assets.dagster_compat.run_coordinator
  class: RetryingRunCoordinator
  config:
    # Runs wait for each other here; Dagster's own five seconds would be half of a short run.
    dequeue_interval_seconds: 2
    # A code server that has just been killed is started again meanwhile.
    max_user_code_failure_retries: 3
    user_code_failure_retry_delay: 15
run_launcher:
  # Has run monitoring notice when the process of a run is gone.
  module: harmonizer_assets.dagster_compat.run_launcher
  class: WatchedRunLauncher
run_retries:
  # Runs whose process was killed go on by themselves; those that failed wait for a cause removed.
  enabled: true
  max_retries: 3
  retry_on_asset_or_op_failure: false
freshness:
  enabled: true
run_monitoring:
  enabled: true
  poll_interval_seconds: 30
  start_timeout_seconds: 300
  # A run that was killed gives back its place in the pools.
  free_slots_after_run_end_seconds: 60
telemetry:
  enabled: false
nux:
  enabled: false
"""

_MOVED: Final = {
    "module: harmonizer_assets.event_log": "module: harmonizer_assets.dagster_compat.event_log",
    "module: harmonizer_assets.run_coordinator": (
        "module: harmonizer_assets.dagster_compat.run_coordinator"
    ),
}
"""Lines in the dagster.yaml of homes from before 0.1.0, and their replacements."""


def prepare_instance(home: Home) -> None:
    """Create the instance's folder and dagster.yaml; update names of our modules in it.

    Raises:
        StoreError: the home cannot be written to.
    """
    home.ensure()
    home.keep_private()
    config = home.dagster / "dagster.yaml"
    try:
        present = config.read_text(encoding="utf-8") if config.exists() else None
        wanted = _DAGSTER_YAML if present is None else _with_moved_modules(present)
        if wanted != present:
            if present is not None:
                replace_links(home)
            write_atomically(config, wanted)
    except OSError as error:
        raise StoreError(
            f"{config}: cannot be read or written ({error.strerror}): see that it belongs to the "
            "user who runs this"
        ) from error


def _with_moved_modules(config: str) -> str:
    """Return the file with the present names of our modules, otherwise unchanged."""
    for old, new in _MOVED.items():
        config = config.replace(old, new)
    return config


def instance_environment(home: Home) -> dict[str, str]:
    """Return the variables that make processes of Dagster use the home's instance.

    They are added to the environment of child processes; this process opens the instance with
    `open_instance`.
    """
    batch_size = os.environ.get("DAGSTER_EVENT_BATCH_SIZE", str(EVENT_BATCH_SIZE))
    return {
        "DAGSTER_HOME": str(home.dagster),
        ENVIRONMENT_VARIABLE: str(home.root),
        "DAGSTER_EVENT_BATCH_SIZE": batch_size,
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


@contextmanager
def sole_daemon(home: Home) -> Iterator[None]:
    """Hold the lock of a home's daemon; the system releases it when the process dies.

    Raises:
        InputError: another `harmonizer ui` serves the home. Two daemons would launch everything
            twice.
    """
    lock = Lock(home.locks / "daemon.lock", "serving the home", timeout=0)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock.held())
        except StoreBusyError:
            raise InputError(
                f"{home.root} is served already by another `harmonizer ui`: use that one, or stop "
                "it"
            ) from None
        yield


@contextmanager
def open_instance(home: Home) -> Iterator[DagsterInstance]:
    """Open the instance of a home for runs in this process; they show in the web UI.

    The process's environment is neither read to find the home nor written. Output of steps to
    stdout and stderr is not captured.

    Raises:
        StoreError: the home cannot be written to.
        StoreBusyError: one other process has been opening it for longer than the settings allow.
        ConfigurationError: the home's dagster.yaml or settings are invalid.
    """
    prepare_instance(home)
    config = home.dagster / "dagster.yaml"

    def unusable(error: Exception) -> ConfigurationError:
        said = str(error).partition(_HELP_OF_SQLALCHEMY)[0]
        return ConfigurationError(f"{config}: Dagster cannot use it: {said}")

    # Drivers of databases quote the URL that they cannot read. Dagster's SQLite storages do not
    # expect two processes to make their tables at once.
    with translated(unusable), _opening(home).held():
        # A given folder is kept; only one that Dagster creates itself is temporary.
        instance = DagsterInstance.local_temp(
            str(home.dagster),
            overrides={**_resolved(config, instance_environment(home)), **_IN_PROCESS},
        )
        _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage
    with instance:
        yield instance


def _opening(home: Home) -> Lock:
    return Lock(
        home.locks / "dagster.lock",
        "opening Dagster's instance",
        timeout=Settings.load(home.settings_file).waits.dagster_seconds,
        per_holder=True,
    )


def _resolved(config: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the sections of a dagster.yaml that refer to these variables, with their values.

    References to other variables stay; Dagster resolves them from the environment.
    """
    sections = yaml.safe_load(config.read_text(encoding="utf-8"))
    if not isinstance(sections, dict):
        return {}
    resolved = {name: _replaced(section, variables) for name, section in sections.items()}
    return {name: section for name, section in resolved.items() if section != sections[name]}


def _replaced(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_replaced(item, variables) for item in value]
    if not isinstance(value, dict):
        return value
    if [*value] == ["env"] and value["env"] in variables:
        return variables[value["env"]]
    return {key: _replaced(item, variables) for key, item in value.items()}
