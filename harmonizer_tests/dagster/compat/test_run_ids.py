"""Ids of runs, by what Dagster takes for one."""

from __future__ import annotations

from dagster._core.utils import is_valid_run_id

from harmonizer_assets.dagster_compat.run_ids import new_run_id


def test_run_ids_are_valid_and_differ():
    first, second = new_run_id(), new_run_id()
    assert is_valid_run_id(first)
    assert first != second
