"""Runs that nobody executes, as an instance knows them."""

from __future__ import annotations

from typing import Any

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, job
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

GONE = {"harmonizer/pid": "999999999", "harmonizer/process_started": "1.00"}
"""Tags of a run whose process has ended."""


@job
def nothing() -> None:
    """A job of no steps."""


ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("somewhere"), "repository"), "nothing"
)


def bare_run(
    instance: DagsterInstance, status: DagsterRunStatus, tags: dict[str, str], **options: Any
) -> DagsterRun:
    return instance.create_run_for_job(
        nothing, status=status, tags=tags or None, remote_job_origin=ORIGIN, **options
    )
