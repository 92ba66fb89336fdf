"""Corrected labels in the format that they came from: all else stays as it was, to the byte.

The file is read as it was for the import. Ids are made of the source, so every label of it has its
row in the home. Where the home says something else by now, the new label takes the place of the old
one in the file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.files import write_atomically
from harmonizer_assets.core.importers import ids
from harmonizer_assets.core.importers.base import (
    ImportOptions,
    Place,
    RoundTrip,
    SourceFile,
    SourceReceipt,
    SourceWord,
)
from harmonizer_assets.core.importers.files import source_files
from harmonizer_assets.core.importers.names import Names, load_map
from harmonizer_assets.core.importers.registry import importer
from harmonizer_assets.core.records.label import WORD_COLUMNS, WordKey, word_keys
from harmonizer_assets.core.store.warehouse import Connection, Warehouse

_OCCUPIED: Final = "the file has another label for the word, and no place for one more"
_NO_PLACE: Final = "the file has no place for a label of the word"
_AT_ONCE: Final = 2_000
"""Words whose labels are read from the home at once."""

# A wrong label is kept as INVALID beside the right one.
_LABELS: Final = f"""
SELECT w.image_id, w.receipt_id, w.line_id, w.word_id,
    list(l.label ORDER BY l.label)
        FILTER (l.label IS NOT NULL AND l.validation_status <> 'INVALID') AS labels,
    list(l.label) FILTER (l.validation_status = 'INVALID') AS wrong
FROM words w SEMI JOIN asked USING ({WORD_COLUMNS})
LEFT JOIN labels l USING ({WORD_COLUMNS}) GROUP BY ALL
"""


@dataclass(frozen=True)
class Change:
    """A label that differs in the home from what the file has.

    Attributes:
        row: where it stands in the file.
        text: of the word.
        before, after: the labels in the file's own names; None for none.
    """

    row: str
    text: str
    before: str | None
    after: str | None


@dataclass
class WriteBackReport:
    """What was written.

    Attributes:
        path: the new file.
        words: words of the file; `unknown`: those that the home does not hold.
        changes: labels that were changed.
        refused: changes that the format cannot hold, each with the reason.
    """

    path: Path
    words: int = 0
    unknown: int = 0
    changes: list[Change] = field(default_factory=list)
    refused: list[tuple[Change, str]] = field(default_factory=list)


def write_back(
    warehouse: Warehouse,
    format_name: str,
    path: Path,
    out: Path,
    options: ImportOptions | None = None,
    *,
    root: Path | None = None,
    label_map: Path | None = None,
    overwrite: bool = False,
) -> WriteBackReport:
    """Write a file that was imported again, with the labels that the home has now.

    Args:
        warehouse: of the home.
        format_name: of the file.
        path: the file, as it was imported.
        out: the file to be written.
        options: as they were given to the import.
        label_map: likewise.
        root: the folder that was given to the import, where it was one.
        overwrite: whether `out` may be replaced.

    Raises:
        InputError: the format cannot be written back, a file cannot be read, or `out` is there.
    """
    chosen = importer(format_name)
    if not isinstance(chosen, RoundTrip):
        raise InputError(f"{format_name}: labels cannot be written back into this format")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: is there already: --overwrite replaces it")
    used = options or ImportOptions()
    source = _source(chosen, path, root)
    report = WriteBackReport(out)
    names = Names(load_map(label_map))
    wanted = _Wanted(names, _own_names(chosen, source, used, names), report)
    for receipt in _receipts(chosen, source, used):
        wanted.add(receipt, warehouse)
    written = chosen.write_back(source, wanted.agreed(), used)
    wanted.settle(written.refused)
    write_atomically(out, written.content)
    return report


def _receipts(
    chosen: RoundTrip, source: SourceFile, options: ImportOptions
) -> Iterator[SourceReceipt]:
    return (one for one in chosen.read(source, options) if isinstance(one, SourceReceipt))


def _own_names(
    chosen: RoundTrip, source: SourceFile, options: ImportOptions, names: Names
) -> dict[str, str]:
    """Find out what a file calls the label types of the home."""
    own: dict[str, str] = {}
    for receipt in _receipts(chosen, source, options):
        for word in receipt.words:
            for label in word.labels:
                if (known := names.chosen(label.name).name) is not None:
                    own.setdefault(known, label.name)
    return own


def _source(chosen: RoundTrip, path: Path, root: Path | None) -> SourceFile:
    """Name a file as its import has named it.

    Raises:
        InputError: there is no such file.
    """
    found = source_files([path if root is None else root], chosen)
    for source in found:
        if source.path.resolve() == path.resolve():
            return source
    raise InputError(f"{path}: no file of the format {chosen.name} in {root}")


class _Wanted:
    """The changes that a file needs, by the places of its labels."""

    def __init__(self, names: Names, own: dict[str, str], report: WriteBackReport) -> None:
        self._names = names
        self._own = own
        self._report = report
        self._asked: dict[Place, list[tuple[Change, str | None]]] = defaultdict(list)
        self._kept: set[Place] = set()

    def add(self, receipt: SourceReceipt, warehouse: Warehouse) -> None:
        """Compare the labels of a receipt with those of the home."""
        image = ids.image_id(receipt.source_id)
        words = {
            WordKey(image, receipt.receipt_id, line_id, word_id): word
            for line_id, word_id, word in ids.numbered(receipt.words)
        }
        held = _held(warehouse, [*words])
        self._report.words += len(words)
        for key, word in words.items():
            if key not in held:
                self._report.unknown += 1
            self._compare(word, *held.get(key, (None, frozenset())))

    def _compare(self, word: SourceWord, now: Sequence[str] | None, wrong: frozenset[str]) -> None:
        """Note what is to be changed about a word, and which places are to stay."""
        places: dict[str, list[Place]] = defaultdict(list)
        for label in word.labels:
            known = self._names.chosen(label.name).name
            if known is not None and label.place is not None:
                places[known].append(label.place)
        if now is None:
            self._kept.update(place for some in places.values() for place in some)
            return
        gone = [name for name in places if name not in now]
        added = [name for name in now if name not in places and name not in wrong]
        for name, some in places.items():
            if name in now:
                self._kept.update(some)
        for name in gone:
            after = added.pop(0) if added else None
            self._ask(word, self._written(name), after, places[name])
        for name in added:
            if not word.labels and word.place is not None:
                self._ask(word, None, name, [word.place])
            else:
                change = Change(word.row, str(word.text), None, self._written(name))
                reason = _OCCUPIED if word.labels else _NO_PLACE
                self._report.refused.append((change, reason))
        if not word.labels and word.place is not None and not added:
            self._kept.add(word.place)

    def _ask(
        self, word: SourceWord, before: str | None, after: str | None, places: Sequence[Place]
    ) -> None:
        new = None if after is None else self._written(after)
        change = Change(word.row, str(word.text), before, new)
        for place in places:
            self._asked[place].append((change, new))

    def _written(self, name: str) -> str:
        """Return what the file calls a label type."""
        mapped = self._names.label_map.labels
        return self._own.get(name) or next((own for own, to in mapped.items() if to == name), name)

    def agreed(self) -> dict[Place, str | None]:
        """Return new labels by place; where words that share one do not agree, it is refused."""
        found: dict[Place, str | None] = {}
        for place, asked in self._asked.items():
            if place in self._kept or len({new for _, new in asked}) > 1:
                reason = "words that share this label in the file have different ones now"
                self._report.refused += [(change, reason) for change, _ in asked]
            else:
                found[place] = asked[0][1]
        return found

    def settle(self, refused: Mapping[Place, str]) -> None:
        """Tell the changes that were made from those that the format cannot hold."""
        gone = {id(change) for change, _ in self._report.refused}
        done: dict[int, Change] = {}
        for place, asked in self._asked.items():
            for change, _ in asked:
                if place in refused:
                    self._report.refused.append((change, refused[place]))
                elif id(change) not in gone:
                    done[id(change)] = change
        self._report.changes += done.values()


def _held(
    warehouse: Warehouse, keys: Sequence[WordKey]
) -> dict[WordKey, tuple[list[str], frozenset[str]]]:
    """Read the labels that words have now, and those that are known to be wrong."""
    found: dict[WordKey, tuple[list[str], frozenset[str]]] = {}
    for some in _parts(keys):
        columns = list(zip(*some, strict=True))
        asked = pa.table(dict(zip(WordKey._fields, map(list, columns), strict=True)))

        def read(con: Connection, asked: pa.Table = asked) -> pa.Table:
            con.register("asked", asked)
            rows = con.execute(_LABELS).to_arrow_table()
            con.unregister("asked")
            return rows

        rows = warehouse.read(read)
        labels, wrong = rows["labels"].to_pylist(), rows["wrong"].to_pylist()
        for key, now, bad in zip(word_keys(rows), labels, wrong, strict=True):
            found[key] = (now or [], frozenset(bad or ()))
    return found


def _parts(keys: Sequence[WordKey]) -> Iterator[Sequence[WordKey]]:
    for start in range(0, len(keys), _AT_ONCE):
        yield keys[start : start + _AT_ONCE]
