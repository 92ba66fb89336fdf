"""Export of the review queue: each label with its word, its state, and what is proposed for it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.files import write_atomically
from harmonizer_assets.core.records.box import Box
from harmonizer_assets.core.records.label import LABEL_COLUMNS, WORD_COLUMNS, label_key
from harmonizer_assets.core.review.exchange.base import Format
from harmonizer_assets.core.review.exchange.records import (
    ExchangeRecord,
    Proposal,
    StandingAnswer,
)
from harmonizer_assets.core.review.queue import QUEUE_FILTER, ReviewFilter
from harmonizer_assets.core.store.export import check_target
from harmonizer_assets.core.store.numbers import oldest_first
from harmonizer_assets.core.store.warehouse import Warehouse

# People must not be told of a blind sample what is proposed, nor what others have said.
_EXPORTED: Final = f"""
SELECT q.* EXCLUDE (line), coalesce(q.line, t.line) AS line,
    nullif(struct_pack(w.x, w.y, w.width, w.height),
        struct_pack(x := NULL, y := NULL, width := NULL, height := NULL)) AS box,
    json_extract_string(w.extra, '$.image_uri') AS image_uri,
    CASE WHEN NOT q.is_blind THEN a.answers END AS answers,
    (SELECT coalesce(max(number), 0) FROM review_answers) AS last_answer
FROM review_queue q
LEFT JOIN words w USING ({WORD_COLUMNS})
LEFT JOIN (
    SELECT image_id, receipt_id, line_id, string_agg(text, ' ' ORDER BY word_id) AS line
    FROM words GROUP BY ALL
) t USING (image_id, receipt_id, line_id)
LEFT JOIN (
    SELECT {LABEL_COLUMNS}, list(struct_pack(reviewer, verdict, to_label, note)
        ORDER BY {oldest_first("answered_at")}, answer_id) AS answers
    FROM standing_answers GROUP BY ALL
) a USING ({LABEL_COLUMNS})
WHERE {QUEUE_FILTER}
ORDER BY q.value DESC, {LABEL_COLUMNS} LIMIT $limit
"""


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        path: the file.
        config: the file with what the tool must be set up with, where it needs any.
        records: how many labels were exported.
        without_box: those among them whose words have no place on the image.
    """

    path: Path
    config: Path | None
    records: int
    without_box: int


def exported_records(
    warehouse: Warehouse, chosen: ReviewFilter, limit: int | None = None
) -> list[ExchangeRecord]:
    """Read the labels under review, the most valuable first.

    Args:
        warehouse: holds the queue.
        chosen: the part of the queue; disagreements are not looked at.
        limit: how many; None for all.
    """
    now = utc_now()
    values = {**chosen.values, "limit": limit}
    del values["disagreements"]
    rows = warehouse.query(_EXPORTED, values).to_pylist()
    return [_record(row, now) for row in rows]


def export_review(
    warehouse: Warehouse,
    exchange_format: Format,
    path: Path,
    label_types: Sequence[str],
    *,
    chosen: ReviewFilter,
    limit: int | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write the labels under review for a tool.

    Args:
        warehouse: holds the queue.
        exchange_format: of the tool.
        path: appears as a whole once it is complete; what the tool must be set up with stands
            beside it.
        label_types: that people can choose from, beside those that the labels have already.
        chosen: the part of the queue.
        limit: how many; None for all.
        overwrite: whether files that are there are replaced.

    Raises:
        InputError: the file has another suffix, is there already or cannot be written.
    """
    if path.suffix.lower() != exchange_format.suffix:
        raise InputError(
            f"{path}: files for {exchange_format.name} end with {exchange_format.suffix}"
        )
    records = exported_records(warehouse, chosen, limit)
    held = (record.key.label for record in records)
    choices = [*dict.fromkeys((*label_types, *held))]
    config = exchange_format.config(choices)
    beside = None if config is None else path.with_name(path.stem + config[0])
    for target in filter(None, (path, beside)):
        check_target(target, overwrite=overwrite)
    try:
        exchange_format.write(path, records, choices)
        if config is not None and beside is not None:
            write_atomically(beside, config[1])
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    without_box = sum(record.box is None for record in records)
    return ExportReport(path, beside, len(records), without_box)


def _record(row: Mapping[str, Any], now: dt.datetime) -> ExchangeRecord:
    is_blind = row["is_blind"]
    box = row["box"]
    return ExchangeRecord(
        key=label_key(row),
        text=row["word_text"],
        line=row["line"],
        merchant_name=row["merchant_name"],
        box=None if box is None else Box.of(box),
        image_uri=row["image_uri"],
        validation_status=row["validation_status"],
        batch_id=row["batch_id"],
        batch_time=row["batch_time"],
        exported_at=now,
        last_answer=row["last_answer"],
        is_blind=is_blind,
        proposal=None if is_blind else _proposal(row),
        answers=tuple(StandingAnswer(**one) for one in row["answers"] or ()),
    )


def _proposal(row: Mapping[str, Any]) -> Proposal:
    return Proposal(
        action=row["action"],
        to_label=row["to_label"],
        score=row["outlier_score"],
        reasoning=row["reasoning"],
        decided_by=row["decided_by"],
        kind_id=row["kind_id"],
    )
