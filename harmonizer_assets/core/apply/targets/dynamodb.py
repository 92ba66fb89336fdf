"""Corrections go back to the DynamoDB table that labels came from.

Each correction is one transaction: the old item gets its new status if it is still as it was read,
and the new item is put if there is none.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from harmonizer_assets.core.apply.targets.base import CHANGED_THERE, provenance, then_and_now
from harmonizer_assets.core.base.aws import aws_client, error_code
from harmonizer_assets.core.base.errors import SourceError
from harmonizer_assets.core.base.extras import needs_extra
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.base.settings import DynamoSettings
from harmonizer_assets.core.records.dynamodb import item_key, label_item, status_index
from harmonizer_assets.core.records.label import label_key

_ATTEMPTS: Final = 6
_CHANGED: Final = "ConditionalCheckFailed"
_PASSING: Final = frozenset(
    {"ThrottlingError", "TransactionConflict", "ProvisionedThroughputExceeded"}
)


class DynamoTarget:
    """A table at DynamoDB; see `Target`."""

    def __init__(self, settings: DynamoSettings) -> None:
        self.name = f"dynamodb://{settings.table}"
        self._settings = settings

    @contextmanager
    def opened(self) -> Iterator[_Table]:
        """Make a client; see `Target.opened`."""
        yield _Table(self._settings, self.name)


class _Table:
    """One table at DynamoDB; see `Writer`."""

    def __init__(self, settings: DynamoSettings, name: str) -> None:
        with needs_extra("s3", name, SourceError):
            from boto3.dynamodb.types import TypeSerializer
            from botocore.config import Config
        self._name = name
        self._table = settings.table
        self._serializer = TypeSerializer()
        with self._errors():
            self._client = aws_client(
                "dynamodb",
                endpoint_url=settings.endpoint_url,
                region_name=settings.region,
                config=Config(retries={"max_attempts": _ATTEMPTS, "mode": "standard"}),
            )

    def write(self, rows: Sequence[Mapping[str, Any]]) -> str | None:
        """Write one correction, or take it back, in one transaction; see `Writer.write`."""
        items = [self._change(row) for row in rows]
        for attempt in range(_ATTEMPTS):
            with self._errors():
                codes = self._refused(items, is_last=attempt == _ATTEMPTS - 1)
                if not codes:
                    return None
                if _CHANGED in codes:
                    # A process that was killed may have written it and not recorded that.
                    done = all(self._is_done(row) for row in rows)
                    return None if done else CHANGED_THERE
            time.sleep(random.uniform(0, 0.1 * 2**attempt))
        return None

    def _refused(self, items: Sequence[Mapping[str, Any]], *, is_last: bool) -> list[str]:
        """Send a transaction; return why it was refused, in codes, where that may pass or is known.

        Raises:
            ClientError, BotoCoreError: it was refused for another reason, or did not arrive.
        """
        from botocore.exceptions import ClientError

        try:
            self._client.transact_write_items(TransactItems=items)
        except ClientError as error:
            reasons = error.response.get("CancellationReasons", [])
            codes = [reason.get("Code", "None") for reason in reasons]
            if _CHANGED in codes or (not is_last and _PASSING.intersection(codes)):
                return codes
            raise
        return []

    def _is_done(self, row: Mapping[str, Any]) -> bool:
        """Return whether an item is already what it is to become."""
        key = self._values(item_key(label_key(row)))
        found = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        _, wanted = then_and_now(row)
        if wanted is None or "Item" not in found:
            return (wanted is None) and "Item" not in found
        expected = {"validation_status": wanted["validation_status"]}
        added = provenance(wanted).get("timestamp_added")
        if added is not None:
            expected["timestamp_added"] = added
        return self._values(expected).items() <= found["Item"].items()

    def _change(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Make the change of one item: a status, a new item, or one that was put and goes."""
        key = label_key(row)
        then, now = then_and_now(row)
        if then is None:
            item = label_item(key, now["validation_status"], provenance(now))
            return {
                "Put": {
                    "TableName": self._table,
                    "Item": self._values(item),
                    "ConditionExpression": "attribute_not_exists(PK)",
                }
            }
        condition, values = self._as_it_was(then)
        change = {
            "TableName": self._table,
            "Key": self._values(item_key(key)),
            "ConditionExpression": condition,
        }
        if now is None:
            return {"Delete": {**change, "ExpressionAttributeValues": self._values(values)}}
        values |= {
            ":status": now["validation_status"],
            ":index": status_index(now["validation_status"]),
        }
        return {
            "Update": {
                **change,
                "UpdateExpression": "SET validation_status = :status, GSI3PK = :index",
                "ExpressionAttributeValues": self._values(values),
            }
        }

    def _as_it_was(self, then: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Write the condition that an item is as it was read, and its values."""
        values: dict[str, Any] = {":then": then["validation_status"]}
        condition = "validation_status = :then"
        added = provenance(then).get("timestamp_added")
        if added is not None:
            values[":added"] = added
            condition += " AND timestamp_added = :added"
        return condition, values

    def _values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._serializer.serialize(value) for name, value in values.items()}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        def unwritable(error: Exception) -> SourceError:
            return SourceError(
                f"{self._name}: cannot be written ({error_code(error)}): check the table's name, "
                "the region, and that the credentials in the environment may write it; what was "
                "pushed is recorded"
            )

        with translated(unwritable, ClientError, BotoCoreError, ValueError):
            yield
