"""Noise as people make it: what is found of each kind of error.

The labels of the data are taken as right: as its truth file says they should be, or as they are
where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.offline_runs import Data, Run, run, show
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.measure.corrupt import KINDS, CorruptionSpec, corrupt_files

Statuses = Literal["half", "pending"]

MIXED: Final = "mixed"
"""The mixture of kinds that `harmonizer corrupt` makes by default."""
CHOICES: Final = (MIXED, *KINDS)
VALIDATED: Final[dict[Statuses, float]] = {"half": 0.5, "pending": 0.0}
"""Share of the right labels that are validated."""


def corrupted(
    data: Data, kind: str, rate: float, statuses: Statuses, seed: int, folder: Path
) -> Data:
    """Make files in a folder with errors of one kind.

    Raises:
        InputError: the data holds nothing that the kind could be made of.
    """
    spec = CorruptionSpec(rate=rate, validated=VALIDATED[statuses], seed=seed)
    if kind != MIXED:
        spec = CorruptionSpec(spec.rate, spec.validated, spec.seed, {kind: 1.0})
    clean = data.clean(folder / "clean")
    for note in corrupt_files(*clean, folder / "files", spec).notes:
        print(f"  {note}")
    return Data.of(folder / "files", data.taxonomy)


def noisy_run(
    data: Data, kind: str, rate: float, statuses: Statuses, seed: int, folder: Path
) -> Run:
    """Run the offline pipeline on labels with errors of one kind; see `corrupted`."""
    return run(corrupted(data, kind, rate, statuses, seed, folder), folder / "home")


def measure_noise(
    data: Data,
    folder: Path,
    kinds: Sequence[str],
    rates: Sequence[float],
    statuses: Sequence[Statuses],
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Measure each kind at each rate and with each share of validated labels."""
    for kind in kinds:
        for rate in rates:
            for each in statuses:
                name = f"{kind} {rate:.1%} {each}"
                try:
                    done = noisy_run(data, kind, rate, each, seed, folder / name.replace(" ", "-"))
                except InputError as error:
                    print(f"{name:<34} {error}")
                    continue
                yield {"kind": kind, "rate": rate, "statuses": each, **show(name, done)}
