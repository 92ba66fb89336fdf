"""The exception hierarchy of the Harmonizer."""

from __future__ import annotations

from typing import ClassVar


class HarmonizerError(Exception):
    """A run failed; the message says why and what to do.

    Attributes:
        exit_code: what the command line exits with.
    """

    exit_code: ClassVar[int] = 1


class InputError(HarmonizerError):
    """A file or an option that the user gave is not usable."""

    exit_code = 2


class TaxonomyError(InputError):
    """The taxonomy file is not usable."""


class ConfigurationError(InputError):
    """Settings or environment are not usable, for example because a key is missing."""


class StoreError(HarmonizerError):
    """A store (database, vector index, disk) cannot be read or written."""


class StoreBusyError(StoreError):
    """Another process has held a store for too long."""


class SourceError(HarmonizerError):
    """A bucket or table that labels arrive from cannot be read."""


class JudgeError(HarmonizerError):
    """The judge can answer no question at all."""


class WorkersError(HarmonizerError):
    """No worker can be given units, or none can work on them."""


class PartitionsFailedError(HarmonizerError):
    """Some partitions could not be computed; all others are done."""


class RunStoppedError(HarmonizerError):
    """The caller stopped the run; what is finished is kept."""


class BudgetReached(HarmonizerError):  # noqa: N818  it is a state, not an error
    """The budget was used up before all was asked: run again to go on."""

    exit_code = 3
