"""What is common to the tables that corrections are pushed to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from harmonizer_assets.core.records.correction import PROVENANCE

CHANGED_THERE: Final = "the label is another one there by now"


class Writer(Protocol):
    """An open table, written a correction at a time."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> str | None:
        """Write one correction, or take it back, in one transaction.

        Args:
            rows: one per label: its key, `row_before`, `row_after` and `is_undone`.

        Returns:
            What has changed there, so that nothing was written; None when all was.

        Raises:
            SourceError: the table cannot be written.
        """


class Target(Protocol):
    """A table that corrections are pushed to."""

    @property
    def name(self) -> str:
        """What the home's record of its pushes calls it."""

    def opened(self) -> AbstractContextManager[Writer]:
        """Connect to the table.

        Raises:
            SourceError: it cannot be reached, or a package for it is missing.
        """


def then_and_now(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the states in which a push expects a label and leaves it; null where there is none."""
    if row["is_undone"]:
        return row["row_after"], row["row_before"]
    return row["row_before"], row["row_after"]


def provenance(state: Mapping[str, Any]) -> dict[str, Any]:
    """Read what a row of `labels` says about where the label comes from."""
    extra = json.loads(state["extra"] or "{}")
    return {name: extra.get(name) for name in PROVENANCE}
