"""Brokers that run here, and workers that take units from them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from harmonizer_assets.core.base.errors import WorkersError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.units.executors.brokers import Broker, broker_of
from harmonizer_assets.core.units.executors.celery import make_app
from harmonizer_tests.support.aws import aws_server
from harmonizer_tests.support.refusing import Refusing, refusing
from harmonizer_tests.support.relay import Relay, relayed

Proxy = TypeVar("Proxy", Relay, Refusing)

ADDRESSES = {
    "rabbitmq": "amqp://guest:guest@127.0.0.1:5672//",
    "redis": "redis://127.0.0.1:6379/9",
}
ATTEMPTS = 3
SECONDS = 20.0


class UnreachableError(Exception):
    """A broker does not run here."""


@contextmanager
def queue_on(kind: str, attempts: int = ATTEMPTS, seconds: float = SECONDS) -> Iterator[Broker]:
    """Make a queue with a name of its own, and remove it at the end.

    Args:
        kind: of the broker.
        attempts: deliveries of a message.
        seconds: the longest that one may take.

    Raises:
        UnreachableError: the broker does not run here.
    """
    name = f"test-{uuid.uuid4().hex[:12]}"
    if kind == "sqs":
        with aws_server() as url:
            yield broker_of(url.replace("http://", "sqs://test:test@"), name, attempts, seconds)
        return
    broker = broker_of(ADDRESSES[kind], name, attempts, seconds)
    app = make_app(broker)
    try:
        broker.declare(app)
    except WorkersError as error:
        raise UnreachableError(str(error)) from None
    try:
        yield broker
    finally:
        with app.connection_for_write() as connection:
            for queue in (name, f"{name}.dead"):
                connection.default_channel.queue_delete(queue)


@dataclass
class WorkerProcess:
    """A `harmonizer worker` with its children, which form a process group."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """End it and its children at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def worker(broker: Broker, home: Home, **environment: str) -> Iterator[WorkerProcess]:
    """Run a worker for a home's store, without its home."""
    log = home.root.parent / f"worker-{uuid.uuid4().hex[:6]}.log"
    limits: list[Any] = ["--attempts", broker.attempts, "--seconds", broker.seconds]
    command = [
        *(sys.executable, "-m", "harmonizer_assets.cli", "--home", str(home.root / "nowhere")),
        *("worker", "--store", home.units.as_uri(), "--queue", broker.queue, "--processes", "2"),
        *map(str, limits),
    ]
    variables = {**os.environ, "HARMONIZER_BROKER_URL": broker.url, **environment}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=variables, stdout=file, stderr=file, start_new_session=True
        )
    started = WorkerProcess(process, log)
    try:
        yield started
    finally:
        started.kill()


def paused_at_will(broker: Broker) -> AbstractContextManager[tuple[Broker, Relay]]:
    """Put a relay before a broker; give the broker behind it, and the relay."""
    return _behind(broker, relayed)


def refused_at_will(broker: Broker) -> AbstractContextManager[tuple[Broker, Refusing]]:
    """Put a proxy before SQS that refuses requests; give the broker behind it, and the proxy."""
    return _behind(broker, refusing)


@contextmanager
def _behind(
    broker: Broker, proxied: Callable[[str, int], AbstractContextManager[Proxy]]
) -> Iterator[tuple[Broker, Proxy]]:
    parts = urlsplit(broker.url)
    assert parts.hostname
    assert parts.port
    with proxied(parts.hostname, parts.port) as proxy:
        yield replace(broker, url=broker.url.replace(f":{parts.port}", f":{proxy.port}")), proxy
