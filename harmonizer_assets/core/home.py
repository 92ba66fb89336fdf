"""The home folder: everything that one installation of the Harmonizer keeps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harmonizer_assets.core.errors import StoreError

ENVIRONMENT_VARIABLE: Final = "HARMONIZER_HOME"
DEFAULT_FOLDER: Final = "harmonizer_home"


@dataclass(frozen=True)
class Home:
    """Where things are in a home folder."""

    root: Path

    @classmethod
    def resolve(
        cls, folder: str | Path | None = None, environment: Mapping[str, str] = os.environ
    ) -> Home:
        """Find the home: the given folder, else HARMONIZER_HOME, else ./harmonizer_home."""
        chosen = folder or environment.get(ENVIRONMENT_VARIABLE) or DEFAULT_FOLDER
        return cls(Path(chosen).expanduser().absolute())

    @property
    def database(self) -> Path:
        """The DuckDB file."""
        return self.root / "harmonizer.duckdb"

    @property
    def snapshot(self) -> Path:
        """A copy of the database as of the last run, for people's own read-only shells."""
        return self.root / "read_only" / "harmonizer.duckdb"

    @property
    def chroma(self) -> Path:
        """Chroma's folder."""
        return self.root / "chroma"

    @property
    def dagster(self) -> Path:
        """The Dagster instance, DAGSTER_HOME."""
        return self.root / "dagster"

    @property
    def inbox(self) -> Path:
        """Where batches of words and labels arrive."""
        return self.root / "inbox"

    @property
    def scratch(self) -> Path:
        """Temporary files; may be emptied while nothing runs."""
        return self.root / "tmp"

    @property
    def locks(self) -> Path:
        """Lock files."""
        return self.root / "locks"

    @property
    def taxonomy(self) -> Path:
        """The label types, where they are not the default ones."""
        return self.root / "taxonomy.yaml"

    @property
    def settings_file(self) -> Path:
        """The settings, where they are not the default ones."""
        return self.root / "harmonizer.toml"

    @property
    def journals(self) -> Path:
        """Answers on their way into the database."""
        return self.root / "journals"

    def model_file(self, version: str) -> Path:
        """Where a fitted model is kept."""
        return self.root / "models" / f"{version}.npz"

    @property
    def reports(self) -> Path:
        """Reports and plots for people."""
        return self.root / "reports"

    @property
    def prices(self) -> Path:
        """Prices of models, where they differ from the packaged ones."""
        return self.root / "prices.yaml"

    def ensure(self) -> Home:
        """Make the folders.

        Raises:
            StoreError: the home cannot be made or written to.
        """
        try:
            for folder in (self.chroma, self.dagster, self.inbox, self.scratch, self.locks):
                folder.mkdir(parents=True, exist_ok=True)
            self.snapshot.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the home {self.root} cannot be made: {error.strerror}; give another with --home"
            ) from error
        return self
