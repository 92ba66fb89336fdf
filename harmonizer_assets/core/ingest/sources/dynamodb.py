"""Labels that arrive in a DynamoDB table; see `records.dynamodb` for its items."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.aws import aws_client, error_code
from harmonizer_assets.core.base.clock import is_due
from harmonizer_assets.core.base.errors import SourceError
from harmonizer_assets.core.base.extras import needs_extra
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.scratch import scratch_folder
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.base.settings import DynamoSettings
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.ingest.sources.base import Source, digest
from harmonizer_assets.core.records.correction import PROVENANCE
from harmonizer_assets.core.records.dynamodb import (
    LABEL,
    PLACES,
    TYPES,
    WORD,
    label_row,
    merchant_of,
    word_row,
)
from harmonizer_assets.core.records.label import WORD_KEY
from harmonizer_assets.core.store.warehouse import Warehouse

_ITEM: Final = "all"
_IDS: Final = [("image_id", pa.string()), *((name, pa.int64()) for name in WORD_KEY[1:])]
_WORDS: Final = pa.schema(
    [
        *_IDS,
        ("text", pa.string()),
        *((name, pa.float64()) for name in ("x", "y", "width", "height")),
    ]
)
_LABELS: Final = pa.schema(
    [
        *_IDS,
        ("label", pa.string()),
        ("validation_status", pa.string()),
        ("merchant_name", pa.string()),
        *((name, pa.string()) for name in PROVENANCE),
    ]
)


@dataclass
class _Rows:
    """Words and labels of a scan, and the merchants of receipts by the type of item."""

    words: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    merchants: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)

    def add(self, item: dict[str, Any]) -> None:
        """Add one item."""
        kind = item.get("TYPE")
        if kind == WORD and (word := word_row(item)) is not None:
            self.words.append(word)
        elif kind == LABEL and (label := label_row(item)) is not None:
            self.labels.append(label)
        elif kind in PLACES and (named := merchant_of(item)) is not None:
            self.merchants.setdefault(named[0], {})[kind] = named[1]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both files of a batch."""
        for label in self.labels:
            names = self.merchants.get((label["image_id"], label["receipt_id"]), {})
            label["merchant_name"] = next((names[k] for k in PLACES if k in names), None)
        words, labels = folder / "words.parquet", folder / "labels.parquet"
        pq.write_table(pa.Table.from_pylist(self.words, _WORDS), words)
        pq.write_table(pa.Table.from_pylist(self.labels, _LABELS), labels)
        return words, labels

    def version(self) -> str:
        """Return a hash of all of it."""
        parts = [json.dumps(row, sort_keys=True) for row in (*self.words, *self.labels)]
        merchants = sorted((key, sorted(names.items())) for key, names in self.merchants.items())
        return digest([*sorted(parts), json.dumps(merchants)])


class DynamoSource(Source):
    """A table that is read as a whole, at most every so many seconds.

    Its labels do not say when they have last changed, so that all items have to be read.
    """

    def __init__(self, settings: DynamoSettings, home: Home, warehouse: Warehouse) -> None:
        """Bind to a table; nothing is requested yet. Credentials are found as boto3 finds them."""
        super().__init__(f"dynamodb://{settings.table}", home, warehouse)
        self._settings = settings

    def waiting(self) -> str | None:
        """Return a hash of when the table was read last, once it is due again."""
        last = self._last_read()
        if not is_due(last, dt.timedelta(seconds=self._settings.every_seconds)):
            return None
        return digest([self.name, str(last)])

    def pull(self) -> int:
        """Read the table if it is due; copy it as one batch if it has changed."""
        if self.waiting() is None:
            return 0
        rows = self._read()
        version = rows.version()
        has_changed = self._taken().get(_ITEM) != version and bool(rows.words or rows.labels)
        if has_changed:
            with scratch_folder(self._home) as scratch:
                submit_batch(self._home, *rows.write(scratch), source=self.name)
        self._record({_ITEM: version})
        return int(has_changed)

    def _last_read(self) -> dt.datetime | None:
        found = self._warehouse.query(
            "SELECT max(taken_at) AS last FROM taken_arrivals WHERE source = $source",
            {"source": self.name},
        )
        last: dt.datetime | None = found["last"].to_pylist()[0]
        return last

    def _read(self) -> _Rows:
        from boto3.dynamodb.types import TypeDeserializer

        reader = TypeDeserializer()
        rows = _Rows()
        values = {f":type{number}": {"S": kind} for number, kind in enumerate(TYPES)}
        with self._readable() as client:
            pages = client.get_paginator("scan").paginate(
                TableName=self._settings.table,
                FilterExpression=f"#type IN ({', '.join(values)})",
                ExpressionAttributeNames={"#type": "TYPE"},
                ExpressionAttributeValues=values,
            )
            for page in pages:
                for item in page["Items"]:
                    rows.add({name: reader.deserialize(value) for name, value in item.items()})
        return rows

    @contextmanager
    def _readable(self) -> Iterator[Any]:
        with needs_extra("s3", self.name, SourceError):
            from botocore.exceptions import BotoCoreError, ClientError

        def unreadable(error: Exception) -> SourceError:
            return SourceError(
                f"{self.name}: cannot be read ({error_code(error)}): check the table's "
                "name, the region, and that the credentials in the environment may scan it"
            )

        with translated(unreadable, ClientError, BotoCoreError, ValueError):
            with needs_extra("s3", self.name, SourceError):
                client = aws_client(
                    "dynamodb",
                    endpoint_url=self._settings.endpoint_url,
                    region_name=self._settings.region,
                )
            yield client
