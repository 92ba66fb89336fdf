"""Spellings of merchants' names: what of a name is meaningful, by rules.

Case, blanks, punctuation, apostrophes and accents on Latin letters say nothing about which merchant
is meant; neither do a legal form at the end ("Inc.", "Sdn Bhd") and the number of a store after
`#`, "store" or "no." at the end. Every other letter, digit and sign does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

from cleanco.termdata import terms_by_type

_APOSTROPHES: Final = dict.fromkeys(map(ord, "'`´‘’‛ʹʻʼʽˈ′＇"), "")  # noqa: RUF001
_NUMERO: Final = str.maketrans({"№": "#"})
_LATIN_ACCENT: Final = re.compile("(?<=[a-z])[\u0300-\u036f]+")
_BLANKS: Final = re.compile(r"\s+")
_ASCII_TOKEN: Final = re.compile(r"[a-z0-9]+|[&+@%#$=<>|~]")
_SIGNS: Final = frozenset("@%#")
_AND: Final = "and"
_STORE: Final = "store"
_NUMBER: Final = r" ?[a-z]?\d+[a-z]?[ ).,]*$"
_STORE_NUMBER: Final = re.compile(
    r"(?P<sign>\bstore\b[ .:,(-]{0,3}(?:(?:no|nr|num|number)\b ?[.:]? ?)?#?"
    rf"|\b(?:no|nr|num|number) ?[.:] ?#?|#){_NUMBER}"
)
_MOST_ENDINGS: Final = 4

_SHORTEST_LEGAL_FORM: Final = 3
_LONGEST_LEGAL_FORM: Final = 5
_ALSO_WORDS: Final = frozenset(
    {"3at", "aat", "ans", "aps", "asa", "company", "cpt", "dat", "esv", "fie", "fop", "gie", "gte"}
    | {"kda", "lda", "nuf", "obrt", "ood", "ooo", "private", "sal", "sae", "scs", "ses", "snc"}
    | {"stg", "tapui", "teo", "tmi", "tov", "unlimited", "vat", "zat"}
)
"""Legal forms of `cleanco` that are ordinary words, names or initials, too."""
_MORE_LEGAL_FORMS: Final = (("pvt", "ltd"), ("private", "limited"), ("berhad",), ("sendirian",))
_SLASHED: Final = re.compile(r"(?<= )s/b[ .,]*$")
"""Short for "Sdn Bhd"; without the slash it could be initials."""


class Ending(NamedTuple):
    """What was left out at the end of a name, of no meaning for who is meant."""

    number: bool = False
    legal_form: bool = False


@dataclass(frozen=True)
class Spelling:
    """A name by its meaningful parts.

    Attributes:
        letters: the name without case, blanks, punctuation, apostrophes and accents. Between two
            digits a blank is kept: `1 2` is not `12`.
        tokens: the meaningful words and signs, in order.
        core: their letters, as in `letters`.
        with_store: `core` with the word "store", where that stood before a number; else `core`.
        ending: what `core` leaves out.
    """

    letters: str
    tokens: tuple[str, ...]
    core: str
    with_store: str
    ending: Ending


def identity(name: str) -> str:
    """Return the name without surrounding white space, in composed Unicode."""
    return unicodedata.normalize("NFC", name).strip()


def spelling(name: str) -> Spelling:
    """Read a name; one without any letter, digit or sign is meaningful as it is written."""
    text = _folded(name)
    found = list(_tokens(text))
    if not found:
        own = identity(name)
        return Spelling(own, (own,), own, own, Ending())
    tokens = [token for token, _ in found]
    letters = joined(tokens)
    words, store, ending = _without_ending(text, found)
    core = joined(words) if any(ending) else letters
    with_store = joined([*words, _STORE]) if store else core
    return Spelling(letters, tuple(words), core, with_store, ending)


def joined(tokens: Sequence[str]) -> str:
    """Write tokens without blanks, but for one between two digits."""
    parts: list[str] = []
    for token in tokens:
        if parts and parts[-1][-1].isdigit() and token[0].isdigit():
            parts.append(" ")
        parts.append(token)
    return "".join(parts)


def _folded(name: str) -> str:
    text = name.translate(_NUMERO)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES))
    text = text.translate(_APOSTROPHES).casefold()
    if not text.isascii():
        text = _LATIN_ACCENT.sub("", unicodedata.normalize("NFD", text))
        text = unicodedata.normalize("NFC", text)
    return _BLANKS.sub(" ", text).strip()


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Yield words and signs, each with the place where it begins."""
    if text.isascii():
        for match in _ASCII_TOKEN.finditer(text):
            token = match.group()
            yield (_AND if token == "&" else token), match.start()
        return
    start: int | None = None
    for place, character in enumerate(f"{text} "):
        kind = unicodedata.category(character)
        if kind[0] in "LNM":
            start = place if start is None else start
            continue
        if start is not None:
            yield text[start:place], start
            start = None
        if character == "&":
            yield _AND, place
        elif character in _SIGNS or (kind[0] == "S" and kind != "Sk"):
            yield character, place


def _without_ending(text: str, found: Sequence[tuple[str, int]]) -> tuple[list[str], bool, Ending]:
    """Leave out legal forms and store numbers at the end, as long as a name is left.

    Returns:
        The tokens that are left, whether the word "store" was left out with a number, and what
        was left out.
    """
    number = legal_form = store = False
    for _ in range(_MOST_ENDINGS):
        cut = _legal_form(text, found)
        is_number = cut is None and not number
        match = _STORE_NUMBER.search(text) if is_number else None
        if match is not None:
            cut = match.start()
        left = [pair for pair in found if cut is None or pair[1] < cut]
        if cut is None or not _is_name([token for token, _ in left]):
            break
        if match is None:
            legal_form = True
        else:
            number, store = True, match.group("sign").startswith(_STORE)
        text, found = text[:cut].rstrip(), left
    return [token for token, _ in found], store, Ending(number, legal_form)


def _is_name(tokens: Iterable[str]) -> bool:
    return any(
        len(token) > 1 and token not in {"the", _AND} and not token.isdigit() for token in tokens
    )


def _legal_form(text: str, found: Sequence[tuple[str, int]]) -> int | None:
    """Return the place where a legal form at the end begins, None where there is none."""
    slashed = _SLASHED.search(text)
    if slashed is not None:
        return slashed.start()
    if found[-1][0] not in _last_words():
        return None
    forms = _legal_forms()
    for length in range(min(_LONGEST_LEGAL_FORM, len(found) - 1), 0, -1):
        tail = found[-length:]
        if tuple(token for token, _ in tail) in forms:
            return tail[0][1]
    return None


@cache
def _last_words() -> frozenset[str]:
    return frozenset(form[-1] for form in _legal_forms())


@cache
def _legal_forms() -> frozenset[tuple[str, ...]]:
    """Return the legal forms that no other word is spelled like, each as its tokens."""
    terms = {term for terms in terms_by_type.values() for term in terms}
    forms = {tuple(token for token, _ in _tokens(_folded(term))) for term in terms}
    known = {form for form in {*forms, *_MORE_LEGAL_FORMS} if _is_unmistakable(form)}
    words = {form[0] for form in known if len(form) == 1}
    # Letters with dots between them may be initials, unless they are also written as one word.
    return frozenset(form for form in known if max(map(len, form)) > 1 or "".join(form) in words)


def _is_unmistakable(form: tuple[str, ...]) -> bool:
    letters = "".join(form)
    if len(form) == 1:
        return len(letters) >= _SHORTEST_LEGAL_FORM and letters not in _ALSO_WORDS
    spelt_out = max(map(len, form)) == 1
    return form[0] != _AND and len(letters) > (2 if spelt_out else _SHORTEST_LEGAL_FORM)
