"""The common parts of sources: a name, what is new, and a record of what was copied."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Final

from harmonizer_assets.core.base.errors import SourceError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.store.warehouse import Connection, Warehouse

TABLE_URL_VARIABLE: Final = "HARMONIZER_TABLE_URL"
"""The environment variable with the URL of the database whose tables are read."""


class Source(ABC):
    """A place from which labels arrive."""

    def __init__(self, name: str, home: Home, warehouse: Warehouse) -> None:
        self.name = name
        self._home = home
        self._warehouse = warehouse

    @abstractmethod
    def waiting(self) -> str | None:
        """Hash what is new, so that the hash changes with every arrival; None when nothing is.

        Raises:
            SourceError: the source cannot be read.
        """

    @abstractmethod
    def pull(self) -> int:
        """Copy what is new into the inbox; return the number of batches.

        Raises:
            SourceError: the source cannot be read; what was copied before stays.
            StoreError: the inbox cannot be written.
        """

    def _taken(self) -> dict[str, str]:
        """Read the version of each item that was copied last."""
        rows = self._warehouse.query(
            "SELECT item, version FROM taken_arrivals WHERE source = $source",
            {"source": self.name},
        ).to_pylist()
        return {row["item"]: row["version"] for row in rows}

    def _record(self, versions: Mapping[str, str]) -> None:
        """Record that items have been copied into the inbox."""

        def write(con: Connection) -> None:
            for item, version in versions.items():
                con.execute(
                    "DELETE FROM taken_arrivals WHERE source = $1 AND item = $2", [self.name, item]
                )
                con.execute(
                    "INSERT INTO taken_arrivals VALUES ($1, $2, $3, now())",
                    [self.name, item, version],
                )

        self._warehouse.write(write)


def no_order(source: str, column: str, kind: type) -> SourceError:
    """Make the error for a column of changes whose values cannot be counted on from."""
    return SourceError(
        f"{source}: [arrivals.tables] changed_at: the column {column} holds {kind.__name__}: name "
        "a column of times, dates or numbers"
    )


def digest(parts: Iterable[str]) -> str:
    """Hash texts, in their order, to 16 hex digits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{len(part)}:{part}".encode())
    return found.hexdigest()[:16]
