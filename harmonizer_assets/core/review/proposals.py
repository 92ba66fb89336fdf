"""Proposals: what each decision would do to its label, and how much of a person that needs.

The view `proposals` says what is proposed; the review policy says which rule fits it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from harmonizer_assets.core.records.correction import Action
from harmonizer_assets.core.records.label import LABEL_KEY, qualified
from harmonizer_assets.core.review.policy import FITS, ReviewPolicy
from harmonizer_assets.core.store.database import Connection

# The same labels are in the sample at any time, whoever asks.
_IS_BLIND: Final = f"""
md5_number(concat_ws(chr(31), {qualified("p", LABEL_KEY)})) % 1000 < 1000 * $blind_share
"""

FITTED: Final = f"""
SELECT p.*, r.name AS policy, r.tier, r.name IS NOT NULL AND {_IS_BLIND} AS is_blind
FROM proposals p LEFT JOIN policy_rules r ON {FITS}
WHERE p.action <> '{Action.KEEP}'
QUALIFY row_number() OVER (PARTITION BY {qualified("p", LABEL_KEY)} ORDER BY r.place NULLS LAST) = 1
"""
"""SQL: the proposals, each with the first rule of the policy that fits it, inside `fitted_to`."""


@contextmanager
def fitted_to(con: Connection, policy: ReviewPolicy) -> Iterator[dict[str, Any]]:
    """Make the rules of a policy known to a connection; yield the parameters of `FITTED`."""
    con.register("policy_rules", policy.table())
    try:
        yield {"blind_share": policy.blind_share}
    finally:
        con.unregister("policy_rules")
