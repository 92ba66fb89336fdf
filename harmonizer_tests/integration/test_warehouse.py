from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from harmonizer_assets.cli.opening import open_warehouse
from harmonizer_assets.core.base.errors import InputError, StoreBusyError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.store import (
    EXPORTABLE,
    Warehouse,
    database,
    export_table,
    migrations,
    publish_snapshot,
    replace_partitions,
)
from harmonizer_assets.core.store.errors import COMMITTED, store_error
from harmonizer_tests.support.holders import held_by_another_process


@pytest.fixture
def warehouse(home: Home) -> Warehouse:
    return Warehouse(home)


def state_rows(*rows: tuple[str, str, str]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "asset": "a",
                "label_type": label_type,
                "merchant_key": merchant,
                "fingerprint": fingerprint,
                "labels": 1,
                "run_id": "",
                "computed_at": "2024-01-01",
            }
            for label_type, merchant, fingerprint in rows
        ]
    )


def replace(warehouse: Warehouse, rows: pa.Table, partitions: list[tuple[str, str]]) -> None:
    wanted = pa.table(
        {
            "label_type": [label_type for label_type, _ in partitions],
            "merchant_key": [merchant for _, merchant in partitions],
        }
    )
    warehouse.write(lambda con: replace_partitions(con, "partition_state", wanted, rows))


def stored(warehouse: Warehouse) -> list[tuple[str, str, str]]:
    rows = warehouse.query(
        "SELECT label_type, merchant_key, fingerprint FROM partition_state ORDER BY ALL"
    )
    return [tuple(row.values()) for row in rows.to_pylist()]


def test_migrations_are_applied_once_and_recorded_by_name(bare_home):
    warehouse = Warehouse(bare_home)
    folder = Path(migrations.__path__[0])
    packaged = sorted(path.stem for path in folder.glob("*.sql"))
    assert packaged[0] == "0001_initial"
    assert warehouse.migrate() == packaged
    assert warehouse.migrate() == []
    applied = warehouse.query("SELECT name FROM schema_migrations")
    assert applied["name"].to_pylist() == packaged


def test_a_database_of_a_newer_version_is_refused(warehouse):
    warehouse.write(
        lambda con: con.execute("INSERT INTO schema_migrations VALUES ('9999_later', now())")
    )
    with pytest.raises(StoreError, match="newer version"):
        Warehouse(Home(warehouse.home.root)).query("SELECT 1")


@pytest.mark.parametrize("first", ["read", "write", "publish"])
def test_a_database_of_an_older_version_is_migrated_by_whatever_comes_first(warehouse, home, first):
    def forget(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("DROP TABLE taken_arrivals")
        con.execute("DELETE FROM schema_migrations WHERE name = '0008_taken_arrivals'")

    warehouse.write(forget)
    opened = Warehouse(home)
    if first == "publish":
        publish_snapshot(opened)
    else:
        getattr(opened, first)(lambda con: con.execute("FROM taken_arrivals").fetchall())
    assert opened.migrate() == []
    assert opened.query("FROM taken_arrivals").num_rows == 0


def test_a_file_has_the_storage_format_that_opens_fast_whatever_it_had_before(bare_home):
    """Files of DuckDB's default format take about three times as long to open."""

    def storage_format() -> str:
        with duckdb.connect(bare_home.database) as con:
            found = con.execute("SELECT tags->>'storage_version' FROM duckdb_databases()")
            return found.fetchall()[0][0]

    fast = f"{database.STORAGE_VERSION}+"
    warehouse = Warehouse(bare_home)
    duckdb.connect(bare_home.database).close()
    assert storage_format() != fast
    warehouse.migrate()
    assert storage_format() == fast
    warehouse.compact()
    assert storage_format() == fast


@pytest.mark.skipif(os.cpu_count() == 1, reason="there is one thread only")
def test_small_files_are_queried_by_one_thread_and_large_ones_by_all(warehouse, tmp_path):
    def threads(**attached: Path) -> int:
        found = warehouse.write(
            lambda con: con.execute("SELECT current_setting('threads')").fetchall(),
            attached=attached,
        )
        return int(found[0][0])

    large = tmp_path / "large.duckdb"
    with duckdb.connect(large) as con:
        everything = con.execute("SELECT current_setting('threads')").fetchall()[0][0]
        con.execute("CREATE TABLE numbers AS SELECT random() AS a FROM range(3_000_000)")
    assert large.stat().st_size > database.SMALL_BYTES
    assert [threads(), threads(large=large), threads()] == [1, everything, 1]


def test_a_failing_transaction_leaves_nothing_behind(warehouse):
    def fail(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("INSERT INTO index_state VALUES ('e', '1', 2, now(), 0)")
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        warehouse.write(fail)
    assert warehouse.query("FROM index_state").num_rows == 0


def test_replacing_partitions_touches_no_other_partition(warehouse):
    merchants = ("it's", "日本")
    replace(
        warehouse,
        state_rows(*(("DATE", merchant, "1") for merchant in merchants), ("TIME", "it's", "1")),
        [("DATE", "it's"), ("DATE", "日本"), ("TIME", "it's")],
    )
    replace(warehouse, state_rows(("DATE", "it's", "2")), [("DATE", "it's"), ("TIME", "it's")])
    assert stored(warehouse) == [("DATE", "it's", "2"), ("DATE", "日本", "1")]


def test_rows_of_other_partitions_than_those_that_are_replaced_are_left_out(warehouse):
    warehouse.migrate()
    rows = state_rows(("DATE", "it's", "1"), ("DATE", "日本", "1"), ("TIME", "it's", "1"))
    replace(warehouse, rows, [("DATE", "it's")])
    assert stored(warehouse) == [("DATE", "it's", "1")]


def test_threads_and_processes_that_write_at_once_lose_nothing(warehouse, home):
    code = (
        "import sys; from harmonizer_assets.core.base.home import Home; "
        "from harmonizer_assets.core.store.warehouse import Warehouse; "
        "w = Warehouse(Home.resolve())\n"
        "for n in range(10): w.write(lambda con: con.execute("
        "'INSERT INTO index_state VALUES ($1, $2, 1, now(), 0)', [sys.argv[1], str(n)]))"
    )
    warehouse.migrate()
    processes = [
        subprocess.Popen([sys.executable, "-c", code, f"process {n}"], env=os.environ)
        for n in range(2)
    ]

    def write(n: int) -> None:
        warehouse.write(
            lambda con: con.execute(
                "INSERT INTO index_state VALUES ('thread', $1, 1, now(), 0)", [n]
            )
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(20)))
    assert [process.wait() for process in processes] == [0, 0]
    assert warehouse.query("FROM index_state").num_rows == 40


def test_transactions_inside_others_see_the_same_tables(warehouse):
    def write(con: duckdb.DuckDBPyConnection) -> int:
        con.execute("INSERT INTO index_state VALUES ('e', '', 1, now(), 0)")
        return warehouse.query("FROM index_state").num_rows

    assert warehouse.write(write) == 0, "what is not committed is not seen"
    assert warehouse.read(lambda _: warehouse.query("FROM index_state").num_rows) == 1


def test_attached_files_are_those_of_their_own_transaction(warehouse, tmp_path):
    for number in (1, 2):
        file = tmp_path / f"it's {number}.duckdb"
        with duckdb.connect(file) as con:
            con.execute(f"CREATE TABLE numbers AS SELECT {number} AS n")
        found = warehouse.write(
            lambda con: con.execute("FROM staged.numbers").fetchall(), attached={"staged": file}
        )
        assert found == [(number,)]
        file.unlink()


# Sessions


def test_reads_of_a_session_see_what_is_written_in_it(warehouse):
    with warehouse.session():
        assert warehouse.query("FROM index_state").num_rows == 0
        warehouse.write(
            lambda con: con.execute("INSERT INTO index_state VALUES ('e', '', 1, now(), 0)")
        )
        assert warehouse.query("FROM index_state").num_rows == 1
        with warehouse.session():
            assert warehouse.query("FROM index_state").num_rows == 1
        assert warehouse.query("FROM index_state").num_rows == 1


def test_a_read_that_fails_leaves_its_session_usable(warehouse):
    with warehouse.session():
        warehouse.query("SELECT 1")
        with pytest.raises(duckdb.CatalogException):
            warehouse.query("FROM nowhere")
        assert warehouse.query("SELECT 1").num_rows == 1


WRITE_WHEN_TOLD = """
import sys, time
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.store import Warehouse
warehouse = Warehouse(Home.resolve())
warehouse.query("SELECT 1")
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
warehouse.write(lambda con: con.execute("INSERT INTO index_state VALUES ('e', '', 1, now(), 0)"))
print(time.monotonic() - began, flush=True)
"""


@pytest.fixture
def writer(warehouse):
    """A process that waits for a line, writes, and prints how many seconds that took."""
    warehouse.migrate()
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_WHEN_TOLD],
        env=os.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_a_session_leaves_no_thread_also_when_it_ends_inside_a_read(warehouse):
    def in_a_session(*_: object) -> None:
        with warehouse.session():
            warehouse.query("SELECT 1")

    warehouse.migrate()
    before = {*threading.enumerate()}
    in_a_session()
    for _ in range(20):
        with warehouse.session():
            pass
        assert {*threading.enumerate()} == before
    warehouse.read(in_a_session)
    assert {*threading.enumerate()} == before


def test_a_session_that_computes_meanwhile_lets_another_process_write(warehouse, writer):
    with warehouse.session():
        warehouse.query("SELECT 1")
        print("go", file=writer.stdin, flush=True)
        assert float(writer.stdout.readline()) < 5
        assert warehouse.query("FROM index_state").num_rows == 1


def test_a_session_that_reads_without_end_lets_another_process_write(warehouse, writer):
    deadline = time.monotonic() + 30
    with warehouse.session():
        print("go", file=writer.stdin, flush=True)
        while warehouse.query("FROM index_state").num_rows == 0:
            assert time.monotonic() < deadline
    assert float(writer.stdout.readline()) < 30


# Files that are held, damaged, or on a full disk


@pytest.mark.parametrize("opened", [lambda home: Pipeline(home).warehouse, open_warehouse])
def test_a_file_that_another_process_holds_gives_a_clear_error_not_a_hang(warehouse, home, opened):
    warehouse.migrate()
    home.settings_file.write_text("[waits]\ndatabase_seconds = 0.5\n")
    impatient = opened(home)
    impatient.query("SELECT 1")
    holder = held_by_another_process(home.database, read_only=False)
    try:
        with pytest.raises(StoreBusyError, match=f"process {holder.pid}"):
            impatient.query("SELECT 1")
    finally:
        holder.kill()
        holder.communicate()
    assert impatient.query("SELECT 1 AS one")["one"].to_pylist() == [1]


WRITE_OFTEN = """
import sys, time
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.store import Warehouse
warehouse = Warehouse(Home.resolve(), busy_timeout=float(sys.argv[1]))
def write(con):
    con.execute("INSERT INTO index_state VALUES ('e', '', 1, now(), 0)")
    time.sleep(0.3)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(4):
    warehouse.write(write)
"""


def test_writers_wait_in_turn_and_none_gives_up_while_others_get_on(warehouse, home):
    warehouse.migrate()
    # All together take far longer than each of them has patience.
    code = [sys.executable, "-c", WRITE_OFTEN, "1.5"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    writers = [subprocess.Popen(code, text=True, **pipes) for _ in range(3)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    errors = []
    for writer in writers:
        print("go", file=writer.stdin, flush=True)
    for writer in writers:
        errors.append(writer.communicate()[1])
    assert errors == [""] * 3
    assert warehouse.query("FROM index_state").num_rows == 12
    assert not any((home.locks / "database.queue").iterdir())


def test_a_write_waits_for_a_person_who_reads(warehouse, home):
    warehouse.migrate()
    holder = held_by_another_process(home.database, read_only=True)
    threading.Timer(0.7, holder.kill).start()
    began = time.monotonic()
    warehouse.write(
        lambda con: con.execute("INSERT INTO index_state VALUES ('e', '', 1, now(), 0)")
    )
    holder.communicate()
    assert time.monotonic() - began > 0.5
    assert warehouse.query("FROM index_state").num_rows == 1


def test_who_waits_long_is_told_who_holds_the_file(warehouse, home, caplog, monkeypatch):
    monkeypatch.setattr(database, "_LOGGED_WAIT_SECONDS", 0.3)
    warehouse.migrate()
    holder = held_by_another_process(home.database, read_only=False)
    threading.Timer(1.0, holder.kill).start()
    with caplog.at_level("INFO", "harmonizer_assets"):
        warehouse.query("SELECT 1")
    holder.communicate()
    [message] = caplog.messages
    assert message == f"waiting for process {holder.pid}, which holds {home.database}"


def test_people_may_keep_the_snapshot_open_while_the_warehouse_writes(warehouse, home):
    publish_snapshot(warehouse)
    reader = duckdb.connect(home.snapshot, read_only=True)
    warehouse.write(
        lambda con: con.execute("INSERT INTO index_state VALUES ('e', '', 1, now(), 0)")
    )
    publish_snapshot(warehouse)
    assert reader.execute("SELECT count(*) FROM index_state").fetchone() == (0,)
    reader.close()
    with duckdb.connect(home.snapshot, read_only=True) as fresh:
        assert fresh.execute("SELECT count(*) FROM index_state").fetchone() == (1,)


@pytest.fixture(scope="module")
def without_rows(tmp_path_factory) -> Warehouse:
    """Tables without a row, which exports only read."""
    warehouse = Warehouse(Home(tmp_path_factory.mktemp("without-rows") / "home").ensure())
    warehouse.migrate()
    return warehouse


@pytest.mark.parametrize("suffix", ["parquet", "csv", "ndjson"])
@pytest.mark.parametrize("name", EXPORTABLE)
def test_every_table_exports_to_every_format(without_rows, tmp_path, name, suffix):
    path = tmp_path / f"it's {name}.{suffix}"
    assert export_table(without_rows, name, path) == 0
    assert path.exists()


def test_exports_refuse_other_tables_and_formats_and_folders(warehouse, tmp_path):
    with pytest.raises(InputError, match="no table 'partition_state; DROP'"):
        export_table(warehouse, "partition_state; DROP", tmp_path / "x.csv")
    with pytest.raises(InputError, match="suffix names the format"):
        export_table(warehouse, "words", tmp_path / "x.xlsx")
    with pytest.raises(InputError, match="there is no folder"):
        export_table(warehouse, "words", tmp_path / "nowhere" / "x.csv")


def test_a_file_that_is_no_database_is_named(home):
    home.database.write_text("nonsense" * 1000)
    with pytest.raises(StoreError, match="not a DuckDB file"):
        Warehouse(home).query("SELECT 1")


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 8 MiB; return it and a function that gives it another size."""
    small = tmp_path / "small"
    small.mkdir()

    def mount(*options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(small)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False

    if not mount("size=8m"):
        pytest.skip("a file system of a given size needs the right to mount one")
    yield small, lambda size: mount("remount", f"size={size}")
    subprocess.run(["umount", "-l", str(small)], check=False)


@pytest.mark.parametrize(
    ("committed", "broken", "said"),
    [
        (False, "it broke", "nothing was written"),
        (True, "it broke", "what was written is kept"),
        (False, f"{COMMITTED}, but it broke", "what was written is kept"),
    ],
)
def test_an_error_says_what_became_of_the_rows(committed, broken, said):
    error = store_error(duckdb.IOException(broken), Path("a.duckdb"), committed=committed)
    assert str(error) == f"a.duckdb: {broken} ({said}; see the message and run again)"


def insert_rows(n: int, name: str):
    return lambda con: con.execute(
        "INSERT INTO index_state SELECT md5(range::VARCHAR) || $name, '', 1, now(), 0 "
        "FROM range($n)",
        {"n": n, "name": name},
    )


def test_a_full_disk_ends_in_a_clear_error_and_keeps_what_was_there(small_disk):
    small, _ = small_disk
    warehouse = Warehouse(Home(small / "home"))
    warehouse.write(insert_rows(1, "kept"))
    with pytest.raises(StoreError, match="disk is full"):
        warehouse.write(insert_rows(400_000, "lost"))
    assert Warehouse(Home(small / "home")).query("FROM index_state").num_rows == 1


def test_what_was_committed_before_the_disk_was_full_is_kept_and_the_error_does_not_deny_it(
    small_disk,
):
    """The rows are in the write-ahead log; the file has no room for them."""
    small, resize = small_disk
    warehouse = Warehouse(Home(small / "home"))
    warehouse.migrate()
    used = sum(path.stat().st_size for path in small.rglob("*"))
    assert resize(f"{used // 1024 + 64}k")
    with pytest.raises(StoreError, match="disk is full") as caught:
        warehouse.write(insert_rows(10, "kept"))
    assert "nothing was written" not in str(caught.value)
    assert COMMITTED in str(caught.value.__cause__)
    assert resize("32m")
    assert Warehouse(Home(small / "home")).query("FROM index_state").num_rows == 10


def test_what_is_committed_is_in_the_file_itself_at_once(warehouse, home, tmp_path, monkeypatch):
    """No write-ahead log has to be merged first, and rows are written once."""
    closing = database.DatabaseFile.close
    copy = tmp_path / "copy.duckdb"

    def close(*args, **kwargs):
        shutil.copyfile(home.database, copy)
        return closing(*args, **kwargs)

    warehouse.migrate()
    monkeypatch.setattr(database.DatabaseFile, "close", close)
    warehouse.write(insert_rows(10, "kept"))
    with duckdb.connect(copy, read_only=True) as con:
        assert con.execute("SELECT count(*) FROM index_state").fetchall() == [(10,)]


@pytest.mark.parametrize("said", ['{"it\'s | 日本": 1.5}', None])
def test_texts_that_are_known_to_be_json_become_json_also_where_all_are_null(warehouse, said):
    rows = pa.table({"label_type": ["DATE"], "merchant_key": ["m"], "said": pa.array([said])})

    def write(con: duckdb.DuckDBPyConnection) -> list[tuple[object, ...]]:
        con.execute("CREATE TABLE sayings (label_type VARCHAR, merchant_key VARCHAR, said JSON)")
        partitions = rows.drop_columns("said")
        replace_partitions(con, "sayings", partitions, rows, json_columns=["said"])
        return con.execute("SELECT said->>'it''s | 日本' FROM sayings").fetchall()

    assert warehouse.write(write) == [("1.5" if said else None,)]


class Interrupted(BaseException):
    """What a step of Dagster raises for a signal: neither an error nor KeyboardInterrupt."""


def raise_interrupted(*_):
    raise Interrupted


@pytest.fixture(params=[KeyboardInterrupt, Interrupted])
def interrupt(request):
    """Ctrl-C raises this in the main thread."""
    handlers = {KeyboardInterrupt: signal.default_int_handler, Interrupted: raise_interrupted}
    before = signal.signal(signal.SIGINT, handlers[request.param])
    yield request.param
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("transaction", ["read", "write"])
def test_an_interrupt_in_a_query_is_an_interrupt_and_no_error_of_it(home, transaction, interrupt):
    warehouse = Warehouse(home)
    warehouse.migrate()
    endless = (
        "SELECT count(*) FROM range(10_000_000) a, range(10_000_000) b WHERE a.range < b.range"
    )
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(interrupt):
        getattr(warehouse, transaction)(lambda con: con.execute(endless).fetchall())
    assert warehouse.query("SELECT 1 AS one")["one"].to_pylist() == [1]
