"""Texts in Dagster's events: deleted words leave the metadata, and names stay what they are."""

from __future__ import annotations

import re

import pytest
import sqlalchemy
from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterRun,
    MetadataValue,
    MultiPartitionKey,
    TableRecord,
)

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.erase import DeletedTexts
from harmonizer_assets.dagster_compat import event_texts
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.support.modes import modes_count
from harmonizer_tests.support.postgres import keep_in_postgres

PRIVATE = "Zebulon Quince"


@pytest.fixture(params=["files", "server"])
def home(home: Home, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with its instance in SQLite files, and one with it in PostgreSQL."""
    if request.param == "server":
        pytest.importorskip("dagster_postgres", reason="the extra `postgres` is not installed")
        keep_in_postgres(home, request.getfixturevalue("postgres_url"), monkeypatch)
    return home


def replace_in_events(home: Home, texts: DeletedTexts) -> int:
    with open_instance(home) as instance:
        return event_texts.replace_in_events(home, instance, texts)


def stored(home: Home) -> str:
    """All that the instance keeps, as far as it is text."""
    with open_instance(home) as instance:
        parts = [path.read_bytes().decode(errors="replace") for path in home.dagster.rglob("*.db")]
        for _, connected in event_texts._storages(instance):
            with connected as con:
                for table in sqlalchemy.inspect(con).get_table_names():
                    rows = con.exec_driver_sql(f'SELECT * FROM "{table}"')
                    parts += [str(tuple(row)) for row in rows]
    return "\n".join(parts)


@pytest.fixture
def reported(home: Home) -> Home:
    """A home whose events quote a text in several kinds of metadata, and in a partition."""
    record = TableRecord({"word": PRIVATE, "labels": 3})
    metadata = {
        "text": PRIVATE,
        "said": MetadataValue.md(f"* {PRIVATE} is a name"),
        "rows": MetadataValue.json({"words": [PRIVATE, "Total"]}),
        "table": MetadataValue.table([record]),
    }
    with open_instance(home) as instance:
        instance.report_runless_asset_event(
            AssetMaterialization(AssetKey("outliers"), partition=PRIVATE, metadata=metadata)
        )
    return home


def test_a_text_leaves_the_metadata_of_events_and_partitions_keep_their_names(reported):
    assert replace_in_events(reported, DeletedTexts([PRIVATE])) > 0
    with open_instance(reported) as instance:
        (record,) = instance.fetch_materializations(AssetKey("outliers"), limit=10).records
        materialization = record.asset_materialization
        latest = instance.get_latest_materialization_event(AssetKey("outliers"))
    assert materialization.partition == PRIVATE
    assert materialization.metadata["text"].value == "[deleted]"
    assert materialization.metadata["said"].value == "* [deleted] is a name"
    assert materialization.metadata["rows"].value == {"words": ["[deleted]", "Total"]}
    assert materialization.metadata["table"].records == [
        TableRecord({"word": "[deleted]", "labels": 3})
    ]
    assert latest.asset_materialization == materialization


def test_of_a_configuration_only_the_names_of_merchants_are_replaced(home):
    options = {"judge": "offline", "label_types": ["TAX"], "merchants": [PRIVATE, "TAX"]}
    run = DagsterRun("harmonize_all", run_config={"ops": {"harmonized": {"config": options}}})
    with open_instance(home) as instance:
        instance.add_run(run)
    assert replace_in_events(home, DeletedTexts([PRIVATE, "TAX", "offline"])) == 1
    with open_instance(home) as instance:
        found = instance.get_run_by_id(run.run_id).run_config["ops"]["harmonized"]["config"]
    assert found == {**options, "merchants": ["[deleted]", "[deleted]"]}


def test_events_that_quote_nothing_are_left_alone(reported):
    assert replace_in_events(reported, DeletedTexts(["Other"], ["other-1"])) == 0


def test_the_key_of_a_merchant_leaves_names_of_partitions_and_tags_too(home):
    key = "b\u00e4ckerei-1a2b3c4d"
    partition = MultiPartitionKey({"label_type": "DATE", "merchant": key})
    with open_instance(home) as instance:
        instance.report_runless_asset_event(
            AssetMaterialization(AssetKey("outliers"), partition=partition)
        )
    assert replace_in_events(home, DeletedTexts([], [key])) > 0
    with open_instance(home) as instance:
        (record,) = instance.fetch_materializations(AssetKey("outliers"), limit=10).records
    assert record.asset_materialization.partition == "DATE|deleted-merchant"
    assert "1a2b3c4d" not in stored(home)


def test_rows_that_come_to_say_the_same_are_one(home):
    keys = ["alpha-1a2b3c4d", "beta-1a2b3c4d"]
    with open_instance(home) as instance:
        instance.add_dynamic_partitions("merchants", [*keys, "gamma-1a2b3c4d"])
    assert replace_in_events(home, DeletedTexts([], keys)) == 2
    with open_instance(home) as instance:
        assert {*instance.get_dynamic_partitions("merchants")} == {
            "deleted-merchant",
            "gamma-1a2b3c4d",
        }


def test_more_keys_than_an_expression_may_hold_are_replaced(home):
    keys = [f"merchant-{number:04d}" for number in range(1_200)]
    with open_instance(home) as instance:
        instance.add_dynamic_partitions("merchants", [keys[0], keys[-1]])
    assert replace_in_events(home, DeletedTexts([], keys)) == 2
    assert "merchant-1199" not in stored(home)


@pytest.mark.parametrize("home", ["files"], indirect=True)
def test_a_file_that_may_not_be_written_is_named(home):
    path = home.dagster / "history" / "of_root.db"
    path.parent.mkdir(parents=True)
    path.touch(mode=0)
    with modes_count(), pytest.raises(StoreError, match=rf"^{re.escape(str(path))}: .*unable to"):
        replace_in_events(home, DeletedTexts(["Quittenbrand"]))
