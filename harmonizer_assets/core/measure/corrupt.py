"""Corruption: put known errors into labels that are taken as right, to measure what is found.

The errors are those that people and models make; `noise` holds a file for each family of kinds.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.files import staged
from harmonizer_assets.core.base.sql import quoted
from harmonizer_assets.core.ingest.readers import read_table
from harmonizer_assets.core.measure.noise import (
    ANNOTATOR_COLUMN,
    COMMON_KINDS,
    FORGOTTEN,
    SIMULATED_ANNOTATORS,
    SINGLE_KINDS,
    Confusion,
    Ledger,
    Sheet,
    make_single_mistakes,
    shortfall,
)
from harmonizer_assets.core.records.label import (
    LABEL_COLUMNS,
    LABEL_KEY,
    WORD_COLUMNS,
    WORD_KEY,
    LabelKey,
    label_keys,
)
from harmonizer_assets.core.records.status import Status

KINDS: Final = (*SINGLE_KINDS, *COMMON_KINDS)


@dataclass(frozen=True)
class CorruptionSpec:
    """Which errors to make.

    Attributes:
        rate: share of the labels to make wrong or to remove, 0 to 0.5.
        validated: share of the labels left right whose status becomes VALID; the others and the
            wrong ones become PENDING.
        seed: the same seed makes the same errors, in whatever order the rows stand.
        kinds: how often each kind of error is tried, see `KINDS`; of `forgotten`, labels are
            removed.
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
    """The files that were written, and what they hold.

    Attributes:
        words, labels, truth: the files.
        n_labels: labels in the file.
        errors: how many of them are wrong, by the kinds that were tried.
        forgotten: labels that are not in the file and should be.
        notes: what is simulated, and which kinds found too few places, in sentences.
    """

    words: Path
    labels: Path
    truth: Path
    n_labels: int
    errors: Mapping[str, int]
    forgotten: int = 0
    notes: tuple[str, ...] = ()


def corrupt_files(
    words: Path, labels: Path, out: Path, spec: CorruptionSpec, *, force: bool = False
) -> Corrupted:
    """Write words and labels with known errors, and the truth about them.

    The labels are taken as right, except for those with status INVALID, which are left out. Extra
    columns are kept. A label that moves to a word of the receipt that carries none takes its status
    and merchant along; its key in `truth.parquet` is the new one, with no `true_label`. Labels that
    are forgotten are the last rows there, with `missing` true, and not in `labels.parquet`; `kind`
    says of each error what it is, and errors of one `mistake` were made together.

    Args:
        words: as for `harmonizer run`.
        labels: as for `harmonizer run`.
        out: folder for `words.parquet`, `labels.parquet` and `truth.parquet`.
        spec: what errors to make.
        force: replace files that are there.

    Raises:
        InputError: a file cannot be read or written, lacks a column or holds a key twice, the
            spec is out of range, or the labels name no merchant who could have a habit.
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
    made = _corrupt(word_table, label_table, labels, spec)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for table, file in zip((word_table, made.labels, made.truth), files, strict=True):
            with staged(file) as partial:
                pq.write_table(table, partial)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error
    return Corrupted(
        files[0], files[1], files[2], made.labels.num_rows, made.errors, made.forgotten, made.notes
    )


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


@dataclass(frozen=True)
class _Made:
    """Labels with errors and the truth about them; see `Corrupted`."""

    labels: pa.Table
    truth: pa.Table
    errors: dict[str, int]
    forgotten: int
    notes: tuple[str, ...]


def _corrupt(words: pa.Table, labels: pa.Table, path: Path, spec: CorruptionSpec) -> _Made:
    con = duckdb.connect()
    _register_words(con, words)
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
    random = np.random.RandomState(spec.seed)
    confusion = Confusion(texts, [key.label for key in keys])
    ledger = Ledger(keys)
    total = sum(spec.kinds.values())
    single = sum(weight for kind, weight in spec.kinds.items() if kind in SINGLE_KINDS)
    notes = make_single_mistakes(
        ledger,
        con,
        right,
        keys,
        texts,
        confusion,
        random,
        spec.seed,
        spec.rate * single / total,
        spec.kinds,
    )
    notes += _make_common_mistakes(ledger, con, right, confusion, spec)
    is_error = np.array([at in ledger.changed for at in range(len(keys))], dtype=bool)
    validated = ~is_error & (random.random_sample(len(keys)) < spec.validated)
    corrupted = _changed(right, ledger, validated.tolist())
    errors = {kind: ledger.count(kind) for kind, each in spec.kinds.items() if each > 0}
    forgotten = errors.pop(FORGOTTEN, 0)
    return _Made(corrupted, _truth(corrupted, keys, ledger), errors, forgotten, tuple(notes))


def _register_words(con: duckdb.DuckDBPyConnection, words: pa.Table) -> None:
    """Make the view `words`, with null for positions that are not known."""
    con.register("given_words", words)
    places = ", ".join(
        f"TRY_CAST({quoted(name) if name in words.column_names else 'NULL'} AS DOUBLE) AS {name}"
        for name in ("x", "y", "width", "height")
    )
    con.execute(f"CREATE TEMP VIEW words AS SELECT {WORD_COLUMNS}, text, {places} FROM given_words")


def _make_common_mistakes(
    ledger: Ledger,
    con: duckdb.DuckDBPyConnection,
    right: pa.Table,
    confusion: Confusion,
    spec: CorruptionSpec,
) -> list[str]:
    """Make mistakes that change several labels at once; the last of a kind may be cut short.

    Returns:
        Sentences on what is simulated, and which kinds found too few places.
    """
    kinds = [kind for kind in COMMON_KINDS if spec.kinds.get(kind, 0.0) > 0]
    if not kinds or right.num_rows == 0:
        return []
    sheet = Sheet.read(con, right)
    notes = []
    for kind in kinds:
        wanted = round(spec.rate * right.num_rows * spec.kinds[kind] / sum(spec.kinds.values()))
        # A generator of its own: other kinds make the same mistakes without this one.
        random = np.random.RandomState([spec.seed, zlib.crc32(kind.encode())])
        made = 0
        for mistake in COMMON_KINDS[kind](sheet, confusion, random):
            if made == wanted:
                break
            made += ledger.apply(mistake, kind, wanted - made)
        if made < wanted:
            notes.append(shortfall(kind, made, wanted))
    if "annotator_habit" in kinds and sheet.annotators is None:
        notes.append(
            f"annotators are simulated, {SIMULATED_ANNOTATORS} with receipts at random, since the "
            f"labels have no column {ANNOTATOR_COLUMN}"
        )
    return notes


def _changed(right: pa.Table, ledger: Ledger, validated: Sequence[bool]) -> pa.Table:
    """Make the table of labels with errors: changed, without the removed, with the added."""
    kept = [at for at in range(right.num_rows) if at not in ledger.removed]
    sources = kept + [at for at, _ in ledger.added]
    keys = list(label_keys(right))
    now = [ledger.changed[at].key if at in ledger.changed else keys[at] for at in kept]
    now += [entry.key for _, entry in ledger.added]
    statuses = [Status.VALID if validated[at] else Status.PENDING for at in kept]
    statuses += [Status.PENDING] * len(ledger.added)
    table = right.take(pa.array(sources, pa.int64()))
    columns = {**_key_columns(now), "validation_status": [str(each) for each in statuses]}
    for name, values in columns.items():
        place = table.column_names.index(name)
        column = pa.array(values, table.schema.field(name).type)
        table = table.set_column(place, name, column)
    return table


def _truth(corrupted: pa.Table, keys: Sequence[LabelKey], ledger: Ledger) -> pa.Table:
    """Make the truth about the labels with errors, and after them about those that are missing."""
    wrong = {entry.key: entry for entry in ledger.changed.values()}
    wrong |= {entry.key: entry for _, entry in ledger.added}
    now = list(label_keys(corrupted))
    missing = [ledger.removed[at] for at in sorted(ledger.removed)]
    entries = [*(wrong.get(key) for key in now), *missing]
    rows = [*now, *(entry.key for entry in missing)]
    true_labels = [wrong[key].true_label if key in wrong else key.label for key in now]
    true_labels += [entry.true_label for entry in missing]
    kinds = {name: corrupted.schema.field(name).type for name in LABEL_KEY}
    return pa.table(
        {
            **{name: pa.array(values, kinds[name]) for name, values in _key_columns(rows).items()},
            "is_error": pa.array([key in wrong for key in rows], pa.bool_()),
            "true_label": pa.array(true_labels, pa.string()),
            "kind": pa.array([entry and entry.kind for entry in entries], pa.string()),
            "mistake": pa.array([entry and entry.mistake for entry in entries], pa.string()),
            "missing": pa.array([*(False for _ in now), *(True for _ in missing)], pa.bool_()),
        }
    )


def _key_columns(keys: Sequence[LabelKey]) -> dict[str, list[Any]]:
    """Return the columns of some labels' keys."""
    return {name: [key[at] for key in keys] for at, name in enumerate(LABEL_KEY)}
