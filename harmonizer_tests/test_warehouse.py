from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from harmonizer_assets.core import migrations
from harmonizer_assets.core.errors import InputError, StoreBusyError, StoreError
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.warehouse import EXPORTABLE, Warehouse


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
    warehouse.write(lambda con: warehouse.replace_partitions(con, "partition_state", wanted, rows))


def stored(warehouse: Warehouse) -> list[tuple[str, str, str]]:
    rows = warehouse.query(
        "SELECT label_type, merchant_key, fingerprint FROM partition_state ORDER BY ALL"
    )
    return [tuple(row.values()) for row in rows.to_pylist()]


def test_migrations_are_applied_once_and_recorded_by_name(warehouse):
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
        Warehouse(Home(warehouse._home.root)).query("SELECT 1")


def test_a_failing_transaction_leaves_nothing_behind(warehouse):
    def fail(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("INSERT INTO index_state VALUES ('e', '1', 2, now())")
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


def test_threads_and_processes_that_write_at_once_lose_nothing(warehouse, home):
    code = (
        "import sys; from harmonizer_assets.core.home import Home; "
        "from harmonizer_assets.core.warehouse import Warehouse; w = Warehouse(Home.resolve())\n"
        "for n in range(10): w.write(lambda con: con.execute("
        "'INSERT INTO index_state VALUES ($1, $2, 1, now())', [sys.argv[1], str(n)]))"
    )
    warehouse.migrate()
    processes = [
        subprocess.Popen([sys.executable, "-c", code, f"process {n}"], env=os.environ)
        for n in range(3)
    ]

    def write(n: int) -> None:
        warehouse.write(
            lambda con: con.execute("INSERT INTO index_state VALUES ('thread', $1, 1, now())", [n])
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(20)))
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert warehouse.query("FROM index_state").num_rows == 50


HOLD = (
    "import duckdb, sys, time; c = duckdb.connect(sys.argv[1], read_only={read_only}); "
    "print('held', flush=True); time.sleep(60)"
)


def held_by_another_process(path: Path, *, read_only: bool) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(read_only=read_only), str(path)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_file_that_another_process_holds_gives_a_clear_error_not_a_hang(warehouse, home):
    warehouse.migrate()
    impatient = Warehouse(home, busy_timeout=0.5)
    impatient.query("SELECT 1")
    holder = held_by_another_process(home.database, read_only=False)
    try:
        with pytest.raises(StoreBusyError, match=f"process {holder.pid}"):
            impatient.query("SELECT 1")
    finally:
        holder.kill()
        holder.communicate()
    assert impatient.query("SELECT 1 AS one")["one"].to_pylist() == [1]


def test_a_write_waits_for_a_person_who_reads(warehouse, home):
    warehouse.migrate()
    holder = held_by_another_process(home.database, read_only=True)
    threading.Timer(0.7, holder.kill).start()
    began = time.monotonic()
    warehouse.write(lambda con: con.execute("INSERT INTO index_state VALUES ('e', '', 1, now())"))
    holder.communicate()
    assert time.monotonic() - began > 0.5
    assert warehouse.query("FROM index_state").num_rows == 1


def test_people_may_keep_the_snapshot_open_while_the_warehouse_writes(warehouse, home):
    warehouse.publish_snapshot()
    reader = duckdb.connect(home.snapshot, read_only=True)
    warehouse.write(lambda con: con.execute("INSERT INTO index_state VALUES ('e', '', 1, now())"))
    warehouse.publish_snapshot()
    assert reader.execute("SELECT count(*) FROM index_state").fetchone() == (0,)
    reader.close()
    with duckdb.connect(home.snapshot, read_only=True) as fresh:
        assert fresh.execute("SELECT count(*) FROM index_state").fetchone() == (1,)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "ndjson"])
@pytest.mark.parametrize("name", EXPORTABLE)
def test_every_table_exports_to_every_format(warehouse, tmp_path, name, suffix):
    path = tmp_path / f"it's {name}.{suffix}"
    assert warehouse.export(name, path) == 0
    assert path.exists()


def test_exports_refuse_other_tables_and_formats_and_folders(warehouse, tmp_path):
    with pytest.raises(InputError, match="no table 'partition_state; DROP'"):
        warehouse.export("partition_state; DROP", tmp_path / "x.csv")
    with pytest.raises(InputError, match="suffix names the format"):
        warehouse.export("words", tmp_path / "x.xlsx")
    with pytest.raises(InputError, match="there is no folder"):
        warehouse.export("words", tmp_path / "nowhere" / "x.csv")


def test_a_file_that_is_no_database_is_named(home):
    home.database.write_text("nonsense" * 1000)
    with pytest.raises(StoreError, match="not a DuckDB file"):
        Warehouse(home).query("SELECT 1")


def test_a_full_disk_ends_in_a_clear_error_and_keeps_what_was_there(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a file system of a given size needs the right to mount one")
    try:
        warehouse = Warehouse(Home(small / "home"))
        warehouse.write(
            lambda con: con.execute("INSERT INTO index_state VALUES ('kept', '', 1, now())")
        )
        with pytest.raises(StoreError, match="disk is full"):
            warehouse.write(
                lambda con: con.execute(
                    "INSERT INTO index_state "
                    "SELECT md5(range::VARCHAR), md5(range::VARCHAR || 'x'), 1, now() "
                    "FROM range(400000)"
                )
            )
        assert Warehouse(Home(small / "home")).query("FROM index_state").num_rows == 1
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)
