"""What is in files that arrive, before they are taken up: counts, gaps, and what cannot be used.

The same figures are shown by `harmonizer check`, which changes nothing, and by a run about each
batch that it has ingested.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.core.base.settings import LimitSettings
from harmonizer_assets.core.ingest.entries import InboxBatch
from harmonizer_assets.core.ingest.layouts import LABELS, WORDS
from harmonizer_assets.core.ingest.left_out import stage_left_out
from harmonizer_assets.core.ingest.positions import OUTSIDE
from harmonizer_assets.core.ingest.readers import SUFFIXES, column_names
from harmonizer_assets.core.ingest.staging import private_database, stage_batch
from harmonizer_assets.core.ingest.validate import check_rows
from harmonizer_assets.core.records.input_summary import InputSummary, Rejected
from harmonizer_assets.core.records.label import WORD_COLUMNS
from harmonizer_assets.core.store.warehouse import Connection

_EXAMPLES: Final = 50
"""Different reasons that are listed."""
_REMEDIES: Final = (
    ("the same key", "keep one of them"),
    ("image_id is missing", "every row names the four ids of its word"),
    ("text is missing", "give the text, or leave the row out"),
    ("label is missing", "give the label, or leave the row out"),
    ("unknown validation_status", "correct it"),
    ("unknown label", "correct it, map it with --map, or give its taxonomy with --taxonomy"),
    (" is missing", "every row names the four ids of its word"),
    ("is not a whole number", "ids are whole numbers"),
    ("is negative", "ids are 0 or more"),
    ("is outside the image", "positions are shares of the image: divide by its width or height"),
    ("is not a number", "positions are numbers in 0..1"),
    ("is not finite", "leave the position empty"),
    ("the limit is", "shorten it"),
    ("UTF-8", "save the file as UTF-8"),
    ("", "correct the row"),
)
"""Parts of reasons, and what to do about them; the first that fits counts."""

# UTF-8 that was read as Latin-1 or Windows-1252, and the sign for what could not be read.
_MIS_ENCODED: Final = (
    r"[\x{00C2}\x{00C3}\x{00E2}][\x{0080}-\x{00BF}\x{20AC}\x{201A}\x{0192}\x{201E}\x{2026}\x{2020}"
    r"\x{2021}\x{02C6}\x{2030}\x{0160}\x{2039}\x{0152}\x{2018}\x{2019}\x{201C}\x{201D}\x{2022}"
    r"\x{2122}\x{0161}\x{203A}\x{0153}\x{017E}\x{0178}]|\x{FFFD}"
)
_POSITIONS: Final = "(x IS NULL OR y IS NULL OR width IS NULL OR height IS NULL)"
_WORDS: Final = f"""
SELECT count(*) AS words, count(DISTINCT (image_id, receipt_id)) AS receipts,
    count(*) FILTER ({_POSITIONS}) AS without_position,
    count(*) FILTER {OUTSIDE} AS outside,
    count(*) FILTER (regexp_matches(text, '{_MIS_ENCODED}')) AS mis_encoded
FROM checked_words
"""
_LABELS: Final = f"""
SELECT count(*) AS labels, count(DISTINCT merchant_key) AS merchants,
    count(*) FILTER (merchant_name IS NULL) AS without_merchant,
    count(*) FILTER (($has_words) AND ({WORD_COLUMNS}) NOT IN
        (SELECT ({WORD_COLUMNS}) FROM checked_words)) AS without_word
FROM checked_labels
"""
_COUNTS: Final = """
SELECT {column}, count(*) FROM checked_labels GROUP BY ALL ORDER BY count(*) DESC, 1
"""
_REASONS: Final = f"""
SELECT table_name, regexp_replace(reason, 'as row [0-9]+$', 'as an earlier row') AS reason,
    count(*) AS rows, arg_min(file, rowid) AS file, min(row_number) AS row_number,
    arg_min(source_row, rowid) AS source_row, any_value(remedy) AS remedy
FROM rejected GROUP BY ALL ORDER BY rows DESC, reason LIMIT {_EXAMPLES}
"""
_REJECTED: Final = """
SELECT count(*) AS rejected, count(*) FILTER (reason LIKE 'the same key%') AS duplicates
FROM rejected
"""


def summary_of(con: Connection) -> InputSummary:
    """Sum up the checked rows of a staging database; see `validate.check_rows`."""
    words = _row(con, _WORDS)
    labels = _row(con, _LABELS, {"has_words": bool(words["words"])})
    return InputSummary(
        **words,
        **labels,
        **_row(con, _REJECTED),
        label_types=_counts(con, "label"),
        statuses=_counts(con, "validation_status"),
        reasons=tuple(
            Rejected(**{**row, "remedy": row["remedy"] or _remedy(row["reason"])})
            for row in _rows(con, _REASONS)
        ),
    )


def check_tables(
    paths: Sequence[Path],
    label_types: Sequence[str],
    limits: LimitSettings,
    on_progress: ProgressFn | None = None,
    *,
    problems: Path | None = None,
) -> InputSummary:
    """Read a words file, a labels file, or both, and sum up what an ingest would do with them.

    Args:
        paths: the files, or a folder that holds them as `words.*` and `labels.*`.
        label_types: the known label types.
        limits: how large rows may be.
        on_progress: called with the number of rows.
        problems: what an import has left out of its source, see `left_out`.

    Raises:
        InputError: a file cannot be read, or there are several of one kind.
    """
    found = _tables(paths, limits)
    batch = InboxBatch(
        Path(),
        found.get(WORDS.name),
        found.get(LABELS.name),
        utc_now(),
        "",
        "",
        submitted=False,
        origins={name: str(path) for name, path in found.items()},
    )
    with _temporary_database() as con:
        stage_batch(con, batch, limits, on_progress)
        check_rows(con, label_types, batch.origins)
        stage_left_out(con, problems)
        return summary_of(con)


@contextmanager
def _temporary_database() -> Iterator[Connection]:
    with tempfile.TemporaryDirectory() as folder, private_database(Path(folder)) as (con, _):
        yield con


def _tables(paths: Sequence[Path], limits: LimitSettings) -> dict[str, Path]:
    """Tell words from labels by their columns.

    Raises:
        InputError: see `check_tables`.
    """
    found: dict[str, Path] = {}
    for path in _files(paths):
        table = _kind(path, limits)
        if table in found:
            raise InputError(
                f"{found[table]} and {path}: two files of {table}: check them one after the other"
            )
        found[table] = path
    return found


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = [
            one
            for one in sorted(path.iterdir())
            if one.stem in (WORDS.name, LABELS.name) and one.suffix.lower() in SUFFIXES
        ]
        if not inside:
            raise InputError(
                f"{path}: the folder has no words.* and no labels.*: name files, or say of which "
                "format they are with --format"
            )
        yield from inside


def _kind(path: Path, limits: LimitSettings) -> str:
    names = column_names(path, limits)
    if "label" in names:
        return LABELS.name
    if "text" in names:
        return WORDS.name
    raise InputError(
        f"{path}: neither words nor labels: it has no column text and no column label (found: "
        f"{', '.join(names)[:200]}); say of which format it is with --format"
    )


def _remedy(reason: str) -> str:
    return next(remedy for part, remedy in _REMEDIES if part in reason)


def _counts(con: Connection, column: str) -> Mapping[str, int]:
    return dict(con.execute(_COUNTS.format(column=column)).fetchall())


def _row(con: Connection, sql: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return _rows(con, sql, parameters)[0]


def _rows(
    con: Connection, sql: str, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    return con.execute(sql, dict(parameters or {})).to_arrow_table().to_pylist()
