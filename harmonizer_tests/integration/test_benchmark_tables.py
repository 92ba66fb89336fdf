from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harmonizer_tests.support.postgres import UnreachableError, temporary_database

BASELINE = "stock SQLite"


def printed_table(tmp_path: Path, results: list[dict[str, object]]) -> str:
    saved = tmp_path / "results.json"
    saved.write_text(json.dumps(results), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.bookkeeping_table", str(saved)]
    root = Path(__file__).parents[2]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout


def result(storage: str, report: int, report_ms: float, status_ms: float) -> dict[str, object]:
    return {
        "storage": storage,
        "partitions": 20_000,
        "report_partitions": report,
        "range_partitions": report,
        "report_ms": report_ms,
        "range_ms": 2 * report_ms,
        "status_cold_ms": status_ms,
        "status_warm_ms": status_ms,
    }


def test_the_table_says_over_how_many_partitions_a_slow_storage_was_measured(tmp_path):
    baseline, ours = printed_table(
        tmp_path, [result(BASELINE, 1_000, 10.0, 40.0), result("ours", 20_000, 0.5, 300.0)]
    ).splitlines()[2:]
    assert baseline.count("[over 1,000]") == 4
    assert "| 0.5 (0.05x) | 1.0 (0.05x) |" in ours
    assert ours.endswith("| 300.0 | 300.0 |"), "a ratio between unequal numbers of partitions"


def test_a_storage_that_could_not_be_measured_is_in_the_table_with_the_reason(tmp_path):
    missing = {"storage": "theirs", "partitions": 20_000, "not_measured": "no PostgreSQL"}
    table = printed_table(tmp_path, [missing, result("ours", 20_000, 0.5, 300.0)])
    assert "| theirs | 20,000 | not measured: no PostgreSQL |" in table


def test_a_server_that_does_not_answer_is_told_apart_from_a_failure():
    with (
        pytest.raises(UnreachableError, match="no PostgreSQL"),
        temporary_database("postgresql://postgres@127.0.0.1:1/postgres"),
    ):
        pass
