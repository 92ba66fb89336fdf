"""One run's part in a shared cache: its lease, what it claims, and what it has bought."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from harmonizer_assets.core.base.aio import to_end
from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.judge.llm.memory.cache import BoughtAnswer
from harmonizer_assets.core.judge.llm.memory.shared.base import Claim, SharedCache
from harmonizer_assets.core.judge.llm.wire.prompt import Ask

_log = logging.getLogger(__name__)

_RENEWALS: Final = 3
"""In the time of a lease: one or two may fail."""


def open_cache(url: str) -> SharedCache:
    """Open the shared cache of a URL.

    Args:
        url: `postgresql://user@host/database`, `dynamodb://table` or `duckdb:///file`.

    Raises:
        ConfigurationError: an extra is not installed.
        StoreError: the cache cannot be used.
    """
    parts = urlsplit(url)
    if parts.scheme == "dynamodb":
        from harmonizer_assets.core.judge.llm.memory.shared.dynamodb import DynamoDBCache

        return DynamoDBCache(parts.netloc)
    if parts.scheme == "duckdb":
        from harmonizer_assets.core.judge.llm.memory.shared.duckdb_file import DuckDBCache

        return DuckDBCache(Path(unquote(parts.path)))
    from harmonizer_assets.core.judge.llm.memory.shared.postgresql import PostgresCache

    return PostgresCache(url)


class Sharing:
    """What one run does with a shared cache."""

    def __init__(self, cache: SharedCache) -> None:
        self._cache = cache
        self._holder = uuid.uuid4().hex

    async def claim(self, asks: Sequence[Ask]) -> Claim:
        """Look answers up and claim questions; see `SharedCache.claim`."""
        keys = [ask.verdict_key for ask in asks]
        return await to_end(partial(self._cache.claim, keys, self._holder))

    async def put(self, bought: Sequence[BoughtAnswer]) -> None:
        """Store what was bought; see `SharedCache.put`."""
        answers = {one.ask.verdict_key: one.answer for one in bought}
        if answers:
            await to_end(partial(self._cache.put, answers, self._holder))

    async def keep_lease(self, seconds: float) -> None:
        """Renew the lease until canceled."""
        while True:
            await asyncio.sleep(seconds / _RENEWALS)
            try:
                await to_end(partial(self._cache.renew, self._holder, seconds))
            except StoreError as error:
                _log.warning("the lease on questions was not renewed: %s", error)

    async def begin(self, seconds: float) -> None:
        """Take the lease, without which nothing that is claimed is held."""
        await to_end(partial(self._cache.renew, self._holder, seconds))

    async def end(self) -> None:
        """Give up the lease. Where that fails, it runs out."""
        try:
            await to_end(partial(self._cache.release, self._holder))
        except StoreError as error:
            _log.warning("the lease on questions was not given up: %s", error)


@asynccontextmanager
async def sharing(url: str | None, seconds: float) -> AsyncIterator[Sharing | None]:
    """Share answers through the cache of a URL, with a lease of so many seconds; None shares none.

    Raises:
        ConfigurationError: an extra is not installed.
        StoreError: the cache cannot be used.
    """
    if url is None:
        yield None
        return
    cache = await to_end(partial(open_cache, url))
    shared = Sharing(cache)
    try:
        await shared.begin(seconds)
        renewing = asyncio.create_task(shared.keep_lease(seconds))
        try:
            yield shared
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await shared.end()
    finally:
        await to_end(cache.close)
