"""Whatever lies in the inbox ends as ingested, quarantined or set aside with its reason."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from harmonizer_assets.core.store import export_table
from harmonizer_tests.support.broken_files import SUFFIXES, as_file, broken_file, label_rows
from harmonizer_tests.support.receipts import table

FILES = int(os.environ.get("HARMONIZER_BROKEN_FILES", "80"))
AT_ONCE = 40


@pytest.mark.parametrize("first", range(0, FILES, AT_ONCE))
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
