"""Labels that arrive in a bucket or in tables of a database."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import traceback

import boto3
import pytest
import sqlalchemy as sa
from dagster import RunRequest, build_sensor_context
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.base.errors import ConfigurationError, SourceError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import ArrivalSettings, Settings, TableSettings
from harmonizer_assets.core.ingest import Arrivals
from harmonizer_assets.core.ingest.sources import TableSource
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.defs.resources import HomeResource
from harmonizer_assets.defs.sensors import new_labels_sensor
from harmonizer_tests.support.aws import aws_server
from harmonizer_tests.support.cli import cli
from harmonizer_tests.support.environment import AWS, use_aws
from harmonizer_tests.support.receipts import Receipts, shop_receipts, table
from harmonizer_tests.support.sql_tables import NOON, database, insert

BUCKET = "labels"
ODD = 'O\'Reilly | "7/11" 日本 🧾'


def opened(home: Home, **arrivals) -> Pipeline:
    """The pipeline of a home whose settings name a source."""
    lines = ["[arrivals]"]
    tables = arrivals.pop("tables", None)
    lines += [f'{name} = "{value}"' for name, value in arrivals.items()]
    if tables:
        lines.append("[arrivals.tables]")
        lines += [f"{name} = {value!r}".replace("'", '"') for name, value in tables.items()]
    home.settings_file.write_text("\n".join(lines), encoding="utf-8")
    return Pipeline(home)


def rows(pipeline: Pipeline) -> list[object]:
    return [table(pipeline, name, "batch_id", "batch_time") for name in ("words", "labels")]


def take(pipeline: Pipeline) -> int:
    """Pull, and ingest what came; the number of batches that were pulled."""
    pulled, errors = pipeline.arrivals.pull()
    assert errors == []
    if pulled:
        pipeline.arrivals.ingest()
    return pulled


def expected(tmp_path, receipts: Receipts) -> list[object]:
    """The rows of a home that gets the same through its inbox."""
    pipeline = Pipeline(Home(tmp_path / "expected").ensure())
    receipts.submit(pipeline, tmp_path / "expected-files")
    pipeline.arrivals.ingest()
    return rows(pipeline)


# Buckets


@pytest.fixture(scope="module")
def s3_server():
    with aws_server() as url:
        yield url


@pytest.fixture
def bucket(s3_server, monkeypatch):
    use_aws(monkeypatch)
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket=BUCKET)
    yield client
    for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=found["Key"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def in_s3(home, bucket, s3_server):
    return opened(home, s3=f"s3://{BUCKET}/in", s3_endpoint_url=s3_server)


def upload(bucket, folder: str, receipts: Receipts, tmp_path, *, complete: bool = True) -> None:
    for file in receipts.write(tmp_path / folder):
        bucket.upload_file(str(file), BUCKET, f"in/{folder}/{file.name}")
    if complete:
        bucket.put_object(Bucket=BUCKET, Key=f"in/{folder}/_SUCCESS", Body=b"")


def test_a_complete_folder_of_a_bucket_is_a_batch(in_s3, bucket, tmp_path):
    receipts = shop_receipts([ODD])
    upload(bucket, "2026-03-01 first/part 'a'", receipts, tmp_path)
    assert in_s3.arrivals.waiting()[0] is not None
    assert take(in_s3) == 1
    assert rows(in_s3) == expected(tmp_path, receipts)
    assert in_s3.arrivals.waiting() == (None, [])
    [batch] = table(in_s3, "batches")
    assert f"s3://{BUCKET}/in/2026-03-01 first/part 'a'" in batch["source"]


def test_a_folder_with_two_files_of_labels_is_set_aside_by_name(in_s3, bucket, tmp_path):
    upload(bucket, "twice", shop_receipts(), tmp_path)
    bucket.put_object(Bucket=BUCKET, Key="in/twice/labels.NDJSON", Body=b"{}")
    report = in_s3.ingest()
    [(source, error)] = report.failed
    assert "labels.NDJSON and labels.csv: a batch has one labels file" in error
    assert f"s3://{BUCKET}/in/twice/" in source
    assert in_s3.ingest().failed == []


def test_a_folder_without_its_success_marker_waits(in_s3, bucket, tmp_path):
    upload(bucket, "a", shop_receipts(), tmp_path, complete=False)
    assert in_s3.arrivals.waiting() == (None, [])
    assert take(in_s3) == 0
    bucket.put_object(Bucket=BUCKET, Key="in/a/_SUCCESS", Body=b"")
    assert take(in_s3) == 1


def test_other_prefixes_and_other_objects_are_left_alone(in_s3, bucket, tmp_path):
    bucket.put_object(Bucket=BUCKET, Key="other/a/labels.csv", Body=b"x")
    bucket.put_object(Bucket=BUCKET, Key="other/a/_SUCCESS", Body=b"")
    bucket.put_object(Bucket=BUCKET, Key="in/notes/readme.txt", Body=b"x")
    bucket.put_object(Bucket=BUCKET, Key="in/notes/_SUCCESS", Body=b"")
    assert in_s3.arrivals.waiting() == (None, [])


def test_a_changed_object_arrives_again_and_nothing_else_does(in_s3, bucket, tmp_path):
    upload(bucket, "a", shop_receipts(["Alpha"], 2, "a"), tmp_path)
    upload(bucket, "b", shop_receipts(["Beta"], 2, "b"), tmp_path)
    assert take(in_s3) == 2
    first = in_s3.arrivals.waiting()[0]
    changed = shop_receipts(["Alpha"], 2, "a")
    changed.labels[0]["validation_status"] = "INVALID"
    upload(bucket, "a", changed, tmp_path / "again")
    assert in_s3.arrivals.waiting()[0] != first
    assert take(in_s3) == 1
    statuses = [row["validation_status"] for row in table(in_s3, "labels")]
    assert statuses.count("INVALID") == 1


def test_a_crash_between_copy_and_record_loses_nothing_and_does_nothing_twice(
    in_s3, bucket, tmp_path, monkeypatch
):
    receipts = shop_receipts()
    upload(bucket, "a", receipts, tmp_path)
    with monkeypatch.context() as crash:
        crash.setattr(
            "harmonizer_assets.core.ingest.sources.base.Source._record",
            lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            in_s3.arrivals.pull()
    assert take(in_s3) == 1
    assert rows(in_s3) == expected(tmp_path, receipts)
    assert [row["labels_inserted"] for row in table(in_s3, "batches")] == [len(receipts.labels)]
    assert take(in_s3) == 0


def test_a_file_that_cannot_be_read_is_moved_to_failed_and_not_pulled_again(in_s3, bucket, home):
    bucket.put_object(Bucket=BUCKET, Key="in/bad/labels.parquet", Body=b"no parquet")
    bucket.put_object(Bucket=BUCKET, Key="in/bad/_SUCCESS", Body=b"")
    assert in_s3.arrivals.pull() == (1, [])
    [(source, _)] = in_s3.arrivals.ingest().failed
    assert f"s3://{BUCKET}/in/bad/labels.parquet" in source
    assert len(list((home.inbox / ".failed").iterdir())) == 1
    assert take(in_s3) == 0


def test_a_bucket_that_is_not_there_is_named_and_the_inbox_goes_on(in_s3, home, bucket, tmp_path):
    missing = opened(home, s3="s3://no-such-bucket/x", s3_endpoint_url=bucket.meta.endpoint_url)
    shop_receipts().submit(missing, tmp_path)
    waiting, [error] = missing.arrivals.waiting()
    assert waiting is not None
    assert "s3://no-such-bucket/x: the bucket answers NoSuchBucket: check its name" in str(error)


def test_a_server_that_is_down_is_named_without_any_secret(home, bucket):
    down = opened(home, s3="s3://labels/x", s3_endpoint_url="http://127.0.0.1:9")
    _, [error] = down.arrivals.pull()
    assert "cannot be reached" in str(error)
    assert AWS["AWS_SECRET_ACCESS_KEY"] not in str(error)


# Tables


@pytest.fixture(params=["sqlite", "postgresql"])
def tables(request, home, tmp_path, monkeypatch):
    """The URL of a database with two tables in it, and the pipeline that reads them."""
    if request.param == "sqlite":
        url, schema = f"sqlite:///{tmp_path / 'labels.db'}", None
    else:
        url, schema = request.getfixturevalue("postgres_url"), "o'dd schema"
    metadata = database(url, schema)
    monkeypatch.setenv("HARMONIZER_TABLE_URL", url)
    prefix = f"{schema}." if schema else ""
    home.settings_file.write_text(
        f'[arrivals.tables]\nwords = "{prefix}the words"\nlabels = "{prefix}label\'s"\n'
    )
    return url, metadata, Pipeline(home)


def test_rows_of_tables_arrive(tables, tmp_path):
    url, metadata, pipeline = tables
    assert pipeline.arrivals.waiting() == (None, [])
    receipts = shop_receipts([ODD, None])
    insert(url, metadata, receipts)
    assert pipeline.arrivals.waiting()[0] is not None
    assert take(pipeline) == 1
    found = [
        [{name: value for name, value in row.items() if name != "extra"} for row in part]
        for part in rows(pipeline)
    ]
    wanted = [
        [{name: value for name, value in row.items() if name != "extra"} for row in part]
        for part in expected(tmp_path, receipts)
    ]
    assert found == wanted
    assert pipeline.arrivals.waiting() == (None, [])
    assert take(pipeline) == 0


def test_a_changed_row_arrives_and_the_others_stay_as_they_are(tables):
    url, metadata, pipeline = tables
    insert(url, metadata, shop_receipts())
    take(pipeline)
    labels = metadata.tables[next(name for name in metadata.tables if name.endswith("label's"))]
    with sa.create_engine(url).begin() as connection:
        connection.execute(
            labels.update()
            .where(labels.c.image_id == "image-0-0", labels.c.label == "TIME")
            .values(validation_status="INVALID", updated_at=NOON + dt.timedelta(hours=1))
        )
    assert take(pipeline) == 1
    batches = table(pipeline, "batches")
    assert sorted(row["labels_updated"] for row in batches) == [0, 1]
    assert sorted(row["words_read"] for row in batches)[0] == 0


def test_a_row_that_becomes_visible_late_is_found(tables):
    url, metadata, pipeline = tables
    insert(url, metadata, shop_receipts(["Alpha"], 2, "a"))
    take(pipeline)
    insert(url, metadata, shop_receipts(["Beta"], 2, "b"), NOON - dt.timedelta(minutes=4))
    assert take(pipeline) == 1
    assert {row["merchant_name"] for row in table(pipeline, "labels")} == {"Alpha", "Beta"}
    assert take(pipeline) == 0


def test_a_crash_between_copy_and_record_reads_the_rows_again_to_no_effect(tables, monkeypatch):
    url, metadata, pipeline = tables
    receipts = shop_receipts()
    insert(url, metadata, receipts)
    with monkeypatch.context() as crash:
        crash.setattr(
            "harmonizer_assets.core.ingest.sources.base.Source._record",
            lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            pipeline.arrivals.pull()
    pipeline.arrivals.ingest()
    before = rows(pipeline)
    assert take(pipeline) == 1
    assert rows(pipeline) == before
    assert sum(row["labels_inserted"] for row in table(pipeline, "batches")) == len(receipts.labels)


@settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.integers(0, 290), st.booleans()), min_size=1, max_size=6))
def test_in_whatever_order_commits_within_the_overlap_appear_every_row_arrives(
    tmp_path_factory, commits
):
    folder = tmp_path_factory.mktemp("commits")
    url = f"sqlite:///{folder / 'labels.db'}"
    metadata = database(url)
    pipeline = Pipeline(Home(folder / "home").ensure())
    source = TableSource(
        TableSettings(words="the words", labels="label's"),
        url,
        pipeline.home,
        pipeline.warehouse,
    )
    for number, (seconds, pulls) in enumerate(commits):
        one = shop_receipts([f"Shop {number}"], 1, f"image-{number}")
        insert(url, metadata, one, NOON - dt.timedelta(seconds=seconds))
        if pulls:
            source.pull()
    source.pull()
    pipeline.arrivals.ingest()
    assert {row["merchant_name"] for row in table(pipeline, "labels")} == {
        f"Shop {number}" for number in range(len(commits))
    }


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "the environment has no HARMONIZER_TABLE_URL"),
        ("nonsense hunter2", "is no URL of a database"),
        ("nosuch://me:hunter2@127.0.0.1/x", "is no URL of a database"),
        ("postgresql://me:hunter2@127.0.0.1:9/x", "the database cannot be read"),
        (
            "postgresql://me:pa@ss:hunter2@127.0.0.1:9/x",
            "write special characters of a password as",
        ),
        ("postgresql://me:pa/hunter2@127.0.0.1:9/x", ""),
    ],
)
def test_a_database_that_cannot_be_read_is_said_without_its_password(
    home, tmp_path, monkeypatch, url, said
):
    if url is not None:
        monkeypatch.setenv("HARMONIZER_TABLE_URL", url)
    pipeline = opened(home, tables={"labels": "labels"})
    shop_receipts().submit(pipeline, tmp_path)
    _, [error] = pipeline.arrivals.pull()
    assert said in str(error)
    assert "hunter2" not in "".join(traceback.format_exception(error))
    assert pipeline.arrivals.waiting()[0] is not None


def test_a_table_or_column_that_is_not_there_is_named_with_the_remedy(home, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'labels.db'}"
    database(url)
    monkeypatch.setenv("HARMONIZER_TABLE_URL", url)
    _, [error] = opened(home, tables={"labels": "nowhere"}).arrivals.pull()
    assert "there is no table nowhere: correct [arrivals.tables] labels" in str(error)
    other = {"words": "the words", "changed_at": "changed"}
    _, [error] = opened(home, tables=other).arrivals.pull()
    assert "has no column changed: name the column" in str(error)


CHANGES = {
    "DATE": ("2026-03-01", "2026-03-02"),
    "DATETIME": ("2026-03-01 10:00:00.000000", "2026-03-01 11:00:00.000000"),
    "INTEGER": (1, 2),
    "REAL": (1.5, 2.5),
    "NUMERIC(10, 2)": (1.25, 2.5),
}


def small_table(tmp_path, monkeypatch, kind: str, extra: str = "") -> sa.Engine:
    """A table of labels in SQLite, without rows; its column of changes has this type."""
    url = f"sqlite:///{tmp_path / 'labels.db'}"
    monkeypatch.setenv("HARMONIZER_TABLE_URL", url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE labels (image_id TEXT, receipt_id INTEGER, line_id INTEGER, "
            "word_id INTEGER, label TEXT, validation_status TEXT, merchant_name TEXT, "
            f"updated_at {kind}{extra})"
        )
    return engine


def add_row(engine: sa.Engine, word_id: object, changed: object, *extra: object) -> None:
    values = ("i", 1, 1, word_id, "DATE", "VALID", "Shop", changed, *extra)
    with engine.begin() as connection:
        marks = ", ".join("?" * len(values))
        connection.exec_driver_sql(f"INSERT INTO labels VALUES ({marks})", values)


def arrived(pipeline: Pipeline) -> list[int]:
    return [row["word_id"] for row in table(pipeline, "labels")]


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_may_be_a_time_a_date_or_any_number_or_unknown(home, tmp_path, monkeypatch, kind):
    engine = small_table(tmp_path, monkeypatch, kind)
    pipeline = opened(home, tables={"labels": "labels"})
    first, second = CHANGES[kind]
    for word_id, changed in enumerate((None, first, None, second)):
        add_row(engine, word_id, changed)
        assert take(pipeline) == 1
        assert arrived(pipeline) == [*range(word_id + 1)]
        assert take(pipeline) == 0


@pytest.mark.parametrize(
    ("zone", "instant"),
    [
        (None, "2026-03-01T12:30:00+00:00"),
        ("Europe/Berlin", "2026-03-01T11:30:00+00:00"),
        ("Asia/Kolkata", "2026-03-01T07:00:00+00:00"),
    ],
)
def test_a_time_without_a_zone_is_of_the_zone_that_the_settings_name(
    home, tmp_path, monkeypatch, zone, instant
):
    add_row(small_table(tmp_path, monkeypatch, "DATETIME"), 1, "2026-03-01 12:30:00.000000")
    named = {} if zone is None else {"time_zone": zone}
    pipeline = opened(home, tables={"labels": "labels", **named})
    assert take(pipeline) == 1
    [batch] = table(pipeline, "batches")
    assert batch["batch_time"] == dt.datetime.fromisoformat(instant)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "CEST"])
def test_a_zone_that_does_not_exist_is_refused_by_name(home, zone):
    home.settings_file.write_text(f"[arrivals.tables]\nlabels = 'labels'\ntime_zone = '{zone}'\n")
    with pytest.raises(ConfigurationError, match=r"time_zone.*is no time zone"):
        Settings.load(home.settings_file)


def test_a_change_that_is_text_is_one_clear_error_and_the_inbox_goes_on(
    home, tmp_path, monkeypatch
):
    add_row(small_table(tmp_path, monkeypatch, "TEXT"), 1, "yesterday")
    pipeline = opened(home, tables={"labels": "labels"})
    shop_receipts().submit(pipeline, tmp_path)
    report = pipeline.ingest()
    [error] = report.unread_sources
    assert "changed_at: the column updated_at holds str: name a column of times" in error
    assert report.total("labels_inserted") == 96


def test_a_row_of_a_table_with_a_value_of_another_type_is_quarantined(home, tmp_path, monkeypatch):
    engine = small_table(tmp_path, monkeypatch, "INTEGER", ", price NUMERIC(9, 2), day DATE")
    add_row(engine, 1, 1, 1.5, "2026-03-01")
    add_row(engine, "one", 1, None, None)
    pipeline = opened(home, tables={"labels": "labels"})
    assert take(pipeline) == 1
    assert arrived(pipeline) == [1]
    assert "word_id is not a whole number: one" in table(pipeline, "quarantine")[0]["reason"]
    [row] = table(pipeline, "labels")
    assert json.loads(row["extra"]) == {"price": 1.5, "day": "2026-03-01"}


def test_whatever_a_source_raises_concerns_it_alone(home, tmp_path, monkeypatch):
    engine = small_table(tmp_path, monkeypatch, "INTEGER", ", day DATE")
    add_row(engine, 1, 1, "no day at all")
    pipeline = opened(home, tables={"labels": "labels"})
    shop_receipts().submit(pipeline, tmp_path)
    report = pipeline.ingest()
    assert len(report.unread_sources) == 1
    assert report.total("labels_inserted") == 96


def test_settings_without_a_table_are_refused(home):
    home.settings_file.write_text("[arrivals.tables]\nchanged_at = 'x'\n")
    with pytest.raises(ConfigurationError, match="name a table of words"):
        Settings.load(home.settings_file)


# Both


def test_the_url_of_tables_may_be_given_instead_of_taken_from_the_environment(home, tmp_path):
    url = f"sqlite:///{tmp_path / 'labels.db'}"
    metadata = database(url)
    insert(url, metadata, shop_receipts())
    chosen = ArrivalSettings(tables=TableSettings(words="the words", labels="label's"))
    pipeline = Pipeline(home)
    arrivals = Arrivals(home, pipeline.warehouse, pipeline.taxonomy, chosen, table_url=url)
    assert arrivals.waiting()[0] is not None
    assert arrivals.pull() == (1, [])
    assert arrivals.ingest().total("labels_inserted") == 96
    assert arrivals.waiting() == (None, [])


@pytest.mark.parametrize(
    ("arrivals", "package", "extra"),
    [
        ({"s3": "s3://labels/x"}, "boto3", "s3"),
        ({"tables": {"labels": "labels"}}, "sqlalchemy", "sql"),
    ],
)
def test_a_package_that_is_not_installed_is_said_with_its_extra_and_the_inbox_goes_on(
    home, tmp_path, monkeypatch, arrivals, package, extra
):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(
        sys.modules, "harmonizer_assets.core.ingest.sources.database", raising=False
    )
    pipeline = opened(home, **arrivals)
    shop_receipts().submit(pipeline, tmp_path)
    waiting, [error] = pipeline.arrivals.waiting()
    assert waiting is not None
    remedy = f"the package {package} is not installed: pip install 'label-harmonizer[{extra}]'"
    assert str(error).endswith(remedy)


def test_ingest_is_imported_without_the_packages_of_sources():
    code = (
        "import sys, harmonizer_assets.core.ingest; "
        "sys.exit(any(name in sys.modules for name in ('boto3', 'botocore', 'sqlalchemy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_sensor_requests_a_run_for_what_a_source_holds_and_logs_one_that_is_down(
    in_s3, bucket, home, tmp_path
):
    upload(bucket, "a", shop_receipts(), tmp_path)
    with open_instance(home) as instance:

        def tick():
            context = build_sensor_context(instance=instance, resources={"home": HomeResource()})
            return list(new_labels_sensor(context))

        [request] = tick()
        assert isinstance(request, RunRequest)
        assert [again.run_key for again in tick()] == [request.run_key]


def test_the_command_line_pulls_and_says_when_a_source_is_down(home, bucket, tmp_path, monkeypatch):
    add_row(small_table(tmp_path, monkeypatch, "INTEGER"), 1, 1)
    opened(
        home,
        s3="s3://no-such-bucket/x",
        s3_endpoint_url=bucket.meta.endpoint_url,
        tables={"labels": "labels"},
    )
    result = cli("run", home=home.root)
    assert result.returncode == SourceError.exit_code
    assert "the bucket answers NoSuchBucket" in result.stderr
    assert Pipeline(home).tables.counts().labels == 1
