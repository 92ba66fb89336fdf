"""The packages of the formats find nothing wrong with what is written for them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harmonizer_assets.core.records.box import Box
from harmonizer_assets.core.review.exchange.formats import FORMATS
from harmonizer_tests.support.exchange import HOSTILE, TYPES, record

# Rounding and crooked images put corners a little beyond the edges.
OFF_THE_EDGE = record(4, box=Box(0.95, -0.01, 0.1, 0.02))
NEEDS_EXTRA = "pip install 'label-harmonizer[formats]'"
MOVE = record(1)
KEY = record(5).key
DROP = record(3, proposal=replace(MOVE.proposal, action="mark_invalid", to_label=None))
RECORDS = [
    MOVE,
    record(2, proposal=None),
    DROP,
    OFF_THE_EDGE,
    *(
        record(5, key=KEY._replace(word_id=number), text=text, line=text)
        for number, text in enumerate(HOSTILE)
    ),
]


def test_label_studio_finds_no_error_in_the_predictions_and_some_in_broken_ones(tmp_path):
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason=NEEDS_EXTRA)
    path = tmp_path / "tasks.json"
    FORMATS["label-studio"].write(path, RECORDS, TYPES)
    _, config = FORMATS["label-studio"].config(TYPES)
    interface = sdk.LabelInterface(config)
    interface.validate()
    for task in json.loads(path.read_text()):
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction, return_errors=True) == []
    labels = next(part for part in prediction["result"] if part["type"] == "labels")
    labels["value"]["labels"] = ["no such type"]
    assert interface.validate_prediction(prediction, return_errors=True) != []


def test_argilla_reads_the_records_and_writes_them_again_without_a_difference(tmp_path):
    argilla = pytest.importorskip("argilla", reason=NEEDS_EXTRA)
    path = tmp_path / "records.json"
    FORMATS["argilla"].write(path, RECORDS, TYPES)
    rows = json.loads(path.read_text())
    assert [argilla.Record.from_dict(row).to_dict() for row in rows] == rows
    rows[0]["responses"] = {
        "labels": [{"value": ["TAX"], "user_id": "b7f4a1de-6b0a-4a56-9d3e-0b2a6f4f0c11"}]
    }
    answered = argilla.Record.from_dict(rows[0]).to_dict()
    path.write_text(json.dumps([answered]))
    [returned] = FORMATS["argilla"].read(path)
    assert [one.labels for one in returned.opinions] == [("TAX",)]
