"""`harmonizer corrupt`: each kind of error is what it is said to be, and the truth says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.ingest.readers import read_table
from harmonizer_assets.core.measure.corrupt import KINDS, CorruptionSpec, corrupt_files
from harmonizer_tests.support.receipts import shop_receipts

KEY = ("image_id", "receipt_id", "line_id", "word_id", "label")


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("clean")
    receipts = shop_receipts(("Alpha", 'Beta\'s "Café"', "Γ | 🛒"), each=6)
    receipts.labels = [
        {**label, "label": "GRAND_TOTAL"}
        if tuple(label[name] for name in KEY) in receipts.wrong
        else label
        for label in receipts.labels
    ]
    return receipts.write(folder)


def corrupted(clean, out, *, force=False, **spec):
    made = corrupt_files(*clean, out, CorruptionSpec(**spec), force=force)
    return made, pq.read_table(made.labels), pq.read_table(made.truth)


def keys_of(table_, names=KEY):
    columns = [table_[name].to_pylist() for name in names]
    return [(key[0], *map(int, key[1:4]), *key[4:]) for key in zip(*columns, strict=True)]


@pytest.fixture
def mistakes(clean, tmp_path):
    """Make errors of one kind, and tell for each mistake what became of which words.

    Returns rows of (key, true label, text) by the mistake that they belong to.
    """

    def made_of(kind: str, files=clean, rate=0.2):
        made, _, truth = corrupted(files, tmp_path / kind, rate=rate, kinds={kind: 1.0})
        words = read_table(files[0], required=KEY[:4])
        text = dict(zip(keys_of(words, KEY[:4]), words["text"].to_pylist(), strict=True))
        found: dict[str, list] = {}
        for key, row in zip(keys_of(truth), truth.to_pylist(), strict=True):
            if row["kind"] is not None:
                assert row["kind"] == kind
                found.setdefault(row["mistake"], []).append((key, row["true_label"], text[key[:4]]))
        assert found
        assert sum(map(len, found.values())) == sum(made.errors.values()) + made.forgotten
        return made, found

    return made_of


@settings(max_examples=25, deadline=None)
@given(
    rate=st.floats(0, 0.5),
    validated=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
    kinds=st.dictionaries(st.sampled_from(KINDS), st.floats(0.1, 1.0), min_size=1, max_size=4),
)
def test_any_corruption_keeps_keys_apart_and_the_truth_right(
    clean, tmp_path_factory, rate, validated, seed, kinds
):
    out = tmp_path_factory.mktemp("out")
    made, labels, truth = corrupted(
        clean, out, rate=rate, validated=validated, seed=seed, kinds=kinds
    )
    before = {key[:4]: key[4] for key in keys_of(read_table(clean[1], required=KEY))}
    n = len(before)
    missing = np.array(truth["missing"].to_pylist(), dtype=bool)
    there = truth.filter(pa.array(~missing))
    assert keys_of(labels) == keys_of(there)
    assert len(set(keys_of(labels))) == labels.num_rows == made.n_labels
    assert made.forgotten == missing.sum()
    gone = {key[:4]: key[4] for key in keys_of(truth.filter(pa.array(missing)))}
    assert gone.items() <= before.items()
    assert gone.keys().isdisjoint(key[:4] for key in keys_of(labels))
    assert not any(truth["is_error"].filter(pa.array(missing)).to_pylist())

    wrong = np.array(there["is_error"].to_pylist(), dtype=bool)
    assert wrong.sum() == sum(made.errors.values())
    assert wrong.sum() + missing.sum() <= round(rate * n) + len(kinds)
    words = set(keys_of(read_table(clean[0], required=KEY[:4]), KEY[:4]))
    for key, error, true_label in zip(
        keys_of(there), wrong, there["true_label"].to_pylist(), strict=True
    ):
        assert key[:4] in words
        # What a word should carry is what it carried, whatever is said about it.
        assert true_label == before.get(key[:4])
        assert (key[4] != true_label) == error
    statuses = np.array(labels["validation_status"].to_pylist(), dtype=object)
    assert (statuses[wrong] == "PENDING").all()
    assert set(truth["kind"].to_pylist()) <= {None, *kinds}


def test_the_same_seed_makes_the_same_errors_in_whatever_order_the_rows_stand(clean, tmp_path):
    lines = clean[1].read_text(encoding="utf-8").splitlines()
    turned = tmp_path / "labels.csv"
    turned.write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n", encoding="utf-8")
    _, first, _ = corrupted(clean, tmp_path / "a", rate=0.3)
    _, second, _ = corrupted((clean[0], turned), tmp_path / "b", rate=0.3)
    _, other, _ = corrupted(clean, tmp_path / "c", rate=0.3, seed=8)
    assert first.equals(second)
    assert not first.equals(other)


def test_files_that_are_there_are_not_overwritten_unasked(clean, tmp_path):
    corrupted(clean, tmp_path)
    with pytest.raises(InputError, match="exists: choose another --out"):
        corrupted(clean, tmp_path)
    corrupted(clean, tmp_path, force=True)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"rate": 0.7}, "rate 0.7"),
        ({"validated": -1}, "validated -1"),
        ({"kinds": {"magic": 1.0}}, "expected weights of"),
        ({"kinds": {"random": 0.0}}, "expected weights of"),
    ],
)
def test_specs_out_of_range_are_refused(clean, tmp_path, spec, complaint):
    with pytest.raises(InputError, match=complaint):
        corrupted(clean, tmp_path, **spec)


def test_a_doubled_label_is_refused(clean, tmp_path):
    lines = clean[1].read_text(encoding="utf-8").splitlines()
    doubled = tmp_path / "labels.csv"
    doubled.write_text("\n".join([*lines, lines[1]]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"labels.csv: a label stands twice"):
        corrupted((clean[0], doubled), tmp_path / "out")


def test_extra_columns_stay(clean, tmp_path):
    names = ("image_id", "label", "validation_status")
    labels = read_table(clean[1], required=names)
    path = tmp_path / "labels.parquet"
    pq.write_table(labels.append_column("note", pa.array(["n"] * labels.num_rows)), path)
    _, made, _ = corrupted((clean[0], path), tmp_path / "out", rate=0.2)
    assert set(made["note"].to_pylist()) == {"n"}
    assert "merchant_name" in made.column_names


# Each kind


def only(values):
    [value] = set(values)
    return value


def test_a_row_gets_one_type_as_a_whole(mistakes):
    _, found = mistakes("row")
    assert any(len(rows) > 1 for rows in found.values())
    for rows in found.values():
        only(key[:3] for key, _, _ in rows)
        only(key[4] for key, _, _ in rows)


def test_a_phrase_is_taken_for_another_type_as_a_whole(mistakes):
    _, found = mistakes("phrase", rate=0.1)
    lengths = sorted(len(rows) for rows in found.values())
    # "12 High Street" is the only phrase of several words; the last mistake may be cut short.
    assert set(lengths[1:]) == {3}
    for rows in found.values():
        only(key[:3] for key, _, _ in rows)
        only(key[4] for key, _, _ in rows)
        assert only(true for _, true, _ in rows) == "ADDRESS_LINE"


def test_columns_shift_on_all_rows_of_a_receipt_that_have_them(mistakes):
    _, found = mistakes("shifted_columns", rate=0.1)
    for about, rows in found.items():
        only(key[0] for key, _, _ in rows)
        assert "columns PRODUCT_NAME LINE_TOTAL" in about
        pair = (only(true for _, true, _ in rows), only(key[4] for key, _, _ in rows))
        side = "right" if about.endswith("right") else "left"
        assert (
            pair
            == {
                "right": ("LINE_TOTAL", "PRODUCT_NAME"),
                "left": ("PRODUCT_NAME", "LINE_TOTAL"),
            }[side]
        )
    assert max(len({key[2] for key, _, _ in rows}) for rows in found.values()) == 2


def merchants_of(clean):
    labels = read_table(clean[1], required=KEY)
    return dict(zip(keys_of(labels, KEY[:4]), labels["merchant_name"].to_pylist(), strict=True))


def test_a_merchant_habit_is_on_all_its_receipts_and_nowhere_else(mistakes, clean):
    merchant = merchants_of(clean)
    _, found = mistakes("merchant_habit", rate=0.3)
    whole = 0
    for about, rows in found.items():
        name = only(merchant[key[:4]] for key, _, _ in rows)
        true, new = only(true for _, true, _ in rows), only(key[4] for key, _, _ in rows)
        assert about.endswith(f"merchant {name}: {true} as {new}")
        whole += len({key[0] for key, _, _ in rows}) == 6
    assert whole >= len(found) - 1


def test_a_habit_of_merchants_needs_merchants(clean, tmp_path):
    labels = read_table(clean[1], required=KEY).drop_columns(["merchant_name"])
    pq.write_table(labels, tmp_path / "labels.parquet")
    with pytest.raises(InputError, match="merchant_habit: no label names its merchant"):
        corrupted(
            (clean[0], tmp_path / "labels.parquet"), tmp_path / "out", kinds={"merchant_habit": 1.0}
        )


def test_annotators_are_simulated_where_the_data_names_none_and_it_is_said(mistakes):
    made, found = mistakes("annotator_habit", rate=0.1)
    assert any("annotators are simulated, 10 with receipts" in note for note in made.notes)
    assert all("(simulated): " in about for about in found)


def test_an_annotator_habit_is_that_of_the_annotator_named_by_the_data(mistakes, clean, tmp_path):
    labels = read_table(clean[1], required=KEY)
    names = [
        "Ada" if image.endswith(("1", "2")) else "Bo" for image in labels["image_id"].to_pylist()
    ]
    file = tmp_path / "named.parquet"
    pq.write_table(labels.append_column("annotator", pa.array(names)), file)
    made, found = mistakes("annotator_habit", (clean[0], file), rate=0.1)
    assert not made.notes
    for about, rows in found.items():
        by_ada = only(key[0].endswith(("1", "2")) for key, _, _ in rows)
        assert f"annotator {'Ada' if by_ada else 'Bo'}: " in about


def test_captions_are_labelled_as_the_values_beside_them(mistakes):
    _, found = mistakes("caption_as_value", rate=0.5)
    beside = {"TOTAL": "GRAND_TOTAL", "SUBTOTAL": "SUBTOTAL"}
    beside |= dict.fromkeys(("Coffee", "Sandwich"), "LINE_TOTAL")
    seen = set()
    for rows in found.values():
        for key, true, text in rows:
            assert key[4] == beside[text]
            assert true == (None if text.isupper() else "PRODUCT_NAME")
            seen.add(text)
    assert seen == beside.keys()


def test_a_caption_that_carries_the_type_elsewhere_gets_no_error(mistakes, clean, tmp_path):
    words = read_table(clean[0], required=KEY[:4])
    labels = read_table(clean[1], required=KEY)
    totals = dict(zip(keys_of(words, KEY[:4]), words["text"].to_pylist(), strict=True))
    [first, *_] = [key for key in totals if totals[key] == "TOTAL"]
    deserved = {
        **dict.fromkeys(labels.column_names, ""),
        **dict(zip(KEY, (*first, "GRAND_TOTAL"), strict=True)),
        "validation_status": "VALID",
        "merchant_name": "Alpha",
    }
    row = pa.table({name: [str(deserved[name])] for name in labels.column_names})
    file = tmp_path / "labels.parquet"
    pq.write_table(pa.concat_tables([labels, row]), file)
    _, found = mistakes("caption_as_value", (clean[0], file), rate=0.5)
    assert "TOTAL" not in {text for rows in found.values() for _, _, text in rows}


def test_values_are_labelled_as_the_captions_beside_them(mistakes):
    _, found = mistakes("value_as_caption", rate=0.5)
    for rows in found.values():
        for key, true, text in rows:
            assert (true, key[4]) == ("LINE_TOTAL", "PRODUCT_NAME")
            assert text in {"3.50", "9.00"}


def test_places_that_do_not_suffice_are_mentioned(mistakes):
    made, found = mistakes("value_as_caption", rate=0.5)
    made_of = sum(map(len, found.values()))
    assert made.notes == (
        f"value_as_caption: {made_of} of {round(0.5 * made.n_labels)}, "
        "since there are no more places for it",
    )


def test_forgotten_labels_are_in_the_truth_alone(mistakes, clean):
    made, found = mistakes("forgotten", rate=0.3)
    n = read_table(clean[1], required=KEY).num_rows
    assert made.forgotten == round(0.3 * n)
    assert made.n_labels == n - made.forgotten
    assert made.errors == {}
    whole = [rows for about, rows in found.items() if "phrase of ADDRESS_LINE" in about]
    assert 3 in map(len, whole)
    assert all(len(rows) == 1 for about, rows in found.items() if ": word of" in about)


def test_without_positions_rows_are_lines(clean, tmp_path):
    words = read_table(clean[0], required=KEY[:4]).select([*KEY[:4], "text"])
    pq.write_table(words, tmp_path / "words.parquet")
    made, _, _ = corrupted(
        (tmp_path / "words.parquet", clean[1]), tmp_path / "out", kinds={"row": 1.0}
    )
    assert made.errors["row"] > 0
