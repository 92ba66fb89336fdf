"""What the tables say is done is done at every commit, so a run may be killed after any of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from harmonizer_assets.core.index.vectors import IndexSession
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.store.warehouse import Warehouse
from harmonizer_tests.support.receipts import harmonize, shop_receipts, table

ROWS = {
    "similarity_matches": "similarity_matches",
    "llm_verdicts": "judgements",
    "outliers": "outliers",
}
"""The table of each partitioned asset."""


@pytest.fixture
def after_each_commit(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Functions that are called whenever a transaction that writes has been committed."""
    called: list[Callable[[], object]] = []
    run = Warehouse._run

    def watched(self: Any, fn: Any, *, read_only: bool, **options: Any) -> Any:
        result = run(self, fn, read_only=read_only, **options)
        if not read_only:
            for one in called:
                one()
        return result

    monkeypatch.setattr(Warehouse, "_run", watched)
    return called


def test_a_partition_whose_fingerprint_is_stored_has_its_rows(
    pipeline, tmp_path, after_each_commit
):
    """Fingerprints in a transaction before that of the rows would leave partitions undone."""
    seen = []
    shop_receipts().submit(pipeline, tmp_path)
    pipeline.ingest()
    after_each_commit.append(lambda: seen.append(done(pipeline)))
    harmonize(pipeline)
    last = seen[-1]
    assert {asset for asset, *_ in last} == ROWS.keys()
    for found in seen:
        for key, rows in found.items():
            assert rows == last[key], key


def done(pipeline: Pipeline) -> dict[tuple[str, ...], list[Any]]:
    """The rows of each partition that counts as computed, by asset, partition and fingerprint."""
    rows: dict[tuple[str, str, str], list[Any]] = defaultdict(list)
    for asset, name in ROWS.items():
        for row in table(pipeline, name):
            rows[asset, row["label_type"], row["merchant_key"]].append(row)
    return {
        (*key, row["fingerprint"]): rows[key]
        for row in table(pipeline, "partition_state")
        for key in [tuple(row[name] for name in ("asset", "label_type", "merchant_key"))]
    }


def test_a_document_that_counts_as_embedded_has_its_vector(
    pipeline, tmp_path, after_each_commit, monkeypatch
):
    """Tables before Chroma would leave documents that nobody embeds any more."""
    vectors: set[str] = set()
    add = IndexSession.add

    def watched(self: Any, ids: Any, *values: Any) -> None:
        add(self, ids, *values)
        vectors.update(ids)

    monkeypatch.setattr(IndexSession, "add", watched)
    seen = []
    shop_receipts().submit(pipeline, tmp_path)
    pipeline.ingest()
    after_each_commit.append(lambda: seen.append((embedded(pipeline), {*vectors})))
    pipeline.index()
    assert seen[-1][0] == vectors != set()
    for recorded, stored in seen:
        assert recorded <= stored


def embedded(pipeline: Pipeline) -> set[str]:
    return {row["document_id"] for row in table(pipeline, "document_metadata")}
