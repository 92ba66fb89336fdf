"""kombu's transport for SQS, which takes no other server's answer for one of SQS.

kombu makes clients of its own, and reads the answers to its asynchronous requests itself. A worker
that gets login pages would otherwise wait for ever without a word.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any, Final

from botocore.exceptions import BotoCoreError
from kombu.asynchronous.aws.sqs.connection import AsyncSQSConnection
from kombu.transport import SQS

from harmonizer_assets.core.base.aws import check_answer, checked, error_code

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_COMPLAINTS: Final = 60.0


class _Connection(AsyncSQSConnection):
    """Receives messages; what is no answer of SQS is waited out, as a server that is gone is."""

    _complained = -math.inf

    def _on_list_ready(self, parent: Any, markers: Any, operation: str, response: Any) -> Any:
        answer = {
            "status_code": response.status,
            "headers": dict(response.getheaders()),
            "body": response.read(),
        }
        try:
            check_answer(self.sqs_connection.meta.service_model.operation_model(operation), answer)
        except BotoCoreError as error:
            if time.monotonic() - self._complained > _SECONDS_BETWEEN_COMPLAINTS:
                self._complained = time.monotonic()
                _log.warning("no messages can be received (%s)", error_code(error))
            return {}
        # A list, which kombu returns where the server cannot be reached, ends its worker.
        return super()._on_list_ready(parent, markers, operation, response) or {}


class Channel(SQS.Channel):
    """A channel whose clients check what they are answered."""

    def asynsqs(self, queue: str | None = None) -> AsyncSQSConnection:
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
