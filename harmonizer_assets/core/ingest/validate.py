"""Checks of staged rows: which are merged, and which are quarantined, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.ingest.layouts import LABELS, WORDS
from harmonizer_assets.core.ingest.marked import IS_MARKED
from harmonizer_assets.core.ingest.readers import TableLayout
from harmonizer_assets.core.ingest.unknown_labels import help_table
from harmonizer_assets.core.records.label import LABEL_KEY, WORD_KEY
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.records.status import Status

STATUSES: Final = tuple(status.value for status in Status)

_MAX_IMAGE_ID: Final = 512
_MAX_TEXT: Final = 10_000
_MAX_MERCHANT_NAME: Final = 2_000
_MAX_QUARANTINED_VALUE: Final = 1_000
_MISSING: Final = ("", "na", "n/a", "null", "none")
"""How programs write that a position is missing; in lower case."""


def check_rows(
    con: duckdb.DuckDBPyConnection, label_types: Sequence[str], files: Mapping[str, str]
) -> None:
    """Split the raw rows of a staging database into rows to merge and rows to quarantine.

    Makes the tables `checked_words`, `checked_labels` (with their merchant keys) and `rejected`:
    file, row number, table, reason, and the row as JSON. Two more columns are for what an import
    has left out, see `left_out`.

    Args:
        con: a database with the tables `raw_words` and `raw_labels`.
        label_types: the known label types.
        files: by table, what its sender calls the file.
    """
    con.execute(
        "CREATE TABLE rejected "
        "(file VARCHAR, row_number BIGINT, table_name VARCHAR, reason VARCHAR, row VARCHAR, "
        "source_row VARCHAR, remedy VARCHAR)"
    )
    con.register("label_types", pa.table({"label": list(label_types)}))
    con.register("label_help", help_table(con, label_types))
    con.register("merchant_keys", _merchant_keys(con))
    for table in _CHECKED:
        if not con.execute(f"FROM raw_{table.layout.name} LIMIT 1").fetchall():
            con.execute(table.sql_of_nothing)
            continue
        con.register("staged_file", pa.table({"file": [files.get(table.layout.name, "")]}))
        con.execute(table.sql)


def _merchant_keys(con: duckdb.DuckDBPyConnection) -> pa.Table:
    names = [name for (name,) in con.execute(_MERCHANT_NAMES).fetchall()]
    keys = pa.array([merchant_key(name) for name in names], pa.string())
    return pa.table({"named": pa.array(names, pa.string()), "merchant_key": keys})


def _integer(column: str) -> str:
    """Write the SQL that reads an id: whole numbers, also when written as 3.0."""
    text = f"trim({column})"
    number = f"try_cast({column} AS BIGINT)"
    # The cast alone would round 3.7. Most ids are written as the database writes them, and
    # comparing costs a third of a regular expression.
    return (
        f"CASE WHEN {number}::VARCHAR = {column} THEN {number} "
        f"WHEN regexp_full_match({text}, '[+-]?[0-9]+') THEN try_cast({text} AS BIGINT) "
        f"WHEN regexp_full_match({text}, '[+-]?[0-9]+\\.0*') "
        f"THEN try_cast(split_part({text}, '.', 1) AS BIGINT) END"
    )


def _given(column: str) -> str:
    """Write the SQL of a value that may be missing, in whatever way programs write that."""
    missing = ", ".join(f"'{word}'" for word in _MISSING)
    return f"CASE WHEN lower(trim({column})) NOT IN ({missing}) THEN trim({column}) END"


def _number(column: str) -> str:
    """Write the SQL of a number; null where it is missing, since those words are no numbers."""
    # Trimming knows all white space of Unicode and costs five times as much as the cast.
    return f"coalesce(try_cast({column} AS DOUBLE), try_cast(trim({column}) AS DOUBLE))"


def _shown(column: str) -> str:
    return f"left({column}, 40)"


def _is_missing(column: str) -> str:
    return f"coalesce(trim({column}), '') = ''"


def _id_checks(column: str) -> list[tuple[str, str]]:
    value = _integer(column)
    # A mark without the last ids deletes a whole line, receipt or image.
    narrower = WORD_KEY[WORD_KEY.index(column) :]
    is_whole = " AND ".join([IS_MARKED, *(_is_missing(other) for other in narrower)])
    return [
        (
            f"{value} IS NULL AND {_is_missing(column)} AND NOT ({is_whole})",
            f"'{column} is missing'",
        ),
        (
            f"{value} IS NULL AND NOT {_is_missing(column)}",
            f"'{column} is not a whole number: ' || {_shown(column)}",
        ),
        (f"{value} < 0", f"'{column} is negative: ' || {_shown(column)}"),
    ]


def _position_checks(column: str) -> list[tuple[str, str]]:
    value = _number(column)
    return [
        (
            f"{value} IS NULL AND {_given(column)} IS NOT NULL",
            f"'{column} is not a number: ' || {_shown(column)}",
        ),
        (f"NOT isfinite({value})", f"'{column} is not finite: ' || {_shown(column)}"),
        (
            f"{value} NOT BETWEEN -1 AND 2",
            f"'{column} is outside the image: ' || {_shown(column)} || ' (0 to 1 expected)'",
        ),
    ]


_COMMON_CHECKS: Final = [
    ("problem IS NOT NULL", "problem"),
    ("coalesce(image_id, '') = ''", "'image_id is missing'"),
    (
        f"length(image_id) > {_MAX_IMAGE_ID}",
        f"'image_id is ' || length(image_id) || ' characters; the limit is {_MAX_IMAGE_ID}'",
    ),
    *(check for column in WORD_KEY[1:] for check in _id_checks(column)),
]
_WORD_CHECKS: Final = [
    *_COMMON_CHECKS,
    (f"text IS NULL AND NOT {IS_MARKED}", "'text is missing'"),
    (
        f"length(text) > {_MAX_TEXT}",
        f"'text is ' || length(text) || ' characters; the limit is {_MAX_TEXT}'",
    ),
    *(check for column in WORDS.optional for check in _position_checks(column)),
]
_LABEL_CHECKS: Final = [
    *_COMMON_CHECKS,
    (_is_missing("label"), "'label is missing'"),
    (
        "trim(label) NOT IN (SELECT label FROM label_types)",
        f"'unknown label ' || {_shown('label')} || ': ' || "
        "coalesce((SELECT any_value(help) FROM label_help WHERE unknown = trim(label)), '') || "
        "'correct it or add it to the taxonomy file'",
    ),
    (
        "upper(trim(validation_status)) NOT IN "
        f"('', {', '.join(repr(status) for status in STATUSES)})",
        f"'unknown validation_status ' || {_shown('validation_status')} "
        f"|| ': one of {', '.join(STATUSES)}'",
    ),
    (
        f"length(merchant_name) > {_MAX_MERCHANT_NAME}",
        "'merchant_name is ' || length(merchant_name) || ' characters; "
        f"the limit is {_MAX_MERCHANT_NAME}'",
    ),
]
_IDS: Final = ", ".join(f"{_integer(column)} AS {column}" for column in WORD_KEY[1:])
_WORD_COLUMNS: Final = (
    f"image_id, {_IDS}, text, "
    + ", ".join(f"{_number(column)} AS {column}" for column in WORDS.optional)
    + ", extra::JSON AS extra"
)
_LABEL_COLUMNS: Final = (
    f"image_id, {_IDS}, trim(label) AS label, "
    "coalesce(nullif(upper(trim(validation_status)), ''), 'NONE') AS validation_status, "
    "nullif(merchant_name, '') AS merchant_name, merchant_key, extra::JSON AS extra"
)

_MERCHANT_NAMES: Final = "SELECT DISTINCT nullif(merchant_name, '') FROM raw_labels"
_WITH_MERCHANT_KEYS: Final = (
    "raw_labels JOIN merchant_keys ON nullif(merchant_name, '') IS NOT DISTINCT FROM named"
)

# Sorting and joining is done on rows without their values: those may be large.
_CHECK: Final = """
CREATE OR REPLACE TEMP TABLE examined AS
SELECT row_number, CASE {checks} END AS reason, {key} FROM raw_{table};
CREATE OR REPLACE TEMP TABLE usable AS
SELECT row_number, min(row_number) OVER (PARTITION BY {names}) AS first_row
FROM examined WHERE reason IS NULL;
CREATE OR REPLACE TABLE checked_{table} AS
SELECT row_number AS row_number_in_file, {columns}
FROM {source} SEMI JOIN (FROM usable WHERE row_number = first_row) USING (row_number);
INSERT INTO rejected BY NAME
SELECT file, row_number, '{table}' AS table_name, reason, coalesce(broken, {row}) AS row
FROM raw_{table} JOIN (FROM examined SELECT row_number, reason WHERE reason IS NOT NULL)
    USING (row_number), staged_file;
INSERT INTO rejected BY NAME
SELECT file, row_number, '{table}' AS table_name, 'the same key as row ' || first_row AS reason,
    {row} AS row
FROM raw_{table} JOIN (FROM usable WHERE row_number <> first_row) USING (row_number), staged_file;
"""


def _row_as_json(layout: TableLayout) -> str:
    fields = ", ".join(
        f"{column} := left({column}, {_MAX_QUARANTINED_VALUE})" for column in layout.columns
    )
    return f"to_json(struct_pack({fields}))::VARCHAR"


@dataclass(frozen=True)
class _Checked:
    """How the rows of one table are checked.

    Attributes:
        checks: SQL conditions and the SQL of the reason; the first that holds rejects a row.
        columns: SQL of the typed columns of the rows that pass.
        key: SQL of the typed columns of the key: of rows with the same key, the first passes.
        names: names of the key's columns.
        source: SQL of the rows.
    """

    layout: TableLayout
    checks: Sequence[tuple[str, str]]
    columns: str
    key: str
    names: Sequence[str]
    source: str

    @property
    def sql(self) -> str:
        """Return the statements that check the table."""
        return _CHECK.format(
            table=self.layout.name,
            checks="\n".join(f"WHEN {when} THEN {reason}" for when, reason in self.checks),
            columns=self.columns,
            key=self.key,
            names=", ".join(self.names),
            source=self.source,
            row=_row_as_json(self.layout),
        )

    @property
    def sql_of_nothing(self) -> str:
        """Return what makes the same table of no rows; planning the checks takes a while."""
        return (
            f"CREATE OR REPLACE TABLE checked_{self.layout.name} AS "
            f"SELECT row_number AS row_number_in_file, {self.columns} FROM {self.source} LIMIT 0"
        )


_CHECKED: Final = (
    _Checked(WORDS, _WORD_CHECKS, _WORD_COLUMNS, f"image_id, {_IDS}", WORD_KEY, "raw_words"),
    _Checked(
        LABELS,
        _LABEL_CHECKS,
        _LABEL_COLUMNS,
        f"image_id, {_IDS}, trim(label) AS label",
        LABEL_KEY,
        _WITH_MERCHANT_KEYS,
    ),
)
