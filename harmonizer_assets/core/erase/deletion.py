"""Deletion of words and labels: what it covers, and how it is carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.erase.erase import Erased, Eraser, erase_pending
from harmonizer_assets.core.erase.files import quoting_files
from harmonizer_assets.core.erase.texts import DeletedTexts
from harmonizer_assets.core.index.stage import Indexing
from harmonizer_assets.core.store import Warehouse
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.deletions import (
    Deleted,
    Scope,
    count_covered,
    delete_covered,
    register_scopes,
    texts_covered,
)
from harmonizer_assets.core.store.ranks import FOR_GOOD, next_rank


class Deletion:
    """Deletes words and labels of a home, with every trace of them."""

    def __init__(
        self,
        home: Home,
        warehouse: Warehouse,
        indexing: Indexing,
        update_merchants: Callable[[], object],
        clear_units: Callable[[], object],
        forget_models: Callable[[], object],
        unpublish: Callable[[], object],
    ) -> None:
        """Bind to a home; nothing is deleted yet.

        Args:
            home: whose files are looked through.
            warehouse: its tables.
            indexing: its vector index.
            update_merchants: finds the merchants anew of which a name is gone.
            clear_units: removes all units of work, which hold words.
            forget_models: removes all fitted models.
            unpublish: removes all versions of the tables that were published outside the home.
        """
        self._unpublish = unpublish
        self._clear_units = clear_units
        self._forget_models = forget_models
        self._update_merchants = update_merchants
        self._home = home
        self._warehouse = warehouse
        self._indexing = indexing

    def preview(self, scope: Scope) -> tuple[Deleted, list[Path], list[Path]]:
        """Count the rows that a deletion covers, and list the files that would go with them.

        Returns:
            The counts, the files, and the files and folders that may not be read.
        """

        def read(con: Connection) -> tuple[Deleted, list[str]]:
            register_scopes(con, [scope])
            return count_covered(con), texts_covered(con)

        counts, texts = self._warehouse.read(read)
        return counts, *quoting_files(self._home, DeletedTexts(texts))

    def delete(
        self,
        scope: Scope,
        *,
        for_good: bool = True,
        models: bool = False,
        others: Sequence[Eraser] = (),
    ) -> tuple[Deleted, Erased | None]:
        """Delete words and labels, and erase every trace of them in the home.

        Args:
            scope: what goes.
            for_good: whether it stays away although it may be sent again.
            models: whether models go that may have learnt from it. The next run fits one anew and
                scores all partitions again.
            others: erase from stores outside core.

        Returns:
            How many rows went, and what was erased besides.

        Raises:
            StoreError: a store cannot be written; `finish` goes on where this stopped.
        """

        def write(con: Connection) -> Deleted:
            register_scopes(con, [scope])
            rank = next_rank(con)
            if for_good:
                rank = replace(rank, batch_time=FOR_GOOD, is_clocked=False)
            return delete_covered(con, rank=rank, source="command")

        deleted = self._warehouse.write(write)
        self._update_merchants()
        if models:
            self._forget_models()
        return deleted, self.finish(others)

    def finish(self, others: Sequence[Eraser] = ()) -> Erased | None:
        """Erase the traces of what a batch or a killed process has deleted; see `erase_pending`."""
        return erase_pending(
            self._home,
            self._warehouse,
            self._indexing,
            (self._clear_units, self._unpublish),
            others,
        )
