"""A network that answers every request with a page and status 200 has taken nothing."""

from __future__ import annotations

from contextlib import ExitStack

import boto3
import pytest

from harmonizer_assets.core.apply.push import push_corrections
from harmonizer_assets.core.apply.targets import DynamoTarget
from harmonizer_assets.core.base.aws import aws_client
from harmonizer_assets.core.base.errors import (
    HarmonizerError,
    SourceError,
    StoreError,
    WorkersError,
)
from harmonizer_assets.core.base.identity import identity_of
from harmonizer_assets.core.base.settings import DynamoSettings, IndexSettings, Settings
from harmonizer_assets.core.ingest.sources.dynamodb import DynamoSource
from harmonizer_assets.core.ingest.sources.s3 import S3Source
from harmonizer_assets.core.judge.llm.memory.shared.dynamodb import DynamoDBCache
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.publish.ducklake import DuckLakeTarget
from harmonizer_assets.core.store.objects import open_store
from harmonizer_assets.core.store.snapshot import publish_snapshot
from harmonizer_assets.core.units.executors.brokers import broker_of
from harmonizer_assets.core.units.executors.celery import CeleryExecutor
from harmonizer_assets.core.units.store import UnitStore
from harmonizer_tests.support.aws import aws_server
from harmonizer_tests.support.corrections import applied, correction, labels
from harmonizer_tests.support.environment import use_aws
from harmonizer_tests.support.login_page import PAGES, login_page
from harmonizer_tests.support.postgres import UnreachableError, temporary_database
from harmonizer_tests.support.receipts import shop_receipts, table
from harmonizer_tests.support.relay import relayed


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    use_aws(monkeypatch)


@pytest.fixture(params=PAGES)
def portal(request):
    with login_page(request.param) as url:
        yield url


@pytest.fixture
def network(request):
    """The way to a server of AWS, which `lead_to` makes the way to a login page."""
    with aws_server(empty=True) as url, relayed("127.0.0.1", port_of(url)) as relay:
        yield relay


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_a_push_is_not_recorded_as_done(home, tmp_path, portal):
    pipeline = Pipeline(home)
    shop_receipts(each=2).submit(pipeline, tmp_path)
    pipeline.ingest()
    applied(pipeline, correction(labels(pipeline)[0], "mark_invalid"))
    target = DynamoTarget(DynamoSettings(table="T", endpoint_url=portal, region="us-east-1"))
    with pytest.raises(SourceError, match=r"\(ForeignAnswerError: .* want a login\?\)"):
        push_corrections(pipeline.warehouse, target, commit=True)
    assert table(pipeline, "pushed_corrections") == []


def test_a_table_is_not_read_as_empty(home, portal):
    settings = DynamoSettings(table="T", endpoint_url=portal, region="us-east-1")
    source = DynamoSource(settings, home, Pipeline(home).warehouse)
    with pytest.raises(SourceError, match=r"\(ForeignAnswerError: .* want a login\?\)"):
        source.pull()
    assert source.waiting() is not None


def test_a_bucket_is_neither_written_nor_read(tmp_path, portal):
    store = open_store("s3://bucket/prefix", portal)
    file = tmp_path / "file"
    file.write_bytes(b"content")
    large = tmp_path / "large"
    large.write_bytes(bytes(20 << 20))
    for use in (
        lambda: store.put("name", b"content"),
        lambda: store.upload("name", file),
        lambda: store.upload("name", large),
        lambda: store.get("name"),
        lambda: store.exists("name"),
        lambda: store.list("names/"),
        lambda: store.delete(["name"]),
        lambda: store.delete_folder("names"),
    ):
        with pytest.raises(StoreError, match="s3://bucket/prefix: the bucket"):
            use()


def test_a_bucket_that_is_not_there_is_no_empty_bucket(home, portal):
    source = S3Source("s3://bucket/prefix", portal, home, Pipeline(home).warehouse)
    for use in (source.waiting, source.pull):
        with pytest.raises(SourceError, match="s3://bucket/prefix: the bucket"):
            use()


def test_shared_answers_and_queues_say_that_they_are_not_there(portal, monkeypatch):
    from botocore.exceptions import BotoCoreError

    monkeypatch.setenv("AWS_ENDPOINT_URL", portal)
    with pytest.raises(StoreError):
        DynamoDBCache("answers")
    queue = aws_client("sqs")
    for use in (
        lambda: queue.get_queue_url(QueueName="q"),
        lambda: queue.send_message(QueueUrl=f"{portal}/q", MessageBody="unit"),
        lambda: queue.receive_message(QueueUrl=f"{portal}/q"),
    ):
        with pytest.raises(BotoCoreError):
            use()


def test_a_unit_is_not_taken_for_sent(network, portal, tmp_path):
    broker = broker_of(f"sqs://test:test@127.0.0.1:{network.port}", "units", 3, 60.0)
    executor = CeleryExecutor(UnitStore(open_store(tmp_path.as_uri())), broker, 2)
    network.lead_to("127.0.0.1", port_of(portal))
    with pytest.raises(WorkersError, match=r"sqs broker at 127.0.0.1 .* want a login\?"):
        executor.submit("a" * 64)
    executor.close()


def test_a_published_lake_is_neither_written_nor_read_nor_cleared(home, tmp_path, network):
    url = f"http://127.0.0.1:{network.port}"
    bucket = boto3.resource("s3", endpoint_url=url).Bucket("tables")
    bucket.create()
    with ExitStack() as stack:
        try:
            catalog = stack.enter_context(temporary_database())
        except UnreachableError as error:
            pytest.skip(str(error))
        page = stack.enter_context(login_page())
        pipeline = Pipeline(home)
        shop_receipts(each=2).submit(pipeline, tmp_path)
        pipeline.ingest()
        lake = DuckLakeTarget(home, open_store("s3://tables/of a home", url), catalog, url)
        ours = identity_of(home)
        publish_snapshot(
            pipeline.warehouse, "", lambda: lake.publish("first", "", ours, lambda _: None)
        )
        stored = [found.key for found in bucket.objects.all()]
        aws = network.server
        network.lead_to("127.0.0.1", port_of(page))
        for use in (
            lambda: lake.publish("second", "", ours, lambda _: None),
            lake.versions,
            lambda: lake.expire([]),
            lake.clear,
        ):
            with pytest.raises(StoreError, match=r"s3://tables.* want a login\?"):
                use()
        network.lead_to(*aws)
        assert [found.key for found in bucket.objects.all()] == stored
        assert [version.run_id for version in lake.versions()] == ["first"]
        lake.clear()
        assert [*bucket.objects.all()] == []


def test_vectors_on_a_server_are_not_there(home, tmp_path, portal):
    settings = Settings(index=IndexSettings(server=portal))
    pipeline = Pipeline(home, settings=settings)
    shop_receipts(each=2).submit(pipeline, tmp_path)
    pipeline.ingest()
    with pytest.raises(HarmonizerError) as raised:
        pipeline.indexing.run()
    assert portal in str(raised.value)
    assert table(pipeline, "document_metadata") == []


def test_a_page_that_is_an_object_is_an_object():
    with aws_server() as url:
        client = aws_client("s3", endpoint_url=url)
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="p", Body=b"<html/>", ContentType="text/html")
        assert open_store("s3://bucket", url).get("p") == b"<html/>"
