"""Export of tables to files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.files import staged
from harmonizer_assets.core.base.formulas import MARKER, NUMBER, REPLACEMENT, START, escaped
from harmonizer_assets.core.base.sql import literal, quoted
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.extra import ExtraAs, with_extra_columns
from harmonizer_assets.core.store.warehouse import Warehouse

EXPORTABLE: Final = (
    "words",
    "labels",
    "quarantine",
    "batches",
    "merchant_names",
    "deletions",
    "similarity_matches",
    "llm_verdicts",
    "judgements",
    "outliers",
    "label_decisions",
    "rejected_labels",
    "dead_letters",
    "partition_failures",
    "llm_usage",
    "merchant_alarms",
    "receipt_alarms",
    "findings",
    "label_patterns",
    "missing_labels",
    "validation_queue",
    "proposals",
    "review_queue",
    "review_answers",
    "review_withdrawals",
    "labels_corrected",
    "decision_precision",
    "label_operations",
    "label_corrections",
    "label_row_changes",
    "label_undos",
    "pushed_corrections",
    "label_rules",
    "label_contradictions",
    "suspicion_models",
    "quality_history",
    "run_history",
)
_WITH_EXTRA_COLUMNS: Final = ("words", "labels", "labels_corrected")
_EXPORT_FORMATS: Final[dict[str, tuple[ExtraAs, str]]] = {
    ".parquet": ("typed", "FORMAT parquet, COMPRESSION zstd"),
    ".csv": ("text", "FORMAT csv, HEADER true"),
    ".ndjson": ("json", "FORMAT json"),
    ".jsonl": ("json", "FORMAT json"),
}


def export_table(
    warehouse: Warehouse, table: str, path: Path, *, exact: bool = False, overwrite: bool = False
) -> int:
    """Write a table or view to Parquet, CSV or NDJSON, by the file's suffix.

    Args:
        warehouse: holds the table.
        table: one of `EXPORTABLE`. `words` and `labels` get their extra columns back.
        path: appears as a whole once it is complete.
        exact: whether a CSV holds every text as it is, for programs. Otherwise texts that a
            spreadsheet would run as formulas are escaped; see `base.formulas`. Other formats are
            always exact.
        overwrite: whether a file that is there is replaced.

    Returns:
        The number of rows.

    Raises:
        InputError: no such table, another suffix, the file is there already or cannot be written.
    """
    extra_as, options = _options(table, path)
    check_target(path, overwrite=overwrite)
    is_safe = exact or path.suffix.lower() != ".csv"
    try:
        # Made here, so that a file that cannot be written is told from a table that cannot be read.
        with staged(path) as partial:
            partial.touch()
            return warehouse.read(
                lambda con: _copy(con, table, partial, extra_as, options, is_safe=is_safe)
            )
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def table_query(con: Connection, table: str, extra_as: ExtraAs) -> str:
    """Write the query of a table or view as it leaves the home: with its extra columns.

    Args:
        con: a connection to the tables, or to a copy of them.
        table: one of `EXPORTABLE`.
        extra_as: what the format can hold.
    """
    if table in _WITH_EXTRA_COLUMNS:
        return with_extra_columns(con, table, extra_as)
    return f"SELECT * FROM {quoted(table)}"


def _copy(
    con: Connection, table: str, path: Path, extra_as: ExtraAs, options: str, *, is_safe: bool
) -> int:
    source = table_query(con, table, extra_as)
    if not is_safe:
        source = _without_formulas(con, source)
    rows = con.execute(f"COPY ({source}) TO {literal(str(path))} ({options})").fetchone()
    return int(rows[0]) if rows else 0


def _without_formulas(con: Connection, source: str) -> str:
    """Write the query that escapes formulas, and marks the rows if there were any."""
    columns = [(row[0], row[1]) for row in con.execute(f"DESCRIBE {source}").fetchall()]
    shown, differing = [], []
    for name, kind in columns:
        value = quoted(name)
        if kind in {"VARCHAR", "JSON"}:
            text = f"{value}::VARCHAR"
            replaced = f"regexp_replace({text}, {literal(START)}, {literal(REPLACEMENT)}, 'g')"
            number = f"regexp_full_match({text}, {literal(NUMBER)})"
            differing.append(f"coalesce({text} <> {replaced} AND NOT {number}, false)")
            value = f"CASE WHEN {number} THEN {text} ELSE {replaced} END"
        shown.append(f"{value} AS {quoted(escaped(name))}")
    is_marked = any(escaped(name) != name for name, _ in columns)
    if not is_marked and differing:
        found = con.execute(f"SELECT bool_or({' OR '.join(differing)}) FROM ({source})").fetchone()
        is_marked = bool(found and found[0])
    if not is_marked:
        return source
    return f"SELECT {', '.join(shown)}, true AS {quoted(MARKER)} FROM ({source})"


def _options(table: str, path: Path) -> tuple[ExtraAs, str]:
    """Check the arguments; return the options of DuckDB's COPY for the format."""
    if table not in EXPORTABLE:
        raise InputError(f"no table {table!r}: choose one of {', '.join(EXPORTABLE)}")
    options = _EXPORT_FORMATS.get(path.suffix.lower())
    if options is None:
        raise InputError(
            f"{path}: the suffix names the format: one of {', '.join(_EXPORT_FORMATS)}"
        )
    return options


def check_target(path: Path, *, overwrite: bool) -> None:
    """Check that a file can be made.

    Raises:
        InputError: its folder is not there or cannot be entered, or it is there already and must
            not be replaced.
    """
    try:
        has_folder, is_there = path.parent.is_dir(), path.exists()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    if not has_folder:
        raise InputError(f"{path}: there is no folder {path.parent}")
    if is_there and not overwrite:
        raise InputError(
            f"{path} is there already: give another file, or --overwrite to replace it"
        )
