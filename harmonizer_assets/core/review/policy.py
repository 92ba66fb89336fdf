"""The review policy: which proposals are applied without a person, or after a yes to their kind.

People write it as `HOME/review.yaml`. The first rule that fits a proposal counts; what none fits is
reviewed one by one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from harmonizer_assets.core.base.config_files import load_config
from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.records.correction import Action


class Tier(StrEnum):
    """How much of a person a correction needs."""

    AUTOMATIC = "automatic"
    """Applied without a person."""
    BY_KIND = "by_kind"
    """Applied to labels of a kind once a person has given one answer for all of it, a yes."""
    SINGLE = "single"
    """Applied once a person has answered about this label."""


_WITHOUT_A_PERSON: Final = (Action.MARK_INVALID, Action.MOVE, Action.ASK)
"""A label that no person has looked at never becomes VALID: models would learn from themselves."""


class PolicyRule(BaseModel):
    """One rule; a proposal fits it where it fits everything that is given.

    Attributes:
        name: of the rule; answers to its blind sample are counted under it.
        tier: `automatic` or `by_kind`.
        agreement: the share of the blind sample on which people must agree, 0..1, with 95 %
            confidence.
        actions: what is proposed.
        label_types: of the labels; empty means any.
        decided_by: who decided, as in the table `outliers`; empty means anyone.
        rule_ids: the accepted rules that decided, by their ids; empty means any, or none.
        p_wrong_from, p_wrong_to: bounds of the outlier score, 0..1.
        kind_from: how many labels alike there must be at least.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    tier: Tier
    agreement: float = Field(default=0.95, gt=0, lt=1)
    actions: tuple[Action, ...] = (Action.MOVE, Action.MARK_INVALID)
    label_types: tuple[str, ...] = ()
    decided_by: tuple[str, ...] = ()
    rule_ids: tuple[str, ...] = ()
    p_wrong_from: float = Field(default=0.0, ge=0, le=1)
    p_wrong_to: float = Field(default=1.0, ge=0, le=1)
    kind_from: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _can_be_applied(self) -> PolicyRule:
        if self.tier == Tier.SINGLE:
            raise ValueError("a rule is automatic or by_kind: what no rule fits is single")
        wrong = [action for action in self.actions if action not in _WITHOUT_A_PERSON]
        if wrong:
            allowed = ", ".join(_WITHOUT_A_PERSON)
            raise ValueError(f"{wrong[0]} needs a person: a rule can do {allowed}")
        return self


class ReviewPolicy(BaseModel):
    """The whole policy.

    Attributes:
        rules: in the order in which they are tried.
        blind_share: of the proposals of each rule, the share that people are asked about without
            being shown what is proposed, 0..1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[PolicyRule, ...] = (
        PolicyRule(
            name="certain",
            tier=Tier.AUTOMATIC,
            agreement=0.97,
            decided_by=("similarity", "rule"),
            p_wrong_from=0.95,
        ),
        PolicyRule(name="frequent", tier=Tier.BY_KIND, agreement=0.95, kind_from=3),
    )
    blind_share: float = Field(default=0.1, gt=0, le=1)

    @classmethod
    def of_home(cls, home: Home) -> ReviewPolicy:
        """Read the home's file; without one, the default policy holds.

        Raises:
            ConfigurationError: it cannot be read, or names what does not exist.
        """
        path = home.review_policy
        return load_config(path, cls, ConfigurationError) if path.exists() else cls()

    @model_validator(mode="after")
    def _names_once(self) -> ReviewPolicy:
        names = [rule.name for rule in self.rules]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two rules are called {twice[0]!r}")
        return self

    def table(self) -> pa.Table:
        """Return the rules as a table that SQL joins; see `FITS`."""
        rows = [
            {"place": place, **rule.model_dump(mode="json")}
            for place, rule in enumerate(self.rules)
        ]
        return pa.Table.from_pylist(rows, _SCHEMA)

    def rule(self, name: str) -> PolicyRule | None:
        """Return the rule of a name."""
        return next((rule for rule in self.rules if rule.name == name), None)


_TEXTS: Final = pa.list_(pa.string())
_SCHEMA: Final = pa.schema(
    [
        ("place", pa.int64()),
        ("name", pa.string()),
        ("tier", pa.string()),
        ("agreement", pa.float64()),
        ("actions", _TEXTS),
        ("label_types", _TEXTS),
        ("decided_by", _TEXTS),
        ("rule_ids", _TEXTS),
        ("p_wrong_from", pa.float64()),
        ("p_wrong_to", pa.float64()),
        ("kind_from", pa.int64()),
    ]
)

FITS: Final = """
list_contains(r.actions, p.action)
    AND (len(r.label_types) = 0 OR list_contains(r.label_types, p.label_type))
    AND (len(r.decided_by) = 0 OR list_contains(r.decided_by, p.decided_by))
    AND (len(r.rule_ids) = 0 OR coalesce(list_contains(r.rule_ids, p.rule_id), false))
    AND coalesce(p.outlier_score, 0.5) BETWEEN r.p_wrong_from AND r.p_wrong_to
    AND p.n_alike >= r.kind_from
"""
"""SQL: whether the rule `r` of the policy's table fits the proposal `p`."""
