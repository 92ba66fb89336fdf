"""Prodigy: a task for each label, for the interface `choice`, with the proposal chosen.

A task that has an `answer` was looked at. `accept` stands for the labels that are chosen, of which
there may be none; `reject` of the label as it is says that it is wrong; `ignore` says nothing.

Format: https://prodi.gy/docs/api-interfaces#choice
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harmonizer_assets.core.review.exchange.base import Drawn, Format, Opinion, Returned, Unusable
from harmonizer_assets.core.review.exchange.json_files import (
    MALFORMED,
    MEMBER,
    chosen_labels,
    read_lines,
    text_or_none,
    write_lines,
)
from harmonizer_assets.core.review.exchange.records import ExchangeRecord, packed, unpacked_text


class Prodigy(Format):
    """Tasks as JSONL, and what `prodigy db-out` writes."""

    name = "prodigy"
    suffix = ".jsonl"

    def write(
        self, path: Path, records: Sequence[ExchangeRecord], label_types: Sequence[str]
    ) -> None:
        """Write a task for each label."""
        options = [{"id": name, "text": name} for name in label_types]
        write_lines(path, (_task(record, options) for record in records))

    def read(self, path: Path) -> Iterator[Returned | Drawn | Unusable]:
        """Read the tasks with the answers of everybody; each answer is a line of its own."""
        for place, task in read_lines(path):
            try:
                record = unpacked_text(task.get(MEMBER))
                opinions = () if task.get("answer") is None else (_opinion(task, record),)
            except MALFORMED as error:
                yield Unusable(place, str(error))
                continue
            yield Returned(place, record, opinions)


def _task(record: ExchangeRecord, options: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    proposal = record.proposal
    shown = {
        "label": record.key.label,
        "merchant": record.merchant_name,
        "score": proposal.score if proposal else None,
        "reasoning": proposal.reasoning if proposal else None,
    }
    return {
        "text": record.shown_text,
        "options": options,
        "accept": record.proposed_labels,
        "config": {"choice_style": "multiple"},
        "meta": {name: value for name, value in shown.items() if value is not None},
        MEMBER: packed(record),
    }


def _opinion(task: Mapping[str, Any], record: ExchangeRecord) -> Opinion:
    """Read an answer.

    Raises:
        ValueError: it says nothing about the label.
    """
    by = text_or_none(task.get("_annotator_id") or task.get("_session_id"))
    return Opinion(_labels(task, record), by, version=str(task.get("_timestamp") or ""))


def _labels(task: Mapping[str, Any], record: ExchangeRecord) -> tuple[str, ...] | None:
    chosen = chosen_labels(task.get("accept") or ())
    answer = task["answer"]
    if answer == "ignore":
        return None
    if answer == "accept":
        return chosen
    if answer != "reject":
        raise ValueError(f"answer is {answer!r}: it is accept, reject or ignore")
    if chosen != (record.key.label,):
        raise ValueError("rejected, and no label is chosen that would be right: accept another")
    return ()
