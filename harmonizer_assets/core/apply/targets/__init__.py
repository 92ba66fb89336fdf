"""Tables elsewhere that corrections are pushed to: those that labels came from."""

import os

from harmonizer_assets.core.apply.targets.base import Target, Writer
from harmonizer_assets.core.apply.targets.dynamodb import DynamoTarget
from harmonizer_assets.core.apply.targets.tables import TableTarget
from harmonizer_assets.core.base.settings import ArrivalSettings
from harmonizer_assets.core.ingest.sources import TABLE_URL_VARIABLE

__all__ = ["DynamoTarget", "TableTarget", "Target", "Writer", "configured_targets"]


def configured_targets(settings: ArrivalSettings) -> list[Target]:
    """List the tables of labels that the settings name; URLs come from the environment."""
    found: list[Target] = []
    if settings.tables is not None and settings.tables.labels is not None:
        found.append(TableTarget(settings.tables, os.environ.get(TABLE_URL_VARIABLE)))
    if settings.dynamodb is not None:
        found.append(DynamoTarget(settings.dynamodb))
    return found
