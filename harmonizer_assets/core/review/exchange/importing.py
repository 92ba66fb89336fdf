"""Import of what people have said in other tools: it becomes answers, and never labels.

What was imported before changes nothing. What cannot be taken is listed with the reason: a label
that has changed since the export, an answer that was given here meanwhile, an unknown type.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from harmonizer_assets.core.records.label import (
    LABEL_COLUMNS,
    LABEL_KEY,
    WORD_COLUMNS,
    LabelKey,
    WordKey,
    label_key,
)
from harmonizer_assets.core.review.answers import (
    GIVEN,
    Answer,
    checked_reviewer,
    new_answer_id,
    store_answers,
)
from harmonizer_assets.core.review.exchange.base import Drawn, Format, Opinion, Returned, Unusable
from harmonizer_assets.core.review.exchange.places import words_at
from harmonizer_assets.core.review.exchange.records import ExchangeRecord
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.warehouse import Warehouse

_IMPORTED: Final = pa.schema(
    [
        *GIVEN,
        pa.field("place", pa.string()),
        pa.field("exported_at", pa.timestamp("us", "UTC")),
        pa.field("last_answer", pa.int64()),
    ]
)
# An answer that was given here counts as later than one that was given in the tool, whose time
# nobody tells.
_CLASSIFIED: Final = f"""
CREATE OR REPLACE TEMP TABLE classified AS
WITH before AS (
    SELECT r.import_id, bool_or(s.answer_id IS NOT NULL) AS stands
    FROM review_answers r LEFT JOIN standing_answers s USING (answer_id, {LABEL_COLUMNS}, reviewer)
    WHERE r.import_id IS NOT NULL GROUP BY ALL
)
SELECT i.*, coalesce(b.stands, false) AS is_known,
    CASE
        WHEN b.stands THEN NULL
        WHEN b.import_id IS NOT NULL
            THEN format('it was imported before; {{}} has answered again, or withdrawn it, since',
                i.reviewer)
        WHEN mine.import_id IS NULL
            AND coalesce(mine.number > i.last_answer, mine.answered_at > i.exported_at)
            AND (mine.verdict, mine.to_label) IS DISTINCT FROM (i.verdict, i.to_label)
            THEN format('{{}} has answered here since the export', i.reviewer)
        WHEN i.verdict = '{Answer.ADD}' AND l.label IS NOT NULL
            THEN format('the word has the label {{}} already: it is {{}}', l.label,
                l.validation_status)
        WHEN i.verdict = '{Answer.ADD}' AND w.text IS NULL THEN 'the word is not there any more'
        WHEN i.verdict = '{Answer.ADD}' THEN NULL
        WHEN l.label IS NULL THEN 'the label is not there any more'
        WHEN l.validation_status IS DISTINCT FROM i.seen_status
            THEN format('the label has changed since the export: it is {{}} now',
                l.validation_status)
        WHEN w.text IS DISTINCT FROM i.seen_text
            THEN format('the word has changed since the export: it reads {{}} now',
                coalesce(w.text, 'nothing'))
    END AS problem
FROM imported i
LEFT JOIN before b USING (import_id)
LEFT JOIN labels l USING ({LABEL_COLUMNS})
LEFT JOIN words w USING ({WORD_COLUMNS})
LEFT JOIN standing_answers mine USING ({LABEL_COLUMNS}, reviewer)
"""


@dataclass(frozen=True)
class NotImported:
    """Something in a file that was not imported, and why.

    Attributes:
        place: where it stands in the file.
        label: ids and label that it is about, parted by slashes; empty where that is not known.
        reviewer: who says it; empty where that is not known.
        reason: why it was not imported.
    """

    place: str
    label: str
    reviewer: str
    reason: str


@dataclass(frozen=True)
class ImportReport:
    """What was imported.

    Attributes:
        records: labels and new regions in the file.
        unanswered: those among them about which nobody has said anything.
        answers: answers that were stored, by verdict.
        known: answers that were imported before and stand.
        refused: what was not imported.
    """

    records: int
    unanswered: int
    answers: Mapping[str, int]
    known: int
    refused: Sequence[NotImported]


def import_answers(
    warehouse: Warehouse,
    exchange_format: Format,
    path: Path,
    label_types: Sequence[str],
    reviewer: str,
) -> ImportReport:
    """Store what people have said in a file as their answers, all of it in one transaction.

    Args:
        warehouse: holds the labels.
        exchange_format: of the file.
        path: of the file.
        label_types: that a label can have.
        reviewer: who has answered where the file names nobody.

    Raises:
        InputError: the file cannot be read; nothing was stored.
        StoreError: the answers cannot be stored; nothing was.
    """
    parts = [*exchange_format.read(path)]
    taken = _Taken(exchange_format.name, checked_reviewer(reviewer), frozenset(label_types))
    placed = words_at(warehouse, [part for part in parts if isinstance(part, Drawn)])
    for part in parts:
        if isinstance(part, Unusable):
            taken.refuse(part.place, part.reason)
        elif isinstance(part, Drawn):
            taken.draw(part, placed[part])
        else:
            taken.take(part)
    rows = pa.Table.from_pylist(taken.rows_that_agree(), _IMPORTED)
    stored, known, refused = warehouse.write(lambda con: _store(con, rows))
    counts: dict[str, int] = defaultdict(int)
    for verdict in stored:
        counts[verdict] += 1
    return ImportReport(
        records=sum(not isinstance(part, Unusable) for part in parts),
        unanswered=sum(isinstance(part, Returned) and not part.opinions for part in parts),
        answers=dict(counts),
        known=known,
        refused=[*taken.refused, *refused],
    )


class _Taken:
    """What was taken from a file so far."""

    def __init__(self, source: str, reviewer: str, label_types: frozenset[str]) -> None:
        self.refused: list[NotImported] = []
        self._source = source
        self._reviewer = reviewer
        self._label_types = label_types
        self._rows: dict[str, dict[str, Any]] = {}

    def refuse(self, place: str, reason: str, key: LabelKey | None = None, by: str = "") -> None:
        """Note that something is not imported."""
        label = "" if key is None else "/".join(map(str, key))
        self.refused.append(NotImported(place, label, by, reason))

    def take(self, returned: Returned) -> None:
        """Take what people say about a label."""
        record = returned.record
        seen = {
            "seen_status": record.validation_status,
            "seen_text": record.text,
            "proposal_shown": not record.is_blind,
        }
        for opinion in returned.opinions:
            others = {*(opinion.labels or ())} - {record.key.label}
            if not self._knows(returned.place, others, record.key, opinion):
                continue
            verdict, to_label, added = _verdict(record, opinion.labels)
            self._add(returned.place, record, record.key, opinion, verdict, to_label, seen)
            for label in added:
                key = record.key._replace(label=label)
                self._add(returned.place, record, key, opinion, Answer.ADD)

    def draw(self, drawn: Drawn, word: WordKey | str) -> None:
        """Take a label that a person has given to a word, or the reason why it is none."""
        key = drawn.near.key if isinstance(word, str) else LabelKey(*word, drawn.label)
        if isinstance(word, str):
            self.refuse(drawn.place, f"{drawn.label} was added where {word}")
        elif self._knows(drawn.place, {drawn.label}, key, drawn.opinion):
            self._add(drawn.place, drawn.near, key, drawn.opinion, Answer.ADD)

    def rows_that_agree(self) -> list[dict[str, Any]]:
        """Return the answers, one for each person and label, in the order of the file.

        Of several the latest counts, where the tool tells which one that is.
        """
        said: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
        for row in self._rows.values():
            said[row["reviewer"], *(row[name] for name in LABEL_KEY)].append(row)
        return [row for rows in said.values() for row in self._last(rows)]

    def _last(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        versions = [row["version"] for row in rows]
        if len(rows) == 1 or ("" not in versions and len({*versions}) == len(rows)):
            return [max(rows, key=lambda row: row["version"])]
        places = " and ".join(dict.fromkeys(row["place"] for row in rows))
        reason = f"{places} say different things about it: keep one of them"
        self.refuse(places, reason, label_key(rows[0]), rows[0]["reviewer"])
        return []

    def _knows(self, place: str, labels: set[str], key: LabelKey, opinion: Opinion) -> bool:
        """Return whether all labels are types of the taxonomy; list one that is not."""
        unknown = sorted(labels - self._label_types)
        if unknown:
            reason = f"{unknown[0]!r} is no label type of the home's taxonomy"
            self.refuse(place, reason, key, opinion.reviewer or self._reviewer)
        return not unknown

    def _add(
        self,
        place: str,
        record: ExchangeRecord,
        key: LabelKey,
        opinion: Opinion,
        verdict: Answer,
        to_label: str | None = None,
        seen: Mapping[str, Any] | None = None,
    ) -> None:
        by = (opinion.reviewer or "").strip() or self._reviewer
        exported_at = record.exported_at.astimezone(dt.UTC)
        content = (verdict, to_label, opinion.note, opinion.version, exported_at.isoformat())
        import_id = _digest(self._source, by, *key, *content)
        row = {
            **key._asdict(),
            "answer_id": new_answer_id(),
            "reviewer": by,
            "verdict": str(verdict),
            "to_label": to_label,
            "note": opinion.note,
            "proposal_shown": True,
            **(seen or {}),
            "import_id": import_id,
            "place": place,
            "version": opinion.version,
            "exported_at": exported_at,
            "last_answer": record.last_answer,
        }
        self._rows.setdefault(import_id, row)


def _verdict(
    record: ExchangeRecord, labels: Sequence[str] | None
) -> tuple[Answer, str | None, list[str]]:
    """Say what follows from the labels that a person gives a word in place of a record's.

    Returns:
        The verdict on the record's label, the label that takes its place, and labels to be added.
    """
    if labels is None:
        return Answer.SKIP, None, []
    others = [label for label in labels if label != record.key.label]
    if len(others) < len(labels):
        return Answer.RIGHT, None, others
    if not others:
        return Answer.WRONG, None, []
    proposed = [label for label in others if label in record.proposed_labels]
    chosen = (proposed or others)[0]
    return Answer.WRONG, chosen, [label for label in others if label != chosen]


def _digest(*parts: object) -> str:
    text = json.dumps([None if part is None else str(part) for part in parts])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _store(con: Connection, rows: pa.Table) -> tuple[list[str], int, list[NotImported]]:
    """Store answers that can be; return their verdicts, how many are known, and the others."""
    con.register("imported", rows)
    con.execute(_CLASSIFIED)
    con.unregister("imported")
    known = con.execute("SELECT count(*) FROM classified WHERE is_known").fetchall()[0][0]
    new = con.execute(
        f"SELECT {', '.join(GIVEN.names)} FROM classified WHERE NOT is_known AND problem IS NULL"
    ).to_arrow_table()
    store_answers(con, new.cast(GIVEN))
    refused = con.execute(
        f"SELECT place, concat_ws('/', {LABEL_COLUMNS}), reviewer, problem FROM classified "
        "WHERE problem IS NOT NULL ORDER BY ALL"
    ).fetchall()
    return new["verdict"].to_pylist(), int(known), [NotImported(*row) for row in refused]
