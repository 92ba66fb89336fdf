"""Packages that are optional: which extra of ours brings one is said where it is missed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harmonizer_assets.core.base.errors import ConfigurationError, HarmonizerError


@contextmanager
def needs_extra(
    extra: str, user: str, kind: type[HarmonizerError] = ConfigurationError
) -> Iterator[None]:
    """Name the extra where a package is missing that the block imports.

    Args:
        extra: that has the package.
        user: who needs it, for the beginning of the message.
        kind: of the error.

    Raises:
        HarmonizerError: of that kind: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise kind(
            f"{user}: the package {error.name} is not installed: "
            f"pip install 'label-harmonizer[{extra}]'"
        ) from None
