"""Corrections that are wanted: by people's answers, and by open rules of the policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from harmonizer_assets.core.base.settings import Settlement
from harmonizer_assets.core.records.correction import WANTED, Action, Source
from harmonizer_assets.core.records.label import LABEL_COLUMNS, LABEL_KEY, qualified
from harmonizer_assets.core.review.answers import corrections_of_answers
from harmonizer_assets.core.review.policy import ReviewPolicy, Tier
from harmonizer_assets.core.review.proposals import FITTED, fitted_to
from harmonizer_assets.core.review.tiers import Evidence, TierState, tier_state
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.numbers import oldest_first

_AGREES: Final = f"""
CASE WHEN verdict = 'right' THEN proposed_action = '{Action.CONFIRM}'
    WHEN to_label IS NULL THEN proposed_action = '{Action.MARK_INVALID}'
    ELSE proposed_action = '{Action.MOVE}' AND to_label = proposed_to END
"""
# A blind answer counts once, however often its giver changes it.
_EVIDENCE: Final = f"""
SELECT policy, number, answered_at AS happened_at, {_AGREES} AS agrees
FROM standing_answers WHERE is_blind AND verdict <> 'skip' AND policy IS NOT NULL
UNION ALL
SELECT policy, number, reopened_at, NULL FROM review_reopenings
ORDER BY policy, {oldest_first("happened_at")}
"""
# What a person has answered about, or undone, no rule does. The blind sample waits for answers when
# its rule is open as well, or no disagreement could close the rule again.
_OF_POLICY: Final = f"""
WITH fitted AS ({FITTED}),
approved AS (
    SELECT DISTINCT kind_id FROM standing_answers
    WHERE kind_id IS NOT NULL AND {_AGREES}
)
SELECT {qualified("f", LABEL_KEY)}, f.action, f.to_label, '{Source.POLICY}' AS source,
    'policy: ' || f.policy AS actor, f.reasoning, f.decided_by, f.outlier_score, f.policy,
    f.kind_id, NULL AS answer_id, f.rule_id, f.run_id, f.model, f.prompt_version,
    f.validation_status AS seen_status, f.word_text AS seen_text
FROM fitted f
WHERE f.policy IN (SELECT name FROM open_rules) AND NOT f.is_blind
    AND (f.tier = '{Tier.AUTOMATIC}' OR f.kind_id IN (FROM approved))
    AND ({qualified("f", LABEL_KEY)}) NOT IN (SELECT ({LABEL_COLUMNS}) FROM standing_answers)
    AND ({qualified("f", LABEL_KEY)}) NOT IN (
        SELECT ({LABEL_COLUMNS}) FROM label_corrections SEMI JOIN label_undos USING (correction_id))
"""


def tier_states(con: Connection, policy: ReviewPolicy) -> dict[str, TierState]:
    """Read what the blind sample says about each rule of the policy.

    Returns:
        The state of each rule, by its name.
    """
    events: dict[str, list[Evidence]] = {rule.name: [] for rule in policy.rules}
    for name, _, at, agrees in con.execute(_EVIDENCE).fetchall():
        if name in events:
            events[name].append(Evidence(at, agrees))
    return {rule.name: tier_state(events[rule.name], rule.agreement) for rule in policy.rules}


def wanted_corrections(con: Connection, policy: ReviewPolicy, settlement: Settlement) -> pa.Table:
    """Read all corrections that people's answers or open rules of the policy want.

    Returns:
        Columns of `WANTED`.
    """
    states = tier_states(con, policy)
    con.register("open_rules", _open(states))
    of_answers = con.execute(corrections_of_answers(settlement)).to_arrow_table()
    with fitted_to(con, policy) as values:
        of_policy = con.execute(_OF_POLICY, values).to_arrow_table()
    con.unregister("open_rules")
    return pa.concat_tables(
        [part.select(WANTED.names).cast(WANTED) for part in (of_answers, of_policy)]
    )


def _open(states: Mapping[str, TierState]) -> pa.Table:
    names = [name for name, state in states.items() if state.is_open]
    return pa.table({"name": pa.array(names, pa.string())})
