"""The command line: `harmonizer`."""

from harmonizer_assets.cli.main import main

__all__ = ["main"]
