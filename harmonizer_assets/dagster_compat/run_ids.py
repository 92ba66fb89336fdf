"""Ids of runs, for callers that need the id before the run is made."""

from __future__ import annotations

from uuid import uuid4


def new_run_id() -> str:
    """Make an id that no other run has, in the form that Dagster gives its own."""
    return str(uuid4())
