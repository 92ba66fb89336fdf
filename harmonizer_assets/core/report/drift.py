"""Run history: the totals of each run, to find jumps and drift."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import duckdb

from harmonizer_assets.core.store.numbers import next_number
from harmonizer_assets.core.store.warehouse import Warehouse

_SURPRISE: Final = 3.0
"""Standard errors from which a difference of two shares is not chance."""

_TOTALS: Final = """
CREATE OR REPLACE TEMP TABLE totals AS
SELECT label_type, count(*) AS labels,
    count(*) FILTER (WHERE is_outlier AND validation_status <> 'INVALID') AS outliers,
    count(*) FILTER (WHERE is_outlier IS NULL) AS unresolved,
    count(*) FILTER (WHERE validation_status = 'INVALID') AS rejected
FROM label_decisions GROUP BY GROUPING SETS ((label_type), ())
"""

# Runs from before there were numbers come first, in the order of their times.
_NUMBERED: Final = """
WITH numbered AS (
    SELECT * EXCLUDE (number), dense_rank() OVER (
        ORDER BY coalesce(number, 0), CASE WHEN number IS NULL THEN recorded_at END
    ) AS number
    FROM run_history
)
"""

_CHANGED: Final = f"""
{_NUMBERED}
SELECT count(*) FROM (
    (FROM totals EXCEPT SELECT label_type, labels, outliers, unresolved, rejected
        FROM numbered
        WHERE number = (SELECT max(number) FROM numbered))
)
"""

# A label that a person has rejected since was an outlier before: both count as wrong.
_LAST_TWO: Final = f"""
{_NUMBERED},
runs AS (SELECT DISTINCT number FROM numbered ORDER BY number DESC LIMIT 2)
SELECT label_type,
    sum(labels) FILTER (WHERE number = (SELECT min(number) FROM runs))::BIGINT
        AS labels_before,
    sum(outliers + rejected)
        FILTER (WHERE number = (SELECT min(number) FROM runs))::BIGINT
        AS outliers_before,
    sum(labels) FILTER (WHERE number = (SELECT max(number) FROM runs))::BIGINT AS labels,
    sum(outliers + rejected)
        FILTER (WHERE number = (SELECT max(number) FROM runs))::BIGINT
        AS outliers
FROM numbered SEMI JOIN runs USING (number)
WHERE (SELECT count(*) FROM runs) = 2
GROUP BY label_type
HAVING labels > 0 AND labels_before > 0
ORDER BY label_type NULLS FIRST
"""

_DRIFT: Final = """
WITH identities AS (
    SELECT model, prompt_version, row_number() OVER (
        ORDER BY max(number) DESC NULLS LAST, max(created_at) DESC
    ) AS place
    FROM llm_verdicts GROUP BY ALL
),
answers AS (
    SELECT place, label_type, merchant_key, word_text, avg(is_outlier::INTEGER) AS wrong
    FROM llm_verdicts JOIN identities USING (model, prompt_version)
    WHERE place <= 2 GROUP BY ALL
)
SELECT count(*) AS words, coalesce(sum(abs(n.wrong - o.wrong)), 0) AS changed,
    (SELECT model || ' / ' || prompt_version FROM identities WHERE place = 1) AS now,
    (SELECT model || ' / ' || prompt_version FROM identities WHERE place = 2) AS before
FROM answers n JOIN answers o USING (label_type, merchant_key, word_text)
WHERE n.place = 1 AND o.place = 2
"""


@dataclass(frozen=True)
class Jump:
    """A share of wrong labels that has changed since the last run by more than chance.

    Wrong are outliers and what people have rejected.

    Attributes:
        label_type: of which label type; None is all labels together.
        before: share of wrong labels after the run before, 0..1.
        now: the same after the last run.
    """

    label_type: str | None
    before: float
    now: float

    def __str__(self) -> str:
        """Describe the jump in one line."""
        return f"{self.label_type or 'all labels'}: {self.before:.1%} to {self.now:.1%}"


@dataclass(frozen=True)
class Drift:
    """How the verdicts of the model and prompt in use differ from those used before.

    Attributes:
        words: words of a merchant and label type that both have judged.
        changed: share of them that is judged otherwise now, 0..1.
        now: model and prompt version in use; None where no model has been asked.
        before: those used before; None where there are none.
    """

    words: int
    changed: float
    now: str | None
    before: str | None


def record(warehouse: Warehouse, run_id: str) -> None:
    """Add the totals of a run to the table `run_history`, if it has changed them."""

    def write(con: duckdb.DuckDBPyConnection) -> None:
        con.execute(_TOTALS)
        changed = con.execute(_CHANGED).fetchone()
        if changed and changed[0]:
            con.execute(
                "INSERT INTO run_history BY NAME "
                "SELECT now() AS recorded_at, $1 AS run_id, "
                f"{next_number('run_history')} AS number, * FROM totals",
                [run_id],
            )
        con.execute("DROP TABLE totals")

    warehouse.write(write)


def jumps(warehouse: Warehouse, least: float) -> list[Jump]:
    """Find shares of wrong labels that the last run has changed.

    A difference counts when it is at least `least` and more than three standard errors of the
    difference of two proportions (pooled variance; Fleiss, Statistical Methods for Rates and
    Proportions, section 3.2): small label types vary by themselves.

    Args:
        warehouse: holds the history.
        least: the smallest difference of shares that matters, 0..1.
    """
    found = []
    for row in warehouse.query(_LAST_TWO).to_pylist():
        before = row["outliers_before"] / row["labels_before"]
        now = row["outliers"] / row["labels"]
        pooled = (row["outliers_before"] + row["outliers"]) / (row["labels_before"] + row["labels"])
        error = sqrt(pooled * (1 - pooled) * (1 / row["labels_before"] + 1 / row["labels"]))
        if abs(now - before) >= least and abs(now - before) > _SURPRISE * error:
            found.append(Jump(row["label_type"], before, now))
    return found


def drift(warehouse: Warehouse) -> Drift:
    """Compare the verdicts of the last two models or prompts on the words that both have judged."""
    row: dict[str, Any] = warehouse.query(_DRIFT).to_pylist()[0]
    words = row["words"]
    return Drift(words, row["changed"] / words if words else 0.0, row["now"], row["before"])
