"""kombu's transport for SQS, which outlives refusals and takes no other server's answers.

kombu makes clients of its own, and reads the answers to its asynchronous requests itself. A worker
that gets login pages, or whose credentials have expired, would otherwise wait for ever without a
word, or end.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import create_parser
from kombu.asynchronous.aws.sqs.connection import AsyncSQSConnection
from kombu.transport import SQS
from kombu.transport.SQS.exceptions import AccessDeniedQueueException

from harmonizer_assets.core.base.aws import check_answer, checked, error_code

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_COMPLAINTS: Final = 60.0
_SECONDS_AFTER_FAILURE: Final = 2.0


class _Connection(AsyncSQSConnection):
    """Receives messages; what is no answer of SQS is waited out, as a server that is gone is.

    So is a refusal, since credentials and rights that are gone may come back.
    """

    failed = False
    """Whether the last request for messages was answered by somebody else, or refused."""
    _complained = -math.inf

    def _on_list_ready(self, parent: Any, markers: Any, operation: str, response: Any) -> Any:
        answer = {
            "status_code": response.status,
            "headers": dict(response.getheaders()),
            "body": response.read(),
        }
        model = self.sqs_connection.meta.service_model.operation_model(operation)
        try:
            check_answer(model, answer)
            _check_granted(model, answer)
        except (BotoCoreError, ClientError) as error:
            self.failed = True
            if time.monotonic() - self._complained > _SECONDS_BETWEEN_COMPLAINTS:
                self._complained = time.monotonic()
                _log.warning("no messages can be received (%s); trying again", error_code(error))
            return {}
        self.failed = False
        # A list, which kombu returns where the server cannot be reached, ends its worker.
        return super()._on_list_ready(parent, markers, operation, response) or {}


def _check_granted(model: Any, answer: Mapping[str, Any]) -> None:
    """Check that an answer is no refusal, of which kombu makes an error that nobody catches.

    The queue would not be looked at any more, and the worker stay.

    Raises:
        BotoCoreError, ClientError: it is one.
    """
    if 300 <= answer["status_code"] < 500:
        parser = create_parser(model.service_model.metadata["protocol"])
        raise ClientError(parser.parse(answer, model.output_shape), model.name)


@contextmanager
def _refusals_logged() -> Iterator[None]:
    """Go on where SQS does not let a message be deleted or shown again at once.

    It comes again by itself, and nothing is done for a unit that is done. kombu has released the
    message already, and ends its worker with the error.
    """
    try:
        yield
    except (AccessDeniedQueueException, ClientError) as error:
        refused = error.__context__ if isinstance(error, AccessDeniedQueueException) else error
        code = error_code(refused) if isinstance(refused, ClientError) else "unknown"
        _log.warning("a message cannot be settled (%s); it comes again", code)


class Channel(SQS.Channel):
    """A channel whose clients check what they are answered."""

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Delete a message that is done."""
        with _refusals_logged():
            super().basic_ack(delivery_tag, multiple)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Have a message that has failed come again."""
        with _refusals_logged():
            super().basic_reject(delivery_tag, requeue)

    def _loop1(self, queue: str, messages_fetched: Any = None) -> None:
        hub = self.hub
        if hub is not None and self.asynsqs(queue=self.canonical_queue_name(queue)).failed:
            hub.call_later(_SECONDS_AFTER_FAILURE, self._schedule_queue, queue)
        else:
            super()._loop1(queue, messages_fetched)

    def asynsqs(self, queue: str | None = None) -> _Connection:
        """Return the connection on which messages of a queue are received."""
        connections = self._predefined_queue_async_clients
        if queue not in connections:
            attributes = self.get_message_attributes
            connections[queue] = _Connection(
                sqs_connection=self.sqs(queue=queue),
                region=self.region,
                message_system_attribute_names=attributes.get("MessageSystemAttributeNames"),
                message_attribute_names=attributes.get("MessageAttributeNames"),
            )
        return connections[queue]

    def _new_boto_client(self, *args: Any, **kwargs: Any) -> Any:
        return checked(super()._new_boto_client(*args, **kwargs))


class Transport(SQS.Transport):
    """The transport that Celery is told to use."""

    Channel = Channel
