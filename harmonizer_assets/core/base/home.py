"""The home folder: everything that one installation of the Harmonizer keeps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harmonizer_assets.core.base.errors import InputError, StoreError
from harmonizer_assets.core.base.files import make_private_folder

ENVIRONMENT_VARIABLE: Final = "HARMONIZER_HOME"
DEFAULT_FOLDER: Final = "harmonizer_home"

_UNUSABLE: Final = "?#"
_EFFECTIVE: Final = os.access in os.supports_effective_ids


@dataclass(frozen=True)
class Home:
    """The paths of files and folders in a home."""

    root: Path

    def __post_init__(self) -> None:
        """Refuse paths under which no database can be opened.

        Raises:
            InputError: there is a `?` or `#` in the path.
        """
        found = next((sign for sign in _UNUSABLE if sign in str(self.root)), None)
        if found is not None:
            raise InputError(
                f"the home {self.root} cannot be used: DuckDB and SQLite take the {found!r} in its "
                "path for the end of a file's name; give another with --home"
            )

    @classmethod
    def resolve(
        cls, folder: str | Path | None = None, environment: Mapping[str, str] = os.environ
    ) -> Home:
        """Find the home: the given folder, else HARMONIZER_HOME, else ./harmonizer_home.

        Raises:
            InputError: its path cannot be used.
        """
        chosen = folder or environment.get(ENVIRONMENT_VARIABLE) or DEFAULT_FOLDER
        return cls(Path(chosen).expanduser().absolute())

    @property
    def database(self) -> Path:
        """The DuckDB file."""
        return self.root / "harmonizer.duckdb"

    @property
    def snapshot(self) -> Path:
        """The read-only copy of the database, for people's own queries."""
        return self.root / "read_only" / "harmonizer.duckdb"

    @property
    def chroma(self) -> Path:
        """Chroma's folder."""
        return self.root / "chroma"

    @property
    def new_chroma(self) -> Path:
        """What is written in place of Chroma's folder, until it takes that place."""
        return self.root / "chroma.new"

    @property
    def old_chroma(self) -> Path:
        """What Chroma's folder was before, until it is removed."""
        return self.root / "chroma.old"

    @property
    def chroma_server(self) -> Path:
        """Files of a Chroma server that is started beside the home, as `deploy/server` does."""
        return self.root / "chroma_server"

    @property
    def restored_vectors(self) -> Path:
        """Vectors that a backup had of a server; there until they are in the index."""
        return self.root / "restored_vectors"

    @property
    def identity(self) -> Path:
        """What tells this home from others, where it has published to a place of its own."""
        return self.root / "identity"

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
    def units(self) -> Path:
        """Units of work and their results, until they are committed."""
        return self.root / "units"

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
        """Answers that are not in the database yet."""
        return self.root / "journals"

    @property
    def models(self) -> Path:
        """Fitted models."""
        return self.root / "models"

    def model_file(self, version: str) -> Path:
        """Return the file of a fitted model."""
        return self.models / f"{version}.npz"

    @property
    def reports(self) -> Path:
        """Reports and plots for people."""
        return self.root / "reports"

    @property
    def prices(self) -> Path:
        """Prices of models, where they differ from the published ones."""
        return self.root / "prices.yaml"

    @property
    def merchants(self) -> Path:
        """What people say about names of merchants, where they say anything."""
        return self.root / "merchants.yaml"

    @property
    def label_map(self) -> Path:
        """Proposals for names of labels that an import did not find in the taxonomy."""
        return self.root / "label-map.yaml"

    @property
    def review_policy(self) -> Path:
        """Which proposals need how much of a person, where it is not the default."""
        return self.root / "review.yaml"

    def has_events(self) -> bool:
        """Return whether Dagster has logged events of runs in the home."""
        return any(self.dagster.glob("history/**/*.db"))

    def ensure(self) -> Home:
        """Create the folders that are missing, for their owner alone.

        Raises:
            StoreError: the home cannot be made or written to.
        """
        inner = (self.chroma, self.dagster, self.inbox, self.scratch, self.locks)
        folders = (self.root, *inner, self.snapshot.parent)
        try:
            for folder in folders:
                make_private_folder(folder)
        except OSError as error:
            raise StoreError(
                f"the home {self.root} cannot be made: {error.strerror}; give another with --home"
            ) from error
        for folder in folders:
            if not os.access(folder, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE):
                raise StoreError(
                    f"the home {self.root} cannot be written: {folder} is read-only for this user; "
                    "check its owner and rights, or give another with --home"
                )
        return self

    def refused(self) -> Path | None:
        """Find a file or folder of the home that this process may not read and write, if any.

        What waits in the inbox is left out: each run sets aside what it may not read there.
        """
        for folder, folders, names in os.walk(self.root):
            inside = Path(folder)
            if inside == self.root:
                folders[:] = [name for name in folders if self.root / name != self.inbox]
            needed = (
                *((inside / name, os.R_OK | os.W_OK | os.X_OK) for name in sorted(folders)),
                *((inside / name, os.R_OK | os.W_OK) for name in sorted(names)),
            )
            for path, rights in needed:
                if not path.is_symlink() and _is_refused(path, rights):
                    return path
        return None

    def keep_private(self) -> None:
        """Have this process, and those that it starts, make files with the rights of the home.

        For programs of our own, before they write: whoever made the home accessible to a group has
        new files accessible to it as well.
        """
        with suppress(OSError):
            withheld = ~self.root.stat().st_mode & 0o777
            os.umask(os.umask(withheld) | withheld)


def _is_refused(path: Path, rights: int) -> bool:
    # What another process has removed meanwhile is not refused.
    return path.exists() and not os.access(path, rights, effective_ids=_EFFECTIVE)
