"""Labels: their keys, the questions about them, and the verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

DecidedBy = Literal["similarity", "cache", "llm", "offline_judge", "rule", "unresolved"]


class WordKey(NamedTuple):
    """Identifies one word of a receipt."""

    image_id: str
    receipt_id: int
    line_id: int
    word_id: int


class LabelKey(NamedTuple):
    """Identifies one label: the four ids of its word, and the label."""

    image_id: str
    receipt_id: int
    line_id: int
    word_id: int
    label: str

    @property
    def word(self) -> WordKey:
        """The word that carries the label."""
        return WordKey(*self[:4])


WORD_KEY: Final = WordKey._fields
"""Columns that identify a word."""
LABEL_KEY: Final = LabelKey._fields
"""Columns that identify a label."""
WORD_COLUMNS: Final = ", ".join(WORD_KEY)
"""The same as a list for SQL, as in `USING ({WORD_COLUMNS})`."""
LABEL_COLUMNS: Final = ", ".join(LABEL_KEY)
LABEL_GIVEN: Final = " AND ".join(f"{name} = ${name}" for name in LABEL_KEY)
"""SQL: whether a row is that of the label in the parameters, which `_asdict` of its key gives."""


def qualified(alias: str, key: tuple[str, ...]) -> str:
    """List the columns of a key for SQL, each with the alias of its table."""
    return ", ".join(f"{alias}.{name}" for name in key)


def word_key(row: Mapping[str, Any]) -> WordKey:
    """Return the key of a row's word."""
    return WordKey(*(row[name] for name in WORD_KEY))


def label_key(row: Mapping[str, Any]) -> LabelKey:
    """Return the key of a row's label."""
    return LabelKey(*(row[name] for name in LABEL_KEY))


def word_keys(table: pa.Table) -> Iterator[WordKey]:
    """Iterate over the keys of the words in a table."""
    return map(WordKey._make, _rows(table, WORD_KEY))


def label_keys(table: pa.Table) -> Iterator[LabelKey]:
    """Iterate over the keys of the labels in a table."""
    return map(LabelKey._make, _rows(table, LABEL_KEY))


def _rows(table: pa.Table, names: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


@dataclass(frozen=True)
class Question:
    """One ambiguous label and what is known about it.

    Attributes:
        left, right: up to two words beside the word on its row, digits masked.
        height: of the word on the page, 0 at the top to 1.
        alternatives: other label types and their probabilities, the most probable first.
        examples: texts that VALID labels of this type have in the merchant.
        competing_examples: texts that VALID labels of the competing type have there.
        unknown_because: why scoring can know nothing about it; None where it knows something.
        calibrated: whether `outlier_score` is a calibrated probability of being wrong, by a model
            that looks at more than similar words.
        is_open: whether a judge has to decide; otherwise similarity has decided the label.
        is_bought: whether an answer about the same text may have been bought before.
        carried_answer: the key of the answer that had decided it when its merchant changed.
    """

    key: LabelKey
    merchant_key: str
    merchant_name: str | None
    word_text: str
    outlier_score: float
    label_probability: float
    competing_label: str | None
    competing_probability: float
    unknown_because: str | None = None
    left: str = ""
    right: str = ""
    height: float | None = None
    alternatives: Mapping[str, float] = field(default_factory=dict)
    calibrated: bool = False
    examples: tuple[str, ...] = ()
    competing_examples: tuple[str, ...] = ()
    is_open: bool = True
    is_bought: bool = False
    carried_answer: str | None = None


@dataclass(frozen=True)
class Verdict:
    """A judge's answer about one label; `is_outlier` is None where it could not decide.

    `suggestion_confidence`, 0..1, is the support of similar words for the suggested label.
    """

    key: LabelKey
    is_outlier: bool | None
    decided_by: DecidedBy
    suggested_label: str | None = None
    confidence: float | None = None
    reasoning: str | None = None
    verdict_key: str | None = None
    suggestion_confidence: float | None = None


@dataclass(frozen=True)
class DeadLetter:
    """A question that could not be judged after all attempts."""

    key: LabelKey
    error: str
    attempts: int


@dataclass
class Usage:
    """Calls, tokens and cost of judging one partition's questions."""

    calls: int = 0
    words_asked: int = 0
    cache_hits: int = 0
    skipped_by_similarity: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    retries: int = 0
    rate_limited: int = 0
    estimated_calls: int = 0
    wall_seconds: float = 0.0

    def add(self, more: Usage) -> None:
        """Add another usage to this one; an unknown cost makes the sum unknown."""
        for part in fields(self):
            ours, theirs = getattr(self, part.name), getattr(more, part.name)
            unknown = ours is None or theirs is None
            setattr(self, part.name, None if unknown else ours + theirs)
