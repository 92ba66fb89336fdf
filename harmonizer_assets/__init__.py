"""Label Harmonizer: keeps word-level labels consistent across receipts.

What can be imported from here (`harmonizer_assets.api` lists it) and from
`harmonizer_assets.importers` is the public interface; nothing else is public.

Example:
    >>> from harmonizer_assets import Home, Pipeline, RunOptions
    >>> pipeline = Pipeline(Home.resolve("harmonizer_home"))
    >>> report = pipeline.run(RunOptions(judge="offline"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harmonizer_assets.api import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the stores take seconds to load.

    Raises:
        AttributeError: there is no such public name.
    """
    api = import_module(f"{__name__}.api")
    if name == "__all__":
        return [*api.__all__]
    if name not in api.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(api, name)


def __dir__() -> list[str]:
    return ["__version__", *import_module(f"{__name__}.api").__all__]
