"""Units on the workers of a queue: RabbitMQ and Redis where they run, SQS as moto simulates it."""

from __future__ import annotations

import threading
import time

import pytest

from harmonizer_assets.core.base.errors import ConfigurationError, WorkersError
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.units.executors import celery
from harmonizer_assets.core.units.executors.brokers import TASK
from harmonizer_assets.core.units.executors.celery import CeleryExecutor, make_app
from harmonizer_assets.core.units.spread import unit_store
from harmonizer_tests.support.brokers import (
    UnreachableError,
    paused_at_will,
    queue_on,
    refused_at_will,
    worker,
)
from harmonizer_tests.support.environment import use_aws
from harmonizer_tests.support.login_page import login_page
from harmonizer_tests.support.units import (
    Errors,
    Poison,
    opened,
    poisoned_by,
    scored,
    scores,
)

SPOILED, CRASHING = merchant_key("Gamma Bar"), merchant_key("Zeta Grill")
BROKERS = ("rabbitmq", "redis", "sqs")


@pytest.fixture
def broker(request, monkeypatch):
    use_aws(monkeypatch)
    try:
        with queue_on(request.param) as broker:
            monkeypatch.setenv("HARMONIZER_BROKER_URL", broker.url)
            yield broker
    except UnreachableError as error:
        pytest.skip(str(error))


every_broker = pytest.mark.parametrize("broker", BROKERS, indirect=True)
on_rabbitmq = pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)


def opened_on(broker, home):
    return opened(
        home,
        executor="celery",
        queue=broker.queue,
        attempts=broker.attempts,
        seconds=broker.seconds,
    )


@every_broker
def test_workers_compute_what_the_run_itself_does(shops, broker, undisturbed):
    pipeline = opened_on(broker, shops)
    with worker(broker, shops):
        results = scored(pipeline)
    assert all(result.changed for result in results)
    assert scores(pipeline) == undisturbed
    assert list(shops.units.rglob("*.*")) == []


@every_broker
def test_a_poisoned_unit_is_given_up_after_three_deliveries_and_others_go_on(
    shops, broker, undisturbed
):
    pipeline = opened_on(broker, shops)
    poison = poisoned_by(Poison("raise", SPOILED), Poison("crash", CRASHING))
    with worker(broker, shops, **poison):
        results = scored(pipeline)
        if broker.counts:
            # SQS gives a message up when somebody asks for it once more.
            app = make_app(broker)
            wait_for(lambda: len(broker.dead_units(app)) == 2)
    assert Errors.of(results).merchants == {SPOILED, CRASHING}
    assert Errors.of(results, SPOILED).said == {"ValueError: a spoiled word"}
    [said] = Errors.of(results, CRASHING).said
    assert said.startswith("attempt 3: its process ended without a word")
    spared = [row for row in undisturbed if row["merchant_key"] not in (SPOILED, CRASHING)]
    assert scores(pipeline) == spared
    letters = unit_store(pipeline.settings.units, shops).dead_letters()
    assert [letter.attempts for letter in letters] == [3, 3]
    if broker.counts:
        check_dead_letters(broker, {letter.unit for letter in letters})


def check_dead_letters(broker, units):
    """They are in the broker's own queue, too, until they are cleared."""
    app = make_app(broker)
    wait_for(lambda: units <= broker.dead_units(app))
    assert units <= broker.dead_units(app)
    broker.clear_dead(app, units)
    wait_for(lambda: not units & broker.dead_units(app))


@on_rabbitmq
def test_workers_that_are_killed_lose_no_unit_and_apply_none_twice(shops, broker, undisturbed):
    pipeline = opened_on(broker, shops)
    slow = poisoned_by(Poison("sleep", seconds=1.0))
    applied: list[object] = []
    run = threading.Thread(target=lambda: applied.extend(scored(pipeline)))
    with worker(broker, shops, **slow) as first:
        run.start()
        wait_for(lambda: any((shops.units / "attempts").glob("*.json")))
        first.kill()
    with worker(broker, shops):
        run.join(60)
    assert Errors.of(applied) == Errors()
    assert len(applied) == len({result.partition for result in applied})
    assert scores(pipeline) == undisturbed


@pytest.mark.parametrize("broker", ["sqs"], indirect=True)
def test_a_worker_waits_while_connections_break_and_a_login_page_answers(
    shops, broker, undisturbed, monkeypatch
):
    with paused_at_will(broker) as (relayed, relay), login_page() as page:
        aws = relay.server
        monkeypatch.setenv("HARMONIZER_BROKER_URL", relayed.url)
        pipeline = opened_on(relayed, shops)
        with worker(relayed, shops) as waiting:
            wait_for(lambda: " ready." in waiting.log.read_text())
            relay.lead_to("127.0.0.1", int(page.rpartition(":")[2]))
            wait_for(lambda: "want a login?" in waiting.log.read_text())
            relay.lead_to(*aws)
            scored(pipeline)
            assert waiting.process.poll() is None
    assert scores(pipeline) == undisturbed


@pytest.mark.parametrize("broker", ["sqs"], indirect=True)
def test_a_worker_whose_rights_are_gone_for_a_while_says_so_and_goes_on(shops, broker, undisturbed):
    results: list[object] = []
    with refused_at_will(broker) as (behind, proxy):
        pipeline = opened_on(broker, shops)
        run = threading.Thread(target=lambda: results.extend(scored(pipeline)), daemon=True)
        with worker(behind, shops) as refused:

            def says(words: str) -> bool:
                return words in refused.log.read_text()

            wait_for(lambda: says(" ready."))
            proxy.refused["ReceiveMessage"] = "ExpiredTokenException"
            wait_for(lambda: proxy.count > 0)
            run.start()
            wait_for(lambda: says("no messages can be received (ExpiredTokenException)"))
            proxy.refused["DeleteMessage"] = "AccessDenied"
            del proxy.refused["ReceiveMessage"]
            wait_for(lambda: says("a message cannot be settled (AccessDenied)"))
            proxy.refused.clear()
            run.join(60)
            assert refused.process.poll() is None
    assert Errors.of(results) == Errors()
    assert scores(pipeline) == undisturbed


@pytest.mark.parametrize("broker", ["sqs"], indirect=True)
def test_a_worker_outlives_a_service_that_is_unavailable(shops, broker, undisturbed):
    with refused_at_will(broker) as (behind, proxy):
        pipeline = opened_on(broker, shops)
        with worker(behind, shops) as process:
            wait_for(lambda: " ready." in process.log.read_text())
            proxy.status, proxy.refused["ReceiveMessage"] = 503, "ServiceUnavailable"
            wait_for(lambda: proxy.count > 2)
            proxy.refused.clear()
            scored(pipeline)
            assert process.process.poll() is None
    assert scores(pipeline) == undisturbed


@pytest.mark.parametrize("broker", ["sqs"], indirect=True)
@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredTokenException"])
def test_a_message_that_has_failed_and_may_not_be_shown_again_at_once_ends_no_worker(
    broker, caplog, code
):
    with refused_at_will(broker) as (behind, proxy):
        app = make_app(behind)
        behind.declare(app)
        app.send_task(TASK, kwargs={}, queue=broker.queue)
        with app.connection_for_write() as connection:
            message = connection.default_channel.basic_get(broker.queue)
            proxy.refused["ChangeMessageVisibility"] = code
            message.reject()
    assert f"a message cannot be settled ({code}); it comes again" in caplog.text


@on_rabbitmq
def test_a_broker_that_is_paused_for_a_while_costs_time_and_nothing_else(
    shops, broker, undisturbed, monkeypatch, caplog
):
    monkeypatch.setattr(celery, "_SECONDS_BETWEEN_LOOKS", 0.5)
    slow = poisoned_by(Poison("sleep", seconds=0.5))
    results: list[object] = []
    with paused_at_will(broker) as (paused, relay):
        monkeypatch.setenv("HARMONIZER_BROKER_URL", paused.url)
        pipeline = opened_on(paused, shops)
        run = threading.Thread(target=lambda: results.extend(scored(pipeline)))
        with worker(paused, shops, **slow):
            run.start()
            wait_for(lambda: any((shops.units / "attempts").glob("*.json")))
            relay.pause()
            # Longer than the four seconds after which Celery gives up to connect.
            wait_for(lambda: "cannot be used (TimeoutError)" in caplog.text)
            relay.resume()
            run.join(60)
    assert Errors.of(results) == Errors()
    assert len(results) == len({result.partition for result in results})
    assert scores(pipeline) == undisturbed


@on_rabbitmq
def test_a_message_that_comes_again_is_done_nothing_for(shops, broker, undisturbed, monkeypatch):
    submit = CeleryExecutor.submit
    monkeypatch.setattr(
        CeleryExecutor, "submit", lambda self, unit: [submit(self, unit) for _ in range(3)]
    )
    pipeline = opened_on(broker, shops)
    with worker(broker, shops):
        results = scored(pipeline)
    assert len(results) == len({result.partition for result in results})
    assert scores(pipeline) == undisturbed


@on_rabbitmq
def test_messages_that_name_no_unit_of_the_store_are_refused(shops, broker, tmp_path, undisturbed):
    app, spoils = make_app(broker), tmp_path / "spoils"
    elsewhere = (tmp_path / "elsewhere").as_uri()
    url = shops.units.as_uri()
    messages = [
        {"unit": "../../secrets", "store": url},
        {"unit": "a" * 64, "store": elsewhere},
        {"unit": "a" * 64},
        {"unit": "a" * 64, "store": url, "more": 1},
    ]
    with worker(broker, shops) as process:
        for message in messages:
            app.send_task(TASK, kwargs=message, queue=broker.queue)
        with app.connection_for_write() as connection:
            send_pickle(connection, broker, spoils)
        pipeline = opened_on(broker, shops)
        scored(pipeline)
        wait_for(lambda: "pickle" in process.log.read_text())
    assert scores(pipeline) == undisturbed
    assert not spoils.exists()
    assert not (tmp_path / "elsewhere").exists()


class Spoiling:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def send_pickle(connection, broker, path):
    """Send what would make a file, were it unpickled."""
    producer = connection.Producer()
    producer.publish(
        ((), {"unit": Spoiling(path)}, {}),
        exchange=broker.queue,
        routing_key=broker.queue,
        serializer="pickle",
        headers={"task": TASK, "id": "1"},
    )


def wait_for(holds, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_broker_is_a_clear_error(shops, monkeypatch):
    monkeypatch.delenv("HARMONIZER_BROKER_URL", raising=False)
    with pytest.raises(ConfigurationError, match="set HARMONIZER_BROKER_URL"):
        scored(opened(shops, executor="celery"))


def test_a_broker_that_is_not_there_is_named_without_its_password(shops, monkeypatch):
    monkeypatch.setenv("HARMONIZER_BROKER_URL", "redis://ann:hidden-word@127.0.0.1:9/0")
    with pytest.raises(WorkersError, match=r"the redis broker at 127\.0\.0\.1") as raised:
        scored(opened(shops, executor="celery"))
    assert "hidden-word" not in str(raised.value)
