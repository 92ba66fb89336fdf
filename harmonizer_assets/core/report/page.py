"""The harmonization report: one self-contained HTML page of what was found.

The page holds its style itself, loads nothing and runs no script. Jinja escapes every value; a
content security policy forbids whatever might get past it.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jinja2

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.files import make_private_folder, write_atomically
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.written_reports import count_as_newest, written_reports
from harmonizer_assets.core.decide.explain import printable
from harmonizer_assets.core.records.label import WORD_COLUMNS
from harmonizer_assets.core.store.warehouse import Warehouse

KEPT: Final = 100
"""Pages of earlier runs that are kept, `latest.html` not counted."""

_MERCHANTS: Final = 30
_PER_LABEL_TYPE: Final = 10
_LISTED: Final = 50

_TYPES: Final = """
SELECT label_type, count(*) AS labels,
    count(*) FILTER (WHERE is_outlier AND validation_status <> 'INVALID') AS outliers,
    count(*) FILTER (WHERE is_outlier IS NULL) AS unresolved,
    count(*) FILTER (WHERE validation_status = 'INVALID') AS rejected
FROM label_decisions GROUP BY label_type ORDER BY outliers DESC, label_type
"""

_HEAT: Final = f"""
WITH busiest AS (
    SELECT merchant_key, coalesce(min(n.merchant), min(merchant_name), 'unknown') AS merchant_name,
        count(*) FILTER (WHERE is_outlier) AS outliers
    FROM standing_decisions
    LEFT JOIN (SELECT DISTINCT merchant_key, merchant FROM merchant_names) n USING (merchant_key)
    GROUP BY merchant_key
    ORDER BY outliers DESC, merchant_key LIMIT {_MERCHANTS}
)
SELECT b.merchant_key, b.merchant_name, b.outliers AS of_merchant, d.label_type,
    count(*) AS labels, count(*) FILTER (WHERE d.is_outlier) AS outliers
FROM standing_decisions d JOIN busiest b ON b.merchant_key = d.merchant_key
GROUP BY ALL ORDER BY of_merchant DESC, b.merchant_key, d.label_type
"""

_WORST: Final = f"""
SELECT label_type, coalesce(merchant_name, 'unknown') AS merchant_name, line, suggested_label,
    confidence, decided_by, reasoning, examples, {WORD_COLUMNS}
FROM outliers WHERE is_outlier
QUALIFY row_number() OVER (PARTITION BY label_type
    ORDER BY outlier_score DESC, {WORD_COLUMNS}) <= {_PER_LABEL_TYPE}
ORDER BY label_type, outlier_score DESC, {WORD_COLUMNS}
"""

_LISTS: Final = {
    "decided": "SELECT decided_by, count(*) AS n FROM standing_decisions "
    "GROUP BY ALL ORDER BY n DESC, decided_by",
    "findings": f"SELECT sentence, n_labels, n_merchants FROM findings "
    f"ORDER BY n_labels DESC, sentence LIMIT {_LISTED}",
    "patterns": f"SELECT pattern_id, sentence, support, against FROM label_patterns "
    f"ORDER BY support DESC, pattern_id LIMIT {_LISTED}",
    "missing": f"SELECT label_type, line, score, reasoning, merchant_name, "
    f"format('{{}} / {{}} / {{}} / {{}}', image_id, receipt_id, line_id, word_id) AS word "
    f"FROM missing_labels ORDER BY score DESC, {WORD_COLUMNS} LIMIT {_LISTED}",
    "alarms": f"SELECT image_id, receipt_id, merchant_name, reasoning FROM receipt_alarms "
    f"UNION ALL SELECT image_id, receipt_id, merchant_name, reasoning FROM merchant_alarms "
    f"ORDER BY ALL LIMIT {_LISTED}",
    "rejected": f"SELECT reasoning, merchant_name, "
    f"array_to_string(replaced_by, ', ') AS replaced_by, "
    f"format('{{}} / {{}} / {{}} / {{}}', image_id, receipt_id, line_id, word_id) AS word "
    f"FROM rejected_labels WHERE looks_right "
    f"ORDER BY score_without_status, {WORD_COLUMNS}, label LIMIT {_LISTED}",
    "contradictions": f"SELECT sentence, merchant_name FROM label_contradictions "
    f"ORDER BY n_a + n_b DESC, sentence LIMIT {_LISTED}",
    "precision": f"SELECT week, decided_by, answers, wrong, precision, suggestion_precision "
    f"FROM decision_precision ORDER BY week DESC, decided_by LIMIT {_LISTED}",
    "usage": "SELECT label_type, sum(calls)::BIGINT AS calls, sum(words_asked)::BIGINT AS asked, "
    "sum(cache_hits)::BIGINT AS cached, "
    "sum(prompt_tokens + completion_tokens)::BIGINT AS tokens, "
    "CASE WHEN count(*) = count(cost_usd) THEN sum(cost_usd) END AS cost_usd "
    "FROM llm_usage GROUP BY label_type ORDER BY cost_usd DESC NULLS LAST, label_type",
    "dead_letters": f"SELECT label, error, count(*) AS n FROM dead_letters GROUP BY ALL "
    f"ORDER BY n DESC, error LIMIT {_LISTED}",
}


@dataclass(frozen=True)
class Cell:
    """One label type of one merchant in the heat map."""

    labels: int
    outliers: int

    @property
    def share(self) -> float:
        """Wrong labels among all, 0..1."""
        return self.outliers / self.labels if self.labels else 0.0


def render_report(
    warehouse: Warehouse, *, guarantee: str, made_at: dt.datetime, run_id: str = ""
) -> str:
    """Render the page from the tables as they are now.

    Args:
        warehouse: holds the tables.
        guarantee: on the labels that no judge was asked about.
        made_at: shown on the page.
        run_id: the run that made it, shown where it is known.
    """
    with warehouse.session():
        tables = {name: warehouse.query(sql).to_pylist() for name, sql in _LISTS.items()}
        types = warehouse.query(_TYPES).to_pylist()
        heat = warehouse.query(_HEAT).to_pylist()
        worst = warehouse.query(_WORST).to_pylist()
    return _template().render(
        made_at=f"{made_at:%Y-%m-%d %H:%M} UTC",
        run_id=run_id,
        guarantee=guarantee,
        types=types,
        totals={
            name: sum(row[name] for row in types)
            for name in ("labels", "outliers", "unresolved", "rejected")
        },
        heat=_heat_map(heat),
        worst=_by_label_type(worst),
        **tables,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = _shown
    source = resources.files("harmonizer_assets.core.report") / "report.html.j2"
    return environment.from_string(source.read_text(encoding="utf-8"))


def publish_report(home: Home, page: str, name: str) -> Path:
    """Write a page into the home's folder as `NAME.html` and as `latest.html`; return the first.

    Of the pages that runs wrote, the newest `KEPT` are kept: runs that follow every arrival would
    fill the disk. Other files in the folder are left alone.

    Raises:
        StoreError: the folder cannot be written.
    """
    file = write_report(home.reports, page, name)
    count_as_newest(file)
    write_report(home.reports, page, "latest")
    for old in written_reports(home.reports)[KEPT:]:
        old.unlink(missing_ok=True)
    return file


def write_report(folder: Path, page: str, name: str) -> Path:
    """Write a page into a folder as `NAME.html`; change nothing else there.

    Raises:
        StoreError: the folder cannot be written.
    """
    file = folder / f"{name}.html"
    try:
        make_private_folder(folder)
        write_atomically(file, page)
    except OSError as error:
        raise StoreError(f"{folder}: the report cannot be written ({error.strerror})") from error
    return file


def _shown(value: object) -> str:
    """Format a value for people, without control characters."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else printable(str(value))


def _heat_map(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Arrange label types across, merchants down, a `Cell` or None where they meet."""
    types = sorted({row["label_type"] for row in rows})
    merchants: dict[str, dict[str, Any]] = {}
    for row in rows:
        merchant = merchants.setdefault(
            row["merchant_key"], {"name": row["merchant_name"], "cells": dict.fromkeys(types)}
        )
        merchant["cells"][row["label_type"]] = Cell(row["labels"], row["outliers"])
    return {"types": types, "merchants": list(merchants.values())}


def _by_label_type(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        examples = json.loads(row["examples"] or '{"for": [], "against": []}')
        groups.setdefault(row["label_type"], []).append({**row, "examples": examples})
    return groups
