"""Dagster resources."""

from typing import Literal

from dagster import ConfigurableResource

from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.settings import JudgeName


class HarmonizerResource(ConfigurableResource):
    """Opens the harmonizer of a home."""

    home: str = ""
    """The home folder; empty means HARMONIZER_HOME, else ./harmonizer_home."""

    def open(self) -> Harmonizer:
        """Open the harmonizer."""
        return Harmonizer(Home.resolve(self.home or None))


class PartitionSelection(ConfigurableResource):
    """Which partitions a `harmonize_partitions` run is to bring up to date, and how."""

    label_types: list[str] | None = None
    """Only these label types; null means all."""
    merchants: list[str] | None = None
    """Only these merchant keys; null means all."""
    judge: Literal["settings", "offline", "openai"] = "settings"
    """Who decides what similarity leaves open: one of the judges, or as the settings say."""
    refresh: bool = False
    """Compute partitions again although their labels have not changed."""

    def judge_of(self, harmonizer: Harmonizer) -> JudgeName:
        """The judge that decides."""
        return named_judge(self.judge, harmonizer)

    def stale(self, harmonizer: Harmonizer) -> list[PartitionKey]:
        """The selected partitions that are not up to date."""
        return harmonizer.stale_partitions(
            self.judge_of(harmonizer), self.label_types, self.merchants, refresh=self.refresh
        )

    def all(self, harmonizer: Harmonizer) -> list[PartitionKey]:
        """All selected partitions that hold labels."""
        return harmonizer.partitions(self.label_types, self.merchants)


def named_judge(
    name: Literal["settings", "offline", "openai"], harmonizer: Harmonizer
) -> JudgeName:
    """The judge that run configuration names."""
    return harmonizer.settings.judge.judge if name == "settings" else name
