"""HTTP clients of other packages: keep prompts and addresses out of their logs."""

from __future__ import annotations

import logging
from typing import Final

_TALKATIVE: Final = ("openai", "httpx", "httpx2", "httpcore", "aiohttp")
"""Loggers that write whole prompts at DEBUG, and addresses with passwords and tokens at INFO."""


def keep_clients_quiet() -> None:
    """Raise the level of the clients' loggers, unless the application has set one."""
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
