"""Shared answers in a DynamoDB table, whose partition key is `answer_key`, a string.

An item has the `answer` to a question, or, without one, the `holder` that asks it. The lease of a
holder is an item of its own, whose attribute `expires_at` may be the table's time to live.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

from harmonizer_assets.core.base.aws import aws_client, error_code
from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.extras import needs_extra
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.judge.llm.memory.shared.base import (
    Claim,
    SharedCache,
    as_text,
    from_text,
)
from harmonizer_assets.core.judge.llm.wire.answers import Answer

_AT_ONCE: Final = 16
"""Requests; there is none that puts many items under conditions of their own."""
_READ_TOGETHER: Final = 100
_HOLDER: Final = "holder/"
"""Before the name of a holder, in the key of its lease; no verdict key begins so."""

Item = dict[str, Any]


class DynamoDBCache(SharedCache):
    """Items of one table, put under conditions. The clocks of holders are compared."""

    def __init__(self, table: str) -> None:
        """Find the table.

        Args:
            table: its name; region and credentials are in the environment.

        Raises:
            ConfigurationError: the extra is not installed.
            StoreError: the table cannot be used, or has another key.
        """
        self._name = table
        with needs_extra("s3", "shared answers in DynamoDB"), self._errors():
            from botocore.config import Config

            config = Config(
                max_pool_connections=_AT_ONCE, retries={"mode": "standard", "max_attempts": 8}
            )
            self._client = aws_client("dynamodb", config=config)
            schema = self._client.describe_table(TableName=table)["Table"]["KeySchema"]
        if [key["AttributeName"] for key in schema] != ["answer_key"]:
            raise StoreError(
                f"the table {table} cannot hold shared answers: its only key must be answer_key"
            )
        self._threads = ThreadPoolExecutor(_AT_ONCE, "answers")

    def close(self) -> None:
        """End the threads; see `SharedCache.close`."""
        self._threads.shutdown()

    def renew(self, holder: str, seconds: float) -> None:
        """Put the item of the lease; see `SharedCache.renew`."""
        ends = {"N": str(round(time.time() + seconds, 3))}
        with self._errors():
            self._client.put_item(
                TableName=self._name, Item={**_key(_HOLDER + holder), "expires_at": ends}
            )

    def claim(self, keys: Sequence[str], holder: str) -> Claim:
        """Read items, then put claims where none holds any more; see `SharedCache.claim`."""
        wanted = sorted({*keys})
        with self._errors():
            there = self._items(wanted)
            found = {key: from_text(i["answer"]["S"]) for key, i in there.items() if "answer" in i}
            holders = {key: i["holder"]["S"] for key, i in there.items() if key not in found}
            alive = self._alive({*holders.values()}) | {holder}
            mine = {key for key, by in holders.items() if by == holder}
            free = [key for key in wanted if key not in found and holders.get(key) not in alive]
            taken = self._threads.map(lambda key: self._take(key, holders.get(key), holder), free)
            mine |= {key for key, is_taken in zip(free, taken, strict=True) if is_taken}
        return Claim(found, frozenset(mine))

    def look_up(self, keys: Sequence[str]) -> Mapping[str, Answer]:
        """Read items; see `SharedCache.look_up`."""
        with self._errors():
            there = self._items(sorted({*keys}))
        return {key: from_text(i["answer"]["S"]) for key, i in there.items() if "answer" in i}

    def put(self, answers: Mapping[str, Answer], holder: str) -> None:
        """Put the items of answers; see `SharedCache.put`."""

        def put(key: str) -> bool:
            answer = {"answer": {"S": as_text(answers[key])}, "holder": {"S": holder}}
            return self._put({**_key(key), **answer}, "attribute_not_exists(answer)")

        with self._errors():
            list(self._threads.map(put, answers))

    def release(self, holder: str) -> None:
        """Delete the lease: claims without one hold nothing; see `SharedCache.release`."""
        with self._errors():
            self._client.delete_item(TableName=self._name, Key=_key(_HOLDER + holder))

    def _take(self, key: str, before: str | None, holder: str) -> bool:
        """Claim a question that nobody holds, or whose holder is gone; say whether it worked."""
        claim = {**_key(key), "holder": {"S": holder}}
        if before is None:
            return self._put(claim, "attribute_not_exists(answer_key)")
        unchanged = "attribute_not_exists(answer) AND holder = :before"
        return self._put(claim, unchanged, {":before": {"S": before}})

    def _put(self, item: Item, condition: str, values: Item | None = None) -> bool:
        given = {} if values is None else {"ExpressionAttributeValues": values}
        try:
            self._client.put_item(
                TableName=self._name, Item=item, ConditionExpression=condition, **given
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def _alive(self, holders: set[str]) -> set[str]:
        leases = self._items([_HOLDER + holder for holder in holders])
        now = time.time()
        return {
            key.removeprefix(_HOLDER)
            for key, lease in leases.items()
            if float(lease["expires_at"]["N"]) > now
        }

    def _items(self, keys: Sequence[str]) -> dict[str, Item]:
        """Read items by their keys, as they are now."""
        found: dict[str, Item] = {}
        for start in range(0, len(keys), _READ_TOGETHER):
            left = [_key(key) for key in keys[start : start + _READ_TOGETHER]]
            while left:
                wanted = {self._name: {"Keys": left, "ConsistentRead": True}}
                answer = self._client.batch_get_item(RequestItems=wanted)
                found |= {item["answer_key"]["S"]: item for item in answer["Responses"][self._name]}
                left = answer.get("UnprocessedKeys", {}).get(self._name, {}).get("Keys", [])
        return found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        def ours(error: Exception) -> StoreError:
            return StoreError(
                f"the shared answers in the table {self._name} cannot be used "
                f"({error_code(error)}): check its name, the region, and that "
                "the credentials in the environment may read and write it"
            )

        # The last is what an answer of something else than DynamoDB lacks.
        with translated(ours, ClientError, BotoCoreError, KeyError):
            yield


def _key(key: str) -> Item:
    return {"answer_key": {"S": key}}
