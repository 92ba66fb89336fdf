"""Whatever lies in the inbox ends as ingested, quarantined or set aside with its reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.settings import LimitSettings
from harmonizer_assets.core.ingest.entries import read_entry
from harmonizer_assets.core.ingest.readers import readable
from harmonizer_assets.core.ingest.staging import private_database, stage_batch
from harmonizer_assets.core.ingest.validate import check_rows
from harmonizer_assets.core.store import export_table
from harmonizer_tests.support import unprivileged, wide_rows
from harmonizer_tests.support.broken_files import SUFFIXES, as_file, broken_file, label_rows
from harmonizer_tests.support.receipts import table

FILES = int(os.environ.get("HARMONIZER_BROKEN_FILES", "200"))
INGESTED = 30
"""Of those, how many go the whole way, which takes ten times as long as reading them."""
AT_ONCE = 30
MEMORY_MB = 200
"""Which the reference states, at `max_row_bytes`."""


def test_the_rows_of_a_broken_file_pass_or_are_rejected_with_a_reason_or_the_file_is_refused(
    tmp_path,
):
    outcomes: Counter[str] = Counter()
    with private_database(tmp_path) as (con, _):
        for seed in range(INGESTED, FILES):
            suffix, content = broken_file(seed)
            folder = tmp_path / f"{seed:04d}"
            folder.mkdir()
            (folder / f"labels{suffix}").write_bytes(content)
            con.execute("BEGIN")
            outcomes.update(_read(con, folder))
            con.execute("ROLLBACK")
    assert outcomes.keys() == {"passed", "rejected", "refused"}
    assert all(count > 20 for count in outcomes.values())


def _read(con, folder) -> dict[str, int]:
    """Read and check a file as ingest does; count the rows that pass and those that do not."""
    batch = read_entry(folder)
    assert batch is not None
    try:
        with readable(folder.name):
            staged = stage_batch(con, batch, LimitSettings(), None)
            check_rows(con, ["GRAND_TOTAL"], batch.origins)
    except InputError as error:
        named = batch.named(str(error))
        return {"refused": 1} if named.startswith(batch.origins["labels"]) else {named: 1}
    [(passed,)] = con.execute("SELECT count(*) FROM checked_labels").fetchall()
    rejected = con.execute("SELECT reason, row FROM rejected").fetchall()
    assert passed + len(rejected) == staged["labels"].rows
    for reason, row in rejected:
        assert reason
        json.loads(row)
    return {"passed": passed, "rejected": len(rejected)}


@pytest.mark.parametrize("first", range(0, INGESTED, AT_ONCE))
def test_a_broken_file_is_ingested_quarantined_or_set_aside_and_stops_nothing(
    pipeline, tmp_path, first
):
    inbox = pipeline.home.inbox
    for seed in range(first, first + AT_ONCE):
        suffix, content = broken_file(seed)
        folder = inbox / f"{seed:04d}"
        folder.mkdir()
        (folder / f"labels{suffix}").write_bytes(content)
    (inbox / "9999-good").mkdir()
    (inbox / "9999-good" / "labels.csv").write_bytes(as_file(label_rows(), ".csv"))
    report = pipeline.ingest()
    assert [path.name for path in inbox.iterdir() if not path.name.startswith(".")] == []
    assert len(report.batches) + len(report.failed) == AT_ONCE + 1
    assert report.batches[-1].labels_read == len(label_rows())
    for source, error in report.failed:
        assert f"{source}/labels" in error
        assert error.strip() in (inbox / ".failed" / source / "error.txt").read_text()
    reasons = Counter(row["batch_id"] for row in table(pipeline, "quarantine"))
    for batch in report.batches:
        assert reasons[batch.batch_id] <= batch.quarantined  # later ones may have mended it
        accepted = batch.labels_inserted + batch.labels_updated
        assert accepted + batch.quarantined <= batch.labels_read
    for suffix in SUFFIXES:
        assert export_table(pipeline.warehouse, "labels", tmp_path / f"all{suffix}") > 0


def test_what_may_not_be_read_or_moved_is_set_aside_and_stops_nothing():
    folder = Path(tempfile.mkdtemp())  # pytest's own folders cannot be entered by others
    try:
        folder.chmod(0o755)
        first, second = _run(unprivileged, folder)
    finally:
        shutil.rmtree(folder)
    assert {"good"} <= {*first["ingested"]} <= {"good", "only to be read"}
    refused = {"file", "folder", "only to be entered", "only to be listed", "loose.csv"}
    others = {"of somebody else"} if os.getuid() == 0 else set()
    assert first["failed"].keys() == refused | others
    assert "Permission denied" in first["failed"]["folder"]
    assert "labels.csv" in first["failed"]["file"]
    assert first["waiting"] == []
    assert second == {"ingested": [], "failed": {}, "waiting": []}


def test_rows_that_are_too_large_take_no_more_memory_than_the_reference_says(tmp_path):
    found = _run(wide_rows, tmp_path, 800, 200_000)
    assert found["quarantined"] == 800
    assert found["grown_mb"] < MEMORY_MB


def _run(module, *arguments):
    command = [sys.executable, "-m", module.__name__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
