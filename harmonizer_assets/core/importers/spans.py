"""Texts with labelled spans of characters, as doccano, Prodigy and Argilla write them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmonizer_assets.core.importers.base import Problem, SourceLabel, SourceWord
from harmonizer_assets.core.importers.texts import Token, covered


@dataclass(frozen=True)
class Span:
    """A labelled part of a text: from the first character to the one after the last."""

    start: Any
    end: Any
    label: SourceLabel


def labelled(
    tokens: Sequence[Token], spans: Iterable[Span], path: Path, row: str
) -> Iterator[Problem | SourceWord]:
    """Yield the words of a text with the labels of the spans that cover at least half of them.

    A span that covers no word is a problem.
    """
    labels: dict[int, list[SourceLabel]] = {}
    for number, span in enumerate(spans):
        try:
            places = covered(tokens, span.start, span.end)
        except ValueError as error:
            yield Problem(path, f"{row}, span {number}", str(error))
            continue
        if not places:
            yield Problem(
                path, f"{row}, span {number}", f"it covers no word: {span.start} to {span.end}"
            )
        for place in places:
            labels.setdefault(place, []).append(span.label)
    for place, token in enumerate(tokens):
        yield SourceWord(
            token.text,
            line=token.line,
            labels=tuple(labels.get(place, ())),
            row=f"{row}, word {place}",
        )
