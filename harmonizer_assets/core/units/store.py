"""The store of units: bundles, results, attempts and dead letters, in one object store.

Names of objects, all below the store's URL:

| object | holds |
| --- | --- |
| `units/UNIT.parquet` | a unit's bundle, until its result is committed |
| `shared/HASH` | what many units need: a model, a corpus |
| `results/UNIT.parquet` | what a worker made of it, until it is committed |
| `attempts/UNIT-N.json` | who began the Nth attempt, and when |
| `errors/UNIT-N.json` | how it failed, where it could still say so |
| `dead/UNIT.json` | the dead letter of a unit that has failed as often as it may |
| `split/UNIT.json` | that smaller units were cut of a dead one |
"""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Final

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.secrets import redacted
from harmonizer_assets.core.store.objects import MissingObjectError, ObjectStore
from harmonizer_assets.core.units.unit import name_of

_FOLDERS: Final = ("units", "shared", "results", "attempts", "errors", "dead", "split")
_LONGEST_PUT: Final = 3_600.0
"""Seconds after which a file that is not finished is not written any more."""
_MAX_ERROR: Final = 500
_MAX_TRACEBACK: Final = 8_000
_SILENT: Final = (
    "its process ended without a word: it was killed, ran out of memory, or took longer than "
    "[units] seconds"
)


@dataclass(frozen=True)
class Failure:
    """How an attempt failed.

    Attributes:
        error: in one line.
        traceback: of the worker; empty where its process ended without one.
    """

    error: str
    traceback: str = ""

    @classmethod
    def of(cls, kind: str, said: str, traceback: str = "") -> Failure:
        """Describe a failure without secrets, and not at any length.

        Args:
            kind: of error.
            said: its message, of which the first line is kept.
            traceback: whose end is kept.
        """
        error = redacted(f"{kind}: {next(iter(said.splitlines()), '')}")
        return cls(error[:_MAX_ERROR], redacted(traceback)[-_MAX_TRACEBACK:])


@dataclass(frozen=True)
class DeadLetter:
    """A unit that has failed as often as it may.

    Attributes:
        unit: its name.
        attempts: that were begun.
        error: of the last one, in one line.
        traceback: of the last one.
        failed_at: when it was given up, in UTC.
    """

    unit: str
    attempts: int
    error: str
    traceback: str
    failed_at: dt.datetime


class UnitStore:
    """Units of one home, or of one that a worker works for, in an object store."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects

    def add(self, unit: str, content: bytes) -> None:
        """Store a unit's bundle, unless it is there; see `Bundle.named`."""
        self.objects.put(_unit(unit), content)

    def share(self, content: bytes) -> str:
        """Store what many units need; return its name."""
        name = name_of(content)
        self.objects.put(_shared(name), content)
        return name

    def bundle(self, unit: str) -> bytes:
        """Read a unit's bundle.

        Raises:
            MissingObjectError: it is not there any more, so its result is committed.
        """
        return self.objects.get(_unit(unit))

    def shared(self, name: str) -> bytes:
        """Read what many units need, and check that it is what its name says.

        Raises:
            MissingObjectError: it is not there any more.
            StoreError: it is damaged.
        """
        content = self.objects.get(_shared(name))
        if name_of(content) != name:
            key = _shared(name)
            raise StoreError(f"{self.objects.url}: {key} is damaged: delete it and run again")
        return content

    def put_result(self, unit: str, content: bytes) -> bool:
        """Store a unit's result, unless another worker has; return whether none had."""
        return self.objects.put(_result(unit), content)

    def result(self, unit: str) -> bytes:
        """Read a unit's result."""
        return self.objects.get(_result(unit))

    def has_bundle(self, unit: str) -> bool:
        """Say whether a unit's bundle is there: not any more once its result is committed."""
        return self.objects.exists(_unit(unit))

    def has_result(self, unit: str) -> bool:
        """Say whether a unit's result is there."""
        return self.objects.exists(_result(unit))

    def finished(self, units: Collection[str]) -> list[str]:
        """Return those of some units that have a result or a dead letter."""
        if len(units) <= 1:
            return [u for u in units if self.has_result(u) or self.dead_letter(u) is not None]
        results, dead = self.ended()
        return [unit for unit in units if unit in results or unit in dead]

    def ended(self) -> tuple[set[str], set[str]]:
        """List the units that have a result, and those that have a dead letter."""
        results, dead = (map(_stem, self.objects.list(folder)) for folder in ("results/", "dead/"))
        return {*results}, {*dead}

    def begin(self, unit: str, most: int) -> int | None:
        """Begin an attempt; return its number, None where all have been begun.

        Attempts are counted as they begin, so one that ends with its process counts as well.
        """
        mark = {"began_at": _now(), "worker": f"{socket.gethostname()}:{os.getpid()}"}
        for number in range(1, most + 1):
            if self.objects.put(_attempt(unit, number), json.dumps(mark).encode()):
                return number
        return None

    def attempts(self, unit: str) -> int:
        """Count the attempts at a unit that were begun."""
        return len(self.objects.list(f"attempts/{unit}-"))

    def note(self, unit: str, attempt: int, failure: Failure) -> bool:
        """Store how an attempt failed, unless that is known; return whether it was not."""
        content = json.dumps(asdict(failure), ensure_ascii=False).encode()
        return self.objects.put(_error(unit, attempt), content)

    def last_failure(self, unit: str) -> Failure:
        """Say how the last attempt failed, as far as it could say so itself."""
        number = self.attempts(unit)
        try:
            return Failure(**json.loads(self.objects.get(_error(unit, number))))
        except MissingObjectError:
            return Failure(f"attempt {number}: {_SILENT}")

    def bury(self, unit: str) -> None:
        """Write the dead letter of a unit, unless there is one."""
        failure = self.last_failure(unit)
        content = {
            "attempts": self.attempts(unit),
            "error": failure.error,
            "traceback": failure.traceback,
            "failed_at": _now(),
        }
        self.objects.put(_dead(unit), json.dumps(content, ensure_ascii=False).encode())

    def mark_split(self, unit: str) -> None:
        """Note that smaller units were cut of a dead one, to find what fails in it."""
        self.objects.put(_split(unit), b"{}")

    def dead_letter(self, unit: str) -> DeadLetter | None:
        """Read a unit's dead letter; None where there is none."""
        try:
            return self._letter(unit)
        except MissingObjectError:
            return None

    def _letter(self, unit: str) -> DeadLetter:
        content = json.loads(self.objects.get(_dead(unit)))
        return DeadLetter(
            unit,
            content["attempts"],
            content["error"],
            content["traceback"],
            dt.datetime.fromisoformat(content["failed_at"]),
        )

    def dead_letters(self, *, split: bool = False) -> list[DeadLetter]:
        """List the dead letters by their time.

        Args:
            split: also those of which smaller units were cut.
        """
        halved = set() if split else {_stem(key) for key in self.objects.list("split/")}
        units = (_stem(key) for key in self.objects.list("dead/"))
        letters = (self.dead_letter(unit) for unit in units if unit not in halved)
        return sorted((x for x in letters if x is not None), key=lambda x: (x.failed_at, x.unit))

    def waiting(self) -> list[str]:
        """List the units that have no result yet and are not dead."""
        results, dead = self.ended()
        cut = map(_stem, self.objects.list("units/"))
        return [unit for unit in cut if unit not in results and unit not in dead]

    def forget_result(self, unit: str) -> None:
        """Delete a unit's result, which is damaged."""
        self.objects.delete([_result(unit)])

    def remove(self, units: Collection[str]) -> int:
        """Delete all that is stored of some units; return how many attempts at them there were.

        Bundles go first: a message that comes again finds that there is nothing to do.
        """
        self.objects.delete([name(u) for name in (_unit, _result, _dead, _split) for u in units])
        wanted = set(units)
        attempts, errors = (
            [key for key in self.objects.list(folder) if _stem(key).partition("-")[0] in wanted]
            for folder in ("attempts/", "errors/")
        )
        self.objects.delete([*attempts, *errors])
        return len(attempts)

    def sweep(self) -> None:
        """Delete all but what is stored of dead units: nobody waits for the rest any more."""
        dead = {_stem(key).partition("-")[0] for key in self.objects.list("dead/")}
        self._delete(lambda key: _stem(key).partition("-")[0] not in dead)
        self.objects.discard_unfinished(_LONGEST_PUT)

    def clear(self) -> None:
        """Delete everything."""
        self._delete(lambda _: True)
        self.objects.discard_unfinished(0.0)

    def _delete(self, is_wanted: Callable[[str], bool]) -> None:
        keys = self._listed(*(f"{folder}/" for folder in _FOLDERS))
        self.objects.delete([key for key in keys if is_wanted(key)])

    def _listed(self, *prefixes: str) -> Iterator[str]:
        for prefix in prefixes:
            yield from self.objects.list(prefix)


def _unit(name: str) -> str:
    return f"units/{name}.parquet"


def _shared(name: str) -> str:
    return f"shared/{name}"


def _attempt(unit: str, number: int) -> str:
    return f"attempts/{unit}-{number}.json"


def _error(unit: str, attempt: int) -> str:
    return f"errors/{unit}-{attempt}.json"


def _result(unit: str) -> str:
    return f"results/{unit}.parquet"


def _dead(unit: str) -> str:
    return f"dead/{unit}.json"


def _split(unit: str) -> str:
    return f"split/{unit}.json"


def _stem(key: str) -> str:
    return key.rpartition("/")[2].partition(".")[0]


def _now() -> str:
    return utc_now().isoformat()
