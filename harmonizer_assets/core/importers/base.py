"""What importers have in common: what they read from a source, and the interface.

An importer only says what stands in its files. Ids, boxes, statuses and files are made of that in
one place each, the same for all formats: `ids`, `records.boxes`, `writing`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from harmonizer_assets.core.records.boxes import Points

Unit = Literal["pixel", "thousand", "percent", "share"]
"""What coordinates count: pixels of the image, or its thousandths, hundredths or shares."""

Place = tuple[Any, ...]
"""Where a label stands in its file: what the importer needs to find it again."""

NO_SIZE = (
    "the size of the image is not known, so positions are left out: give the folder of the images "
    "with --images, or say with --boxes what the coordinates count"
)


@dataclass(frozen=True, slots=True)
class SourceLabel:
    """A label as it stands in a source.

    Attributes:
        name: of the label; words without one have none.
        status: of the four that people give; None for the one that the caller wants.
        annotator: who gave it, as the source says.
        origin: `annotation`, `prediction`, `key`, or what else tells where it comes from.
        confidence: 0..1, where the source gives one.
        place: where it stands in the file.
    """

    name: str
    status: str | None = None
    annotator: str | None = None
    origin: str | None = None
    confidence: float | None = None
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class SourceWord:
    """A word as it stands in a source.

    Attributes:
        text: as the source has it; None or blank makes it a problem of its row.
        points: corners in the unit of the receipt, from any corner; None without a position. A
            coordinate that is missing is None.
        line: any key of its line in the source's own order; None where the source knows no lines.
        labels: that it carries.
        row: where it stands, as a person would look for it: `line 3, word 7`.
        confidence: of the reading, 0..1.
        place: where a label of it would stand in the file, if it had one.
        ids: line id and word id, where the source has its own.
    """

    text: Any
    points: Points | None = None
    line: Any = None
    labels: Sequence[SourceLabel] = ()
    row: str = ""
    confidence: float | None = None
    place: Place | None = None
    ids: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class SourceReceipt:
    """The words of one image, or of one page of it.

    Attributes:
        source_id: the source's own id of the image, or its path; lasting ids are made of it.
        file: the file that it stands in.
        words: in the source's order.
        row: where it stands in the file; empty for the whole file.
        receipt_id: number of the page; 1 for the first.
        size: width and height in pixels, or in whatever unit the coordinates have.
        unit: what the coordinates count; None where the file does not tell.
        merchant_name: where the source knows it.
        image: path or address of the image, as the source writes it.
    """

    source_id: str
    file: Path
    words: Sequence[SourceWord]
    row: str = ""
    receipt_id: int = 1
    size: tuple[float, float] | None = None
    unit: Unit | None = "pixel"
    merchant_name: str | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a source that could not be used, or not as it was.

    Attributes:
        file: the file.
        row: where in it; empty for the file as a whole.
        reason: what is wrong.
        remedy: what to do about it.
        is_left_out: whether a word or label is missing for it; otherwise it was only changed.
        content: what stood there, shortened.
        key: ids of the word or receipt that it is about, as far as it has any.
        label: that it is about, as the source writes it.
    """

    file: Path
    row: str
    reason: str
    remedy: str = ""
    is_left_out: bool = True
    content: str = ""
    key: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None

    def __str__(self) -> str:
        where = f"{self.file}: {self.row}" if self.row else str(self.file)
        return f"{where}: {self.reason}" + (f" ({self.remedy})" if self.remedy else "")


@dataclass(frozen=True)
class ImportOptions:
    """What people may say about a source that it does not say itself.

    Attributes:
        images: folder of the images, for their sizes.
        unit: what coordinates count, in place of what the importer finds.
        keep_prefix: whether B- and I- stay in the names of labels.
        status: of labels for which the source gives none.
        merchant: name of the merchant of all receipts, where the source knows none.
        columns: YAML file that says which column is what; for spreadsheets.
        predictions: whether labels that a model has proposed are taken.
    """

    images: Path | None = None
    unit: Unit | None = None
    keep_prefix: bool = False
    status: str = "PENDING"
    merchant: str | None = None
    columns: Path | None = None
    predictions: bool = False


Read = SourceReceipt | Problem


@dataclass(frozen=True)
class SourceFile:
    """A file to be read.

    Attributes:
        path: of the file.
        name: path within the folder that was given, without the suffix: the same on every import.
    """

    path: Path
    name: str


class Importer(ABC):
    """Reads the files of one format."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    """Suffixes of files that are taken from a folder."""
    describes: ClassVar[str]
    """What the format is, in a few words."""

    @abstractmethod
    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read a file, receipt by receipt.

        Raises:
            InputError: the file is not of this format, or cannot be read.
        """

    def skips(self, path: Path) -> bool:
        """Return whether a file of a folder belongs to another one and is not read by itself."""
        del path
        return False


class RoundTrip(Importer):
    """An importer that can write corrected labels into the file that it has read."""

    @abstractmethod
    def write_back(
        self, source: SourceFile, changes: Mapping[Place, str | None], options: ImportOptions
    ) -> WrittenBack:
        """Write a file again with other labels; all else stays as it is, to the byte.

        Args:
            source: the file.
            changes: the new label at each place, None for none.
            options: as they were given to the import.

        Raises:
            InputError: the file cannot be read.
        """


@dataclass(frozen=True)
class WrittenBack:
    """A file with other labels.

    Attributes:
        content: of the file.
        refused: places whose label the format cannot hold, with the reason.
    """

    content: bytes
    refused: Mapping[Place, str] = field(default_factory=dict)
