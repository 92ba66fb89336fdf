"""The ledger: what is changed in labels that are taken as right, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harmonizer_assets.core.records.label import LabelKey, WordKey


@dataclass(frozen=True)
class Change:
    """One label that a mistake changes.

    Attributes:
        label: number of the label.
        new: the type that it gets; None removes it.
        word: where given, the label stays as it is, and this word gets one of the type `new` as
            well.
    """

    label: int
    new: str | None
    word: WordKey | None = None


@dataclass(frozen=True)
class Mistake:
    """What somebody does wrong at once.

    Attributes:
        about: describes it to people; the truth file shows it.
        changes: the labels that become wrong by it.
    """

    about: str
    changes: Sequence[Change]


@dataclass(frozen=True)
class Entry:
    """One change that was made.

    Attributes:
        key: the label's key afterwards, or the key of the label that was removed.
        kind: of the mistake.
        mistake: which mistake it is a part of; None if nothing else became wrong by it.
        true_label: the type that the word should carry; None if it should not carry the label.
    """

    key: LabelKey
    kind: str
    mistake: str | None
    true_label: str | None


class Ledger:
    """Applies mistakes to labels; each label changes once, and no key is there twice."""

    def __init__(self, keys: Sequence[LabelKey]) -> None:
        """Start with labels of which none is changed.

        Args:
            keys: of n labels.
        """
        self._keys = keys
        self._taken = set(keys)
        self._mistakes = 0
        self.changed: dict[int, Entry] = {}
        """What has become of labels, by their number."""
        self.removed: dict[int, Entry] = {}
        """The labels that are gone, by their number."""
        self.added: list[tuple[int, Entry]] = []
        """New labels, each with the number of the one that it is a copy of."""

    def move(self, label: int, word: WordKey, kind: str) -> None:
        """Move a label to another word, which should not carry it."""
        new = LabelKey(*word, self._keys[label].label)
        self._change(label, Entry(new, kind, None, None))

    def relabel(self, label: int, new: str, kind: str, mistake: str | None = None) -> bool:
        """Give a label another type; return whether it could be."""
        key = self._keys[label]
        return self._change(label, Entry(key._replace(label=new), kind, mistake, key.label))

    def apply(self, mistake: Mistake, kind: str, most: int) -> int:
        """Make a mistake with at most `most` changes; return how many were made."""
        made = 0
        self._mistakes += 1
        name = f"{self._mistakes}: {mistake.about}"
        for change in mistake.changes:
            if made == most:
                break
            made += self._apply(change, kind, name)
        return made

    def count(self, kind: str) -> int:
        """Count the changes of one kind."""
        entries = (*self.changed.values(), *self.removed.values(), *(e for _, e in self.added))
        return sum(entry.kind == kind for entry in entries)

    def _apply(self, change: Change, kind: str, mistake: str) -> bool:
        if change.new is None:
            return self._remove(change.label, kind, mistake)
        if change.word is None:
            return self.relabel(change.label, change.new, kind, mistake)
        key = LabelKey(*change.word, change.new)
        if key in self._taken:
            return False
        self._taken.add(key)
        self.added.append((change.label, Entry(key, kind, mistake, None)))
        return True

    def _remove(self, label: int, kind: str, mistake: str) -> bool:
        if label in self.changed or label in self.removed:
            return False
        # The key stays taken: a label that is put there by mistake would be right.
        key = self._keys[label]
        self.removed[label] = Entry(key, kind, mistake, key.label)
        return True

    def _change(self, label: int, entry: Entry) -> bool:
        # Two errors, or an error and a right label, must not make the same key.
        if entry.key in self._taken or label in self.changed or label in self.removed:
            return False
        self._taken.add(entry.key)
        self.changed[label] = entry
        return True


def shortfall(kind: str, made: int, wanted: int) -> str:
    """Say that a kind of mistake found too few places."""
    return f"{kind}: {made} of {wanted}, since there are no more places for it"
