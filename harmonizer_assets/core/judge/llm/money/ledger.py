"""The ledger: what was spent at endpoints, in the table `llm_ledger`, and what budgets leave."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

import duckdb

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.settings import JudgeSettings
from harmonizer_assets.core.records.account import Account

_SPENT: Final = """
SELECT coalesce(sum(tokens), 0)::BIGINT, coalesce(sum(usd), 0.0), count(*) - count(usd)
FROM llm_ledger WHERE CASE $scope WHEN 'run' THEN launch_id = $id WHEN 'backfill'
    THEN backfill_id = $id ELSE day = $id::DATE END
"""
_FORGET: Final = "DELETE FROM llm_ledger WHERE entry = $1"
_KNOWN: Final = """
SELECT tokens, usd, unconfirmed_tokens, unconfirmed_usd FROM llm_ledger WHERE entry = $1
"""
_INSERT: Final = "INSERT INTO llm_ledger VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_SETTLE: Final = """
UPDATE llm_ledger SET tokens = $2, usd = $3, unconfirmed_tokens = 0, unconfirmed_usd = 0.0
WHERE entry = $1
"""


@dataclass(frozen=True)
class Spent:
    """What calls have used.

    Attributes:
        usd: None where the price is not known.
        unconfirmed_tokens, unconfirmed_usd: the part that calls may have used at most whose usage
            is not known.
    """

    tokens: int = 0
    usd: float | None = 0.0
    unconfirmed_tokens: int = 0
    unconfirmed_usd: float | None = 0.0

    def __add__(self, more: Spent) -> Spent:
        return Spent(
            self.tokens + more.tokens,
            _sum(self.usd, more.usd),
            self.unconfirmed_tokens + more.unconfirmed_tokens,
            _sum(self.unconfirmed_usd, more.unconfirmed_usd),
        )

    @classmethod
    def at_most(cls, tokens: int, usd: float | None) -> Spent:
        """Make what a call may have used at most."""
        return cls(tokens, usd, tokens, usd)


def today() -> dt.date:
    """Return the day that spending is charged to, in UTC."""
    return utc_now().date()


def add_spent(
    con: duckdb.DuckDBPyConnection,
    entry: str,
    account: Account,
    spent: Spent,
    *,
    day: dt.date | None = None,
    purpose: str = "labels",
) -> None:
    """Add to an entry of the ledger, inside a transaction; make it where there is none."""
    known = con.execute(_KNOWN, [entry]).fetchone()
    total = Spent(*known) + spent if known else spent
    con.execute(_FORGET, [entry])
    con.execute(
        _INSERT,
        [
            entry,
            purpose,
            account.run_id,
            account.launch_id,
            account.backfill_id,
            day or today(),
            total.tokens,
            total.usd,
            total.unconfirmed_tokens,
            total.unconfirmed_usd,
        ],
    )


def settle(con: duckdb.DuckDBPyConnection, entry: str, tokens: int, usd: float | None) -> None:
    """Replace what an entry may have used at most by what it has used."""
    con.execute(_SETTLE, [entry, tokens, usd])


def forget(con: duckdb.DuckDBPyConnection, entry: str) -> None:
    """Remove an entry: nothing was used, or it is written anew."""
    con.execute(_FORGET, [entry])


@dataclass(frozen=True)
class _Limit:
    scope: str
    id: str
    tokens: int | None
    usd: float | None


def left(
    con: duckdb.DuckDBPyConnection, settings: JudgeSettings, account: Account
) -> tuple[int | None, float | None]:
    """Return the tokens and the USD that all budgets leave to an account; None where none is set.

    Read it while holding the lease on asking: only its holder spends.

    Raises:
        ConfigurationError: there is a limit in USD, and part of what was spent has no price.
    """
    tokens: list[int] = []
    dollars: list[float] = []
    for limit in _limits(settings, account):
        if limit.tokens is None and limit.usd is None:
            continue
        found = con.execute(_SPENT, {"scope": limit.scope, "id": limit.id}).fetchall()
        used, usd, without_price = found[0]
        if limit.tokens is not None:
            tokens.append(max(0, limit.tokens - used))
        if limit.usd is not None:
            if without_price:
                raise ConfigurationError(
                    f"a budget in USD for this {limit.scope} cannot be kept: a model without a "
                    "price was asked before; set a budget in tokens, or none"
                )
            dollars.append(max(0.0, limit.usd - usd))
    return min(tokens, default=None), min(dollars, default=None)


def _limits(settings: JudgeSettings, account: Account) -> list[_Limit]:
    tokens, usd = settings.budget_tokens, settings.budget_usd
    limits = [_Limit("run", account.launch_id, tokens, usd)]
    if account.backfill_id is not None:
        # Without limits of its own a backfill gets what one run gets: it was launched as one.
        of_backfill = settings.backfill_budget_tokens, settings.backfill_budget_usd
        has_own = any(limit is not None for limit in of_backfill)
        limits.append(
            _Limit("backfill", account.backfill_id, *(of_backfill if has_own else (tokens, usd)))
        )
    daily = settings.daily_budget_tokens, settings.daily_budget_usd
    return [*limits, _Limit("day", today().isoformat(), *daily)]


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
