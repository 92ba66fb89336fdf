"""Loaded by every Python that has this folder on its path: there is no matplotlib for it."""

from __future__ import annotations

import sys

sys.modules["matplotlib"] = None  # type: ignore[assignment]
