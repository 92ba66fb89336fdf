"""The interface of places that tables are published to."""

from __future__ import annotations

import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harmonizer_assets.core.base.identity import HomeIdentity


@dataclass(frozen=True)
class Version:
    """One publication of all tables.

    Attributes:
        name: that readers ask for it by; ascending in the order of publication.
        run_id: the run that published it.
        message: what the run found, in a sentence.
        published_at: when.
        home: the home that published it; None where an earlier version of the package did.
    """

    name: str
    run_id: str
    message: str
    published_at: dt.datetime
    home: HomeIdentity | None = None


Check = Callable[[Version | None], None]
"""Called with the latest version that is there, before anything is written."""


class Target(ABC):
    """A place that tables are published to, beside the read-only copy in the home.

    The caller keeps other processes of the home away. Readers never wait and never see a part of a
    version.
    """

    @abstractmethod
    def publish(self, run_id: str, message: str, home: HomeIdentity, check: Check) -> Version:
        """Publish the tables of the home's read-only copy as one version.

        Args:
            run_id: the run that publishes.
            message: what it found.
            home: whose tables they are.
            check: raises an error where the home may not go on after the latest version.

        Raises:
            ConfigurationError: an extra is not installed; so do the other methods.
            StoreError: the place cannot be written; the version before is as it was.
        """

    @abstractmethod
    def versions(self) -> list[Version]:
        """List the versions that can be read, the latest last.

        Raises:
            StoreError: the place cannot be read.
        """

    @abstractmethod
    def expire(self, versions: Sequence[Version]) -> None:
        """Remove versions, never the latest, and put small files together.

        Raises:
            StoreError: the place cannot be written; the next call goes on.
        """

    @abstractmethod
    def clear(self) -> None:
        """Remove all versions and everything that was stored for them.

        Raises:
            StoreError: the place cannot be written; the next call goes on.
        """

    @abstractmethod
    def reading(self, version: str | None = None) -> str:
        """Write the SQL after which a DuckDB has the tables under their names.

        Args:
            version: its name; by default the latest.

        Raises:
            StoreError: there is no such version.
        """
