"""What is ingested can be exported to each format, and comes back equal."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.store import export_table
from harmonizer_tests.support.broken_files import as_file, label_rows
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import LABEL_COLUMNS, table

FORMATS = (".parquet", ".csv", ".ndjson")


def ingest(pipeline: Pipeline, path: Path) -> None:
    submit_batch(pipeline.home, None, path)
    report = pipeline.ingest()
    assert report.failed == []
    assert report.total("quarantined") == 0


def ingest_columns(pipeline: Pipeline, folder: Path, name: str, **extra: Any) -> None:
    """Ingest a Parquet file with further columns, one value for each label."""
    count = len(next(iter(extra.values())))
    base = {key: [label_rows()[row][key] for row in range(count)] for key in LABEL_COLUMNS}
    pq.write_table(pa.table({**base, **extra}), folder / name)
    ingest(pipeline, folder / name)


def exported(pipeline: Pipeline, path: Path) -> pa.Table:
    export_table(pipeline.warehouse, "labels", path)
    return pq.read_table(path).sort_by("word_id")


def labels(pipeline: Pipeline) -> list[dict[str, Any]]:
    rows = table(pipeline, "labels", "batch_id", "batch_time")
    return [{**row, "extra": row["extra"] and json.loads(row["extra"])} for row in rows]


COLUMNS = {
    "text": pa.array(["a", None]),
    "int8": pa.array([1, -2], pa.int8()),
    "uint64": pa.array([2**64 - 1, 2**63], pa.uint64()),
    "float": pa.array([0.1, 2.5], pa.float32()),
    "double": pa.array([0.1, 1e300]),
    "bool": pa.array([True, None]),
    "day": pa.array([dt.date(2024, 2, 29), None]),
    "hour": pa.array([dt.time(13, 5, 1), None]),
    "instant": pa.array([dt.datetime(2024, 1, 2, 3, 4, 5, 678901), None]),
    "zoned": pa.array([dt.datetime(2024, 1, 2, tzinfo=dt.UTC), None], pa.timestamp("us", "UTC")),
    "price": pa.array([decimal.Decimal("1.10"), None], pa.decimal128(9, 2)),
    "large": pa.array([decimal.Decimal("123456789012345678901.25"), None], pa.decimal128(38, 2)),
    "bytes": pa.array([b"\xc3\xa9\x00\xff", b""]),
    "list": pa.array([["a", None], []]),
    "struct": pa.array([{"x": 1, "y": ["z"]}, {"x": None, "y": None}]),
}


@pytest.fixture(scope="module")
def came_back(tmp_path_factory) -> pa.Table:
    folder = tmp_path_factory.mktemp("columns")
    pipeline = Pipeline(Home(folder / "home").ensure())
    ingest_columns(pipeline, folder, "in.parquet", **COLUMNS)
    return exported(pipeline, folder / "out.parquet")


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_that_passes_through_comes_back_with_its_type(came_back, name):
    found = came_back.column(name)
    assert found.type == COLUMNS[name].type
    assert found.to_pylist() == COLUMNS[name].to_pylist()


def test_types_that_databases_lack_come_back_as_the_nearest(pipeline, tmp_path):
    halves = pa.array(np.array([0.5, 2], np.float16))
    wide = pa.array([decimal.Decimal(10) ** 45, None], pa.decimal256(50, 0))
    ingest_columns(pipeline, tmp_path, "in.parquet", halves=halves, wide=wide)
    found = exported(pipeline, tmp_path / "out.parquet")
    assert found.column("halves").to_pylist() == [0.5, 2.0]
    assert found.column("wide").to_pylist() == ["1" + "0" * 45, None]


def test_text_that_is_stored_as_bytes_is_text(pipeline, tmp_path):
    rows = label_rows()[:2]
    merchants = pa.array(["Café".encode(), b"Bar"])
    columns = {name: [row[name] for row in rows] for name in LABEL_COLUMNS[:-1]}
    pq.write_table(pa.table({**columns, "merchant_name": merchants}), tmp_path / "in.parquet")
    ingest(pipeline, tmp_path / "in.parquet")
    assert {row["merchant_name"] for row in labels(pipeline)} == {"Café", "Bar"}


def test_a_column_whose_batches_disagree_about_its_type_loses_no_value(pipeline, tmp_path):
    days = pa.array([dt.date(2024, 2, 29)])
    ingest_columns(pipeline, tmp_path, "first.parquet", note=days)
    rows = label_rows()
    rows[1]["note"] = "not a day"
    (tmp_path / "second.ndjson").write_bytes(as_file(rows[1:3], ".ndjson"))
    ingest(pipeline, tmp_path / "second.ndjson")
    found = exported(pipeline, tmp_path / "out.parquet").column("note").to_pylist()
    assert found == ["2024-02-29", "not a day", "n2"]


def test_names_that_differ_in_case_between_batches_are_one_column(pipeline, tmp_path):
    ingest_columns(pipeline, tmp_path, "first.parquet", Conf=pa.array([0.5]))
    rows = [{**row, "conf": 0.25} for row in label_rows()[1:3]]
    (tmp_path / "second.ndjson").write_bytes(as_file(rows, ".ndjson"))
    ingest(pipeline, tmp_path / "second.ndjson")
    for suffix in FORMATS:
        export_table(pipeline.warehouse, "labels", tmp_path / f"out{suffix}")
    assert pq.read_table(tmp_path / "out.parquet").sort_by("word_id")["conf"].to_pylist() == [
        0.5,
        0.25,
        0.25,
    ]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_column_without_a_name_such_as_the_index_of_pandas_gets_one(pipeline, tmp_path, suffix):
    rows = [{"": row["word_id"], **row} for row in label_rows()]
    (tmp_path / f"in{suffix}").write_bytes(as_file(rows, suffix))
    ingest(pipeline, tmp_path / f"in{suffix}")
    export_table(pipeline.warehouse, "labels", tmp_path / f"out{suffix}")
    assert all(str(row["extra"]["unnamed"]) == str(row["word_id"]) for row in labels(pipeline))


# All but surrogates, which UTF-8 lacks; to name the codec as well takes five seconds.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8)
scalars = (
    texts.filter(bool) | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e9, 1e9)
)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(texts, scalars, max_size=3)
extras = st.dictionaries(
    names.filter(lambda name: name.strip() and name.lower() not in LABEL_COLUMNS),
    st.lists(values, min_size=3, max_size=3),
    max_size=8,
).filter(lambda found: len({name.lower() for name in found}) == len(found))


def empty(root: Path) -> Pipeline:
    """The pipeline of a home with tables and no rows."""
    home = Home(root).ensure()
    copy_home(home, "tables without rows", lambda fresh: Pipeline(fresh).warehouse.migrate())
    return Pipeline(home)


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(extra=extras, merchant=texts)
def test_whatever_came_in_comes_back_equal_from_each_format(extra, merchant, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trip")
    rows = [
        {
            **{name: row[name] for name in LABEL_COLUMNS},
            "merchant_name": merchant,
            **{name: column[number] for name, column in extra.items()},
        }
        for number, row in enumerate(label_rows()[:3])
    ]
    (folder / "in.ndjson").write_bytes(as_file(rows, ".ndjson"))
    first = empty(folder / "first")
    ingest(first, folder / "in.ndjson")
    before = labels(first)
    for suffix in FORMATS:
        export_table(first.warehouse, "labels", folder / f"out{suffix}")
        second = empty(folder / f"second{suffix}")
        ingest(second, folder / f"out{suffix}")
        found = labels(second)
        if suffix == ".csv":
            found = [typed_as(row, other) for row, other in zip(found, before, strict=True)]
        assert found == before, suffix


def typed_as(row: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A row that came from CSV, which knows text alone, with the types that another has."""
    if row["extra"] is None or other["extra"] is None:
        return row
    return {
        **row,
        "extra": {
            name: text if isinstance(other["extra"].get(name), str) else json.loads(text)
            for name, text in row["extra"].items()
        },
    }
