"""Slips of OCR: names that are the same but for signs that look alike.

Two kinds of slips count, and nothing else. In a word of letters, digits that look like letters
(`SPR0UTS`, `5HELL`); a number is never one. And one letter, or two that look like one, for
another that looks like it, inside a long word (`FARMFRS`, `FARMERS` with `rn` for `m`), unless both
words are used in other names, too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rapidfuzz.distance import Levenshtein

_DIGITS: Final[Mapping[str, str]] = {
    "0": "oq", "1": "il", "2": "z", "4": "a", "5": "s", "6": "g", "8": "b", "9": "gq", "|": "il",
}  # fmt: skip
"""Digits and the bar, and the letters that they look like."""
_STRONG: Final = frozenset({("i", "l"), ("m", "rn"), ("vv", "w")})
_LETTERS: Final = _STRONG | {
    ("c", "e"),
    ("cl", "d"),
    ("e", "f"),
    ("b", "h"),
    ("o", "q"),
    ("u", "v"),
}
"""Letters, or pairs of them, that look alike in upper or lower case.

Not C and G, with which words turn into others: RACING, RAGING."""
_BAR: Final = "|"
"""No word has it, and it parts words."""
_LONG_WORD: Final = 6
_SHORT_WORD: Final = 4
_LONG_NAME: Final = 16
"""In a name of so many letters, the strongest look-alikes count in shorter words, too."""
_SHORTEST_MIXED: Final = 3
_MOST_ALIKE: Final = 200
"""More names than this whose outlines are equal are left apart."""

_OUTLINE: Final = str.maketrans(
    {
        "0": "o", "q": "o",
        "1": "i", "l": "i", "j": "i", "|": "i",
        "2": "z",
        "4": "a",
        "5": "s",
        "8": "b", "h": "b",
        "c": "g", "e": "g", "f": "g", "6": "g", "9": "g",
        "v": "u",
        " ": "",
    }
)  # fmt: skip
_GROUPED: Final = (("rn", "m"), ("vv", "w"), ("cl", "d"))


@dataclass(frozen=True)
class Name:
    """A name as it is compared: its meaningful words, and these without blanks between them."""

    letters: str
    words: tuple[str, ...]


def look_alikes(names: Sequence[Name]) -> list[list[Name]]:
    """Group names that are the same but for slips; names without any are in no group.

    Names with equal outlines are compared with each other, so the work grows with the number of
    names. A group has a name that all others are slips of, so slips do not add up to another name.
    """
    by_outline: dict[str, list[Name]] = defaultdict(list)
    for name in names:
        by_outline[_outline(name.letters)].append(name)
    blocks = [block for block in by_outline.values() if 1 < len(block) <= _MOST_ALIKE]
    if not blocks:
        return []
    # Slips of one name have one outline, and count as one use of the word.
    used = {
        (word, outline)
        for outline, same in by_outline.items()
        for one in same
        for word in one.words
    }
    uses = Counter(word for word, _ in used)
    return [group for block in blocks for group in _groups(block, uses)]


def is_slip(one: Name, other: Name, uses: Mapping[str, int]) -> bool:
    """Return whether two names are the same but for slips.

    Args:
        one: a name.
        other: another one.
        uses: how many names of other outlines use a word.
    """
    segments = list(_differences(one.letters, other.letters))
    letters = 0
    for start, end, other_start, other_end in segments:
        here, there = one.letters[start:end], other.letters[other_start:other_end]
        if _are_digits(one, start, here, other, other_start, there):
            continue
        letters += 1
        if letters > 1 or not _is_letter(one, start, here, other, other_start, there, uses):
            return False
    return bool(segments)


def _outline(letters: str) -> str:
    for pair, single in _GROUPED:
        letters = letters.replace(pair, single)
    return letters.translate(_OUTLINE)


def _groups(block: list[Name], uses: Mapping[str, int]) -> Iterator[list[Name]]:
    """Yield groups of a block, each around a name that all others are linked with."""
    block = sorted(block, key=lambda name: (_is_mixed_name(name), name.letters))
    links: dict[Name, set[Name]] = {name: set() for name in block}
    for place, one in enumerate(block):
        for other in block[place + 1 :]:
            if is_slip(one, other, uses):
                links[one].add(other)
                links[other].add(one)
    left = [name for name in block if links[name]]
    while left:
        # The first of those with the most links: clean ones come first.
        centre = max(left, key=lambda name: len(links[name].intersection(left)))
        members = {centre, *links[centre].intersection(left)}
        # A slip that fits two names that differ could be of either.
        if len(members) > 1 and (not _is_mixed_name(centre) or _all_linked(members, links)):
            yield sorted(members, key=lambda one: one.letters)
        else:
            members = {centre}
        left = [name for name in left if name not in members]


def _all_linked(members: Iterable[Name], links: Mapping[Name, set[Name]]) -> bool:
    together = set(members)
    return all(together <= {one, *links[one]} for one in together)


def _differences(one: str, other: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield the stretches in which two texts differ, as places in both."""
    begun: tuple[int, int] | None = None
    end = other_end = 0
    for step in Levenshtein.opcodes(one, other):
        if step.tag == "equal":
            if begun is not None:
                yield begun[0], end, begun[1], other_end
            begun = None
            continue
        if begun is None:
            begun = step.src_start, step.dest_start
        end, other_end = step.src_end, step.dest_end
    if begun is not None:
        yield begun[0], end, begun[1], other_end


def _are_digits(
    one: Name, start: int, here: str, other: Name, other_start: int, there: str
) -> bool:
    """Return whether digits stand for letters, one by one."""
    # The blank that keeps two numbers apart goes with the digit of one that is none.
    start, here = _without_blank(start, here)
    other_start, there = _without_blank(other_start, there)
    if not here or len(here) != len(there):
        return False
    for step, (left, right) in enumerate(zip(here, there, strict=True)):
        if right in _DIGITS.get(left, ""):
            name, place = one, start + step
        elif left in _DIGITS.get(right, ""):
            name, place = other, other_start + step
        else:
            return False
        if not _is_in_word(name, place):
            return False
    return True


def _without_blank(start: int, text: str) -> tuple[int, str]:
    bare = text.lstrip(" ")
    return start + len(text) - len(bare), bare


def _is_in_word(name: Name, place: int) -> bool:
    """Return whether a digit stands in a word of letters, as a slip does.

    A 5 at the very end may number what would be the plural with an S.
    """
    letters = name.letters
    if letters[place] == _BAR:
        return True
    if letters[place] == "5" and place == len(letters) - 1:
        return False
    return _is_mixed(_word_at(name, place)[0])


def _is_letter(
    one: Name,
    start: int,
    here: str,
    other: Name,
    other_start: int,
    there: str,
    uses: Mapping[str, int],
) -> bool:
    """Return whether letters stand for others that look like them, inside a long word."""
    pair = (here, there) if here < there else (there, here)
    if pair not in _LETTERS:
        return False
    word, begin = _word_at(one, start)
    other_word, other_begin = _word_at(other, other_start)
    if start == begin or other_start == other_begin:
        return False
    shortest = min(len(word), len(other_word))
    is_long = min(len(one.letters), len(other.letters)) >= _LONG_NAME
    if shortest < (_SHORT_WORD if pair in _STRONG and is_long else _LONG_WORD):
        return False
    return min(uses.get(word, 0), uses.get(other_word, 0)) < 2


def _word_at(name: Name, place: int) -> tuple[str, int]:
    """Return the word at a place of the letters, and the place where it begins."""
    begin = 0
    for word in name.words:
        if name.letters[begin : begin + 1] == " ":
            begin += 1
        if place < begin + len(word):
            return word, begin
        begin += len(word)
    return "", begin


def _is_mixed_name(name: Name) -> bool:
    return any(_is_mixed(word) or word == _BAR for word in name.words)


def _is_mixed(word: str) -> bool:
    """Return whether a word has letters, two at least, and digits."""
    letters = sum(map(str.isalpha, word))
    return len(word) >= _SHORTEST_MIXED and 2 <= letters < len(word)
