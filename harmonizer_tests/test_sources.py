"""Labels that arrive in a bucket or in tables of a database."""

from __future__ import annotations

import datetime as dt
import traceback

import boto3
import pytest
import sqlalchemy as sa
from dagster import RunRequest, build_sensor_context
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from harmonizer_assets.core.errors import ConfigurationError, SourceError
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.settings import Settings, TableSettings
from harmonizer_assets.core.sources import TableSource
from harmonizer_assets.instance import open_instance
from harmonizer_assets.resources import HarmonizerResource
from harmonizer_assets.sensors import new_labels_sensor
from harmonizer_tests.receipts import Receipts, shop_receipts, table
from harmonizer_tests.test_cli import cli

BUCKET = "labels"
NOON = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
ODD = 'O\'Reilly | "7/11" 日本 🧾'


def opened(home: Home, **arrivals) -> Harmonizer:
    """The harmonizer of a home whose settings name a source."""
    lines = ["[arrivals]"]
    tables = arrivals.pop("tables", None)
    lines += [f'{name} = "{value}"' for name, value in arrivals.items()]
    if tables:
        lines.append("[arrivals.tables]")
        lines += [f"{name} = {value!r}".replace("'", '"') for name, value in tables.items()]
    home.settings_file.write_text("\n".join(lines), encoding="utf-8")
    return Harmonizer(home)


def rows(harmonizer: Harmonizer) -> list[object]:
    return [table(harmonizer, name, "batch_id", "batch_time") for name in ("words", "labels")]


def take(harmonizer: Harmonizer) -> int:
    """Pull and ingest; the number of batches that were pulled."""
    pulled, errors = harmonizer.pull_sources()
    assert errors == []
    harmonizer.ingest_pending()
    return pulled


def expected(tmp_path, receipts: Receipts) -> list[object]:
    """The rows of a home that gets the same through its inbox."""
    harmonizer = Harmonizer(Home(tmp_path / "expected").ensure())
    receipts.submit(harmonizer, tmp_path / "expected-files")
    harmonizer.ingest_pending()
    return rows(harmonizer)


# Buckets


@pytest.fixture(scope="module")
def s3_server():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "not-a-real-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
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
    assert in_s3.waiting_batches()[0] is not None
    assert take(in_s3) == 1
    assert rows(in_s3) == expected(tmp_path, receipts)
    assert in_s3.waiting_batches() == (None, [])
    [batch] = table(in_s3, "batches")
    assert f"s3://{BUCKET}/in/2026-03-01 first/part 'a'" in batch["source"]


def test_a_folder_without_its_success_marker_waits(in_s3, bucket, tmp_path):
    upload(bucket, "a", shop_receipts(), tmp_path, complete=False)
    assert in_s3.waiting_batches() == (None, [])
    assert take(in_s3) == 0
    bucket.put_object(Bucket=BUCKET, Key="in/a/_SUCCESS", Body=b"")
    assert take(in_s3) == 1


def test_other_prefixes_and_other_objects_are_left_alone(in_s3, bucket, tmp_path):
    bucket.put_object(Bucket=BUCKET, Key="other/a/labels.csv", Body=b"x")
    bucket.put_object(Bucket=BUCKET, Key="other/a/_SUCCESS", Body=b"")
    bucket.put_object(Bucket=BUCKET, Key="in/notes/readme.txt", Body=b"x")
    bucket.put_object(Bucket=BUCKET, Key="in/notes/_SUCCESS", Body=b"")
    assert in_s3.waiting_batches() == (None, [])


def test_a_changed_object_arrives_again_and_nothing_else_does(in_s3, bucket, tmp_path):
    upload(bucket, "a", shop_receipts(["Alpha"], 2, "a"), tmp_path)
    upload(bucket, "b", shop_receipts(["Beta"], 2, "b"), tmp_path)
    assert take(in_s3) == 2
    first = in_s3.waiting_batches()[0]
    changed = shop_receipts(["Alpha"], 2, "a")
    changed.labels[0]["validation_status"] = "INVALID"
    upload(bucket, "a", changed, tmp_path / "again")
    assert in_s3.waiting_batches()[0] != first
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
            "harmonizer_assets.core.sources.base.Source._record",
            lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            in_s3.pull_sources()
    assert take(in_s3) == 1
    assert rows(in_s3) == expected(tmp_path, receipts)
    assert [row["labels_inserted"] for row in table(in_s3, "batches")] == [len(receipts.labels)]
    assert take(in_s3) == 0


def test_a_file_that_cannot_be_read_is_set_aside_and_not_pulled_again(in_s3, bucket, home):
    bucket.put_object(Bucket=BUCKET, Key="in/bad/labels.parquet", Body=b"no parquet")
    bucket.put_object(Bucket=BUCKET, Key="in/bad/_SUCCESS", Body=b"")
    assert in_s3.pull_sources() == (1, [])
    [(source, _)] = in_s3.ingest_pending().failed
    assert f"s3://{BUCKET}/in/bad/labels.parquet" in source
    assert len(list((home.inbox / ".failed").iterdir())) == 1
    assert take(in_s3) == 0


def test_a_bucket_that_is_not_there_is_named_and_the_inbox_goes_on(in_s3, home, bucket, tmp_path):
    missing = opened(home, s3="s3://no-such-bucket/x", s3_endpoint_url=bucket.meta.endpoint_url)
    shop_receipts().submit(missing, tmp_path)
    waiting, [error] = missing.waiting_batches()
    assert waiting is not None
    assert "s3://no-such-bucket/x: the bucket answers NoSuchBucket: check its name" in str(error)


def test_a_server_that_is_down_is_named_without_any_secret(home, bucket):
    down = opened(home, s3="s3://labels/x", s3_endpoint_url="http://127.0.0.1:9")
    _, [error] = down.pull_sources()
    assert "cannot be reached" in str(error)
    assert "not-a-real-secret" not in str(error)


# Tables


def database(url: str, schema: str | None = None) -> sa.MetaData:
    """Tables as others have them: with a column of their own and a time of the last change."""
    metadata = sa.MetaData(schema=schema)
    key = [
        ("image_id", sa.String),
        ("receipt_id", sa.Integer),
        ("line_id", sa.Integer),
        ("word_id", sa.Integer),
    ]
    changed = ("updated_at", sa.DateTime(timezone=True))
    boxes = [(name, sa.Float) for name in ("x", "y", "width", "height")]
    texts = [(name, sa.String) for name in ("label", "validation_status", "merchant_name")]
    for name, columns in {
        "the words": [*key, ("text", sa.String), *boxes, changed],
        "label's": [*key, *texts, ("note", sa.String), changed],
    }.items():
        sa.Table(name, metadata, *(sa.Column(column, kind) for column, kind in columns))
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        if schema:
            connection.execute(sa.schema.CreateSchema(schema))
        metadata.create_all(connection)
    return metadata


def insert(url: str, metadata: sa.MetaData, receipts: Receipts, time: dt.datetime = NOON) -> None:
    words, labels = metadata.sorted_tables
    if words.name != "the words":
        words, labels = labels, words
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        for table_, found in ((words, receipts.words), (labels, receipts.labels)):
            if found:
                connection.execute(table_.insert(), [{**row, "updated_at": time} for row in found])


@pytest.fixture(params=["sqlite", "postgresql"])
def tables(request, home, tmp_path, monkeypatch):
    """The URL of a database with two tables in it, and the harmonizer that reads them."""
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
    return url, metadata, Harmonizer(home)


def test_rows_of_tables_arrive(tables, tmp_path):
    url, metadata, harmonizer = tables
    assert harmonizer.waiting_batches() == (None, [])
    receipts = shop_receipts([ODD, None])
    insert(url, metadata, receipts)
    assert harmonizer.waiting_batches()[0] is not None
    assert take(harmonizer) == 1
    found = [
        [{name: value for name, value in row.items() if name != "extra"} for row in part]
        for part in rows(harmonizer)
    ]
    wanted = [
        [{name: value for name, value in row.items() if name != "extra"} for row in part]
        for part in expected(tmp_path, receipts)
    ]
    assert found == wanted
    assert harmonizer.waiting_batches() == (None, [])
    assert take(harmonizer) == 0


def test_a_changed_row_arrives_and_the_others_stay_as_they_are(tables):
    url, metadata, harmonizer = tables
    insert(url, metadata, shop_receipts())
    take(harmonizer)
    labels = metadata.tables[next(name for name in metadata.tables if name.endswith("label's"))]
    with sa.create_engine(url).begin() as connection:
        connection.execute(
            labels.update()
            .where(labels.c.image_id == "image-0-0", labels.c.label == "TIME")
            .values(validation_status="INVALID", updated_at=NOON + dt.timedelta(hours=1))
        )
    assert take(harmonizer) == 1
    batches = table(harmonizer, "batches")
    assert sorted(row["labels_updated"] for row in batches) == [0, 1]
    assert sorted(row["words_read"] for row in batches)[0] == 0


def test_a_row_that_becomes_visible_late_is_found(tables):
    url, metadata, harmonizer = tables
    insert(url, metadata, shop_receipts(["Alpha"], 2, "a"))
    take(harmonizer)
    insert(url, metadata, shop_receipts(["Beta"], 2, "b"), NOON - dt.timedelta(minutes=4))
    assert take(harmonizer) == 1
    assert {row["merchant_name"] for row in table(harmonizer, "labels")} == {"Alpha", "Beta"}
    assert take(harmonizer) == 0


def test_a_crash_between_copy_and_record_reads_the_rows_again_to_no_effect(tables, monkeypatch):
    url, metadata, harmonizer = tables
    receipts = shop_receipts()
    insert(url, metadata, receipts)
    with monkeypatch.context() as crash:
        crash.setattr(
            "harmonizer_assets.core.sources.base.Source._record",
            lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            harmonizer.pull_sources()
    harmonizer.ingest_pending()
    before = rows(harmonizer)
    assert take(harmonizer) == 1
    assert rows(harmonizer) == before
    assert sum(row["labels_inserted"] for row in table(harmonizer, "batches")) == len(
        receipts.labels
    )


@settings(
    max_examples=15,
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
    harmonizer = Harmonizer(Home(folder / "home").ensure())
    source = TableSource(
        TableSettings(words="the words", labels="label's"),
        url,
        harmonizer.home,
        harmonizer.warehouse,
    )
    for number, (seconds, pulls) in enumerate(commits):
        one = shop_receipts([f"Shop {number}"], 1, f"image-{number}")
        insert(url, metadata, one, NOON - dt.timedelta(seconds=seconds))
        if pulls:
            source.pull()
    source.pull()
    harmonizer.ingest_pending()
    assert {row["merchant_name"] for row in table(harmonizer, "labels")} == {
        f"Shop {number}" for number in range(len(commits))
    }


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "the environment has no HARMONIZER_TABLE_URL"),
        ("nonsense hunter2", "is no URL of a database"),
        ("nosuch://me:hunter2@127.0.0.1/x", "is no URL of a database"),
        ("postgresql://me:hunter2@127.0.0.1:9/x", "the database cannot be read"),
    ],
)
def test_a_database_that_cannot_be_read_is_said_without_its_password(
    home, tmp_path, monkeypatch, url, said
):
    if url is not None:
        monkeypatch.setenv("HARMONIZER_TABLE_URL", url)
    harmonizer = opened(home, tables={"labels": "labels"})
    shop_receipts().submit(harmonizer, tmp_path)
    _, [error] = harmonizer.pull_sources()
    assert said in str(error)
    assert "hunter2" not in "".join(traceback.format_exception(error))
    assert harmonizer.waiting_batches()[0] is not None


def test_a_table_or_column_that_is_not_there_is_named_with_the_remedy(home, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'labels.db'}"
    database(url)
    monkeypatch.setenv("HARMONIZER_TABLE_URL", url)
    _, [error] = opened(home, tables={"labels": "nowhere"}).pull_sources()
    assert "there is no table nowhere: correct [arrivals.tables] labels" in str(error)
    other = {"words": "the words", "changed_at": "changed"}
    _, [error] = opened(home, tables=other).pull_sources()
    assert "has no column changed: name the column" in str(error)


def test_settings_without_a_table_are_refused(home):
    home.settings_file.write_text("[arrivals.tables]\nchanged_at = 'x'\n")
    with pytest.raises(ConfigurationError, match="name a table of words"):
        Settings.load(home.settings_file)


# Both


def test_the_sensor_requests_a_run_for_what_a_source_holds_and_logs_one_that_is_down(
    in_s3, bucket, home, tmp_path
):
    upload(bucket, "a", shop_receipts(), tmp_path)
    with open_instance(home) as instance:

        def tick():
            context = build_sensor_context(
                instance=instance, resources={"harmonizer": HarmonizerResource()}
            )
            return list(new_labels_sensor(context))

        [request] = tick()
        assert isinstance(request, RunRequest)
        assert [again.run_key for again in tick()] == [request.run_key]


def test_the_command_line_pulls_and_says_when_a_source_is_down(in_s3, bucket, home, tmp_path):
    upload(bucket, "a", shop_receipts(), tmp_path)
    assert cli("run", home=home.root).returncode == 0
    assert Harmonizer(home).counts().labels == 96
    opened(home, s3="s3://no-such-bucket/x", s3_endpoint_url=bucket.meta.endpoint_url)
    result = cli("run", home=home.root)
    assert result.returncode == SourceError.exit_code
    assert "the bucket answers NoSuchBucket" in result.stderr
