"""Corruption: put known errors into labels that are taken as right, to measure what is found.

The errors are those that people and models make: a type that is easily taken for the right one, any
other type, and labels that have slipped to a caption or to another word without a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.files import staged
from harmonizer_assets.core.ingest.readers import read_table
from harmonizer_assets.core.records.label import (
    LABEL_COLUMNS,
    LABEL_KEY,
    WORD_COLUMNS,
    WORD_KEY,
    LabelKey,
    WordKey,
    label_keys,
    qualified,
    word_keys,
)
from harmonizer_assets.core.records.status import Status
from harmonizer_assets.core.score.features import shapes_of

KINDS: Final = ("confusable", "random", "caption", "unlabelled_word")

# Candidates in an order that depends on the seed and the keys, and not on the order of the rows.
_TARGETS: Final = f"""
WITH free AS (
    SELECT {qualified("w", WORD_KEY)}, lower(trim(w.text)) AS text FROM words w
    ANTI JOIN labels USING ({WORD_COLUMNS})
),
-- A word that carries the label elsewhere may deserve it here: no error would come of it.
deserved AS (
    SELECT DISTINCT lower(trim(w.text)) AS text, l.label
    FROM labels l JOIN words w USING ({WORD_COLUMNS})
),
in_line AS (
    SELECT m.number, {qualified("f", WORD_KEY)},
        row_number() OVER (PARTITION BY m.number
            ORDER BY abs(f.word_id - m.word_id), f.word_id) AS choice
    FROM moved m JOIN free f USING (image_id, receipt_id, line_id)
    ANTI JOIN deserved e ON e.text = f.text AND e.label = m.label
    WHERE m.kind = 'caption'
),
on_receipt AS (
    SELECT m.number, {qualified("f", WORD_KEY)},
        row_number() OVER (PARTITION BY m.number
            ORDER BY md5(concat_ws(chr(31), m.salt, f.line_id, f.word_id))) AS choice
    FROM moved m JOIN free f USING (image_id, receipt_id)
    ANTI JOIN deserved e ON e.text = f.text AND e.label = m.label
    WHERE m.kind = 'unlabelled_word'
)
SELECT number, {WORD_COLUMNS}
FROM (FROM in_line UNION ALL FROM on_receipt)
QUALIFY row_number() OVER (
        PARTITION BY {WORD_COLUMNS} ORDER BY choice, number) = 1
    AND choice <= 5
ORDER BY number, choice
"""


@dataclass(frozen=True)
class CorruptionSpec:
    """Which errors to make.

    Attributes:
        rate: share of the labels to make wrong, 0 to 0.5.
        validated: share of the labels left right whose status becomes VALID; the others and the
            wrong ones become PENDING.
        seed: the same seed makes the same errors, in whatever order the rows stand.
        kinds: how often each kind of error is tried, see `KINDS`.
    """

    rate: float = 0.08
    validated: float = 0.5
    seed: int = 7
    kinds: Mapping[str, float] = field(
        default_factory=lambda: {
            "confusable": 0.4,
            "random": 0.2,
            "caption": 0.2,
            "unlabelled_word": 0.2,
        }
    )


@dataclass(frozen=True)
class Corrupted:
    """The files that were written, and how many errors of each kind they hold."""

    words: Path
    labels: Path
    truth: Path
    n_labels: int
    errors: Mapping[str, int]


def corrupt_files(
    words: Path, labels: Path, out: Path, spec: CorruptionSpec, *, force: bool = False
) -> Corrupted:
    """Write words and labels with known errors, and the truth about them.

    The labels are taken as right, except for those with status INVALID, which are left out. Extra
    columns are kept. A label that moves to a word of the receipt that carries none takes its status
    and merchant along; its key in `truth.parquet` is the new one, with no `true_label`.

    Args:
        words: as for `harmonizer run`.
        labels: as for `harmonizer run`.
        out: folder for `words.parquet`, `labels.parquet` and `truth.parquet`.
        spec: what errors to make.
        force: replace files that are there.

    Raises:
        InputError: a file cannot be read or written, lacks a column or holds a key twice, or the
            spec is out of range.
    """
    _check(spec)
    files = [out / f"{name}.parquet" for name in ("words", "labels", "truth")]
    present = [file for file in files if file.exists()]
    if present and not force:
        raise InputError(f"{present[0]} exists: choose another --out, or replace it with --force")
    word_table = read_table(words, required=(*WORD_KEY, "text"))
    label_table = read_table(labels, required=(*LABEL_KEY, "validation_status"))
    word_table = _whole_ids(word_table, words)
    label_table = _whole_ids(label_table, labels)
    corrupted, truth, counts = _corrupt(word_table, label_table, labels, spec)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for table, file in zip((word_table, corrupted, truth), files, strict=True):
            with staged(file) as partial:
                pq.write_table(table, partial)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error
    return Corrupted(files[0], files[1], files[2], corrupted.num_rows, counts)


def _check(spec: CorruptionSpec) -> None:
    if not 0 <= spec.rate <= 0.5:
        raise InputError(f"rate {spec.rate}: a share from 0 to 0.5 is expected")
    if not 0 <= spec.validated <= 1:
        raise InputError(f"validated {spec.validated}: a share from 0 to 1 is expected")
    unknown = set(spec.kinds) - set(KINDS)
    if unknown or not any(weight > 0 for weight in spec.kinds.values()):
        raise InputError(f"kinds: expected weights of {', '.join(KINDS)}")


def _whole_ids(table: pa.Table, path: Path) -> pa.Table:
    for name in WORD_KEY:
        kind = pa.string() if name == "image_id" else pa.int64()
        try:
            column = table[name].cast(kind)
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: column {name}: {error}") from None
        if column.null_count:
            raise InputError(f"{path}: column {name}: {column.null_count} rows have no value")
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _corrupt(
    words: pa.Table, labels: pa.Table, path: Path, spec: CorruptionSpec
) -> tuple[pa.Table, pa.Table, dict[str, int]]:
    con = duckdb.connect()
    con.register("words", words)
    con.register("given", labels)
    ordered = con.execute(
        "SELECT given.*, w.text AS word_text FROM given LEFT JOIN words w "
        f"USING ({WORD_COLUMNS}) "
        "WHERE validation_status IS DISTINCT FROM 'INVALID' "
        f"ORDER BY {LABEL_COLUMNS}"
    ).to_arrow_table()
    texts = [text or "" for text in ordered["word_text"].to_pylist()]
    right = ordered.drop_columns(["word_text"])
    keys = list(label_keys(right))
    if len(set(keys)) < len(keys):
        raise InputError(f"{path}: a label stands twice: ids and label must name one row")
    n = right.num_rows
    random = np.random.RandomState(spec.seed)
    label_types = sorted(set(right["label"].to_pylist()))
    kind = _kinds(random, n, spec)
    new_label = _new_labels(random, keys, texts, label_types, kind)
    moved = _moved(con, right, kind, spec)
    columns: dict[str, list[object]] = {name: right[name].to_pylist() for name in LABEL_KEY}
    taken = set(keys)
    made: list[str | None] = [None] * n
    for at in range(n):
        new = keys[at]
        if at in moved:
            new = LabelKey(*moved[at], new.label)
        elif (label := new_label[at]) is not None:
            new = new._replace(label=label)
        # Two errors, or an error and a right label, must not make the same key.
        if new == keys[at] or new in taken:
            continue
        taken.add(new)
        made[at] = str(kind[at])
        for name, value in zip(LABEL_KEY, new, strict=True):
            columns[name][at] = value
    is_error = [each is not None for each in made]
    statuses = np.where(
        ~np.array(is_error, dtype=bool) & (random.random_sample(n) < spec.validated),
        Status.VALID,
        Status.PENDING,
    )
    corrupted = right
    for name, values in {**columns, "validation_status": statuses.tolist()}.items():
        place = corrupted.column_names.index(name)
        column = pa.array(values, corrupted.schema.field(name).type)
        corrupted = corrupted.set_column(place, name, column)
    true_label = [
        None if each in ("caption", "unlabelled_word") else label
        for each, label in zip(made, right["label"].to_pylist(), strict=True)
    ]
    truth = pa.table(
        {
            **{name: corrupted[name] for name in LABEL_KEY},
            "is_error": pa.array(is_error, pa.bool_()),
            "true_label": pa.array(true_label, pa.string()),
            "kind": pa.array(made, pa.string()),
        }
    )
    return corrupted, truth, {each: made.count(each) for each in KINDS}


def _kinds(random: np.random.RandomState, n: int, spec: CorruptionSpec) -> npt.NDArray[np.object_]:
    """Choose the kind of error to try on each label; None leaves it right."""
    kind = np.full(n, None, dtype=object)
    chosen = random.permutation(n)[: round(spec.rate * n)]
    weights = np.array([spec.kinds.get(name, 0.0) for name in KINDS])
    kind[chosen] = random.choice(
        np.array(KINDS, dtype=object), size=len(chosen), p=weights / weights.sum()
    )
    return kind


def _new_labels(
    random: np.random.RandomState,
    keys: list[LabelKey],
    texts: list[str],
    label_types: list[str],
    kind: npt.NDArray[np.object_],
) -> list[str | None]:
    """Choose the wrong type of each label that is to get one.

    The probability of taking a type for another is estimated from the labels: the share of the
    type's labels whose text has the same shape.
    """
    if len(label_types) < 2:
        return [None] * len(keys)
    column = {name: number for number, name in enumerate(label_types)}
    shapes = shapes_of(texts)
    names = sorted(set(shapes))
    row = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(label_types)))
    for shape, key in zip(shapes, keys, strict=True):
        counts[row[shape], column[key.label]] += 1
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    found: list[str | None] = [None] * len(keys)
    for at, each in enumerate(kind.tolist()):
        if each is None:
            continue
        weights = shares[row[shapes[at]]].copy() if each == "confusable" else np.zeros(0)
        if each != "confusable" or weights.sum() <= weights[column[keys[at].label]]:
            weights = np.ones(len(label_types))
        weights[column[keys[at].label]] = 0.0
        found[at] = label_types[int(random.choice(len(label_types), p=weights / weights.sum()))]
    return found


def _moved(
    con: duckdb.DuckDBPyConnection,
    right: pa.Table,
    kind: npt.NDArray[np.object_],
    spec: CorruptionSpec,
) -> dict[int, WordKey]:
    """Choose the word that each label is to move to, where there is a free one."""
    at = np.flatnonzero((kind == "caption") | (kind == "unlabelled_word"))
    con.register("labels", right)
    moving = right.select(LABEL_KEY).take(at)
    moving = moving.append_column("number", pa.array(at, pa.int64()))
    moving = moving.append_column("kind", pa.array(kind[at].tolist(), pa.string()))
    # The salt keeps this form, so that the same seed goes on making the same errors.
    salt = [f"{spec.seed}-{tuple(key)}" for key in word_keys(moving)]
    con.register("moved", moving.append_column("salt", pa.array(salt, pa.string())))
    target: dict[int, WordKey] = {}
    for number, *word in con.execute(_TARGETS).fetchall():
        target.setdefault(number, WordKey(*word))
    return target
