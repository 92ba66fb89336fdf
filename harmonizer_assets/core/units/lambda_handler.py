"""The function that AWS Lambda runs: it computes one unit; see `executors.aws_lambda`.

An event that comes again does no harm: a unit that has a result, a dead letter, or no bundle any
more is left alone, and of two results the first one counts.
"""

from __future__ import annotations

import os
from typing import Final

from harmonizer_assets.core.base.errors import ConfigurationError, HarmonizerError
from harmonizer_assets.core.base.secrets import redacted
from harmonizer_assets.core.store.objects import open_store
from harmonizer_assets.core.units.compute import load_libraries
from harmonizer_assets.core.units.store import UnitStore
from harmonizer_assets.core.units.unit import is_name
from harmonizer_assets.core.units.work import Work

STORES_VARIABLE: Final = "HARMONIZER_UNIT_STORES"
"""URLs of the stores that the function works for, with blanks between them."""

_FIELDS: Final = ("unit", "store", "attempts", "seconds")
_MOST_ATTEMPTS: Final = 20

if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    # Lambda does not count the time that loading the module takes.
    load_libraries()

_works: dict[tuple[str, int, float], Work] = {}
"""Kept, with the models that units share, while Lambda keeps the process."""


def handle(event: object, context: object = None) -> dict[str, str]:
    """Try to compute a unit.

    Args:
        event: with the name of a `unit`, the URL of its `store`, the `attempts` that it may be
            tried and the `seconds` that one may take.
        context: of the invocation; unused.

    Returns:
        The `outcome` of the attempt, or the `error` for which no unit can be computed at all.
    """
    try:
        unit, work = _read(event)
        return {"outcome": str(work.attempt(unit))}
    except HarmonizerError as error:
        return {"error": redacted(" ".join(str(error).split()))}


def _read(event: object) -> tuple[str, Work]:
    """Read an event.

    Raises:
        ConfigurationError: it names no unit of a store that this function works for.
    """
    if isinstance(event, dict) and set(event) == {*_FIELDS}:
        unit, url, attempts, seconds = (event[name] for name in _FIELDS)
        is_sane = attempts in range(1, _MOST_ATTEMPTS + 1) and isinstance(seconds, float)
        if is_name(unit) and url in os.environ.get(STORES_VARIABLE, "").split() and is_sane:
            return unit, _work(url, attempts, seconds)
    raise ConfigurationError(
        f"the event names no unit of a store that this function works for; see {STORES_VARIABLE}"
    )


def _work(url: str, attempts: int, seconds: float) -> Work:
    key = (url, attempts, seconds)
    if key not in _works:
        _works[key] = Work(UnitStore(open_store(url)), attempts, seconds)
    return _works[key]
