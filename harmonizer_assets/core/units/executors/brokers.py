"""Brokers of Celery: what each needs so that a message is neither lost nor delivered for ever.

| broker | who counts deliveries | where dead letters are |
| --- | --- | --- |
| RabbitMQ | a quorum queue, `x-delivery-limit` | in the queue `QUEUE.dead`, and in the store |
| Redis | the attempts in the store | in the store |
| SQS | the queue, `maxReceiveCount` | in the queue `QUEUE-dead`, and in the store |
"""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from harmonizer_assets.core.base.aws import aws_client, error_code
from harmonizer_assets.core.base.errors import ConfigurationError, WorkersError
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.units.unit import NAME_IN_TEXT

if TYPE_CHECKING:
    from celery import Celery
    from kombu.entity import Queue

TASK: Final = "harmonizer.unit"

_SPARE_SECONDS: Final = 60.0
"""How much later than the longest unit a message is delivered again."""
_PEEKED: Final = 1_000
"""Dead letters that are looked at in one go."""
_SQS_BATCH: Final = 10
_SQS_TRANSPORT: Final = "harmonizer_assets.core.units.executors.sqs_transport:Transport"


@dataclass(frozen=True)
class Broker(ABC):
    """One kind of broker.

    Attributes:
        url: with user and password, where it needs them.
        queue: the name of the queue.
        attempts: deliveries of a message.
        seconds: the longest that a unit may take.
    """

    url: str
    queue: str
    attempts: int
    seconds: float

    @property
    def visibility_timeout(self) -> int:
        """Seconds after which a message that nobody has acknowledged is delivered again."""
        return round(self.seconds + _SPARE_SECONDS)

    @property
    def broker_url(self) -> str:
        """The URL that Celery is given."""
        return self.url

    def queue_arguments(self) -> dict[str, Any]:
        """Return what the queue is declared with."""
        return {}

    def options(self) -> dict[str, Any]:
        """Return settings of Celery for this broker alone."""
        return {"broker_transport_options": {"visibility_timeout": self.visibility_timeout}}

    def declare(self, app: Celery) -> None:
        """Make the queue and that of its dead letters, where they are missing.

        Raises:
            WorkersError: the broker cannot be reached.
            ConfigurationError: there is a queue of this name with other settings.
        """
        with self.errors(), app.connection_for_write() as connection:
            self.task_queue().bind(connection.default_channel).declare()

    def task_queue(self) -> Queue:
        """Describe the queue."""
        from kombu.entity import Exchange, Queue

        exchange = Exchange(self.queue, type="direct", durable=True)
        return Queue(
            self.queue, exchange, routing_key=self.queue, queue_arguments=self.queue_arguments()
        )

    @property
    @abstractmethod
    def requeues(self) -> bool:
        """Whether a message may be rejected with the wish that it comes again."""

    @property
    def counts(self) -> bool:
        """Whether the broker itself counts deliveries, and keeps dead letters."""
        return True

    def dead_units(self, app: Celery) -> set[str]:
        """Look which units the broker has given up.

        Raises:
            WorkersError: the broker cannot be reached.
        """
        return set()

    def clear_dead(self, app: Celery, units: Collection[str]) -> None:  # noqa: B027
        """Remove the dead letters of some units from the broker, where it keeps any.

        Raises:
            WorkersError: the broker cannot be reached.
        """

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise what the broker's client says as our errors, without the URL."""
        parts = urlsplit(self.url)
        place = f"{parts.scheme} broker at {parts.hostname or 'its default address'}"

        def ours(error: Exception) -> WorkersError:
            # kombu hides what its transports raise in an error of its own.
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            return WorkersError(
                f"the {place} cannot be used ({error_code(cause)}): check that it runs, and "
                "HARMONIZER_BROKER_URL"
            )

        with translated(ours):
            yield


class RabbitMQ(Broker):
    """A quorum queue that counts deliveries, with an exchange for dead letters."""

    @property
    def requeues(self) -> bool:
        """The quorum queue counts; see `Broker.requeues`."""
        return True

    @property
    def dead_queue(self) -> str:
        """The queue of dead letters."""
        return f"{self.queue}.dead"

    def queue_arguments(self) -> dict[str, Any]:
        """Limit the deliveries; see `Broker.queue_arguments`. The first is no redelivery."""
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": self.attempts - 1,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.dead_queue,
        }

    def options(self) -> dict[str, Any]:
        """Confirm what is published; see `Broker.options`."""
        return {
            "broker_transport_options": {"confirm_publish": True},
            "task_default_queue_type": "quorum",
            "broker_heartbeat": 30,
        }

    def declare(self, app: Celery) -> None:
        """Declare both queues; see `Broker.declare`."""
        from amqp.exceptions import PreconditionFailed
        from kombu.entity import Queue

        with self.errors(), app.connection_for_write() as connection:
            channel = connection.default_channel
            Queue(self.dead_queue, durable=True).bind(channel).declare()
            try:
                self.task_queue().bind(channel).declare()
            except PreconditionFailed:
                raise ConfigurationError(
                    f"the queue {self.queue} exists with other settings: give [units] attempts "
                    "as it was, name another queue, or delete this one"
                ) from None

    def dead_units(self, app: Celery) -> set[str]:
        """Read the dead letters and leave them where they are; see `Broker.dead_units`."""
        return {unit for unit, _ in self._peek(app, ())}

    def clear_dead(self, app: Celery, units: Collection[str]) -> None:
        """Acknowledge dead letters; see `Broker.clear_dead`."""
        self._peek(app, units)

    def _peek(self, app: Celery, cleared: Collection[str]) -> list[tuple[str, bool]]:
        """Read dead letters and acknowledge some; return their units, and which were those."""
        found = []
        # What is not acknowledged goes back when the channel is closed.
        with (
            self.errors(),
            app.connection_for_write() as connection,
            connection.channel() as channel,
        ):
            for _ in range(_PEEKED):
                message = channel.basic_get(self.dead_queue, no_ack=False)
                if message is None:
                    break
                for unit in _units_of(message.body):
                    found.append((unit, unit in cleared))
                    if unit in cleared:
                        channel.basic_ack(message.delivery_tag)
        return found


class Redis(Broker):
    """A list; it counts nothing, so the attempts in the store are what bounds deliveries."""

    @property
    def requeues(self) -> bool:
        """The message goes back into the list; see `Broker.requeues`."""
        return True

    @property
    def counts(self) -> bool:
        """It does not; see `Broker.counts`."""
        return False


class SQS(Broker):
    """A queue with a redrive policy. It has no remote control, and Celery asks it for none."""

    @property
    def requeues(self) -> bool:
        """A requeued message would be a new one; see `Broker.requeues`.

        One that is left alone is delivered again when it is visible again, and counted.
        """
        return False

    @property
    def dead_queue(self) -> str:
        """The queue of dead letters."""
        return f"{self.queue}-dead"

    def options(self) -> dict[str, Any]:
        """Name the queue by its URL, which Celery then never makes; see `Broker.options`."""
        predefined = {
            "url": self._ensured,
            # A unit that has failed is delivered again at once; one whose worker is gone, later.
            "backoff_policy": dict.fromkeys(range(1, self.attempts + 1), 1),
            "backoff_tasks": [TASK],
        }
        return {
            "broker_transport": _SQS_TRANSPORT,
            "broker_transport_options": {
                "predefined_queues": {self.queue: predefined},
                "visibility_timeout": self.visibility_timeout,
                "wait_time_seconds": 2,
                "polling_interval": 0.1,
            },
            "task_reject_on_worker_lost": False,
        }

    def declare(self, app: Celery) -> None:
        """Make both queues; see `Broker.declare`."""
        with self.errors():
            _ = self._ensured

    def dead_units(self, app: Celery) -> set[str]:
        """Receive the dead letters and leave them visible; see `Broker.dead_units`."""
        found: set[str] = set()
        with self.errors():
            while new := {unit for unit, _ in self._received()} - found:
                found |= new
        return found

    def clear_dead(self, app: Celery, units: Collection[str]) -> None:
        """Delete dead letters; see `Broker.clear_dead`."""
        with self.errors():
            while wanted := [handle for unit, handle in self._received() if unit in units]:
                for handle in wanted:
                    self._client.delete_message(QueueUrl=self._dead_url, ReceiptHandle=handle)

    def _received(self) -> list[tuple[str, str]]:
        """Receive some dead letters, which stay visible: the unit and the handle of each."""
        answer = self._client.receive_message(
            QueueUrl=self._dead_url, MaxNumberOfMessages=_SQS_BATCH, VisibilityTimeout=0
        )
        return [
            (unit, message["ReceiptHandle"])
            for message in answer.get("Messages", [])
            for unit in _units_of(base64.b64decode(message["Body"]))
        ]

    @cached_property
    def _dead_url(self) -> str:
        return self._url_of(self.dead_queue, {})

    @cached_property
    def _ensured(self) -> str:
        attributes = self._client.get_queue_attributes(
            QueueUrl=self._dead_url, AttributeNames=["QueueArn"]
        )
        redrive = {
            "deadLetterTargetArn": attributes["Attributes"]["QueueArn"],
            "maxReceiveCount": self.attempts,
        }
        wanted = {
            "VisibilityTimeout": str(self.visibility_timeout),
            "RedrivePolicy": json.dumps(redrive),
        }
        return self._url_of(self.queue, wanted)

    def _url_of(self, queue: str, attributes: dict[str, str]) -> str:
        """Find a queue, which needs no right to make any, or make it."""
        try:
            url = self._client.get_queue_url(QueueName=queue)["QueueUrl"]
        except self._client.exceptions.QueueDoesNotExist:
            url = self._client.create_queue(QueueName=queue, Attributes=attributes)["QueueUrl"]
        return str(url)

    @cached_property
    def _client(self) -> Any:
        parts = urlsplit(self.url)
        given: dict[str, Any] = {}
        if parts.hostname:
            given["endpoint_url"] = f"http://{parts.hostname}:{parts.port or 80}"
        if parts.username and parts.password:
            given["aws_access_key_id"] = unquote(parts.username)
            given["aws_secret_access_key"] = unquote(parts.password)
        return aws_client("sqs", **given)


_KINDS: Final[dict[str, type[Broker]]] = {
    "amqp": RabbitMQ,
    "amqps": RabbitMQ,
    "redis": Redis,
    "rediss": Redis,
    "sqs": SQS,
}


def broker_of(url: str, queue: str, attempts: int, seconds: float) -> Broker:
    """Find the broker of a URL; see `Broker`.

    Raises:
        ConfigurationError: it is none that is supported.
    """
    scheme = urlsplit(url).scheme
    if scheme not in _KINDS:
        raise ConfigurationError(
            "HARMONIZER_BROKER_URL must begin with amqp://, amqps://, redis://, rediss:// or sqs://"
        )
    return _KINDS[scheme](url, queue, attempts, seconds)


def _units_of(body: str | bytes) -> set[str]:
    """Find the unit that a message is about, in whatever a broker wraps around it."""
    text = body if isinstance(body, str) else bytes(body).decode("utf-8", "replace")
    found = NAME_IN_TEXT.search(_body(text))
    return set() if found is None else {found.group()}


def _body(text: str) -> str:
    """Take a message of Celery out of an envelope of kombu, which encodes it again."""
    try:
        envelope = json.loads(text)
    except ValueError:
        return text
    if isinstance(envelope, dict) and isinstance(envelope.get("body"), str):
        return base64.b64decode(envelope["body"]).decode("utf-8", "replace")
    return text
