"""Selection of the partitions of a run: those with labels, stale ones, or named ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import ASSETS
from harmonizer_assets.core.stages.stage import Stage
from harmonizer_assets.core.stages.state import (
    PartitionState,
    label_counts,
    stored_fingerprints,
)
from harmonizer_assets.core.store.warehouse import Warehouse

_NEAR_MATCHES: Final = 3
_NAMED: Final = 20
"""Partitions that a log line names."""


# A merchant is also found by what it is called, and by the key that a name of it would have alone.
_MERCHANTS: Final = """
SELECT DISTINCT merchant_key, merchant_name, NULL AS own_key FROM labels
UNION SELECT DISTINCT merchant_key, merchant AS merchant_name, own_key FROM merchant_names
    SEMI JOIN labels USING (merchant_key)
ORDER BY ALL
"""


class PartitionSelector:
    """Selects partitions of one home by what they hold and what they were computed from."""

    def __init__(self, warehouse: Warehouse, label_types: Sequence[str]) -> None:
        """Bind to the home's tables and its label types, in the taxonomy's order."""
        self._warehouse = warehouse
        self._known = tuple(label_types)

    def state(self) -> PartitionState:
        """Read the present state of the partitions."""
        return self._warehouse.read(lambda con: PartitionState.read(con, ASSETS))

    def held(
        self, label_types: Iterable[str] | None = None, merchants: Iterable[str] | None = None
    ) -> list[PartitionKey]:
        """List the partitions that hold labels, sorted.

        Args:
            label_types: only these; None means all of the taxonomy.
            merchants: only these merchant keys; None means all.
        """
        return self._among(self._warehouse.read(label_counts), label_types, merchants)

    def emptied(self) -> list[PartitionKey]:
        """List the partitions that have lost all their labels but still hold rows."""
        return sorted(_emptied(self.state()))

    def stale(
        self,
        stages: Sequence[Stage],
        options: RunOptions,
        state: PartitionState | None = None,
    ) -> list[PartitionKey]:
        """List the partitions whose rows are not those of the present labels and settings.

        Partitions that have lost all their labels are included, so that their rows are removed.

        Args:
            stages: whose rows are looked at.
            options: which label types and merchants (by their keys), and whether every partition
                counts as stale.
            state: of the partitions, where it has been read already.
        """
        state = state or self.state()
        stale = state.labels.counts if options.refresh else _stale(stages, state)
        return self._among([*stale, *_emptied(state)], options.label_types, options.merchants)

    def selected(
        self, partitions: Iterable[PartitionKey], options: RunOptions
    ) -> set[PartitionKey]:
        """Keep the partitions of the options' label types and merchants (by their keys)."""
        return set(self._among(partitions, options.label_types, options.merchants))

    def waiting(self, stage: Stage) -> list[PartitionKey]:
        """List the partitions that hold labels and that one stage has still to compute."""
        return self._among(_stale([stage], self.state()), None, None)

    def stored(self, asset: str) -> Mapping[PartitionKey, str]:
        """Look up the fingerprints of the partitions whose rows an asset holds."""
        return self._warehouse.read(lambda con: stored_fingerprints(con, asset))

    def check_label_types(self, label_types: Iterable[str]) -> None:
        """Check that label types exist.

        Raises:
            InputError: one does not; the message names those that are spelled alike.
        """
        for name in label_types:
            if name not in self._known:
                raise InputError(f"no label type {name!r}{_near(name.upper(), self._known)}")

    def merchant_keys(self, merchants: Iterable[str]) -> list[str]:
        """Return the keys of merchants that are given by key or display name, in any case.

        Raises:
            InputError: one holds no labels; the message names those that are spelled alike.
        """
        rows = self._warehouse.query(_MERCHANTS).to_pylist()
        keys: dict[str, set[str]] = {}
        for row in rows:
            for name in (row["merchant_key"], row["merchant_name"], row["own_key"]):
                if name:
                    keys.setdefault(name.strip().casefold(), set()).add(row["merchant_key"])
        found = set()
        for name in merchants:
            folded = name.strip().casefold()
            if folded not in keys:
                names = [row["merchant_name"] or row["merchant_key"] for row in rows]
                raise InputError(f"no merchant {name!r} holds labels{_near(name, names)}")
            found |= keys[folded]
        return sorted(found)

    def _among(
        self,
        partitions: Iterable[PartitionKey],
        label_types: Iterable[str] | None,
        merchants: Iterable[str] | None,
    ) -> list[PartitionKey]:
        types = set(self._known if label_types is None else label_types)
        keys = None if merchants is None else set(merchants)
        return sorted(
            partition
            for partition in partitions
            if partition.label_type in types and (keys is None or partition.merchant_key in keys)
        )


def _stale(stages: Sequence[Stage], state: PartitionState) -> list[PartitionKey]:
    return [
        partition
        for partition in state.labels.counts
        if any(
            state.stored[stage.asset].get(partition)
            != stage.fingerprint(state.labels.merchants[partition.merchant_key])
            for stage in stages
        )
    ]


def _emptied(state: PartitionState) -> set[PartitionKey]:
    held = {*state.failed, *(key for stored in state.stored.values() for key in stored)}
    return held.difference(state.labels.counts)


def why_stale(partitions: Iterable[PartitionKey], stored: Mapping[PartitionKey, str]) -> str:
    """Describe which partitions are to be computed, and why.

    Args:
        partitions: those that are to be computed.
        stored: fingerprints of the partitions that hold rows.
    """
    wanted = set(partitions)
    if not wanted:
        return "all partitions are up to date"
    reasons = {
        "never computed": sorted(wanted.difference(stored)),
        "labels, statuses, settings, model or judge have changed": sorted(
            wanted.intersection(stored)
        ),
    }
    return "; ".join(
        f"{len(keys)} partitions because {reason}: "
        + ", ".join("|".join(key) for key in keys[:_NAMED])
        + (" ..." if len(keys) > _NAMED else "")
        for reason, keys in reasons.items()
        if keys
    )


def _near(name: str, known: Sequence[str]) -> str:
    folded = {candidate.casefold(): candidate for candidate in known}
    wanted = name.casefold()
    holding = [candidate for candidate in folded if wanted in candidate]
    alike = difflib.get_close_matches(wanted, folded, n=_NEAR_MATCHES, cutoff=0.4)
    near = list(dict.fromkeys([*holding, *alike]))[:_NEAR_MATCHES]
    if not near:
        return ""
    return f"; did you mean {' or '.join(repr(folded[candidate]) for candidate in near)}?"
