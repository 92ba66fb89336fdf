"""Who a home is, for places that several could write to."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.files import write_atomically
from harmonizer_assets.core.base.home import Home


@dataclass(frozen=True)
class HomeIdentity:
    """One home, which stays itself when it is renamed, or restored on another machine.

    Attributes:
        id: 12 hexadecimal digits, drawn once.
        name: for people: the folder and the host as they are now.
    """

    id: str
    name: str

    @classmethod
    def from_json(cls, written: Mapping[str, str] | None) -> HomeIdentity | None:
        """Make what `dataclasses.asdict` has written; None stays None.

        Raises:
            KeyError: an attribute is missing.
        """
        return None if written is None else cls(written["id"], written["name"])

    def __str__(self) -> str:
        return f"home {self.id} ({self.name})"


def host_name() -> str:
    """Name this host, so that the container that takes over from another one has its name."""
    return os.environ.get("HARMONIZER_HOST") or socket.gethostname()


def identity_of(home: Home) -> HomeIdentity:
    """Read a home's identity; one is drawn where there is none.

    The caller keeps other processes of the home away.

    Raises:
        StoreError: the home cannot be read or written.
    """
    file = home.identity
    try:
        if not file.exists():
            write_atomically(file, uuid.uuid4().hex[:12])
        drawn = file.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise StoreError(f"{file} cannot be used: {error.strerror}") from error
    return HomeIdentity(drawn, f"{home.root.absolute().name} on {host_name()}")
