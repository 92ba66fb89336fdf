"""Push corrections to the DynamoDB table that labels came from.

Each correction is one transaction there: the old item gets its new status if it is still as it was
read, and the new item is put if there is none. What was undone here is taken back there. A label
that has changed there meanwhile is left alone and listed.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from harmonizer_assets.core.base.errors import SourceError
from harmonizer_assets.core.base.settings import DynamoSettings
from harmonizer_assets.core.records.correction import Refusal
from harmonizer_assets.core.records.dynamodb import (
    PROVENANCE,
    item_key,
    label_item,
    status_index,
)
from harmonizer_assets.core.records.label import LABEL_KEY, label_key, qualified
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.warehouse import Warehouse

# In the order in which they were made; what was undone, in the opposite one.
_DUE: Final = f"""
WITH last AS (
    SELECT correction_id, arg_max(undone, pushed_at) AS was_undone FROM pushed_corrections
    WHERE target = $target GROUP BY ALL
)
SELECT r.correction_id, {qualified("r", LABEL_KEY)}, row_before, row_after, c.action, c.to_label,
    u.correction_id IS NOT NULL AS is_undone
FROM label_row_changes r
JOIN label_corrections c USING (correction_id)
LEFT JOIN label_undos u USING (correction_id)
LEFT JOIN last p USING (correction_id)
WHERE CASE WHEN u.correction_id IS NULL THEN p.correction_id IS NULL
    ELSE p.correction_id IS NOT NULL AND NOT p.was_undone END
ORDER BY is_undone DESC, CASE WHEN is_undone THEN -r.correction_id ELSE r.correction_id END, r.label
"""
_ATTEMPTS: Final = 6
_PASSING: Final = frozenset(
    {"ThrottlingError", "TransactionConflict", "ProvisionedThroughputExceeded"}
)


@dataclass(frozen=True)
class PushReport:
    """What was pushed, or would be.

    Attributes:
        pushed: corrections that the table has been given.
        undone: corrections that were taken back there.
        refused: those whose labels have changed there, each with its reason.
    """

    pushed: int
    undone: int
    refused: Sequence[Refusal] = ()


def push_corrections(warehouse: Warehouse, settings: DynamoSettings, *, commit: bool) -> PushReport:
    """Bring a table in line with the corrections of the home.

    Args:
        warehouse: holds the corrections.
        settings: of the table.
        commit: whether it is written; otherwise the report counts what would be.

    Raises:
        SourceError: the table cannot be written; what was pushed before is recorded.
        StoreError: the home cannot be written.
    """
    target = f"dynamodb://{settings.table}"
    due = warehouse.query(_DUE, {"target": target}).to_pylist()
    groups = [list(rows) for _, rows in groupby(due, key=lambda row: row["correction_id"])]
    counts, refused = {True: 0, False: 0}, []
    table = _Table(settings, target) if commit and groups else None
    for rows in groups:
        first = rows[0]
        if table is not None:
            changed = table.write(rows)
            if changed is not None:
                refused.append(_refusal(first, changed))
                continue
            _record(warehouse, target, first)
        counts[first["is_undone"]] += 1
    return PushReport(counts[False], counts[True], refused)


class _Table:
    """One table at DynamoDB, written a correction at a time."""

    def __init__(self, settings: DynamoSettings, name: str) -> None:
        try:
            import boto3
            from boto3.dynamodb.types import TypeSerializer
            from botocore.config import Config
        except ModuleNotFoundError:
            raise SourceError(
                f"{name}: the package boto3 is not installed: pip install 'label-harmonizer[s3]'"
            ) from None
        self._name = name
        self._table = settings.table
        self._serializer = TypeSerializer()
        self._client = boto3.client(
            "dynamodb",
            endpoint_url=settings.endpoint_url,
            region_name=settings.region,
            config=Config(retries={"max_attempts": _ATTEMPTS, "mode": "standard"}),
        )

    def write(self, rows: Sequence[Mapping[str, Any]]) -> str | None:
        """Write one correction, or take it back, in one transaction.

        Returns:
            What has changed there, so that nothing was written; None when all was.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        items = [self._change(row) for row in rows]
        for attempt in range(_ATTEMPTS):
            try:
                self._client.transact_write_items(TransactItems=items)
                return None
            except ClientError as error:
                reasons = error.response.get("CancellationReasons", [])
                codes = [reason.get("Code", "None") for reason in reasons]
                if "ConditionalCheckFailed" in codes:
                    # A process that was killed may have written it and not recorded that.
                    done = all(self._is_done(row) for row in rows)
                    return None if done else "the label is another one there by now"
                if not _PASSING.intersection(codes) or attempt == _ATTEMPTS - 1:
                    raise self._unwritable(error.response["Error"]["Code"]) from None
            except BotoCoreError as error:
                raise self._unwritable(type(error).__name__) from None
            time.sleep(random.uniform(0, 0.1 * 2**attempt))
        return None

    def _is_done(self, row: Mapping[str, Any]) -> bool:
        """Return whether an item is already what it is to become."""
        key = self._values(item_key(label_key(row)))
        found = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        wanted = row["row_before"] if row["is_undone"] else row["row_after"]
        if wanted is None or "Item" not in found:
            return (wanted is None) and "Item" not in found
        expected = {"validation_status": wanted["validation_status"]}
        added = _provenance(wanted).get("timestamp_added")
        if added is not None:
            expected["timestamp_added"] = added
        return self._values(expected).items() <= found["Item"].items()

    def _change(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Make the change of one item: a status, a new item, or one that was put and goes."""
        key = label_key(row)
        then, now = row["row_before"], row["row_after"]
        if row["is_undone"]:
            then, now = now, then
        if then is None:
            item = label_item(key, now["validation_status"], _provenance(now))
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
        added = _provenance(then).get("timestamp_added")
        if added is not None:
            values[":added"] = added
            condition += " AND timestamp_added = :added"
        return condition, values

    def _values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._serializer.serialize(value) for name, value in values.items()}

    def _unwritable(self, code: str) -> SourceError:
        return SourceError(
            f"{self._name}: cannot be written ({code}): check the table's name, the region, and "
            "that the credentials in the environment may write it; what was pushed is recorded"
        )


def _provenance(state: Mapping[str, Any]) -> dict[str, Any]:
    """Read what a row of `labels` says about where the label comes from."""
    extra = json.loads(state["extra"] or "{}")
    return {name: extra.get(name) for name in PROVENANCE}


def _record(warehouse: Warehouse, target: str, row: Mapping[str, Any]) -> None:
    def write(con: Connection) -> None:
        con.execute(
            "INSERT INTO pushed_corrections VALUES ($1, $2, $3, now())",
            [target, row["correction_id"], row["is_undone"]],
        )

    warehouse.write(write)


def _refusal(row: Mapping[str, Any], reason: str) -> Refusal:
    return Refusal(*label_key(row), action=row["action"], to_label=row["to_label"], reason=reason)
