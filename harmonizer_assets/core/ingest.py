"""Ingest: batches of words and labels from the inbox into the warehouse."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.errors import InputError, StoreError
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.merchants import merchant_key
from harmonizer_assets.core.progress import Progress, ProgressFn
from harmonizer_assets.core.readers import SUFFIXES, TableLayout, check_file, stage_rows
from harmonizer_assets.core.taxonomy import Taxonomy
from harmonizer_assets.core.warehouse import Warehouse

STAGE: Final = "ingest"

WORDS: Final = TableLayout(
    "words",
    ("image_id", "receipt_id", "line_id", "word_id", "text"),
    ("x", "y", "width", "height"),
)
LABELS: Final = TableLayout(
    "labels",
    (
        "image_id",
        "receipt_id",
        "line_id",
        "word_id",
        "label",
        "validation_status",
        "merchant_name",
    ),
    derived=("merchant_key",),
)
STATUSES: Final = ("VALID", "INVALID", "PENDING", "NEEDS_REVIEW", "NONE")

_DONE, _FAILED = ".done", ".failed"
_MANIFEST: Final = "batch.json"
_MAX_IMAGE_ID: Final = 512
_MAX_TEXT: Final = 10_000
_MAX_MERCHANT_NAME: Final = 2_000
_MAX_QUARANTINED_VALUE: Final = 1_000
_STAGING_MEMORY: Final = "1GB"

_WORD_KEY: Final = ("image_id", "receipt_id", "line_id", "word_id")


@dataclass(frozen=True)
class Batch:
    """A folder of the inbox that holds a words file, a labels file, or both."""

    folder: Path
    words: Path | None
    labels: Path | None
    time: dt.datetime
    source: str
    submitted: bool
    """Whether the files are the Harmonizer's own copies, to be removed once ingested."""

    @property
    def files(self) -> list[tuple[TableLayout, Path]]:
        """The files that there are, with their layouts."""
        both = ((WORDS, self.words), (LABELS, self.labels))
        return [(layout, path) for layout, path in both if path is not None]


@dataclass(frozen=True)
class BatchReport:
    """What ingesting one batch did; `unchanged` when the same batch had been ingested before."""

    source: str
    batch_id: str
    unchanged: bool = False
    words_read: int = 0
    words_inserted: int = 0
    words_updated: int = 0
    labels_read: int = 0
    labels_inserted: int = 0
    labels_updated: int = 0
    quarantined: int = 0


@dataclass(frozen=True)
class IngestReport:
    """What ingesting the inbox did.

    Attributes:
        batches: one report per readable batch.
        failed: source and error of each batch that could not be read; it lies in `.failed`.
    """

    batches: list[BatchReport] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def total(self, name: str) -> int:
        """Sum one of the counts over all batches."""
        return sum(getattr(batch, name) for batch in self.batches)


def submit_batch(
    home: Home,
    words: Path | None,
    labels: Path | None,
    *,
    time: dt.datetime | None = None,
    source: str | None = None,
) -> Path:
    """Copy files into the inbox as one batch.

    Args:
        home: the home whose inbox it is.
        words: a words file or None.
        labels: a labels file or None.
        time: the batch's time, which decides against other batches; default is now.
        source: names where the files come from, if not themselves. They are not checked then:
            what cannot be read is set aside when it is ingested.

    Returns:
        The batch's folder.

    Raises:
        InputError: a file cannot be read or lacks a column; nothing was copied.
    """
    given = [(layout, path) for layout, path in ((WORDS, words), (LABELS, labels)) if path]
    if not given:
        raise InputError("a batch needs a words file, a labels file, or both")
    if source is None:
        for layout, path in given:
            check_file(path, layout)
    home.ensure()
    now = dt.datetime.now(dt.UTC)
    name = f"{now:%Y%m%dT%H%M%S.%f}-{secrets.token_hex(3)}"
    partial = home.inbox / f".{name}"
    try:
        partial.mkdir()
        for layout, path in given:
            shutil.copyfile(path, partial / f"{layout.name}{path.suffix.lower()}")
        manifest = {
            "time": (time or now).isoformat(),
            "source": {
                layout.name: str(path) if source is None else f"{source}/{path.name}"
                for layout, path in given
            },
        }
        (partial / _MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False))
        return partial.rename(home.inbox / name)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise StoreError(f"{home.inbox}: the batch cannot be copied: {error.strerror}") from error


class Ingest:
    """Ingests the batches of a home's inbox.

    A batch is known by its content: the same files again change nothing. Where batches disagree
    about a row, the one with the later time wins, in whatever order they are ingested.
    """

    def __init__(self, home: Home, warehouse: Warehouse, taxonomy: Taxonomy) -> None:
        self._home = home
        self._warehouse = warehouse
        self._taxonomy = taxonomy

    def pending(self) -> list[Batch]:
        """The batches in the inbox, oldest first.

        A folder is a batch when its name does not begin with a dot and it holds `words.*` or
        `labels.*`; copy files into a folder with a dot and rename it when it is complete.
        """
        if not self._home.inbox.is_dir():
            return []
        found = []
        for folder in sorted(self._home.inbox.iterdir()):
            if not folder.name.startswith(".") and folder.is_dir():
                with contextlib.suppress(FileNotFoundError):  # another run has just taken it
                    batch = _batch(folder)
                    if batch is not None:
                        found.append(batch)
        return sorted(found, key=lambda batch: (batch.time, batch.folder.name))

    def waiting(self) -> str | None:
        """Names what lies in the inbox: a hash that changes with every arrival; None when empty."""
        batches = self.pending()
        if not batches:
            return None
        digest = hashlib.sha256()
        for batch in batches:
            for _, path in batch.files:
                with contextlib.suppress(FileNotFoundError):
                    state = path.stat()
                    content = f"{path.name}\n{state.st_size}\n{state.st_mtime_ns}\n"
                    digest.update(f"{batch.folder.name}\n{content}".encode())
        return digest.hexdigest()[:16]

    def ingest_pending(self, on_progress: ProgressFn | None = None) -> IngestReport:
        """Ingest all pending batches; one that cannot be read is set aside and reported."""
        report = IngestReport()
        for batch in self.pending():
            try:
                report.batches.append(self.ingest(batch, on_progress))
            except FileNotFoundError:
                continue  # another run has ingested it meanwhile
            except InputError as error:
                report.failed.append((batch.source, str(error)))
                self._set_aside(batch, str(error))
            else:
                self._remove(batch)
        return report

    def ingest(self, batch: Batch, on_progress: ProgressFn | None = None) -> BatchReport:
        """Ingest one batch in one transaction; its folder stays where it is.

        Raises:
            InputError: a file cannot be read; nothing was ingested.
            StoreError: the database or the disk is not usable; nothing was ingested.
        """
        batch_id = self._batch_id(batch)
        known = self._warehouse.query(
            "SELECT 1 FROM batches WHERE batch_id = $id", {"id": batch_id}
        )
        if known.num_rows:
            return BatchReport(batch.source, batch_id, unchanged=True)
        with self._staging() as (con, staging_file):
            read = {}
            for layout, path in batch.files:
                check_file(path, layout)
                read[layout.name] = stage_rows(con, path, layout)
                if on_progress:
                    on_progress(Progress(STAGE, 0, 0, sum(read.values()), 0))
            for layout in (WORDS, LABELS):
                if layout.name not in read:
                    _stage_nothing(con, layout)
            self._check_rows(con, batch)
            con.close()
            return self._warehouse.write(
                lambda main: self._merge(main, staging_file, batch, batch_id, read)
            )

    def _batch_id(self, batch: Batch) -> str:
        """Hash the files, and the label types, since those decide what is quarantined."""
        digest = hashlib.sha256(json.dumps(sorted(self._taxonomy.names)).encode())
        for layout, path in batch.files:
            digest.update(f"\n{layout.name}{path.suffix.lower()}\n".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()[:32]

    @contextlib.contextmanager
    def _staging(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
        """A private database: parsing takes long and must not hold the warehouse's lock."""
        self._home.scratch.mkdir(parents=True, exist_ok=True)
        file = self._home.scratch / f"ingest-{os.getpid()}-{secrets.token_hex(4)}.duckdb"
        try:
            con = duckdb.connect(
                file,
                config={
                    "temp_directory": str(self._home.scratch),
                    "memory_limit": _STAGING_MEMORY,
                    "preserve_insertion_order": "false",
                    "autoinstall_known_extensions": "false",
                },
            )
            try:
                yield con, file
            finally:
                con.close()
        except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.FatalException) as error:
            first = str(error).splitlines()[0]
            raise StoreError(
                f"{self._home.scratch}: staging failed: {first} (make room and run again; "
                "nothing was ingested)"
            ) from error
        finally:
            for leftover in self._home.scratch.glob(f"{file.name}*"):
                leftover.unlink(missing_ok=True)

    def _check_rows(self, con: duckdb.DuckDBPyConnection, batch: Batch) -> None:
        """Split the raw rows into `checked_*` tables and `rejected`."""
        con.execute(_REJECTED_TABLE)
        con.register("label_types", pa.table({"label": list(self._taxonomy.names)}))
        for layout, checks, columns in (
            (WORDS, _WORD_CHECKS, _WORD_COLUMNS),
            (LABELS, _LABEL_CHECKS, _LABEL_COLUMNS),
        ):
            path = batch.words if layout is WORDS else batch.labels
            key = ", ".join(_WORD_KEY if layout is WORDS else (*_WORD_KEY, "label"))
            con.register("staged_file", pa.table({"file": [path.name if path else ""]}))
            con.execute(
                _CHECK.format(
                    table=layout.name,
                    checks="\n".join(f"WHEN {when} THEN {reason}" for when, reason in checks),
                    columns=columns,
                    key=key,
                    row=_row_as_json(layout),
                )
            )
        names = con.execute("SELECT DISTINCT merchant_name FROM checked_labels").fetchall()
        con.register(
            "merchant_keys",
            pa.table(
                {
                    "merchant_name": pa.array([name for (name,) in names], pa.string()),
                    "merchant_key": pa.array([merchant_key(name) for (name,) in names]),
                }
            ),
        )
        con.execute(
            "CREATE TABLE keyed_labels AS SELECT l.*, k.merchant_key FROM checked_labels l "
            "JOIN merchant_keys k ON l.merchant_name IS NOT DISTINCT FROM k.merchant_name"
        )

    def _merge(
        self,
        con: duckdb.DuckDBPyConnection,
        staging_file: Path,
        batch: Batch,
        batch_id: str,
        read: dict[str, int],
    ) -> BatchReport:
        if con.execute("SELECT 1 FROM batches WHERE batch_id = $1", [batch_id]).fetchone():
            return BatchReport(batch.source, batch_id, unchanged=True)
        quoted = str(staging_file).replace("'", "''")
        con.execute(f"ATTACH IF NOT EXISTS '{quoted}' AS staged (READ_ONLY)")
        parameters = {"batch_id": batch_id, "batch_time": batch.time}
        words = _merge_table(con, "words", "staged.checked_words", _WORD_KEY, parameters)
        labels = _merge_table(
            con, "labels", "staged.keyed_labels", (*_WORD_KEY, "label"), parameters
        )
        rejected = con.execute(
            "INSERT INTO quarantine BY NAME "
            "SELECT $batch_id AS batch_id, * EXCLUDE (row), row::JSON AS row, "
            "now() AS quarantined_at FROM staged.rejected",
            {"batch_id": batch_id},
        ).fetchone()
        report = BatchReport(
            batch.source,
            batch_id,
            words_read=read.get("words", 0),
            words_inserted=words[0],
            words_updated=words[1],
            labels_read=read.get("labels", 0),
            labels_inserted=labels[0],
            labels_updated=labels[1],
            quarantined=int(rejected[0]) if rejected else 0,
        )
        con.execute(
            "INSERT INTO batches BY NAME SELECT $batch_id AS batch_id, $source AS source, "
            "$batch_time AS batch_time, now() AS ingested_at, $words_read AS words_read, "
            "$words_inserted AS words_inserted, $words_updated AS words_updated, "
            "$labels_read AS labels_read, $labels_inserted AS labels_inserted, "
            "$labels_updated AS labels_updated, $quarantined AS quarantined",
            {
                **{
                    name: value
                    for name, value in vars(report).items()
                    if name not in {"unchanged", "batch_id", "source"}
                },
                "batch_id": batch_id,
                "source": batch.source,
                "batch_time": batch.time,
            },
        )
        return report

    def _remove(self, batch: Batch) -> None:
        if batch.submitted:
            shutil.rmtree(batch.folder, ignore_errors=True)
        else:
            _move(batch.folder, self._home.inbox / _DONE)

    def _set_aside(self, batch: Batch, error: str) -> None:
        row = {
            "batch_id": batch.folder.name,
            "file": batch.source,
            "row_number": None,
            "table_name": None,
            "reason": error,
        }
        rows = pa.Table.from_pylist([row])
        self._warehouse.write(
            lambda con: con.register("rows", rows).execute(
                "INSERT INTO quarantine BY NAME SELECT *, now() AS quarantined_at FROM rows"
            )
        )
        target = _move(batch.folder, self._home.inbox / _FAILED)
        if target is not None:
            (target / "error.txt").write_text(error + "\n", encoding="utf-8")


def _batch(folder: Path) -> Batch | None:
    files = {
        layout.name: folder / f"{layout.name}{suffix}"
        for layout in (WORDS, LABELS)
        for suffix in SUFFIXES
        if (folder / f"{layout.name}{suffix}").is_file()
    }
    if not files:
        return None
    manifest: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        manifest = content if isinstance(content, dict) else {}
    newest = max(path.stat().st_mtime for path in files.values())
    time = dt.datetime.fromtimestamp(newest, dt.UTC)
    with contextlib.suppress(ValueError, TypeError):
        time = dt.datetime.fromisoformat(manifest["time"]) if "time" in manifest else time
    if time.tzinfo is None:
        time = time.replace(tzinfo=dt.UTC)
    source = manifest.get("source")
    submitted = isinstance(source, dict)
    return Batch(
        folder,
        files.get("words"),
        files.get("labels"),
        time,
        ", ".join(str(path) for path in source.values())
        if isinstance(source, dict)
        else folder.name,
        submitted,
    )


def _move(folder: Path, target: Path) -> Path | None:
    """Move a batch folder aside; None when another run has moved it already."""
    target.mkdir(exist_ok=True)
    destination = target / folder.name
    if destination.exists():
        destination = target / f"{folder.name}-{secrets.token_hex(3)}"
    with contextlib.suppress(FileNotFoundError):
        return folder.rename(destination)
    return None


_REJECTED_TABLE: Final = (
    "CREATE TABLE rejected "
    "(file VARCHAR, row_number BIGINT, table_name VARCHAR, reason VARCHAR, row VARCHAR)"
)


def _integer(column: str) -> str:
    """SQL that reads an id: whole numbers, also when written as 3.0."""
    text = f"trim({column})"
    return (
        f"coalesce(try_cast(CASE WHEN regexp_full_match({text}, '[+-]?[0-9]+') THEN {text} END "
        f"AS BIGINT), try_cast(CASE WHEN regexp_full_match({text}, '[+-]?[0-9]+\\.0*') "
        f"THEN split_part({text}, '.', 1) END AS BIGINT))"
    )


def _number(column: str) -> str:
    return f"try_cast(nullif(trim({column}), '') AS DOUBLE)"


def _shown(column: str) -> str:
    return f"left({column}, 40)"


def _id_checks(column: str) -> list[tuple[str, str]]:
    value = _integer(column)
    return [
        (f"coalesce(trim({column}), '') = ''", f"'{column} is missing'"),
        (
            f"{value} IS NULL",
            f"'{column} is not a whole number: ' || {_shown(column)}",
        ),
        (f"{value} < 0", f"'{column} is negative: ' || {_shown(column)}"),
    ]


def _position_checks(column: str) -> list[tuple[str, str]]:
    value = _number(column)
    given = f"nullif(trim({column}), '') IS NOT NULL"
    return [
        (f"{given} AND {value} IS NULL", f"'{column} is not a number: ' || {_shown(column)}"),
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
    *(check for column in _WORD_KEY[1:] for check in _id_checks(column)),
]
_WORD_CHECKS: Final = [
    *_COMMON_CHECKS,
    ("text IS NULL", "'text is missing'"),
    (
        f"length(text) > {_MAX_TEXT}",
        f"'text is ' || length(text) || ' characters; the limit is {_MAX_TEXT}'",
    ),
    *(check for column in WORDS.optional for check in _position_checks(column)),
]
_LABEL_CHECKS: Final = [
    *_COMMON_CHECKS,
    ("coalesce(trim(label), '') = ''", "'label is missing'"),
    (
        "trim(label) NOT IN (SELECT label FROM label_types)",
        f"'unknown label ' || {_shown('label')} || ': correct it or add it to the taxonomy file'",
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
_IDS: Final = ", ".join(f"{_integer(column)} AS {column}" for column in _WORD_KEY[1:])
_WORD_COLUMNS: Final = (
    f"image_id, {_IDS}, text, "
    + ", ".join(f"{_number(column)} AS {column}" for column in WORDS.optional)
    + ", extra::JSON AS extra"
)
_LABEL_COLUMNS: Final = (
    f"image_id, {_IDS}, trim(label) AS label, "
    "coalesce(nullif(upper(trim(validation_status)), ''), 'NONE') AS validation_status, "
    "nullif(merchant_name, '') AS merchant_name, extra::JSON AS extra"
)

_CHECK: Final = """
CREATE OR REPLACE TEMP TABLE judged AS
SELECT *, CASE {checks} END AS reason FROM raw_{table};
CREATE OR REPLACE TABLE checked_{table} AS
SELECT * FROM (SELECT row_number AS row_number_in_file, {columns} FROM judged WHERE reason IS NULL)
QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY row_number_in_file) = 1;
INSERT INTO rejected
SELECT file, row_number, '{table}', reason, coalesce(broken, {row}) FROM judged, staged_file
WHERE reason IS NOT NULL;
INSERT INTO rejected
WITH typed AS (
    SELECT row_number AS row_number_in_file, {row} AS row, {columns}
    FROM judged WHERE reason IS NULL
)
SELECT file, typed.row_number_in_file, '{table}',
    'the same key as row ' || checked.row_number_in_file, typed.row
FROM typed JOIN checked_{table} checked USING ({key}), staged_file
WHERE typed.row_number_in_file <> checked.row_number_in_file;
"""


def _row_as_json(layout: TableLayout) -> str:
    fields = ", ".join(
        f"{column} := left({column}, {_MAX_QUARANTINED_VALUE})" for column in layout.columns
    )
    return f"to_json(struct_pack({fields}))::VARCHAR"


def _stage_nothing(con: duckdb.DuckDBPyConnection, layout: TableLayout) -> None:
    columns = ", ".join(f"{column} VARCHAR" for column in layout.columns)
    con.execute(
        f"CREATE TABLE raw_{layout.name} "
        f"(row_number BIGINT, problem VARCHAR, {columns}, extra VARCHAR, broken VARCHAR)"
    )


def _merge_table(
    con: duckdb.DuckDBPyConnection,
    table: str,
    source: str,
    key: tuple[str, ...],
    parameters: dict[str, Any],
) -> tuple[int, int]:
    """Merge staged rows; the number of rows inserted and updated."""
    described = con.execute(f"DESCRIBE {source}").fetchall()
    columns = [row[0] for row in described if row[0] != "row_number_in_file"]
    values = [column for column in columns if column not in key]
    keys = ", ".join(key)
    ours = ", ".join(f"t.{column}" for column in values)
    theirs = ", ".join(f"s.{column}" for column in values)
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE changes AS
        SELECT s.* EXCLUDE (row_number_in_file), t.image_id IS NULL AS is_new,
            ({ours}) IS DISTINCT FROM ({theirs}) AS differs
        FROM {source} s LEFT JOIN {table} t USING ({keys})
        WHERE t.image_id IS NULL OR t.batch_time <= $batch_time
        """,
        {"batch_time": parameters["batch_time"]},
    )
    # Rows that say the same still take the later time: an even later batch must not lose to
    # one that came in between.
    con.execute(
        f"DELETE FROM {table} USING changes c WHERE NOT c.is_new AND "
        + " AND ".join(f"{table}.{column} = c.{column}" for column in key)
    )
    con.execute(
        f"INSERT INTO {table} BY NAME SELECT * EXCLUDE (is_new, differs), "
        "$batch_id AS batch_id, $batch_time AS batch_time FROM changes",
        parameters,
    )
    con.execute(
        """
        DELETE FROM word_documents WHERE (image_id, receipt_id) IN
            (SELECT (image_id, receipt_id) FROM changes WHERE is_new OR differs)
        """
    )
    counted = con.execute(
        "SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new AND differs) "
        "FROM changes"
    ).fetchone()
    con.execute("DROP TABLE changes")
    return (int(counted[0]), int(counted[1])) if counted else (0, 0)
