"""The record in the middle of all formats: one label under review, and what was said about it.

A record travels as a flat row of plain values, in the metadata of a task or as JSON in one column
of a table, and comes back with it. Spreadsheets turn ids and amounts into other numbers, so that
what other columns of a table say is for people to read and is not read back. The record's `check`
tells whether what identifies the label is still what was exported.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from harmonizer_assets.core.records.box import Box
from harmonizer_assets.core.records.correction import Action
from harmonizer_assets.core.records.label import LABEL_KEY, LabelKey


@dataclass(frozen=True)
class Proposal:
    """What is proposed for a label.

    Attributes:
        action: one of `Action`.
        to_label: the label that is to take its place, where one is.
        score: the probability that the label is wrong, 0..1.
        reasoning: why.
        decided_by: who found it, as in the table `outliers`.
        kind_id: the same for labels alike.
    """

    action: str
    to_label: str | None = None
    score: float | None = None
    reasoning: str | None = None
    decided_by: str | None = None
    kind_id: str | None = None


@dataclass(frozen=True)
class StandingAnswer:
    """What a person had said about the label when it was exported."""

    reviewer: str
    verdict: str
    to_label: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class ExchangeRecord:
    """One label under review.

    Attributes:
        key: of the label.
        text: of its word.
        line: the receipt's line with the word.
        merchant_name: of the receipt.
        box: of the word.
        image_uri: where the image is.
        validation_status, batch_id, batch_time: the state of the label when it was looked at.
        exported_at: when.
        last_answer: the number of the last answer before, of whatever label; None in exports of
            versions that gave no numbers.
        is_blind: whether it is of a blind sample. Then it has neither proposal nor answers.
        proposal: what is proposed.
        answers: what people had said.
    """

    key: LabelKey
    text: str
    validation_status: str
    batch_id: str
    batch_time: dt.datetime
    exported_at: dt.datetime
    last_answer: int | None = None
    line: str | None = None
    merchant_name: str | None = None
    box: Box | None = None
    image_uri: str | None = None
    is_blind: bool = False
    proposal: Proposal | None = None
    answers: tuple[StandingAnswer, ...] = ()

    @property
    def proposed_labels(self) -> list[str]:
        """The labels that the word has in place of this one if the proposal is accepted."""
        action = self.proposal.action if self.proposal else None
        if action == Action.MARK_INVALID:
            return []
        if self.proposal and action == Action.MOVE and self.proposal.to_label:
            return [self.proposal.to_label]
        return [self.key.label]

    @property
    def confidence(self) -> float | None:
        """How sure the proposed labels are, 0..1; None where that is not known."""
        if self.proposal is None or self.proposal.score is None:
            return None
        is_kept = self.proposed_labels == [self.key.label]
        return round(1 - self.proposal.score if is_kept else self.proposal.score, 6)

    @property
    def shown_text(self) -> str:
        """The word, and below it the line in which it stands."""
        return self.text if self.line is None else f"{self.text}\n{self.line}"


TEXT: Final = "text"
WHOLE: Final = "whole number"
NUMBER: Final = "number"
TIME: Final = "time"
FLAG: Final = "true or false"
FIELDS: Final = {
    "text": TEXT,
    "line": TEXT,
    "merchant_name": TEXT,
    "label": TEXT,
    "validation_status": TEXT,
    "action": TEXT,
    "to_label": TEXT,
    "score": NUMBER,
    "reasoning": TEXT,
    "decided_by": TEXT,
    "image_id": TEXT,
    "receipt_id": WHOLE,
    "line_id": WHOLE,
    "word_id": WHOLE,
    "x": NUMBER,
    "y": NUMBER,
    "width": NUMBER,
    "height": NUMBER,
    "image_uri": TEXT,
    "is_blind": FLAG,
    "kind_id": TEXT,
    "answers": TEXT,
    "batch_id": TEXT,
    "batch_time": TIME,
    "exported_at": TIME,
    "last_answer": WHOLE,
    "check": TEXT,
}
"""Names and kinds of the values of a row, in the order of its columns."""
IDENTIFYING: Final = (
    *LABEL_KEY,
    "text",
    "validation_status",
    "batch_id",
    "batch_time",
    "exported_at",
    "is_blind",
)
"""What `check` is made of."""
_PROPOSAL: Final = ("to_label", "score", "reasoning", "decided_by", "kind_id")


def packed(record: ExchangeRecord) -> dict[str, Any]:
    """Write a record as a row: a value or None for each of `FIELDS`; times as ISO 8601 in UTC."""
    row = {
        **dict.fromkeys(FIELDS),
        **record.key._asdict(),
        **(asdict(record.box) if record.box else {}),
        **(asdict(record.proposal) if record.proposal else {}),
        "text": record.text,
        "line": record.line,
        "merchant_name": record.merchant_name,
        "validation_status": record.validation_status,
        "image_uri": record.image_uri,
        "is_blind": record.is_blind,
        "batch_id": record.batch_id,
        "batch_time": _iso(record.batch_time),
        "exported_at": _iso(record.exported_at),
        "last_answer": record.last_answer,
    }
    if record.answers:
        row["answers"] = json.dumps([asdict(one) for one in record.answers], ensure_ascii=False)
    return {**row, "check": _check(row)}


def unpacked(row: Mapping[str, Any]) -> ExchangeRecord:
    """Read a record from a row as `packed` writes it, whatever types its values have by now.

    Raises:
        ValueError: a value is missing or not of its kind, or what identifies the label is not what
            was exported.
    """
    values = {name: _value(name, kind, row.get(name)) for name, kind in FIELDS.items()}
    missing = [name for name in (*IDENTIFYING, "check") if values[name] is None]
    if missing:
        raise ValueError(f"{missing[0]} is missing: leave exported values as they are")
    batch_time, exported_at = values["batch_time"], values["exported_at"]
    sealed = {**values, "batch_time": _iso(batch_time), "exported_at": _iso(exported_at)}
    if values["check"] != _check(sealed):
        raise ValueError(
            f"{', '.join(IDENTIFYING)}: one of them is not what was exported: take it from the "
            "export again"
        )
    return ExchangeRecord(
        key=LabelKey(*(values[name] for name in LABEL_KEY)),
        text=values["text"],
        line=values["line"],
        merchant_name=values["merchant_name"],
        box=Box.of(values),
        image_uri=values["image_uri"],
        validation_status=values["validation_status"],
        batch_id=values["batch_id"],
        batch_time=batch_time,
        exported_at=exported_at,
        last_answer=values["last_answer"],
        is_blind=values["is_blind"],
        proposal=_proposal(values),
        answers=_answers(values["answers"]),
    )


def packed_text(record: ExchangeRecord) -> str:
    """Write a record as JSON, for tools whose metadata are texts."""
    return json.dumps(packed(record), ensure_ascii=False)


def unpacked_text(text: Any) -> ExchangeRecord:
    """Read what `packed_text` has written; a tool may have read the JSON.

    Raises:
        ValueError: it is missing or damaged.
    """
    if text is None or text == "":
        raise ValueError("the field harmonizer is missing: it says which label this is about")
    try:
        row = json.loads(text) if isinstance(text, str) else text
        if not isinstance(row, Mapping):
            raise TypeError
    except (ValueError, TypeError) as error:
        raise ValueError(
            "the field harmonizer is damaged: take it from the export again"
        ) from error
    return unpacked(row)


def _proposal(values: Mapping[str, Any]) -> Proposal | None:
    if values["action"] is None:
        return None
    return Proposal(values["action"], **{name: values[name] for name in _PROPOSAL})


def _answers(text: str | None) -> tuple[StandingAnswer, ...]:
    try:
        return tuple(StandingAnswer(**one) for one in json.loads(text or "[]"))
    except (TypeError, ValueError) as error:
        raise ValueError("answers is not what was exported") from error


def _check(row: Mapping[str, Any]) -> str:
    """Hash what identifies a label and its state, as a text that no tool takes for a number."""
    text = json.dumps([row[name] for name in IDENTIFYING], ensure_ascii=True)
    return f"x{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _iso(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).isoformat(timespec="microseconds")


def _value(name: str, kind: str, value: Any) -> Any:
    """Read one value.

    Raises:
        ValueError: it is not of its kind.
    """
    if value is None or (value == "" and kind != TEXT):
        return None
    try:
        return _READ[kind](value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name} is {str(value)[:40]!r}, which is no {kind}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _time(value: Any) -> dt.datetime:
    time = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError
    return time


def _flag(value: Any) -> bool:
    text = str(value).lower()
    if text not in {"true", "false"}:
        raise ValueError
    return text == "true"


_READ: Final = {TEXT: _text, WHOLE: _whole, NUMBER: _number, TIME: _time, FLAG: _flag}
