"""What sources have in common: a name, what is new, and a memory of what was taken."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from harmonizer_assets.core.home import Home
from harmonizer_assets.core.warehouse import Connection, Warehouse


class Source(ABC):
    """Somewhere that labels arrive from."""

    def __init__(self, name: str, home: Home, warehouse: Warehouse) -> None:
        self.name = name
        self._home = home
        self._warehouse = warehouse

    @abstractmethod
    def waiting(self) -> str | None:
        """Names what is new: a hash that changes with every arrival; None when nothing is.

        Raises:
            SourceError: the source cannot be read.
        """

    @abstractmethod
    def pull(self) -> int:
        """Copy what is new into the inbox; the number of batches.

        Raises:
            SourceError: the source cannot be read; what was copied before stays.
            StoreError: the inbox cannot be written.
        """

    def _taken(self) -> dict[str, str]:
        """The version of each item that was taken last."""
        rows = self._warehouse.query(
            "SELECT item, version FROM taken_arrivals WHERE source = $source",
            {"source": self.name},
        ).to_pylist()
        return {row["item"]: row["version"] for row in rows}

    def _record(self, versions: Mapping[str, str]) -> None:
        """Note that items have been copied into the inbox."""

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


def digest(parts: Iterable[str]) -> str:
    """A short hash of texts, in their order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{len(part)}:{part}".encode())
    return found.hexdigest()[:16]
