"""What formats have in common: what is written, and what comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harmonizer_assets.core.importers.label_studio_results import Corner
from harmonizer_assets.core.review.exchange.records import ExchangeRecord

__all__ = ["Corner", "Drawn", "Format", "Opinion", "Returned", "Unusable"]


@dataclass(frozen=True)
class Opinion:
    """What one person says about one label.

    Attributes:
        labels: the labels that the word has in place of the one under review, in the person's
            order: that one alone if it is right, none if it is wrong and no other is right; None
            where the person says nothing for now.
        reviewer: who says it; None where the file does not tell.
        note: why.
        version: tells a later opinion of the same person from an earlier one, where the tool does.
    """

    labels: tuple[str, ...] | None
    reviewer: str | None = None
    note: str | None = None
    version: str = ""


@dataclass(frozen=True)
class Returned:
    """A record that came back, with what people say about its label.

    Attributes:
        place: where it stands in the file, such as `row 3`.
        record: as it was exported.
        opinions: none where nobody has said anything.
    """

    place: str
    record: ExchangeRecord
    opinions: tuple[Opinion, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """A label that a person has given to a place of an image, whatever word is there.

    Attributes:
        place: where it stands in the file.
        near: another record of the same receipt.
        label: that was given.
        corners: of the place on the image, in order.
        opinion: of the person, with the label.
    """

    place: str
    near: ExchangeRecord
    label: str
    corners: tuple[Corner, ...]
    opinion: Opinion


@dataclass(frozen=True)
class Unusable:
    """A part of a file that cannot be used, and why."""

    place: str
    reason: str


class Format(ABC):
    """Writes records for one tool, and reads what comes back from it."""

    name: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def write(
        self, path: Path, records: Sequence[ExchangeRecord], label_types: Sequence[str]
    ) -> None:
        """Write records to a file.

        Args:
            path: of the file.
            records: to write.
            label_types: the types that people can choose from.

        Raises:
            OSError: the file cannot be written.
        """

    @abstractmethod
    def read(self, path: Path) -> Iterator[Returned | Drawn | Unusable]:
        """Read a file that this format has written and people have changed.

        Raises:
            InputError: the file cannot be read, or is of another format.
        """

    def config(self, label_types: Sequence[str]) -> tuple[str, str] | None:
        """Write what the tool must be set up with; None where it needs nothing.

        Args:
            label_types: the types that people can choose from.

        Returns:
            The end of the file's name, and its content.
        """
        del label_types
        return None
