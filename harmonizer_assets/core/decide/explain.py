"""Explanations: why a label is doubted, in sentences that can be checked against the tables.

The model's contributions are the evidence by group; the sentences state the facts behind them, with
counts. A group whose facts do not support the decision gets no sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

MOST_PIECES: Final = 3
_LEAST_WEIGHT: Final = 0.1
_TELLING: Final = 0.1
"""Least difference of two shares that is stated."""
_FEW: Final = 0.2
_MOST_CHARACTERS: Final = 120
_SHOWN_TEXT: Final = 40

THIRDS: Final = ("upper", "middle", "lower")
SHAPE_NAMES: Final[Mapping[str, str]] = {
    "money": "an amount of money",
    "date": "a date",
    "time": "a time",
    "phone": "a phone number",
    "percent": "a percentage",
    "count": "a small number",
    "number": "a number",
    "web": "a web or mail address",
    "code": "a code of letters and digits",
    "caption": "a caption with a colon",
    "capitals": "a word in capitals",
    "word": "a plain word",
    "other": "a mix of signs",
}
_ARITHMETIC: Final[Mapping[str, str]] = {
    "sum_of_two": "two other amounts of the receipt add up to it",
    "sum_of_column": "the amounts of all rows above add up to it",
    "product_on_row": "count and price on its row multiply to it",
    "factor_on_row": "multiplied on its row, it gives another amount",
    "part_of_sum": "with another amount of the receipt it adds up to a third",
    "largest": "it is the largest amount of the receipt",
    "repeated": "the same amount stands on another row",
}
"""The sentence for each relation, the most informative first."""


@dataclass(frozen=True)
class Line:
    """The words of a row in reading order, one of them marked."""

    words: Sequence[str]
    marked: int

    def to_text(self) -> str:
        """Render the line, its marked word in brackets, at most `_MOST_CHARACTERS` around it."""
        left = " ".join(map(printable, self.words[: self.marked]))
        right = " ".join(map(printable, self.words[self.marked + 1 :]))
        word = _cut(printable(self.words[self.marked]), _SHOWN_TEXT)
        room = (_MOST_CHARACTERS - len(word)) // 2
        left = left if len(left) <= room else "…" + left[-room:]
        return " ".join(filter(None, [left, f"[{word}]", _cut(right, room)]))


@dataclass(frozen=True)
class Piece:
    """One piece of evidence.

    Attributes:
        group: one of `EVIDENCE_GROUPS`, or `status`.
        weight: log odds against the label, by the model.
        sentence: what speaks against the label, without a full stop.
    """

    group: str
    weight: float
    sentence: str


@dataclass(frozen=True)
class Counts:
    """How often something is labelled with two label types, among the labels of other words."""

    own: int = 0
    competing: int = 0


@dataclass(frozen=True)
class Facts:
    """The facts about a doubted label.

    Attributes:
        text: the word as OCR read it.
        label_type: the label on it.
        competing: the label type that fits better.
        no_label: whether it looks like a word that carries no label.
        contributions: log odds against the label, by group of evidence.
        shape: of the text.
        shape_share: of the labels of both types, which share has this shape; None without labels.
        third: of the page that it stands in, 0 to 2; None without position.
        third_share: of the labels of both types, which share stands there.
        before: the word before it on its row, digits masked; empty at the start.
        before_counts: labels of both types on words that follow the same word.
        mask: its text, digits masked.
        mask_counts: labels of both types on words with the same masked text.
        unlabelled: words with the same masked text that carry no label, and with one.
        beside: label types on the other words of its row, the most frequent first.
        around: label types on the rows just above and below.
        relations: of its amount to others of the receipt, names of `RELATIONS`.
    """

    text: str
    label_type: str
    competing: str
    no_label: bool
    contributions: Mapping[str, float]
    shape: str
    shape_share: tuple[float, float] | None = None
    third: int | None = None
    third_share: tuple[float, float] | None = None
    before: str = ""
    before_counts: Counts = Counts()
    mask: str = ""
    mask_counts: Counts = Counts()
    unlabelled: tuple[int, int] = (0, 0)
    beside: Sequence[str] = ()
    around: Sequence[str] = ()
    relations: Sequence[str] = ()


def explain(facts: Facts) -> list[Piece]:
    """Return the evidence against a label: up to `MOST_PIECES`, the most decisive first."""
    sentences = {
        "text": _text(facts),
        "row": _row(facts),
        "place": _place(facts),
        "neighbours": _neighbours(facts),
        "around": _around(facts),
        "arithmetic": _arithmetic(facts),
        "similar_words": _similar_words(facts),
    }
    pieces = [
        Piece(group, weight, sentence)
        for group, sentence in sentences.items()
        if sentence and (weight := facts.contributions.get(group, 0.0)) > _LEAST_WEIGHT
    ]
    pieces.sort(key=lambda piece: -piece.weight)
    if facts.no_label and (sentence := _unlabelled(facts)):
        pieces.insert(0, Piece("text", facts.contributions.get("text", 0.0), sentence))
    if not pieces and sentences["similar_words"]:
        # No group decides by itself; the labels of similar words are the easiest to check.
        weight = facts.contributions.get("similar_words", 0.0)
        pieces = [Piece("similar_words", weight, sentences["similar_words"])]
    distinct = {piece.sentence: piece for piece in reversed(pieces[:MOST_PIECES])}
    return list(reversed(distinct.values()))


def reasoning(facts: Facts, pieces: Sequence[Piece], first: str | None = None) -> str:
    """Join the pieces to one sentence.

    Args:
        facts: about the label.
        pieces: as `explain` gives them.
        first: the judge's own reason, if it gave one.
    """
    word = quoted(facts.text)
    if facts.no_label:
        claim = f"{word} looks like a word that carries no label"
    else:
        claim = f"{word} looks like {facts.competing} rather than {facts.label_type}"
    because = "; ".join(piece.sentence for piece in pieces)
    whole = f"{claim}: {because}" if because else claim
    return f"{first}. {whole}" if first else whole


def pieces_as_data(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """Render the pieces as plain data, ready for JSON."""
    return [asdict(piece) | {"weight": round(piece.weight, 2)} for piece in pieces]


def printable(text: str) -> str:
    """Replace control characters, which a terminal would interpret, by blanks."""
    return "".join(character if character.isprintable() else " " for character in text)


def quoted(text: str) -> str:
    """Put a text in quotation marks, printable and of bounded length."""
    return f"'{_cut(printable(text), _SHOWN_TEXT)}'"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _text(facts: Facts) -> str | None:
    if facts.shape_share is None:
        return None
    own, competing = facts.shape_share
    form = SHAPE_NAMES[facts.shape]
    if facts.no_label:
        if own > _FEW:
            return None
        return f"it has the form of {form}, as {own:.0%} of {facts.label_type} labels have"
    if competing < own + _TELLING:
        return None
    return (
        f"it has the form of {form}, as {competing:.0%} of {facts.competing} labels have and "
        f"{own:.0%} of {facts.label_type} labels"
    )


def _row(facts: Facts) -> str | None:
    counts = facts.before_counts
    if not facts.before or facts.no_label or counts.competing <= counts.own:
        return None
    return (
        f"after {quoted(facts.before)}, words are labelled {facts.competing} "
        f"{_times(counts.competing)} and {facts.label_type} {_times(counts.own)}"
    )


def _place(facts: Facts) -> str | None:
    if facts.third is None or facts.third_share is None or facts.no_label:
        return None
    own, competing = facts.third_share
    if competing < own + _TELLING:
        return None
    return (
        f"it stands in the {THIRDS[facts.third]} third of the receipt, as {competing:.0%} of "
        f"{facts.competing} labels do and {own:.0%} of {facts.label_type} labels"
    )


def _neighbours(facts: Facts) -> str | None:
    if facts.beside and facts.label_type not in facts.beside:
        return f"the other labels on its row are {_listed(facts.beside)}"
    return None


def _around(facts: Facts) -> str | None:
    if facts.around and facts.label_type not in facts.around:
        return f"the rows around it are labelled {_listed(facts.around)}"
    return None


def _arithmetic(facts: Facts) -> str | None:
    return next((text for name, text in _ARITHMETIC.items() if name in facts.relations), None)


def _similar_words(facts: Facts) -> str | None:
    counts = facts.mask_counts
    if facts.no_label or counts.competing <= counts.own:
        return None
    return (
        f"words like {quoted(facts.mask)} are labelled {facts.competing} "
        f"{_times(counts.competing)} and {facts.label_type} {_times(counts.own)} elsewhere"
    )


def _unlabelled(facts: Facts) -> str | None:
    without, with_label = facts.unlabelled
    if without <= with_label:
        return None
    return (
        f"words like {quoted(facts.mask)} carry no label {_times(without)} and one "
        f"{_times(with_label)}"
    )


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:3])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
