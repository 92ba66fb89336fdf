"""Files of annotation tools in which each JSON object is a receipt: a task, document or record."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from harmonizer_assets.core.importers.base import (
    Importer,
    ImportOptions,
    Problem,
    Read,
    SourceFile,
    SourceReceipt,
)
from harmonizer_assets.core.importers.files import as_object, json_records
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.importers.spans import Span, labelled
from harmonizer_assets.core.importers.texts import Token


@dataclass(frozen=True)
class Task:
    """One object of a file.

    Attributes:
        source: the file.
        row: where it stands, as a person would look for it.
        number: in the file.
        content: of the object.
    """

    source: SourceFile
    row: str
    number: int
    content: Mapping[str, Any]

    def source_id(self, own: Any) -> str:
        """Return the tool's own id, or else the place in the file."""
        return f"{self.source.name}/{self.number}" if own is None else str(own)

    def of_text(
        self, own: Any, tokens: Sequence[Token], spans: Sequence[Span], merchant: Any = None
    ) -> Iterator[Read]:
        """Yield the receipt of a text with labelled spans, and what is wrong with them.

        Args:
            own: the tool's own id, or None.
            tokens: words of the text.
            spans: with their labels.
            merchant: the name of the merchant, if it is a text.
        """
        words = []
        for one in labelled(tokens, spans, self.source.path, self.row):
            if isinstance(one, Problem):
                yield one
            else:
                words.append(one)
        yield SourceReceipt(
            self.source_id(own),
            self.source.path,
            words,
            self.row,
            merchant_name=merchant if isinstance(merchant, str) else None,
        )


class TaskImporter(Importer):
    """Reads files of tasks, one after the other; what is not as the tool has it is left out."""

    tool: ClassVar[str]
    """The tool's name, for problems."""
    task: ClassVar[str]
    """What the tool calls an object, such as `the task`."""

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the tasks of a file."""
        for row, number, content in json_records(source.path):
            try:
                if isinstance(content, Exception):
                    raise ValueError(str(content))
                task = Task(source, row, number, as_object(content, self.task))
                yield from [*self.receipts(task, options)]
            except MALFORMED as error:
                yield not_as(self.tool, source.path, row, error)

    @abstractmethod
    def receipts(self, task: Task, options: ImportOptions) -> Iterator[Read]:
        """Yield the receipts of a task; errors of `MALFORMED` leave it out."""
