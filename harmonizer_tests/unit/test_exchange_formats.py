"""Whatever is in a record, each format brings it back as it was, and what people say is read."""

from __future__ import annotations

import csv
import json
import math
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonizer_assets.cli.exchange import FORMAT_NAMES
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.review.exchange.base import Drawn, Opinion, Returned, Unusable
from harmonizer_assets.core.review.exchange.formats import FORMATS
from harmonizer_assets.core.review.exchange.json_files import NO_LABEL
from harmonizer_assets.core.review.exchange.label_studio import corners_of
from harmonizer_assets.core.review.exchange.records import ExchangeRecord, packed_text
from harmonizer_tests.support.exchange import HOSTILE, TYPES, edited_json, record, records

each_format = pytest.mark.parametrize("name", FORMATS)
each_table = pytest.mark.parametrize("name", ["csv", "parquet", "ndjson"])
KEEP = record(1, proposal=None)
MOVE = record(2)
DROP = record(3, proposal=replace(MOVE.proposal, action="mark_invalid", to_label=None))


def written(name: str, folder: Path, *given_records: ExchangeRecord) -> Path:
    path = folder / f"file{FORMATS[name].suffix}"
    FORMATS[name].write(path, given_records, TYPES)
    return path


def returned(name: str, path: Path) -> list[Returned | Drawn | Unusable]:
    return list(FORMATS[name].read(path))


def said(name: str, path: Path) -> list[tuple[Opinion, ...]]:
    return [part.opinions for part in returned(name, path) if isinstance(part, Returned)]


def reasons(name: str, path: Path) -> list[str]:
    return [
        f"{part.place}: {part.reason}"
        for part in returned(name, path)
        if isinstance(part, Unusable)
    ]


@each_format
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(records, min_size=1, max_size=4, unique_by=lambda one: one.key))
def test_records_come_back_without_a_difference_whatever_texts_they_hold(name, given_records):
    with tempfile.TemporaryDirectory() as folder:
        found = returned(name, written(name, Path(folder), *given_records))
    assert {one.record.key: one.record for one in found} == {one.key: one for one in given_records}
    assert all(one.opinions == () for one in found)


@each_format
@pytest.mark.parametrize("text", HOSTILE)
def test_texts_that_tools_are_known_to_change_come_back(name, text, tmp_path):
    given_record = record(text=text, line=text, merchant_name=text, image_uri=text)
    [found] = returned(name, written(name, tmp_path, given_record))
    assert found.record == given_record


def test_the_command_offers_each_format():
    assert list(FORMATS) == list(FORMAT_NAMES)


# Tables


def answered(name: str, path: Path, **answers: dict[int, str]) -> Path:
    """Write into columns of some rows, as a person would, who saves all cells as texts."""
    if name == "ndjson":

        def change(rows: list[dict[str, Any]]) -> None:
            for column, by_row in answers.items():
                for row, text in by_row.items():
                    rows[row][column] = text

        return edited_json(path, change)
    if name == "parquet":
        table = pq.read_table(path)
        for column, by_row in answers.items():
            values = table[column].to_pylist()
            for row, text in by_row.items():
                values[row] = text
            place = table.schema.get_field_index(column)
            table = table.set_column(place, column, [values])
        pq.write_table(table, path)
        return path
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for column, by_row in answers.items():
        for row, text in by_row.items():
            rows[row][column] = text
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@each_table
def test_answers_in_a_table_are_read(name, tmp_path):
    rows = [record(number) for number in range(1, 7)]
    path = answered(
        name,
        written(name, tmp_path, *rows),
        answer={0: "right", 1: " Wrong ", 2: "wrong", 3: "skip", 4: "add"},
        answer_label={2: "TIME", 4: "TAX"},
        answer_note={1: "=1+1"},
        answer_by={0: "ann", 1: "bob"},
    )
    assert said(name, path) == [
        (Opinion(("DATE",), "ann"),),
        (Opinion((), "bob", "=1+1"),),
        (Opinion(("TIME",)),),
        (Opinion(None),),
        (Opinion(("DATE", "TAX")),),
        (),
    ]


@each_table
@pytest.mark.parametrize(
    ("answer", "label", "reason"),
    [
        ("rihgt", "", "write right, wrong, skip or add"),
        ("right", "TIME", "takes no answer_label"),
        ("add", "", "needs answer_label"),
        ("", "TIME", "answer is empty"),
    ],
)
def test_an_answer_that_cannot_be_understood_is_listed_with_its_row(
    name, answer, label, reason, tmp_path
):
    path = written(name, tmp_path, record(1), record(2))
    answered(name, path, answer={1: answer}, answer_label={1: label})
    [found] = reasons(name, path)
    assert reason in found
    assert found.startswith("row 3" if name == "csv" else "row 2")


@each_table
def test_what_a_spreadsheet_makes_of_ids_and_amounts_does_no_harm(name, tmp_path):
    given_record = record(1, key=record(1).key._replace(image_id="007"), text="-12.50")
    path = written(name, tmp_path, given_record)
    answered(name, path, image_id={0: "7"}, text={0: "-12.5"}, answer={0: "right"})
    [found] = returned(name, path)
    assert found.record == given_record
    assert found.opinions == (Opinion(("DATE",)),)


@each_table
@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        ("harmonizer", "", "harmonizer is missing"),
        ("harmonizer", '{"text": ', "harmonizer is damaged"),
        ("harmonizer", "{}", "image_id is missing"),
        ("check", "", "sort whole rows"),
    ],
)
def test_a_row_that_has_lost_what_it_needs_is_listed(name, column, text, reason, tmp_path):
    path = answered(name, written(name, tmp_path, record(1), record(2)), **{column: {0: text}})
    assert reason in reasons(name, path)[0]
    assert len(said(name, path)) == 1


@each_table
def test_rows_whose_columns_were_sorted_apart_are_listed(name, tmp_path):
    path = written(name, tmp_path, record(1), record(2))
    first, second = (part.record for part in returned(name, path))
    carried = {0: packed_text(second), 1: packed_text(first)}
    answered(name, path, harmonizer=carried, answer={0: "right", 1: "wrong"})
    assert ["sort whole rows" in reason for reason in reasons(name, path)] == [True, True]


def test_a_record_whose_ids_were_edited_is_told_from_one_that_was_exported(tmp_path):
    path = written("prodigy", tmp_path, record(1), record(2))
    edited_json(path, lambda tasks: tasks[0]["harmonizer"].update(word_id=99))
    assert "not what was exported" in reasons("prodigy", path)[0]


def test_no_cell_of_a_csv_is_a_formula_and_amounts_stay_numbers(tmp_path):
    rows = [record(number, text=text) for number, text in enumerate(HOSTILE, start=1)]
    path = written("csv", tmp_path, *rows)
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "-12.50" in cells
    assert "+1,234.50" in cells
    risky = [cell for cell in cells if cell[:1] in "=@\uff1d" and cell]
    assert risky == []
    assert "'=1+1" in cells


# Label Studio


def annotate(*results: Callable[[list[dict[str, Any]]], None], **given: Any) -> Callable:
    """Submit the prediction of each task as an annotation, changed by `results`."""

    def change(tasks: list[dict[str, Any]]) -> None:
        for task in tasks:
            result = json.loads(json.dumps(task["predictions"][0]["result"]))
            for edit in results:
                edit(result)
            annotation = {"id": 7, "completed_by": 3, "result": result, **given}
            task.setdefault("annotations", []).append(annotation)

    return change


def regions(result: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(part["id"] for part in result))


def test_what_is_left_as_the_prediction_shows_it_is_agreed_with(tmp_path):
    path = written("label-studio", tmp_path, KEEP, MOVE, DROP)
    edited_json(path, annotate(completed_by={"id": 3, "email": "ann@example.com"}))
    opinions = [
        Opinion(labels, "ann@example.com", version="7")
        for labels in (("DATE",), ("GRAND_TOTAL",), ())
    ]
    assert said("label-studio", path) == [(one,) for one in opinions]


def test_edits_deletions_and_the_annotations_of_two_people_are_read(tmp_path):
    path = written("label-studio", tmp_path, KEEP, MOVE, DROP)

    def edit(result):
        first, second, _ = regions(result)
        result[:] = [part for part in result if part["id"] != second]
        for part in result:
            if part["id"] == first and "labels" in part["value"]:
                part["value"]["labels"] = ["TAX", "TIME"]

    edited_json(path, annotate(edit, id=1))
    edited_json(path, annotate(completed_by=4, id=2, updated_at="2026-11-26T21:00:00Z"))
    assert [[one.labels for one in opinions] for opinions in said("label-studio", path)] == [
        [("TAX", "TIME"), ("DATE",)],
        [(), ("GRAND_TOTAL",)],
        [(), ()],
    ]
    assert [one.reviewer for one in said("label-studio", path)[0]] == [
        "Label Studio user 3",
        "Label Studio user 4",
    ]


def test_a_skipped_task_says_nothing_and_one_that_was_started_anew_deletes_nothing(tmp_path):
    path = written("label-studio", tmp_path, KEEP)
    edited_json(path, annotate(was_cancelled=True))
    assert said("label-studio", path) == [(Opinion(None, "Label Studio user 3", version="7"),)]
    path = written("label-studio", tmp_path, KEEP)
    edited_json(path, annotate(lambda result: result.clear()))
    assert said("label-studio", path) == [()]
    assert "none of the regions" in reasons("label-studio", path)[0]


def test_ids_that_the_tool_extends_and_texts_that_it_composes_are_still_the_same(tmp_path):
    decomposed = unicodedata.normalize("NFD", "Bj\u00f6rn \U0001f9fe")
    path = written("label-studio", tmp_path, record(1, text=decomposed))

    def edit(result):
        for part in result:
            part["id"] += "#abc12"
            if "text" in part["value"]:
                part["value"]["text"] = [unicodedata.normalize("NFC", decomposed)]

    edited_json(path, annotate(edit))
    assert reasons("label-studio", path) == []
    assert said("label-studio", path)[0][0].labels == ("GRAND_TOTAL",)


def test_a_changed_text_is_listed_since_only_labels_are_imported(tmp_path):
    path = written("label-studio", tmp_path, MOVE)

    def edit(result):
        result[-1]["value"]["text"] = ["12.50"]

    edited_json(path, annotate(edit))
    [reason] = reasons("label-studio", path)
    assert "'-12.50' was changed to '12.50'" in reason


def flat(corners: Iterable[tuple[float, float]]) -> list[float]:
    return [number for corner in corners for number in corner]


def test_regions_that_were_drawn_come_with_their_corners(tmp_path):
    path = written("label-studio", tmp_path, MOVE)
    value = {"x": 10, "y": 20, "width": 30, "height": 5, "rotation": 0, "labels": ["TAX"]}

    def draw(result):
        result.append({"id": "new", "type": "labels", "from_name": "label", "value": value})
        result.append({"id": "mask", "type": "brushlabels", "value": {"labels": ["TAX"]}})

    edited_json(path, annotate(draw))
    [drawn] = [part for part in returned("label-studio", path) if isinstance(part, Drawn)]
    assert (drawn.near, drawn.label) == (MOVE, "TAX")
    assert flat(drawn.corners) == pytest.approx([0.1, 0.2, 0.4, 0.2, 0.4, 0.25, 0.1, 0.25])
    assert "neither a rectangle nor a polygon" in reasons("label-studio", path)[0]


@given(
    st.floats(-360, 360),
    *(st.floats(1, 90) for _ in range(4)),
    st.integers(10, 9000),
    st.integers(10, 9000),
)
def test_a_turned_rectangle_keeps_its_sides_and_right_angles_in_pixels(
    turn, x, y, width, height, columns, rows
):
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": turn}
    result = {"original_width": columns, "original_height": rows, "value": value}
    corners = [(right * columns, down * rows) for right, down in corners_of([result])]
    sides = [math.dist(a, b) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]
    expected = [width * columns / 100, height * rows / 100] * 2
    assert sides == pytest.approx(expected, rel=1e-6)
    assert math.dist(corners[0], corners[2]) == pytest.approx(math.hypot(*expected[:2]), rel=1e-6)
    assert corners[0] == pytest.approx((x * columns / 100, y * rows / 100))


def test_a_turned_rectangle_on_an_image_of_unknown_size_cannot_be_placed():
    value = {"x": 1, "y": 1, "width": 1, "height": 1, "rotation": 5}
    with pytest.raises(ValueError, match="size of the image"):
        corners_of([{"value": value}])


def test_a_quarter_turn_to_the_right_points_down():
    value = {"x": 50, "y": 50, "width": 20, "height": 10, "rotation": 90}
    result = {"original_width": 100, "original_height": 400, "value": value}
    corners = flat(corners_of([result]))
    assert corners == pytest.approx([0.5, 0.5, 0.5, 0.55, 0.1, 0.55, 0.1, 0.5])


# Argilla, doccano, Prodigy


def test_responses_of_two_people_in_argilla_are_read(tmp_path):
    path = written("argilla", tmp_path, MOVE, DROP, KEEP)

    def respond(rows):
        assert rows[0]["suggestions"]["labels"]["value"] == ["GRAND_TOTAL"]
        assert rows[1]["suggestions"]["labels"]["value"] == [NO_LABEL]
        assert rows[2]["suggestions"] == {}
        rows[0]["responses"] = {
            "labels": [{"value": ["DATE", "TAX"], "user_id": "u1"},
                       {"value": [NO_LABEL], "user_id": "u2"}],
            "note": [{"value": "why", "user_id": "u2"}],
        }  # fmt: skip
        rows[1]["responses"] = {"labels": [{"value": ["TAX", NO_LABEL], "user_id": "u1"}]}

    edited_json(path, respond)
    assert said("argilla", path) == [
        (Opinion(("DATE", "TAX"), "u1"), Opinion((), "u2", "why")),
        (),
    ]
    assert "is chosen together with TAX" in reasons("argilla", path)[0]


def test_a_document_of_doccano_says_nothing_until_somebody_has_chosen_a_label(tmp_path):
    path = written("doccano", tmp_path, MOVE, DROP, KEEP)

    def choose(rows):
        rows[0]["label"] = ["GRAND_TOTAL"]
        rows[1]["label"] = [NO_LABEL]

    edited_json(path, choose)
    assert said("doccano", path) == [(Opinion(("GRAND_TOTAL",)),), (Opinion(()),), ()]


def test_answers_of_prodigy_are_read(tmp_path):
    rows = [record(number, proposal=None) for number in range(1, 5)]
    path = written("prodigy", tmp_path, *rows, MOVE)

    def answer(tasks):
        for task, given_answer in zip(
            tasks, ("accept", "reject", "ignore", None, "reject"), strict=True
        ):
            if given_answer:
                task |= {"answer": given_answer, "_annotator_id": "ann", "_timestamp": 17}

    edited_json(path, answer)
    assert said("prodigy", path) == [
        (Opinion(("DATE",), "ann", version="17"),),
        (Opinion((), "ann", version="17"),),
        (Opinion(None, "ann", version="17"),),
        (),
    ]
    assert "no label is chosen that would be right" in reasons("prodigy", path)[0]


# Damage


@each_format
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[", b"{}", b"[1]", b'{"a": 1'])
def test_a_file_that_is_not_of_the_format_is_refused_or_listed_with_its_name(
    name, content, tmp_path
):
    path = tmp_path / f"file{FORMATS[name].suffix}"
    path.write_bytes(content)
    found: list[Any] = []
    with suppress_named(path):
        found = returned(name, path) or ["nothing"]
    assert all(isinstance(part, Unusable) for part in found)


@contextmanager
def suppress_named(path: Path) -> Iterator[None]:
    """Let an error pass that the user can mend, and that names the file."""
    try:
        yield
    except InputError as error:
        if str(path) not in str(error):
            raise


@pytest.mark.parametrize("name", ["label-studio", "argilla", "doccano", "prodigy"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_members_of_other_types_than_the_tool_writes_raise_nothing_unexpected(name, data):
    with tempfile.TemporaryDirectory() as folder:
        path = written(name, Path(folder), MOVE)
        if name == "label-studio":
            edited_json(path, annotate())

        def damage(tasks):
            place = tasks[0]
            while True:
                member = data.draw(st.sampled_from(members(place)))
                if not members(place[member]) or data.draw(st.booleans()):
                    place[member] = data.draw(anything)
                    return
                place = place[member]

        edited_json(path, damage)
        with suppress_named(path):
            assert all(
                isinstance(part, Returned | Drawn | Unusable) for part in returned(name, path)
            )


def members(value: Any) -> list[Any]:
    return (
        list(value if isinstance(value, dict) else range(len(value)))
        if isinstance(value, dict | list)
        else []
    )


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


@each_format
def test_a_file_that_was_cut_off_is_refused_as_a_whole(name, tmp_path):
    path = written(name, tmp_path, *(record(number) for number in range(1, 6)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="file"):
        returned(name, path)


@pytest.mark.parametrize("name", ["argilla", "doccano", "prodigy"])
def test_a_task_whose_metadata_are_gone_is_listed(name, tmp_path):
    path = written(name, tmp_path, MOVE, KEEP)

    def lose(rows):
        rows[0].pop("harmonizer", None)
        rows[0]["metadata"] = None

    edited_json(path, lose)
    [reason] = reasons(name, path)
    assert "harmonizer is missing" in reason
    assert len(said(name, path)) == 1
