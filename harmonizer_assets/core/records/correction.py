"""Corrections: what is to be done to a label, who says so, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa


class Action(StrEnum):
    """What is done to a label."""

    KEEP = "keep"
    """Nothing: the label is right and validated."""
    CONFIRM = "confirm"
    """The label is right: it becomes VALID."""
    MARK_INVALID = "mark_invalid"
    """The label is wrong, and none takes its place."""
    MOVE = "move"
    """The label is wrong, and another type is right: the word gets that label."""
    ADD = "add"
    """The word gets a label that nobody has given it yet."""
    ASK = "ask"
    """A person has to decide: the label becomes NEEDS_REVIEW."""


class Source(StrEnum):
    """Who decided on a correction."""

    PERSON = "person"
    """One answer of a person about this label."""
    KIND = "kind"
    """One answer of a person about all labels of a kind."""
    POLICY = "policy"
    """A rule of the review policy, without a person."""


PROVENANCE: Final = (
    "reasoning",
    "timestamp_added",
    "label_proposed_by",
    "label_consolidated_from",
)
"""What a row of labels says about where its label comes from, in columns that pass through."""

WANTED: Final = pa.schema(
    [
        ("image_id", pa.string()),
        ("receipt_id", pa.int64()),
        ("line_id", pa.int64()),
        ("word_id", pa.int64()),
        ("label", pa.string()),
        ("action", pa.string()),
        ("to_label", pa.string()),
        ("source", pa.string()),
        ("actor", pa.string()),
        ("reasoning", pa.string()),
        ("decided_by", pa.string()),
        ("outlier_score", pa.float64()),
        ("policy", pa.string()),
        ("kind_id", pa.string()),
        ("answer_id", pa.string()),
        ("rule_id", pa.string()),
        ("run_id", pa.string()),
        ("model", pa.string()),
        ("prompt_version", pa.string()),
        ("seen_status", pa.string()),
        ("seen_text", pa.string()),
    ]
)
"""Columns of the corrections that are wanted. The `seen_` columns say which status the label had,
and how its word read, when it was decided on: what has changed since is refused."""


@dataclass(frozen=True)
class Refusal:
    """A correction that is not made, and why."""

    image_id: str
    receipt_id: int
    line_id: int
    word_id: int
    label: str
    action: str
    to_label: str | None
    reason: str


@dataclass(frozen=True)
class CorrectionReport:
    """What an apply, undo or redo does, or would do.

    Attributes:
        operation_id: of what was done; empty after a dry run.
        corrections: the corrections that are made or taken back: rows of `label_corrections`,
            with the word's text.
        refused: those that are not, each with its reason.
        unchanged: how many ask for what is there already.
        partitions: how many partitions the next run computes again.
    """

    operation_id: str
    corrections: Sequence[Mapping[str, Any]]
    refused: Sequence[Refusal] = ()
    unchanged: int = 0
    partitions: int = 0
    actions: Mapping[str, int] = field(default_factory=dict)
