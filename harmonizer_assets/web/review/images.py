"""Images of receipts, read from the roots that the settings allow, and from nowhere else.

Where an image is comes from the data, which is not trusted. Neither `..` nor a link leads out of a
folder, no redirect is followed, and only what is an image by its content is passed on.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

import httpx

from harmonizer_assets.core.base.errors import InputError

MAX_BYTES: Final = 20_000_000

_SECONDS: Final = 10.0
_SIGNATURES: Final = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
_ESCAPED: Final = ("%2e", "%2f", "%5c", "%25", "\\")
"""Ways to write `.` and `/` in the path of an address that some servers undo."""


class Images:
    """The images of one home."""

    def __init__(self, home: Path, roots: Iterable[str]) -> None:
        """Allow roots.

        Args:
            home: the folder that relative folders are in.
            roots: folders and addresses; see `ReviewSettings`.
        """
        addresses = [root for root in roots if "://" in root]
        self._addresses = [httpx.URL(root) for root in addresses]
        self._folders = [home / root for root in roots if "://" not in root]

    @property
    def are_shown(self) -> bool:
        """Whether there is any root."""
        return bool(self._addresses or self._folders)

    def read(self, uri: str) -> tuple[bytes, str]:
        """Read an image.

        Args:
            uri: a path, relative to a root or absolute, or a `file:`, `http:` or `https:` address.

        Returns:
            Its bytes and its media type.

        Raises:
            InputError: it lies in no root, cannot be read, is too large, or is no image.
        """
        if uri.lower().startswith(("http://", "https://")):
            content = self._fetched(uri)
        else:
            content = self._opened(_path(uri))
        return content, _media_type(content)

    def _fetched(self, uri: str) -> bytes:
        try:
            url = httpx.URL(uri)
        except httpx.InvalidURL as error:
            raise InputError("the address of the image is not valid") from error
        if not any(_is_under(url, root) for root in self._addresses):
            raise InputError("the image lies in no folder or address of [review] image_roots")
        try:
            return _fetch(url)
        except httpx.HTTPError as error:
            raise InputError(f"the image cannot be fetched ({type(error).__name__})") from error

    def _opened(self, path: PurePosixPath) -> bytes:
        for folder in self._folders:
            try:
                inside = (folder / path).relative_to(folder)
            except ValueError:
                continue
            try:
                return _read_inside(folder, inside.parts)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise InputError("the image cannot be read, or is reached by a link") from error
        raise InputError("the image lies in no folder or address of [review] image_roots")


def _path(uri: str) -> PurePosixPath:
    if not uri.lower().startswith("file:"):
        return PurePosixPath(uri)
    parts = urlsplit(uri)
    if parts.netloc not in {"", "localhost"}:
        raise InputError("the image is a file of another machine")
    return PurePosixPath(unquote(parts.path))


def _is_under(url: httpx.URL, root: httpx.URL) -> bool:
    """Compare as the client will: what it has parsed is what it asks for."""
    path = url.raw_path.partition(b"?")[0].decode("ascii")
    folder = root.raw_path.decode("ascii").rstrip("/") + "/"
    return (
        (url.scheme, url.host, url.port) == (root.scheme, root.host, root.port)
        and not url.userinfo
        and path.startswith(folder)
        and not any(sign in path.lower() for sign in _ESCAPED)
        and ".." not in path.split("/")
    )


def _fetch(url: httpx.URL) -> bytes:
    deadline = time.monotonic() + _SECONDS
    content = bytearray()
    with (
        httpx.Client(follow_redirects=False, trust_env=False, timeout=_SECONDS) as client,
        # As it is sent: a compressed answer could be of any size once it is unpacked.
        client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise InputError(f"the image's server answers with {answer.status_code}")
        for part in answer.iter_raw():
            content += part
            if len(content) > MAX_BYTES or time.monotonic() > deadline:
                raise InputError("the image is too large, or its server too slow")
    return bytes(content)


def _read_inside(folder: Path, parts: tuple[str, ...]) -> bytes:
    """Open a file step by step from its root, so that no link can lead out of it."""
    if not parts or ".." in parts:
        raise InputError("the image lies in no folder or address of [review] image_roots")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in parts[:-1]:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        # A pipe would otherwise be waited for.
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    finally:
        os.close(at)
    with open(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise InputError("the image is no file")
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError("the image is too large")
    return content


def _media_type(content: bytes) -> str:
    for signature, media_type in _SIGNATURES.items():
        if content.startswith(signature):
            return media_type
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    raise InputError("the file is no PNG, JPEG or WebP image")
