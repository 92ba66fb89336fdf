"""What lies in the inbox, looked at without following links."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import stat
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.ingest.layouts import LABELS, LAYOUTS, WORDS
from harmonizer_assets.core.ingest.left_out import FILE
from harmonizer_assets.core.ingest.readers import SUFFIXES, TableLayout

MANIFEST: Final = "batch.json"
DECLARED: Final = "time"
"""The manifest's entry for a time that whoever made the batch declares."""
SUBMITTED: Final = "submitted"
"""The manifest's entry for when a batch without such a time was submitted."""
OWN_STAMP: Final = "%Y%m%dT%H%M%S.%f"
"""How the names of the folders begin that `submit_batch` makes."""

_OWN_NAME: Final = re.compile(r"\d{8}T\d{6}\.\d{6}-[0-9a-f]{6}")
"""Names of the folders that `submit_batch` makes."""
_SETTLED_SECONDS: Final = 60
"""An entry that is no batch may still be in the making, unless it is as old as this."""
_MAX_MANIFEST: Final = 1 << 16
_TABLES: Final = tuple(layout.name for layout in LAYOUTS)


@dataclass(frozen=True)
class InboxBatch:
    """A folder of the inbox that holds a words file, a labels file, or both.

    Attributes:
        folder: the folder; its name identifies the batch in logs and errors.
        words: the words file or None.
        labels: the labels file or None.
        time: declared, or that of the newest file, or when it was submitted; see `order`.
        source: where the files come from.
        arrival: what tells this arrival from another one of the same files.
        declares_time: whether the time is one that whoever made the batch has given.
        submitted: whether the files are the Harmonizer's own copies, to be removed once ingested.
        origins: by table, what the person who sent it calls the file.
        problems: what the import that has made it has left out, see `left_out`; or None.
        problem: why it cannot be ingested at all, or None.
    """

    folder: Path
    words: Path | None
    labels: Path | None
    time: dt.datetime
    source: str
    arrival: str
    submitted: bool
    declares_time: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)
    problems: Path | None = None
    problem: str | None = None

    @property
    def files(self) -> list[tuple[TableLayout, Path]]:
        """The files of the batch, with their layouts."""
        return [
            (layout, path)
            for layout, path in ((WORDS, self.words), (LABELS, self.labels))
            if path is not None
        ]

    def named(self, error: str) -> str:
        """Put the sender's names of the files into an error that names our copies."""
        for layout, path in self.files:
            error = error.replace(str(path), self.origins.get(layout.name, path.name))
        return error


def read_entry(path: Path) -> InboxBatch | None:
    """Look at an entry of the inbox.

    Returns:
        The batch, which has a `problem` if it cannot be ingested; None for what may still be in
        the making.

    Raises:
        FileNotFoundError: another run has just taken it.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        problem = "a symbolic link: links are not followed, copy the files"
        return _refused(path, found, path.name, problem)
    if not stat.S_ISDIR(found.st_mode):
        problem = "not a folder: put words.* and labels.* into a folder"
        return _settled(path, [found], path.name, problem)
    try:
        inside = {name: (path / name).lstat() for name in sorted(os.listdir(path))}
    except PermissionError:
        problem = "the folder cannot be read (Permission denied)"
        return _refused(path, found, path.name, problem)
    return _folder(path, found, inside) if inside else None


def _folder(
    path: Path, found: os.stat_result, inside: Mapping[str, os.stat_result]
) -> InboxBatch | None:
    manifest, unusable = _read_manifest(path) if MANIFEST in inside else ({}, None)
    name = _sent_as(path, manifest)
    tables = {table: [name for name in inside if _is_table(name, table)] for table in _TABLES}
    if not any(tables.values()):
        return _settled(path, [found, *inside.values()], name, _nothing_in(inside))
    for table, names in tables.items():
        problem = _problem(names, table, inside)
        if problem is not None:
            return _refused(path, found, name, problem)
    if unusable is not None:
        return _refused(path, found, name, f"{MANIFEST}: {unusable}")
    files = {table: names[0] for table, names in tables.items() if names}
    return _batch(path, found, files, inside, manifest)


def _is_table(name: str, table: str) -> bool:
    path = Path(name.lower())
    return path.stem == table and path.suffix in SUFFIXES


def _nothing_in(names: Mapping[str, Any]) -> str:
    return (
        f"no words.* or labels.* file (found: {', '.join(names)[:200]}); "
        f"the suffix names the format: one of {', '.join(SUFFIXES)}"
    )


def _problem(names: Sequence[str], table: str, inside: Mapping[str, os.stat_result]) -> str | None:
    if not names:
        others = [name for name in inside if name.lower().startswith(f"{table}.")]
        if others:
            return f"{others[0]}: the suffix names the format: one of {', '.join(SUFFIXES)}"
        return None
    if len(names) > 1:
        return f"{' and '.join(names)}: a batch has one {table} file, put each into its own folder"
    mode = inside[names[0]].st_mode
    if stat.S_ISLNK(mode):
        return f"{names[0]}: a symbolic link: links are not followed, copy the file"
    if not stat.S_ISREG(mode):
        return f"{names[0]}: not a file"
    return None


def _refused(path: Path, found: os.stat_result, name: str, problem: str) -> InboxBatch:
    time = dt.datetime.fromtimestamp(found.st_mtime, dt.UTC)
    return InboxBatch(
        path,
        None,
        None,
        time,
        name,
        _arrival(path, found),
        submitted=False,
        problem=f"{name}: {problem}",
    )


def _arrival(path: Path, found: os.stat_result) -> str:
    """Return what differs when the same files come again, as copies or moved back."""
    return f"{path.name} {found.st_ino} {found.st_ctime_ns}"


def own_time(name: str) -> dt.datetime | None:
    """Read the time in the name of a folder that `submit_batch` has made; None for others."""
    if _OWN_NAME.fullmatch(name) is None:
        return None
    with contextlib.suppress(ValueError):
        return dt.datetime.strptime(name.partition("-")[0], OWN_STAMP).replace(tzinfo=dt.UTC)
    return None


def _sent_as(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Return where the files of a submitted folder come from; the folder's name for others."""
    source = manifest.get("source")
    if _OWN_NAME.fullmatch(folder.name) is None or not isinstance(source, dict):
        return folder.name
    return ", ".join(dict.fromkeys(str(origin) for origin in source.values()))


def _settled(
    path: Path, found: Sequence[os.stat_result], name: str, problem: str
) -> InboxBatch | None:
    if abs(clock.time() - max(state.st_mtime for state in found)) < _SETTLED_SECONDS:
        return None
    return _refused(path, found[0], name, problem)


def _batch(
    folder: Path,
    found: os.stat_result,
    files: Mapping[str, str],
    inside: Mapping[str, os.stat_result],
    manifest: Mapping[str, Any],
) -> InboxBatch:
    newest = max(inside[name].st_mtime for name in files.values())
    origins = _origins(folder, files, inside, manifest)
    declared = _time(manifest, DECLARED)
    submitted = _time(manifest, SUBMITTED) if origins else None
    return InboxBatch(
        folder,
        folder / files["words"] if "words" in files else None,
        folder / files["labels"] if "labels" in files else None,
        declared or submitted or dt.datetime.fromtimestamp(newest, dt.UTC),
        ", ".join(dict.fromkeys(origins.values())) if origins else folder.name,
        _arrival(folder, found),
        submitted=bool(origins),
        declares_time=declared is not None,
        origins=origins or {table: f"{folder.name}/{name}" for table, name in files.items()},
        problems=folder / FILE if origins and FILE in inside else None,
    )


def _origins(
    folder: Path,
    files: Mapping[str, str],
    inside: Mapping[str, os.stat_result],
    manifest: Mapping[str, Any],
) -> dict[str, str]:
    """Read where the files of a submitted batch come from; empty for files of people.

    What is ours is deleted once it is ingested, so a folder is ours only if everything says so.
    """
    source = manifest.get("source")
    if (
        _OWN_NAME.fullmatch(folder.name) is None
        or not isinstance(source, dict)
        or source.keys() != files.keys()
        or {*inside, FILE} != {MANIFEST, FILE, *files.values()}
    ):
        return {}
    return {table: str(source[table]) for table in files}


def _read_manifest(folder: Path) -> tuple[dict[str, Any], str | None]:
    """Read the manifest of a folder, and say what keeps it from being used: its time decides.

    Returns:
        What is in it, as far as it can be read, and the problem or None.

    Raises:
        FileNotFoundError: another run has just taken the folder.
    """
    try:
        content = _load_manifest(folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        is_link = (folder / MANIFEST).is_symlink()
        return {}, "a symbolic link" if is_link else f"cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        return {}, f"not JSON, or longer than {_MAX_MANIFEST:,} bytes"
    if content.get(DECLARED) is not None and _time(content, DECLARED) is None:
        return content, f"{DECLARED} is no time: write it as 2026-03-01T12:00:00+01:00"
    return content, None


def _load_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a folder; empty where it is something else than an object.

    Raises:
        OSError: it cannot be read.
        ValueError, RecursionError: it is no JSON.
    """
    handle = os.open(folder / MANIFEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        content = json.loads(file.read(_MAX_MANIFEST))
    return content if isinstance(content, dict) else {}


def _time(manifest: Mapping[str, Any], name: str) -> dt.datetime | None:
    """Read a time from a manifest, in UTC where it names no zone; None if there is none."""
    with contextlib.suppress(KeyError, ValueError, TypeError):
        time = dt.datetime.fromisoformat(manifest[name])
        return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time
    return None
