"""Published tables: the same promises of every target, on disks, on S3 and in PostgreSQL."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import duckdb
import pytest

from harmonizer_assets.core.backup import back_up, restore
from harmonizer_assets.core.backup.archive import open_archive
from harmonizer_assets.core.base.errors import ConfigurationError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.publish import changes, parquet
from harmonizer_assets.core.publish.copied import in_memory, reading_copy
from harmonizer_assets.core.publish.ducklake import LAKE
from harmonizer_assets.core.publish.publishing import open_target
from harmonizer_assets.core.store import EXPORTABLE
from harmonizer_assets.core.store.deletions import Scope
from harmonizer_assets.core.store.extensions import load_extension
from harmonizer_tests.support.aws import aws_server
from harmonizer_tests.support.environment import use_aws
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.postgres import UnreachableError, temporary_database
from harmonizer_tests.support.receipts import OFFLINE
from harmonizer_tests.support.units import copy_shops

PLACES = (
    "parquet on disk",
    "parquet on s3",
    "ducklake on disk",
    "ducklake in german postgresql",
    "ducklake in postgresql, on s3",
)
NOW = dt.datetime.now(dt.UTC)


@dataclass
class Place:
    """Where a test publishes to.

    Attributes:
        settings: of the section `publish`.
        folder: of the files, where they are on a disk.
    """

    settings: dict[str, str]
    folder: Path | None
    endpoint: str | None = None

    def pipeline(self, home: Home) -> Pipeline:
        return Pipeline(home, Settings.model_validate({"publish": self.settings}))

    @contextmanager
    def reader(self, home: Home, version: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Read as somebody does who has nothing but the SQL that the target gives."""
        # Checking the signatures of extensions, as the product does, takes longer than all else.
        with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as con:
            for name in ("ducklake", "sqlite_scanner", "postgres_scanner", "httpfs"):
                load_extension(con, name)
            if self.endpoint:
                con.execute(
                    "CREATE SECRET (TYPE s3, KEY_ID 'test', SECRET 'test', REGION 'us-east-1', "
                    f"ENDPOINT '{urlsplit(self.endpoint).netloc}', URL_STYLE 'path', "
                    "USE_SSL false)"
                )
            con.execute(self.target(home).reading(version))
            yield con

    def target(self, home: Home):
        return open_target(home, self.pipeline(home).settings.publish)

    def names(self) -> list[str]:
        """List the files that are stored."""
        if self.folder is not None:
            return [str(path) for path in self.folder.rglob("*") if path.is_file()]
        bucket = boto3.resource("s3", endpoint_url=self.endpoint).Bucket("tables")
        return [found.key for found in bucket.objects.all()]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with aws_server(empty=True) as url:
        boto3.client("s3", endpoint_url=url, region_name="us-east-1", **KEYS).create_bucket(
            Bucket="tables"
        )
        yield url


KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


@pytest.fixture
def place(request, tmp_path, monkeypatch) -> Iterator[Place]:
    target, _, where = request.param.partition(" ")
    use_aws(monkeypatch)
    with ExitStack() as stack:
        settings = {"target": target}
        folder, endpoint = None, None
        if "s3" in where:
            endpoint = request.getfixturevalue("s3")
            bucket = boto3.resource("s3", endpoint_url=endpoint).Bucket("tables")
            bucket.objects.all().delete()
            settings |= {"url": "s3://tables/of a home", "endpoint_url": endpoint}
        else:
            folder = tmp_path / "published é"
            settings["url"] = folder.as_uri()
        if "postgresql" in where:
            server = [request.getfixturevalue("german").url] if "german" in where else []
            try:
                settings["catalog"] = stack.enter_context(temporary_database(*server))
            except UnreachableError as error:
                pytest.skip(str(error))
        yield Place(settings, folder, endpoint)


every_place = pytest.mark.parametrize("place", PLACES, indirect=True)


@pytest.fixture
def shops(home: Home) -> Home:
    """Six shops whose labels are decided."""
    copy_home(home, "six shops, decided", _decide)
    return home


def _decide(home: Home) -> None:
    copy_shops(home)
    Pipeline(home).harmonize(OFFLINE)


def content(con: duckdb.DuckDBPyConnection, table: str) -> list[dict[str, object]]:
    return con.execute(f'FROM "{table}" ORDER BY ALL').to_arrow_table().to_pylist()


def publish(place: Place, home: Home, run_id: str) -> str:
    _, version = place.pipeline(home).publishing.publish(run_id, f"what {run_id} found", "")
    return version.name


def change(home: Home, what: str) -> None:
    """Change some tables, in rows that are there and in the number of rows."""

    def write(con: duckdb.DuckDBPyConnection) -> None:
        [(merchant,)] = con.execute("SELECT min(merchant_key) FROM similarity_matches").fetchall()
        con.execute("UPDATE outliers SET reasoning = 'Zürich''s | 🥐' || $1", [what])
        con.execute("DELETE FROM similarity_matches WHERE merchant_key = $1", [merchant])

    Pipeline(home).warehouse.write(write)


def assert_as_in(home: Home, published: duckdb.DuckDBPyConnection) -> None:
    """Check that a reader finds every table as the home has it."""
    with duckdb.connect() as own:
        own.execute(reading_copy(home))
        for table in EXPORTABLE:
            if table not in ("words", "labels", "labels_corrected"):
                assert content(published, table) == content(own, table), table
        # Of these, what passes through is columns again.
        [count] = own.execute("SELECT count(*) FROM labels").fetchone()
    assert len(content(published, "labels")) == count > 0
    assert "extra" not in content(published, "labels")[0]


def run_ids(place: Place, home: Home) -> list[str]:
    return [version.run_id for version in place.target(home).versions()]


HALF = """
import os, sys
from pathlib import Path
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.publish import ducklake, parquet

def dies(*arguments, **more):
    os._exit(9)

if sys.argv[3] == "before the pointer":
    parquet._as_json = dies
else:
    calls = []
    for module in (parquet, ducklake):
        def counted(con, table, kind, query=module.table_query):
            return dies() if table == "outliers" else query(con, table, kind)
        module.table_query = counted
settings = Settings.model_validate_json(sys.argv[2])
Pipeline(Home(Path(sys.argv[1])), settings).publishing.publish("killed", "", "")
"""


def fill_and_empty(home: Home) -> None:
    """Give rows to a table that has none, and take all of another one's."""

    def write(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("INSERT INTO label_undos VALUES (1, 'of nothing')")
        con.execute("DELETE FROM run_history")

    Pipeline(home).warehouse.write(write)


@every_place
def test_each_version_is_whole_and_stays_readable_and_a_killed_process_leaves_the_one_before(
    shops, place
):
    first = publish(place, shops, "first")
    with place.reader(shops) as reader:
        assert content(reader, "similarity_matches")
        before = content(reader, "outliers")
        change(shops, "now")
        fill_and_empty(shops)
        settings = json.dumps({"publish": place.settings})
        moments = ["in a table"] + ["before the pointer"] * (place.settings["target"] == "parquet")
        for moment in moments:
            command = [sys.executable, "-c", HALF, str(shops.root), settings, moment]
            assert subprocess.run(command, check=False).returncode == 9
            assert run_ids(place, shops) == ["first"]
        names = place.names()
        second = publish(place, shops, "second")
        assert content(reader, "outliers")  # who was reading goes on
    if place.settings["target"] == "parquet":
        assert len([name for name in names if "-killed" in name]) > 10
        assert [name for name in place.names() if "-killed" in name] == []
    found = place.target(shops).versions()
    assert [(one.name, one.run_id, one.message) for one in found] == [
        (first, "first", "what first found"),
        (second, "second", "what second found"),
    ]
    assert NOW <= found[0].published_at < found[1].published_at
    with place.reader(shops, first) as then:
        assert content(then, "outliers") == before
    with place.reader(shops) as now:
        assert content(now, "outliers") != before
        assert_as_in(shops, now)
    with pytest.raises(StoreError, match="holds no version 77"):
        place.target(shops).reading("77")


@pytest.fixture
def others(tmp_path) -> Home:
    """Another home with other tables."""
    home = Home(tmp_path / "the others").ensure()
    copy_home(home, "six shops, decided", _decide)
    change(home, "of others")
    return home


@every_place
def test_old_versions_go_for_their_own_home_alone_and_with_a_deletion_all_that_was_published(
    shops, others, place
):
    pipeline = place.pipeline(shops)
    for run in ("first", "second"):
        change(shops, run)
        publish(place, shops, run)
    stored, later = sorted(place.names()), dt.datetime.now(dt.UTC) + dt.timedelta(days=70)

    # Another home neither prunes nor removes anything.
    [freed] = place.pipeline(others).publishing.prune(7, later, dry_run=False)
    assert freed.count == 0
    place.pipeline(others).publishing.clear()
    assert {*stored} <= {*place.names()} or place.settings["target"] == "ducklake"
    versions = place.target(shops).versions()
    assert [version.run_id for version in versions] == ["first", "second"]
    for version in versions:
        with place.reader(shops, version.name) as published:
            assert content(published, "outliers")

    # Its own home prunes the versions before the latest, with their files.
    stored, soon = len(place.names()), dt.datetime.now(dt.UTC) + dt.timedelta(days=7)
    [would] = pipeline.publishing.prune(7, soon, dry_run=True)
    assert (would.what, would.count, len(place.names())) == ("published versions", 1, stored)
    [done] = pipeline.publishing.prune(7, soon, dry_run=False)
    assert done.count == 1
    assert run_ids(place, shops) == ["second"]
    assert len(place.names()) < stored
    with place.reader(shops) as published, duckdb.connect() as own:
        own.execute(reading_copy(shops))
        assert content(published, "outliers") == content(own, "outliers")

    # A deletion leaves nothing of what was published.
    [image] = pipeline.warehouse.query("SELECT min(image_id) AS i FROM labels")["i"].to_pylist()
    pipeline.deletion.delete(Scope(image, None, None, None, None))
    assert place.names() == []
    assert run_ids(place, shops) == []
    publish(place, shops, "third")
    with place.reader(shops) as published:
        assert {row["image_id"] for row in content(published, "labels")}
        assert image not in {row["image_id"] for row in content(published, "labels")}
    assert run_ids(place, shops) == ["third"]


def identity(home: Home) -> str:
    return home.identity.read_text()


@every_place
def test_a_run_publishes_and_a_restored_home_goes_on_but_another_only_when_told_to_take_over(
    shops, others, place, tmp_path, caplog
):
    # A run publishes its version, and one that changes nothing none.
    pipeline = place.pipeline(shops)
    published = pipeline.harmonize(OFFLINE).published
    [first] = place.target(shops).versions()
    assert published.version == first.name
    assert first.message.startswith("288 labels of 6 merchants: ")
    assert pipeline.harmonize(OFFLINE).published is None
    assert place.target(shops).versions() == [first]

    # The home goes on where it was restored elsewhere.
    archive = open_archive(str(tmp_path / "backups"))
    back_up(pipeline.warehouse, pipeline.indexing.vectors, archive)
    copy = Home(tmp_path / "on a new machine")
    restore(archive, copy)
    change(copy, "after the restore")
    second = publish(place, copy, "second")
    mine = identity(shops)
    assert [version.home.id for version in place.target(copy).versions()] == [mine, mine]
    assert f"published before as home {mine} (home on " in caplog.text
    assert "(on a new machine on " in caplog.text

    # Another one is refused until it is told to take over.
    with pytest.raises(ConfigurationError) as refused:
        publish(place, others, "third")
    theirs, said = identity(others), str(refused.value)
    assert f"holds what home {mine} (on a new machine on " in said
    assert f"this is home {theirs} (the others on " in said
    assert said.endswith(f'take_over = "{mine}"')
    assert [version.name for version in place.target(copy).versions()] == [first.name, second]
    with place.reader(copy) as published, duckdb.connect() as own:
        own.execute(reading_copy(copy))
        assert content(published, "outliers") == content(own, "outliers")
    place.settings["take_over"] = mine
    third = publish(place, others, "third")
    fourth = publish(place, others, "fourth")
    found = place.target(others).versions()
    # Nothing has changed for the fourth one, which is no version of its own everywhere.
    assert [version.home.id for version in found] == [mine, mine] + [theirs] * (len(found) - 2)
    assert [version.name for version in found][:3] == [first.name, second, third]
    assert {version.name for version in found} == {first.name, second, third, fourth}
    # Who was taken over does not come back by itself, whatever it is told about its own id.
    with pytest.raises(ConfigurationError, match=f"holds what home {theirs}"):
        publish(place, shops, "fifth")


def test_a_home_goes_on_after_versions_that_do_not_say_whose_they_are(shops, tmp_path):
    place = Place({"target": "parquet", "url": (tmp_path / "out").as_uri()}, tmp_path / "out")
    publish(place, shops, "first")
    for file in tmp_path.glob("out/**/*.json"):
        said = json.loads(file.read_text())
        del said["home"]
        file.write_text(json.dumps(said))
    assert publish(place, shops, "second")
    assert [version.run_id for version in place.target(shops).versions()] == ["first", "second"]


@pytest.mark.parametrize("place", ["ducklake on disk"], indirect=True)
def test_a_snapshot_of_a_ducklake_holds_only_the_rows_that_have_changed(shops, place):
    first = publish(place, shops, "first")
    one = {name for name in place.names() if name.endswith(".parquet")}
    assert publish(place, shops, "nothing new") == first
    assert {name for name in place.names() if name.endswith(".parquet")} == one

    def write(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("UPDATE outliers SET outlier_score = 0.5 WHERE rowid = 0")

    place.pipeline(shops).warehouse.write(write)
    publish(place, shops, "second")
    [rows, deletes] = sorted(
        {name for name in place.names() if name.endswith(".parquet")} - one,
        key=lambda name: "delete" in name,
    )
    assert duckdb.read_parquet(rows).fetchall()[0]
    assert len(duckdb.read_parquet(rows).fetchall()) == 1
    assert len(duckdb.read_parquet(deletes).fetchall()) == 1


@pytest.mark.parametrize("place", ["ducklake on disk"], indirect=True)
def test_tables_of_the_same_names_in_another_schema_of_a_ducklake_change_nothing(shops, place):
    publish(place, shops, "first")
    with in_memory() as con, place.target(shops)._lake(con):
        con.execute(f"CREATE SCHEMA {LAKE}.others")
        con.execute(f"CREATE TABLE {LAKE}.others.outliers (text VARCHAR)")
    Pipeline(shops).warehouse.write(lambda con: con.execute("DELETE FROM outliers"))
    publish(place, shops, "second")
    with place.reader(shops) as published:
        assert content(published, "outliers") == []


def test_rows_are_told_apart_whatever_their_values_and_columns_are():
    with duckdb.connect() as con:
        con.execute("ATTACH ':memory:' AS lake")
        wanted = (
            "SELECT * FROM (VALUES (1, NULL, 'nan'::DOUBLE), (1, NULL, 'nan'::DOUBLE), "
            "(2, ['a', NULL], 0.1)) AS t(row_number, list, \"row\")"
        )
        others = (
            wanted.replace("(2, [", "(3, ["),
            f"{wanted} WHERE row_number = 1 LIMIT 1",
            f"{wanted} UNION ALL {wanted}",
            "SELECT 'x' AS \"rowid\"",
            "SELECT 'y' AS \"rowid\"",
            wanted,
        )
        for query in (wanted, *others):
            known = con.execute("SHOW TABLES FROM lake").fetchall()
            changes.replace_changed(con, query, 'lake."t"', exists=bool(known), empty=False)
            found = con.execute("FROM lake.t ORDER BY ALL").fetchall()
            assert str(found) == str(con.execute(f"FROM ({query}) ORDER BY ALL").fetchall())


def test_a_run_whose_target_fails_says_so_and_the_next_one_publishes(home, tmp_path, monkeypatch):
    copy_shops(home)
    monkeypatch.setenv("PGPASSWORD", "hidden-word")
    folder = tmp_path / "lake"
    settings = {"target": "ducklake", "url": folder.as_uri()}
    failing = Place({**settings, "catalog": "postgresql://ann@127.0.0.1:9/tables"}, folder)
    with pytest.raises(StoreError, match=r"DuckLake at .* cannot be used") as raised:
        failing.pipeline(home).harmonize(OFFLINE)
    assert "hidden-word" not in str(raised.value)
    assert raised.value.__context__ is None
    working = Place(settings, folder)
    assert working.pipeline(home).harmonize(OFFLINE).published.version is not None
    with working.reader(home) as reader:
        assert content(reader, "outliers")


def test_a_clock_that_is_set_back_does_not_hide_a_new_version(shops, tmp_path, monkeypatch):
    place = Place({"target": "parquet", "url": (tmp_path / "out").as_uri()}, tmp_path / "out")
    publish(place, shops, "first")

    monkeypatch.setattr(parquet, "utc_now", lambda: dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    second = publish(place, shops, "second")
    monkeypatch.undo()
    assert [version.run_id for version in place.target(shops).versions()] == ["first", "second"]
    assert place.target(shops).versions()[-1].name == second


def test_files_of_others_at_the_url_stay(shops, tmp_path):
    place = Place({"target": "parquet", "url": tmp_path.as_uri()}, tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    publish(place, shops, "first")
    place.target(shops).clear()
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"
    assert not list(tmp_path.glob("2*"))


def test_without_the_extension_of_this_duckdb_a_ducklake_names_its_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(duckdb, "__version__", "9.9.9")
    settings = Settings.model_validate(
        {"publish": {"target": "ducklake", "url": (tmp_path / "lake").as_uri()}}
    )
    target = open_target(Home(tmp_path / "home").ensure(), settings.publish)
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "catalog.sqlite").touch()
    with pytest.raises(ConfigurationError, match=r"pip install 'label-harmonizer\[ducklake\]'"):
        target.versions()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"target": "parquet"}, "parquet needs a url"),
        ({"target": "ducklake", "url": "s3://bucket/lake"}, "needs a catalog in PostgreSQL"),
        ({"target": "ducklake", "url": "file:///l", "catalog": "postgresql://a:b@h/d"}, "pattern"),
    ],
)
def test_settings_that_say_too_little_or_hold_a_password_are_refused(section, said):
    with pytest.raises(ValueError, match=said):
        Settings.model_validate({"publish": section})
