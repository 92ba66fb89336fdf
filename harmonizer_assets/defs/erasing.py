"""Erasing from Dagster what was deleted."""

from __future__ import annotations

from dagster import DagsterInstance

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.erase import DeletedTexts
from harmonizer_assets.dagster_compat.event_texts import replace_in_events
from harmonizer_assets.defs.partitions import remove_merchants


def erase_from_dagster(home: Home, instance: DagsterInstance, texts: DeletedTexts) -> int:
    """Remove partitions of merchants that are gone, and replace texts in events; return where."""
    remove_merchants(instance, texts.keys)
    return replace_in_events(home, instance, texts)
