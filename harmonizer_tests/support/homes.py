"""Homes that are made once and copied: making one takes a second or more, copying it nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Hashable
from pathlib import Path
from tempfile import mkdtemp

from harmonizer_assets.core.base.home import Home

_made: dict[Hashable, Path] = {}
_folders: list[Path] = []


def keep_homes_in(folder: Path) -> None:
    """Name the folder for homes that are made from now on; those made before are forgotten."""
    _made.clear()
    _folders[:] = [folder]


def copy_home(home: Home, key: Hashable, make: Callable[[Home], object]) -> None:
    """Fill an empty home with a copy of the one that the key names.

    Args:
        home: an empty home.
        key: equal for homes that are made alike.
        make: makes that home where there is none yet; it closes what it opens.
    """
    if key not in _made:
        [folder] = _folders
        # A home may be made of a copy of another one that is made meanwhile.
        root = Path(mkdtemp(dir=folder))
        make(Home(root).ensure())
        _made[key] = root
    made = Home(_made[key])

    def ignored(folder: str, names: list[str]) -> list[str]:
        # Databases of this process keep temporary files there until they are collected.
        return names if Path(folder) == made.scratch else []

    shutil.copytree(made.root, home.root, ignore=ignored, dirs_exist_ok=True)
