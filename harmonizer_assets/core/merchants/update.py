"""The step at the end of ingest: finds the merchants of names, and moves what has changed."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import partial
from typing import Final

from harmonizer_assets.core.base.settings import MerchantSettings
from harmonizer_assets.core.merchants.grouping import (
    VERSION,
    Merchant,
    Rules,
    SeenName,
    group_names,
)
from harmonizer_assets.core.merchants.moves import move
from harmonizer_assets.core.merchants.overrides import MerchantOverrides
from harmonizer_assets.core.records.reports import MerchantReport
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.warehouse import Warehouse

_log: Final = logging.getLogger(__name__)
_LOGGED: Final = 20

# A name that no label has any more is nobody's.
_LOST: Final = (
    "merchant_names WHERE name NOT IN "
    "(SELECT DISTINCT merchant_name FROM labels WHERE merchant_name IS NOT NULL)"
)
_SEEN: Final = """
SELECT name, since, first_labels FROM merchant_names
SEMI JOIN (SELECT DISTINCT merchant_name AS name FROM labels) USING (name) ORDER BY name
"""
_STATE: Final = """
SELECT (SELECT any_value(inputs) FROM merchant_state),
    (SELECT count(*)::VARCHAR || '-' || coalesce(bit_xor(md5_number(concat_ws(chr(31),
        name, epoch_us(since), first_labels, merchant_key))), 0)::VARCHAR FROM merchant_names)
"""
_WAITED_FOR: Final = """
SELECT EXISTS (FROM llm_batch_items) OR EXISTS (FROM llm_collected)
"""


@dataclass(frozen=True)
class _Found:
    """All names that labels have, and a hash of the table that they were read from."""

    seen: list[SeenName]
    names: str


class MerchantNames:
    """Keeps the merchants of names as people and rules have them."""

    def __init__(
        self, warehouse: Warehouse, overrides: MerchantOverrides, settings: MerchantSettings
    ) -> None:
        """Bind to a home's tables; nothing is read yet.

        Args:
            warehouse: of the home.
            overrides: what people say about names.
            settings: which rules apply.
        """
        self._warehouse = warehouse
        self._overrides = overrides
        self._rules = Rules(settings.merge_spellings, settings.merge_look_alikes)

    def is_current(self) -> bool:
        """Return whether nothing has changed since the merchants were found."""
        lost, found = self._warehouse.read(lambda con: (_lost(con), _state(con)))
        return not lost and self._inputs(found[1]) == found[0]

    def update(self, *, may_move: bool = True) -> MerchantReport:
        """Find the merchants of all names, and move the labels of those that have changed.

        While batch jobs are open nothing moves, so that their answers find their questions; the
        next call moves it.

        Args:
            may_move: whether labels may move now; otherwise they wait for the next call, too.

        Returns:
            The names that have moved, or those that wait.

        Raises:
            StoreError: the database or the disk is not usable; nothing has moved.
        """
        if self.is_current():
            return MerchantReport()
        while True:
            found = self._warehouse.read(_read)
            assigned = group_names(found.seen, self._overrides, self._rules)
            report = self._warehouse.write(
                partial(self._write, found=found, assigned=assigned, may_move=may_move)
            )
            if report is not None:
                _log_moves(report)
                return report

    def _write(
        self, con: Connection, *, found: _Found, assigned: dict[str, Merchant], may_move: bool
    ) -> MerchantReport | None:
        """Move labels, unless another process has changed the names meanwhile: None then."""
        if _state(con)[1] != found.names:
            return None
        con.execute(f"DELETE FROM {_LOST}")
        if not may_move or con.execute(_WAITED_FOR).fetchall()[0][0]:
            return MerchantReport(waiting=_differing(con, assigned))
        moved = move(con, assigned)
        con.execute("DELETE FROM merchant_state")
        con.execute("INSERT INTO merchant_state VALUES ($1)", [self._inputs(_state(con)[1])])
        return MerchantReport(tuple(moved))

    def _inputs(self, names: str) -> str:
        content = f"{VERSION}\n{self._rules}\n{self._overrides.version}\n{names}"
        return hashlib.sha256(content.encode()).hexdigest()[:32]


def _read(con: Connection) -> _Found:
    names = _state(con)[1]
    return _Found([SeenName(*row) for row in con.execute(_SEEN).fetchall()], names)


def _state(con: Connection) -> tuple[str | None, str]:
    inputs, names = con.execute(_STATE).fetchall()[0]
    return inputs, names


def _lost(con: Connection) -> bool:
    return bool(con.execute(f"SELECT EXISTS (FROM {_LOST})").fetchall()[0][0])


def _differing(con: Connection, assigned: dict[str, Merchant]) -> int:
    known = dict(con.execute("SELECT name, merchant_key FROM merchant_names").fetchall())
    return sum(known.get(name) != merchant.key for name, merchant in assigned.items())


def _log_moves(report: MerchantReport) -> None:
    for moved in report.moves[:_LOGGED]:
        _log.info(
            "%d labels moved from merchant %s to %s (%s)",
            moved.labels,
            moved.left_key,
            moved.merchant_key,
            moved.how,
        )
    if len(report.moves) > _LOGGED:
        _log.info("%d names have moved to another merchant in all", len(report.moves))
    if report.waiting:
        _log.warning("%s", report.remarks()[-1])
