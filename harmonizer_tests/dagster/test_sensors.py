from __future__ import annotations

import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import psutil
import pytest
from dagster import (
    DagsterEvent,
    DagsterRunStatus,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    RunRequest,
    SkipReason,
    build_run_status_sensor_context,
    build_sensor_context,
)

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.dagster_compat.run_health import process_tags
from harmonizer_assets.definitions import build_definitions
from harmonizer_assets.defs.resources import HomeResource
from harmonizer_assets.defs.sensors import (
    abandoned_runs,
    dead_letter_sensor,
    new_labels_sensor,
    run_failure_alert,
)
from harmonizer_tests.support.dagster_runs import execute, shown_versions
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.login_page import login_page
from harmonizer_tests.support.receipts import OFFLINE, Receipts, shop_receipts, table

ARRIVALS = "harmonize_arrivals"
NO_RETRIES = {"dagster/max_retries": "0"}


def tick(instance, sensor=new_labels_sensor):
    """What one evaluation asks for: a run request, or why there is none."""
    context = build_sensor_context(instance=instance, resources={"home": HomeResource()})
    [answer] = list(sensor(context))
    return answer


def run_of(instance, request: RunRequest, job: str = ARRIVALS):
    return execute(instance, Home.resolve(), job, tags=dict(request.tags), raise_on_error=False)


def run_with_status(instance, status: DagsterRunStatus, **tags: str):
    return instance.create_run_for_job(
        build_definitions(Home.resolve()).resolve_job_def(ARRIVALS),
        status=status,
        tags=tags or None,
    )


def drop(home, folder, receipts: Receipts):
    words, labels = receipts.write(folder)
    return submit_batch(home, words, labels)


def test_nothing_in_the_inbox_asks_for_nothing(instance):
    assert isinstance(tick(instance), SkipReason)


@pytest.fixture
def arrived(home) -> Pipeline:
    """A home in which the run that the sensor asked for has taken what arrived."""
    copy_home(home, "an arrival that has been taken", take_arrival)
    return Pipeline(home)


def take_arrival(home: Home) -> None:
    drop(home, home.scratch / "a", shop_receipts())
    with open_instance(home) as instance:
        resources = {"home": HomeResource(home=str(home.root))}
        context = build_sensor_context(instance=instance, resources=resources)
        [request] = list(new_labels_sensor(context))
        assert isinstance(request, RunRequest)
        assert execute(instance, home, ARRIVALS, tags=dict(request.tags)).success


def test_an_arrival_is_ingested_and_harmonized_in_one_run(arrived, instance):
    assert len(instance.get_runs()) == 1
    assert arrived.stale(OFFLINE) == []
    assert len(table(arrived, "outliers")) == 2
    assert {*shown_versions(instance, "outliers")} == {*arrived.partitions.held()}
    assert isinstance(tick(instance), SkipReason)


def test_a_burst_of_arrivals_is_one_run(instance, home, tmp_path):
    for number in range(4):
        drop(home, tmp_path / str(number), shop_receipts(("Alpha",), 2, f"burst-{number}"))
    assert run_of(instance, tick(instance)).success
    assert Pipeline(home).tables.counts().batches == 4
    assert isinstance(tick(instance), SkipReason)


def test_only_the_merchants_that_an_arrival_touches_are_computed(shop, instance, home, tmp_path):
    state = "SELECT * FROM partition_state WHERE merchant_key LIKE 'alpha%' ORDER BY ALL"
    before = Pipeline(home).warehouse.query(state).to_pylist()
    drop(home, tmp_path / "b", shop_receipts(("Beta Cafe",), 2, "later"))
    result = run_of(instance, tick(instance))
    assert Pipeline(home).warehouse.query(state).to_pylist() == before
    computed = Pipeline(home).warehouse.query(
        "SELECT DISTINCT merchant_key FROM partition_state WHERE run_id = $run",
        {"run": result.run_id},
    )
    assert computed["merchant_key"].to_pylist() == [merchant_key("Beta Cafe")]


def test_the_same_arrival_has_the_same_run_key_and_the_next_one_another(instance, home, tmp_path):
    drop(home, tmp_path / "a", shop_receipts())
    first = tick(instance)
    assert tick(instance).run_key == first.run_key
    drop(home, tmp_path / "b", shop_receipts(("Gamma",), 2, "more"))
    assert tick(instance).run_key != first.run_key


def test_a_folder_that_comes_again_as_it_was_gets_a_run_of_its_own(instance, home, tmp_path):
    shop_receipts(["Alpha Mart"], each=1).write(home.inbox / "monday")
    first = tick(instance)
    assert run_of(instance, first).success
    shutil.move(home.inbox / ".done" / "monday", home.inbox / "monday")
    again = tick(instance)
    assert again.tags == first.tags
    assert again.run_key != first.run_key


def test_while_a_run_is_under_way_arrivals_wait_and_are_not_lost(instance, home, tmp_path):
    drop(home, tmp_path / "a", shop_receipts())
    running = run_with_status(instance, DagsterRunStatus.STARTED)
    assert "is under way" in tick(instance).skip_message
    instance.report_run_canceled(running, "stopped")
    assert isinstance(tick(instance), RunRequest)


def test_a_run_that_a_killed_daemon_has_made_but_not_queued_is_asked_for_by_the_same_key(
    instance, home, tmp_path
):
    drop(home, tmp_path / "a", shop_receipts())
    request = tick(instance)
    run_with_status(instance, DagsterRunStatus.NOT_STARTED, **request.tags)
    assert tick(instance).run_key == request.run_key


def test_a_run_that_failed_after_ingest_is_asked_for_again(instance, home, tmp_path):
    drop(home, tmp_path / "a", shop_receipts())
    request = tick(instance)
    Pipeline(home).ingest()
    failed = run_with_status(instance, DagsterRunStatus.FAILURE, **request.tags)
    again = tick(instance)
    assert isinstance(again, RunRequest)
    assert failed.run_id in again.run_key
    assert again.tags == request.tags
    assert run_of(instance, again).success
    assert Pipeline(home).stale(OFFLINE) == []
    assert isinstance(tick(instance), SkipReason)


def test_after_three_failures_it_waits_for_the_next_arrival(instance, home, tmp_path):
    drop(home, tmp_path / "a", shop_receipts())
    tags = dict(tick(instance).tags)
    keys = set()
    for _ in range(3):
        keys.add(tick(instance).run_key)
        run_with_status(instance, DagsterRunStatus.FAILURE, **tags)
    assert len(keys) == 3
    assert "the last 3 runs failed" in tick(instance).skip_message
    drop(home, tmp_path / "b", shop_receipts(("Gamma",), 2, "more"))
    assert isinstance(tick(instance), RunRequest)


def test_a_batch_that_cannot_be_read_is_moved_to_failed_and_not_asked_for_for_ever(
    instance, home, tmp_path
):
    broken = home.inbox / "broken"
    broken.mkdir()
    (broken / "labels.parquet").write_bytes(b"not parquet")
    drop(home, tmp_path / "a", shop_receipts())
    assert run_of(instance, tick(instance)).success
    assert isinstance(tick(instance), SkipReason)
    assert (home.inbox / ".failed" / "broken").exists()
    assert Pipeline(home).tables.counts().labels == 96


def test_the_log_says_which_partitions_are_computed_and_why(arrived, instance):
    [run] = instance.get_runs()
    lines = [
        record.user_message
        for record in instance.all_logs(run.run_id)
        if record.user_message.startswith("similarity_matches: ")
    ]
    assert "partitions because never computed: ADDRESS_LINE|alpha-mart-" in lines[0]


def test_dead_letters_are_asked_again_only_where_the_sensor_is_turned_on(instance, home, tmp_path):
    assert dead_letter_sensor.default_status == DefaultSensorStatus.STOPPED
    assert isinstance(tick(instance, dead_letter_sensor), SkipReason)
    pipeline = Pipeline(home)
    drop(home, tmp_path / "a", shop_receipts(("Alpha",), 2))
    pipeline.ingest()
    pipeline.warehouse.write(
        lambda con: con.execute(
            "INSERT INTO dead_letters SELECT image_id, receipt_id, line_id, word_id, label, "
            "'llm_verdicts', 'refused', 5, now(), now() FROM labels LIMIT 1"
        )
    )
    request = tick(instance, dead_letter_sensor)
    assert request.tags["harmonizer/dead_letters"] == "1"
    assert tick(instance, dead_letter_sensor).run_key == request.run_key


class _Webhook(BaseHTTPRequestHandler):
    received: list[dict[str, str]]

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(json.loads(content))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def webhook(monkeypatch):
    received: list[dict[str, str]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (_Webhook,), {"received": received}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(
        "HARMONIZER_ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/hook?token=secret-1"
    )
    yield received
    server.shutdown()


def failed_context(instance, **tags: str):
    run = run_with_status(instance, DagsterRunStatus.STARTED, **tags)
    event: DagsterEvent = instance.report_run_failed(run, "the disk is full")
    return build_run_status_sensor_context(
        sensor_name="run_failure_alert",
        dagster_event=event,
        dagster_instance=instance,
        dagster_run=instance.get_run_by_id(run.run_id),
    ).for_run_failure()


def test_a_failed_run_is_posted_to_the_webhook(instance, webhook):
    run_failure_alert(failed_context(instance, **NO_RETRIES))
    [alert] = webhook
    assert alert["job"] == ARRIVALS
    assert "the disk is full" in alert["text"]


def test_a_killed_run_that_goes_on_by_itself_alerts_nobody(instance, webhook):
    run_failure_alert(failed_context(instance))
    assert webhook == []


def test_a_webhook_that_is_down_fails_nothing_and_its_address_is_not_logged(
    instance, monkeypatch, caplog, capfd
):
    monkeypatch.setenv("HARMONIZER_ALERT_WEBHOOK", "http://127.0.0.1:9/hook?token=secret-2")
    run_failure_alert(failed_context(instance, **NO_RETRIES))
    assert "secret-2" not in caplog.text + "".join(capfd.readouterr())


def test_a_login_page_has_not_taken_an_alert(instance, monkeypatch, capfd):
    with login_page() as url:
        monkeypatch.setenv("HARMONIZER_ALERT_WEBHOOK", f"{url}/hook?token=secret-3")
        run_failure_alert(failed_context(instance, **NO_RETRIES))
    said = "".join(capfd.readouterr())
    assert "HARMONIZER_ALERT_WEBHOOK: a page has answered" in said
    assert "secret-3" not in said


def test_what_a_chat_answers_is_its_own_business(instance, monkeypatch, capfd):
    with login_page("text") as url:
        monkeypatch.setenv("HARMONIZER_ALERT_WEBHOOK", f"{url}/hook")
        run_failure_alert(failed_context(instance, **NO_RETRIES))
    assert "HARMONIZER_ALERT_WEBHOOK" not in "".join(capfd.readouterr())


def test_schedules_are_off_until_somebody_turns_them_on_but_for_the_one_that_prunes(home):
    schedules = build_definitions(home).schedules or []
    assert {schedule.name: schedule.default_status for schedule in schedules} == {
        "nightly_catch_up": DefaultScheduleStatus.STOPPED,
        "weekly_check": DefaultScheduleStatus.STOPPED,
        "nightly_prune": DefaultScheduleStatus.RUNNING,
    }


def test_a_run_whose_process_is_gone_is_marked_as_failed_within_a_tick(instance):
    gone = {"harmonizer/pid": "999999999", "harmonizer/process_started": "1.00"}
    killed = run_with_status(instance, DagsterRunStatus.STARTED, **gone)
    alive = run_with_status(instance, DagsterRunStatus.STARTED, **process_tags())
    elsewhere = run_with_status(
        instance, DagsterRunStatus.STARTED, **{**gone, "harmonizer/host": "another"}
    )
    answer = abandoned_runs(build_sensor_context(instance=instance))
    assert answer.skip_message == "1 runs had been abandoned, 0 retries were missed"
    statuses = [instance.get_run_by_id(run.run_id).status for run in (killed, alive, elsewhere)]
    assert statuses == [
        DagsterRunStatus.FAILURE,
        DagsterRunStatus.STARTED,
        DagsterRunStatus.STARTED,
    ]


def test_a_run_stays_alive_when_the_clock_is_set(instance, monkeypatch):
    alive = run_with_status(instance, DagsterRunStatus.STARTED, **process_tags())
    created = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + 1.0)
    abandoned_runs(build_sensor_context(instance=instance))
    assert instance.get_run_by_id(alive.run_id).status == DagsterRunStatus.STARTED


def test_every_run_says_which_process_executes_it(arrived, instance):
    [run] = instance.get_runs()
    assert run.tags["harmonizer/pid"] == str(os.getpid())
