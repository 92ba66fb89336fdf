"""No path to an endpoint, a bucket or a database tells a secret that the other side repeats."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterator

import pytest

from harmonizer_assets.core.apply.push import push_corrections
from harmonizer_assets.core.apply.targets import configured_targets
from harmonizer_assets.core.backup import back_up, restore
from harmonizer_assets.core.backup.archive import open_archive
from harmonizer_assets.core.base.errors import ConfigurationError, HarmonizerError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import (
    ArrivalSettings,
    DynamoSettings,
    EmbeddingSettings,
    IndexSettings,
    PublishSettings,
    Settings,
    TableSettings,
)
from harmonizer_assets.core.decide.stage import OutlierPublishing
from harmonizer_assets.core.judge.llm.batch.table import JobItem, note_status, write_down
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.store.objects import ObjectStore, open_store
from harmonizer_assets.core.units.executors.aws_lambda import LambdaExecutor
from harmonizer_assets.core.units.store import UnitStore
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.conftest import reachable_database
from harmonizer_tests.support.corrections import applied, correction, labels
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.indiscreet import Indiscreet, indiscreet_server
from harmonizer_tests.support.labels import scored_home
from harmonizer_tests.support.postgres import keep_in_postgres
from harmonizer_tests.support.receipts import shop_receipts, table

KEY = "sk-test-very-secret"
PASSWORD = "pa@ss:hunter2/word"
ANSWERS = {
    "400": (400, "json"),
    "401": (401, "json"),
    "403": (403, "xml"),
    "page": (200, "page"),
}
SETTINGS = Settings(
    arrivals=ArrivalSettings(tables=TableSettings(labels="labels")),
).with_judge(skip_high_confidence=False, max_attempts=1, backoff_seconds=0.0)


@pytest.fixture(params=ANSWERS)
def server(request, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Indiscreet]:
    with indiscreet_server() as state:
        state.status, state.form = ANSWERS[request.param]
        set_keys(monkeypatch, state.url)
        yield state


def set_keys(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
    monkeypatch.setenv("HARMONIZER_CHROMA_TOKEN", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)


def scored(home: Home) -> None:
    scored_home(home, label_types=1, merchants=1, words=4, settings=SETTINGS)


def ask(pipeline: Pipeline) -> None:
    pipeline.harmonize(
        RunOptions(judge="openai"),
        partitions=pipeline.partitions.held(),
        assets=["llm_verdicts"],
    )


def submit(pipeline: Pipeline) -> None:
    pipeline.submit(RunOptions(run_id="batch"))


def adopt(pipeline: Pipeline) -> None:
    note_job(pipeline, None, "submitting")
    pipeline.judge.batch_jobs().adopt()


def refresh(pipeline: Pipeline) -> None:
    note_job(pipeline, "batch_1", "in_progress")
    pipeline.judge.batch_jobs().refresh()


def collect(pipeline: Pipeline) -> None:
    note_job(pipeline, "batch_1", "in_progress")
    pipeline.harmonize(RunOptions(judge="offline", collect=True))


def cancel(pipeline: Pipeline) -> None:
    note_job(pipeline, "batch_1", "in_progress")
    pipeline.judge.batch_jobs().cancel("batch_1")


def embed(pipeline: Pipeline) -> None:
    embedding = EmbeddingSettings(embedder="openai", openai_dimensions=16)
    Pipeline(pipeline.home, Settings(embedding=embedding)).index()


def read_bucket(pipeline: Pipeline) -> None:
    arrivals = ArrivalSettings(s3="s3://labels/in", s3_endpoint_url=endpoint())
    for error in Pipeline(pipeline.home, Settings(arrivals=arrivals)).arrivals.pull()[1]:
        raise error


def read_dynamo(pipeline: Pipeline) -> None:
    for error in Pipeline(pipeline.home, Settings(arrivals=dynamo())).arrivals.pull()[1]:
        raise error


def push_to_dynamo(pipeline: Pipeline) -> None:
    applied(pipeline, correction(labels(pipeline)[0], "mark_invalid"))
    [target] = configured_targets(dynamo())
    push_corrections(pipeline.warehouse, target, commit=True)


def dynamo() -> ArrivalSettings:
    return ArrivalSettings(dynamodb=DynamoSettings(table="t", endpoint_url=endpoint()))


def share_answers(pipeline: Pipeline) -> None:
    """The model's endpoint and the cache are this server: the cache comes first."""
    settings = SETTINGS.with_judge(answers="dynamodb://answers")
    ask(Pipeline(pipeline.home, settings))


def plan_with_shared_answers(pipeline: Pipeline) -> None:
    settings = SETTINGS.with_judge(answers="dynamodb://answers")
    Pipeline(pipeline.home, settings).plan(RunOptions())


def publish_files(pipeline: Pipeline) -> None:
    publish = PublishSettings(target="parquet", url="s3://tables/home", endpoint_url=endpoint())
    Pipeline(pipeline.home, Settings(publish=publish)).publishing.publish("run", "", "")


def publish_to_a_lake(pipeline: Pipeline) -> None:
    publish = {"target": "ducklake", "url": "s3://tables/home", "endpoint_url": endpoint()}
    with reachable_database() as catalog:
        settings = Settings(publish=PublishSettings.model_validate({**publish, "catalog": catalog}))
        Pipeline(pipeline.home, settings).publishing.publish("run", "", "")


def search_a_server(pipeline: Pipeline) -> None:
    Pipeline(pipeline.home, Settings(index=IndexSettings(server=endpoint()))).index()


def put_unit(pipeline: Pipeline) -> None:
    UnitStore(bucket()).add("unit", b"content")


def read_unit(pipeline: Pipeline) -> None:
    UnitStore(bucket()).bundle("unit")


def list_dead_units(pipeline: Pipeline) -> None:
    UnitStore(bucket()).dead_letters()


def compute_on_lambda(pipeline: Pipeline) -> None:
    store = UnitStore(open_store((pipeline.home.root / "units").as_uri()))
    store.add("unit", b"content")
    with LambdaExecutor(store, "function", attempts=1, seconds=5.0, most_waiting=1) as executor:
        executor.submit("unit")
        assert executor.finished(["unit"], 30.0) == ["unit"]


def drop_objects(pipeline: Pipeline) -> None:
    bucket().delete(["one", "two"])


def back_up_home(pipeline: Pipeline) -> None:
    archive = open_archive("s3://backups/home")
    back_up(pipeline.warehouse, pipeline.indexing.vectors, archive)


def restore_home(pipeline: Pipeline) -> None:
    restore(open_archive("s3://backups/home"), Home(pipeline.home.root / "restored"))


def bucket() -> ObjectStore:
    return open_store("s3://units/of-a-home", endpoint())


def endpoint() -> str:
    return os.environ["OPENAI_BASE_URL"].removesuffix("/v1")


def note_job(pipeline: Pipeline, batch_id: str | None, status: str) -> None:
    def write(con):
        item = JobItem("submission", "call-0", "1", "key", "DATE", "shop", "12:00", 0.5)
        write_down(con, "submission", "gpt-4o-mini", "run", [item])
        note_status(con, "submission", batch_id, status, None)

    pipeline.warehouse.write(write)


PATHS = (
    *(ask, submit, adopt, refresh, collect, cancel, embed),
    *(read_bucket, read_dynamo, push_to_dynamo),
    *(put_unit, read_unit, list_dead_units, compute_on_lambda),
    *(drop_objects, back_up_home, restore_home),
    *(share_answers, plan_with_shared_answers, publish_files, publish_to_a_lake),
    search_a_server,
)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_what_the_other_side_repeats_is_told_nowhere(
    home, server, caplog, capfd, path: Callable[[Pipeline], None]
):
    caplog.set_level(logging.INFO)
    copy_home(home, "four scored labels", scored)
    pipeline = Pipeline(home, SETTINGS)
    told = trace_of(path, pipeline)
    assert server.requests
    shown = capfd.readouterr()
    for text in (told, caplog.text, shown.out, shown.err):
        assert KEY not in text
    assert holding(home, KEY) == []


def test_a_function_that_is_throttled_tells_nothing_while_it_is_waited_for(
    home, monkeypatch, caplog
):
    monkeypatch.setattr("harmonizer_assets.core.units.executors.aws_lambda._PATIENCE", 0.0)
    caplog.set_level(logging.INFO)
    with indiscreet_server() as state:
        state.status = 429
        set_keys(monkeypatch, state.url)
        told = trace_of(compute_on_lambda, Pipeline(home))
    assert "has taken no invocation" in told
    assert "Lambda takes no invocation now" in caplog.text
    assert KEY not in told + caplog.text


def trace_of(path: Callable[[Pipeline], None], pipeline: Pipeline) -> str:
    """The traceback of the error that a path ends with, empty if it ends with none."""
    try:
        path(pipeline)
    except HarmonizerError as error:
        if chain(error) != [error]:
            raise
        return "".join(traceback.format_exception(error))
    return ""


def chain(error: BaseException) -> list[BaseException]:
    """The error, and all that it was raised from or while handling, shown or not."""
    found = [error]
    for other in (error.__cause__, error.__context__):
        if other is not None:
            found += chain(other)
    return found


def holding(home: Home, *secrets: str) -> list[str]:
    """The files of a home that hold a secret, in whatever form they are."""
    return [
        str(path)
        for path in sorted(home.root.rglob("*"))
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets)
    ]


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2", "mysql", "sqlite", "x"])
def test_a_url_whose_password_is_read_in_pieces_tells_none_of_them(
    home, monkeypatch, caplog, scheme
):
    monkeypatch.setenv("HARMONIZER_TABLE_URL", f"{scheme}://me:{PASSWORD}@127.0.0.1:9/x")
    pipeline = Pipeline(home, SETTINGS)
    _, [error] = pipeline.arrivals.pull()
    told = "".join(traceback.format_exception(error)) + caplog.text
    assert chain(error) == [error]
    for piece in (PASSWORD, "hunter2", "pa@ss", "word@"):
        assert piece not in told


@pytest.mark.parametrize(
    "url", ["postgresql://me:{}@127.0.0.1:9/x", "nonsense://me:{}@127.0.0.1:9/x"]
)
def test_the_database_of_dagsters_instance_tells_no_password(home, monkeypatch, caplog, url):
    keep_in_postgres(home, url.format(PASSWORD), monkeypatch)
    with (
        pytest.raises(ConfigurationError, match="Dagster cannot use it") as raised,
        open_instance(home),
    ):
        pass
    told = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert chain(raised.value) == [raised.value]
    for piece in (PASSWORD, "hunter2", "pa@ss", "word@"):
        assert piece not in told
    assert holding(home, "hunter2") == []


def test_an_unforeseen_error_that_quotes_a_key_reaches_no_caller(home, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    pipeline = Pipeline(home)
    shop_receipts().submit(pipeline, tmp_path)

    def fail(*_, **__):
        try:
            raise ValueError(f"Bearer {KEY}")
        except ValueError as error:
            raise RuntimeError("cannot go on") from error

    monkeypatch.setattr(pipeline.indexing, "run", fail)
    with pytest.raises(HarmonizerError, match="unexpected RuntimeError: cannot go on") as raised:
        pipeline.index()
    assert chain(raised.value) == [raised.value]


def test_a_partition_that_fails_with_a_key_in_its_error_stores_it_nowhere(
    home, monkeypatch, tmp_path
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    pipeline = Pipeline(home)
    shop_receipts().submit(pipeline, tmp_path)
    pipeline.ingest()
    pipeline.index()

    def fail(*_, **__):
        raise ValueError(f"the key {KEY} is bad")

    monkeypatch.setattr(OutlierPublishing, "publish", fail)
    pipeline.harmonize(RunOptions())
    failures = table(pipeline, "partition_failures")
    assert {failure["error"] for failure in failures} == {"ValueError: the key [secret] is bad"}
    assert KEY not in str(failures)
    assert holding(home, KEY) == []
