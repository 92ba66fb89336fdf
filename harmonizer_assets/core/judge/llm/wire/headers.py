"""Headers of a reply that say how long to wait."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str) -> float | None:
    """Parse a duration of rate-limit headers: `"1.5"`, `"20ms"`, `"6m0s"`."""
    try:
        return max(0.0, float(text))
    except ValueError:
        parts = _DURATION.findall(text)
        return sum(float(n) * _SECONDS[unit] for n, unit in parts) if parts else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an endpoint asks to wait; None where it asks for nothing."""
    milliseconds = headers.get("retry-after-ms")
    if milliseconds and (found := seconds_of(milliseconds)) is not None:
        return found / 1000
    text = headers.get("retry-after")
    if not text:
        return None
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return seconds_of(text)
