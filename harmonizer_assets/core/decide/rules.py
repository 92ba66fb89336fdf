"""Rules: patterns that a person has accepted; they decide labels before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import duckdb

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.records.label import WORD_COLUMNS
from harmonizer_assets.core.stages.state import invalidate
from harmonizer_assets.core.store.warehouse import Warehouse

_DEPENDENT: Final = ("llm_verdicts", "outliers")

_INSERT: Final = """
INSERT INTO label_rules BY NAME
SELECT rule_id, $status AS status, label_type, mask, before, merchant_key, suggested_label,
    sentence, $decided_by AS decided_by, $note AS note, now() AS decided_at,
    (SELECT coalesce(max(version), 0) + 1 FROM label_rules) AS version
FROM ({source}) s WHERE rule_id = $rule_id
"""

_LAST_VERSIONS: Final = (
    "FROM label_rules QUALIFY row_number() OVER (PARTITION BY rule_id ORDER BY version DESC) = 1"
)

_AFFECTED: Final = f"""
CREATE OR REPLACE TEMP TABLE affected AS
SELECT DISTINCT l.label AS label_type, l.merchant_key
FROM labels l
JOIN word_documents wd USING ({WORD_COLUMNS})
JOIN documents d USING (document_id)
JOIN label_rules r ON r.label_type = l.label AND r.mask = d.mask
WHERE r.rule_id = $1 AND (r.merchant_key IS NULL OR r.merchant_key = l.merchant_key)
    AND (r.before IS NULL OR r.before = list_last(string_split(d.left_context, ' ')))
"""


@dataclass(frozen=True)
class RuleChange:
    """What accepting or retiring a rule did.

    Attributes:
        rule_id: the id of the rule, which is that of its pattern.
        version: version of the whole set of rules.
        sentence: the rule in words.
        partitions: how many partitions the next run computes again.
        overruled: labels that the rule is about but that a person has validated; they stay.
    """

    rule_id: str
    version: int
    sentence: str
    partitions: int
    overruled: int


def accept_rule(
    warehouse: Warehouse, pattern_id: str, *, decided_by: str = "", note: str | None = None
) -> RuleChange:
    """Make a pattern a rule.

    Args:
        warehouse: holds the patterns.
        pattern_id: of a pattern in `label_patterns`, or of a rule that was retired.
        decided_by: who decides, for the record.
        note: why, for the record.

    Raises:
        InputError: there is no such pattern, or it is a rule already.
    """

    def accept(con: duckdb.DuckDBPyConnection) -> RuleChange:
        if _count(con, "current_rules WHERE rule_id = $1", pattern_id):
            raise InputError(f"{pattern_id} is a rule already: see `harmonizer rules list`")
        source = "SELECT *, pattern_id AS rule_id FROM label_patterns"
        if not _count(con, "label_patterns WHERE pattern_id = $1", pattern_id):
            source = (
                "SELECT DISTINCT ON (rule_id) * FROM label_rules ORDER BY rule_id, version DESC"
            )
            if not _count(con, "label_rules WHERE rule_id = $1", pattern_id):
                raise InputError(
                    f"no pattern {pattern_id!r}: `harmonizer patterns` lists those that there are"
                )
        return _change(con, source, pattern_id, "accepted", decided_by, note)

    return warehouse.write(accept)


def retire_rule(
    warehouse: Warehouse, rule_id: str, *, decided_by: str = "", note: str | None = None
) -> RuleChange:
    """Retire a rule, so that it decides no more labels; its versions stay on record.

    Raises:
        InputError: there is no such rule in force.
    """

    def retire(con: duckdb.DuckDBPyConnection) -> RuleChange:
        if not _count(con, "current_rules WHERE rule_id = $1", rule_id):
            raise InputError(f"no rule {rule_id!r} in force: see `harmonizer rules list`")
        return _change(con, "FROM current_rules", rule_id, "retired", decided_by, note)

    return warehouse.write(retire)


def list_rules(warehouse: Warehouse) -> list[dict[str, Any]]:
    """List all rules in their last version, with the labels each decides and would overrule."""
    return warehouse.query(
        f"""
        SELECT r.*,
            (SELECT count(*) FROM rule_decisions d WHERE d.rule_id = r.rule_id) AS decides,
            (SELECT count(*) FROM rule_matches m
                WHERE m.rule_id = r.rule_id AND m.validation_status = 'VALID') AS overruled
        FROM ({_LAST_VERSIONS}) r
        ORDER BY status, version
        """
    ).to_pylist()


def _change(
    con: duckdb.DuckDBPyConnection,
    source: str,
    rule_id: str,
    status: str,
    decided_by: str,
    note: str | None,
) -> RuleChange:
    con.execute(
        _INSERT.format(source=source),
        {"rule_id": rule_id, "status": status, "decided_by": decided_by, "note": note},
    )
    con.execute(_AFFECTED, [rule_id])
    invalidate(con, _DEPENDENT, "affected")
    partitions = _count(con, "affected")
    con.execute("DROP TABLE affected")
    version, sentence = con.execute(
        "SELECT version, sentence FROM label_rules ORDER BY version DESC LIMIT 1"
    ).fetchall()[0]
    overruled = _count(
        con, "rule_matches WHERE rule_id = $1 AND validation_status = 'VALID'", rule_id
    )
    return RuleChange(rule_id, version, sentence, partitions, overruled)


def _count(con: duckdb.DuckDBPyConnection, source: str, *values: Any) -> int:
    return int(con.execute(f"SELECT count(*) FROM {source}", list(values)).fetchall()[0][0])
