"""The columns of the tables that arrive."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TableLayout:
    """The columns that a file of one kind has.

    Attributes:
        name: `words` or `labels`.
        required: columns that the file must have.
        optional: columns that are null where the file lacks them.
        derived: columns of exports that are ignored, since they are computed again.
        whole_numbers: those of the required columns that hold whole numbers.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    whole_numbers: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the layout."""
        return self.required + self.optional
