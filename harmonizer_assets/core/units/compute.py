"""What is computed of a unit's bundle: the result's bundle, without database, index or home."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import pyarrow as pa

from harmonizer_assets.core.score.stage import ASSET as SIMILARITY_MATCHES
from harmonizer_assets.core.units.scored import Shared, score_unit
from harmonizer_assets.core.units.unit import Bundle

ROWS: Final = "rows"
"""The table of a result."""

_LIBRARIES: Final = (
    *("pyarrow.parquet", "pyarrow.dataset"),
    *("scipy.sparse", "scipy.special", "sklearn.feature_extraction.text"),
)
_KEPT: Final = 4
"""Models and corpora that a worker keeps for the units that follow."""

_STAGES: Final[dict[str, Callable[[Bundle, Shared], pa.Table]]] = {SIMILARITY_MATCHES: score_unit}


def load_libraries() -> None:
    """Load the libraries that take long, so that no attempt at a unit waits for them."""
    for library in _LIBRARIES:
        import_module(library)


class Compute:
    """Computes units; keeps what several of them need."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        """Load what is needed.

        Args:
            read: reads from the store what units share, by its name.
        """
        load_libraries()
        self._read = read
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def result(self, unit: str, content: bytes) -> bytes:
        """Compute a unit.

        Args:
            unit: its name.
            content: of its bundle.

        Returns:
            The content of the result's bundle, with one table `rows`.

        Raises:
            StoreError: the bundle is damaged, or what it shares cannot be read.
        """
        bundle = Bundle.of_unit(unit, content)
        rows = _STAGES[bundle.meta["stage"]](bundle, self._shared)
        return Bundle({ROWS: rows}, {"stage": bundle.meta["stage"]}).to_bytes()

    def _shared(self, name: str, make: Callable[[bytes], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = make(self._read(name))
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return self._kept[name]
