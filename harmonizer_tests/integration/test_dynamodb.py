"""Labels come from a DynamoDB table, and corrections go back to it."""

from __future__ import annotations

import copy

import boto3
import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from harmonizer_assets.core.apply.push import push_corrections
from harmonizer_assets.core.apply.targets import DynamoTarget, configured_targets
from harmonizer_assets.core.apply.undo import Selection, undo
from harmonizer_assets.core.base.errors import SourceError
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.dynamodb import label_item
from harmonizer_assets.core.records.label import label_key
from harmonizer_tests.support.aws import aws_server
from harmonizer_tests.support.cli import cli, shown_error
from harmonizer_tests.support.corrections import applied, correction, label, labels
from harmonizer_tests.support.environment import use_aws
from harmonizer_tests.support.receipts import shop_receipts, table

NAME = "ReceiptsTable"
ADDED = "2024-05-01T10:00:00+00:00"


@pytest.fixture(scope="module")
def server():
    with aws_server() as url:
        yield url


class Dynamo:
    """The table, with items as Python values."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = boto3.client("dynamodb", endpoint_url=url, region_name="us-east-1")
        kinds = [("PK", "HASH"), ("SK", "RANGE")]
        self.client.create_table(
            TableName=NAME,
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in kinds],
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name, _ in kinds
            ],
            BillingMode="PAY_PER_REQUEST",
        )

    def put(self, item) -> None:
        values = {name: TypeSerializer().serialize(value) for name, value in item.items()}
        self.client.put_item(TableName=NAME, Item=values)

    def items(self):
        pages = self.client.get_paginator("scan").paginate(TableName=NAME)
        read = TypeDeserializer().deserialize
        found = [
            {name: read(value) for name, value in item.items()}
            for page in pages
            for item in page["Items"]
        ]
        return sorted(found, key=lambda item: (item["PK"], item["SK"]))

    def item(self, key):
        wanted = label_item(key, "", {})
        return next(
            (
                one
                for one in self.items()
                if one["SK"] == wanted["SK"] and one["PK"] == wanted["PK"]
            ),
            None,
        )


@pytest.fixture
def dynamo(server, monkeypatch):
    use_aws(monkeypatch)
    dynamo = Dynamo(server)
    receipts = shop_receipts(['O\'Hara | "7/11" 🧾', "Beta Cafe"], each=2)
    for number, word in enumerate(receipts.words):
        sort = "RECEIPT#{receipt_id:05d}#LINE#{line_id:05d}#WORD#{word_id:05d}".format(**word)
        dynamo.put(
            {
                "PK": f"IMAGE#{word['image_id']}",
                "SK": sort,
                "TYPE": "RECEIPT_WORD",
                "text": word["text"],
                "number": number,
            }
        )
    for row in receipts.labels:
        key = label_key(row)
        dynamo.put(label_item(key, row["validation_status"], {"timestamp_added": ADDED}))
        dynamo.put(
            {
                "PK": f"IMAGE#{row['image_id']}",
                "SK": "RECEIPT#00001#PLACE",
                "TYPE": "RECEIPT_PLACE",
                "merchant_name": row["merchant_name"],
            }
        )
        dynamo.put(
            {
                "PK": f"IMAGE#{row['image_id']}",
                "SK": "RECEIPT#00001#METADATA",
                "TYPE": "RECEIPT_METADATA",
                "merchant_name": "older",
            }
        )
    yield dynamo
    dynamo.client.delete_table(TableName=NAME)


def opened(home, dynamo, every: int = 0) -> Pipeline:
    home.settings_file.write_text(
        f'[arrivals.dynamodb]\ntable = "{NAME}"\nregion = "us-east-1"\n'
        f'endpoint_url = "{dynamo.url}"\nevery_seconds = {every}\n'
    )
    return Pipeline(home)


@pytest.fixture
def pipeline(home, dynamo) -> Pipeline:
    pipeline = opened(home, dynamo)
    pipeline.ingest()
    return pipeline


@pytest.fixture
def wrong(pipeline):
    return next(row for row in labels(pipeline) if row["validation_status"] == "PENDING")


def push(pipeline: Pipeline, *, commit: bool = True):
    [target] = configured_targets(pipeline.settings.arrivals)
    return push_corrections(pipeline.warehouse, target, commit=commit)


def test_words_labels_and_merchants_arrive(pipeline):
    receipts = shop_receipts(['O\'Hara | "7/11" 🧾', "Beta Cafe"], each=2)
    told = [*receipts.labels[0]]
    assert [{name: row[name] for name in told} for row in labels(pipeline)] == sorted(
        receipts.labels, key=lambda row: tuple(str(row[name]) for name in told)
    )
    assert len(table(pipeline, "words")) == len(receipts.words)


def test_an_unchanged_table_is_no_batch_and_a_changed_label_is_one(pipeline, dynamo, wrong):
    assert pipeline.ingest().pulled == 0
    dynamo.put(label_item(label_key(wrong), "NEEDS_REVIEW", {"timestamp_added": ADDED}))
    assert len(pipeline.ingest().batches) == 1
    assert label(pipeline, label_key(wrong))["validation_status"] == "NEEDS_REVIEW"


def test_a_table_that_was_read_a_moment_ago_is_not_read_again(home, dynamo):
    pipeline = opened(home, dynamo, every=3600)
    assert pipeline.arrivals.waiting()[0] is not None
    assert pipeline.ingest().pulled == 1
    assert pipeline.arrivals.waiting() == (None, [])
    dynamo.put(label_item(label_key(labels(pipeline)[0]), "INVALID", {}))
    assert pipeline.ingest().pulled == 0


def test_a_table_that_is_not_there_is_said_with_its_name_and_stops_nothing(home, dynamo):
    home.settings_file.write_text(
        f'[arrivals.dynamodb]\ntable = "absent"\nregion = "us-east-1"\n'
        f'endpoint_url = "{dynamo.url}"\n'
    )
    [error] = Pipeline(home).ingest().unread_sources
    assert "dynamodb://absent" in error
    assert "testing" not in error


def test_a_correction_is_pushed_as_a_retired_item_and_a_new_one_and_comes_back_as_it_is(
    pipeline, dynamo, wrong
):
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    assert (push(pipeline, commit=False).pushed, push(pipeline).pushed) == (1, 1)
    old, total = label_key(wrong), label_key(wrong)._replace(label="GRAND_TOTAL")
    retired = dynamo.item(old)
    assert (retired["validation_status"], retired["GSI3PK"]) == (
        "INVALID",
        "VALIDATION_STATUS#INVALID",
    )
    new = dynamo.item(total)
    assert (new["validation_status"], new["label_proposed_by"]) == ("VALID", "ann")
    assert (new["label_consolidated_from"], new["reasoning"]) == ("DATE", "it's wrong")
    assert new["GSI4SK"] == "4_LABEL#00007#00002#GRAND_TOTAL"
    assert push(pipeline).pushed == 0
    pipeline.ingest()
    assert label(pipeline, old)["validation_status"] == "INVALID"
    assert label(pipeline, total)["validation_status"] == "VALID"


def test_an_undo_brings_the_table_back_to_what_it_was(pipeline, dynamo, wrong):
    before = copy.deepcopy(dynamo.items())
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    push(pipeline)
    undo(pipeline.warehouse, Selection(actor="ann"), actor="ann", commit=True)
    assert push(pipeline).undone == 1
    assert dynamo.items() == before
    assert (push(pipeline).pushed, push(pipeline).undone) == (0, 0)


def test_a_label_that_was_added_is_put_with_its_time_and_goes_with_undo(pipeline, dynamo, wrong):
    before = dynamo.items()
    added = {**correction(wrong, "add"), "label": "COUPON", "seen_status": None}
    report = applied(pipeline, added)
    assert push(pipeline).pushed == 1
    item = dynamo.item(label_key(added))
    assert (item["validation_status"], item["label_proposed_by"]) == ("VALID", "ann")
    assert item["timestamp_added"]
    undo(pipeline.warehouse, Selection(operation=report.operation_id), actor="ann", commit=True)
    assert push(pipeline).undone == 1
    assert dynamo.items() == before


def test_a_later_correction_of_a_label_that_was_pushed_is_pushed_too_and_undone_with_it(
    pipeline, dynamo, wrong
):
    before = copy.deepcopy(dynamo.items())
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    push(pipeline)
    total = label(pipeline, label_key(wrong)._replace(label="GRAND_TOTAL"))
    applied(pipeline, correction(total, "move", "SUBTOTAL"))
    report = push(pipeline)
    assert (report.pushed, report.refused) == (1, [])
    assert dynamo.item(label_key(total))["validation_status"] == "INVALID"
    undo(pipeline.warehouse, Selection(actor="ann"), actor="ann", commit=True)
    assert (push(pipeline).undone, push(pipeline).undone) == (2, 0)
    assert dynamo.items() == before


def test_what_was_undone_before_it_was_pushed_never_leaves(pipeline, dynamo, wrong):
    before = dynamo.items()
    applied(pipeline, correction(wrong, "mark_invalid"))
    undo(pipeline.warehouse, Selection(actor="ann"), actor="ann", commit=True)
    report = push(pipeline)
    assert (report.pushed, report.undone) == (0, 0)
    assert dynamo.items() == before


@pytest.mark.parametrize("changed", ["VALID", None], ids=["another status", "added anew"])
def test_a_label_that_has_changed_there_is_left_alone_and_listed(pipeline, dynamo, wrong, changed):
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    now = {"timestamp_added": ADDED if changed else "2026-01-01T00:00:00+00:00"}
    dynamo.put(label_item(label_key(wrong), changed or "PENDING", now))
    before = dynamo.items()
    report = push(pipeline)
    assert [one.reason for one in report.refused] == ["the label is another one there by now"]
    assert dynamo.items() == before


def test_a_push_that_was_killed_before_it_was_recorded_is_not_taken_for_a_change(
    pipeline, dynamo, wrong
):
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    push(pipeline)
    pipeline.warehouse.write(lambda con: con.execute("DELETE FROM pushed_corrections"))
    after = dynamo.items()
    report = push(pipeline)
    assert (report.pushed, report.refused) == (1, [])
    assert dynamo.items() == after


def test_a_table_that_cannot_be_written_is_said_and_nothing_is_recorded(pipeline, dynamo, wrong):
    applied(pipeline, correction(wrong, "mark_invalid"))
    settings = pipeline.settings.arrivals.dynamodb.model_copy(update={"table": "absent"})
    with pytest.raises(SourceError, match="dynamodb://absent: cannot be written"):
        push_corrections(pipeline.warehouse, DynamoTarget(settings), commit=True)
    assert table(pipeline, "pushed_corrections") == []


def test_the_command_says_what_it_would_push_and_pushes_when_asked(pipeline, home, wrong, dynamo):
    applied(pipeline, correction(wrong, "mark_invalid"))
    assert "1 corrections would be pushed" in cli("push", home=home.root).stdout
    assert "1 corrections pushed" in cli("push", "--commit", home=home.root).stdout
    assert dynamo.item(label_key(wrong))["validation_status"] == "INVALID"
    home.settings_file.write_text("")
    assert "no table to push to" in shown_error(cli("push", home=home.root))
