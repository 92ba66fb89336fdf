"""Dagster resources."""

from typing import Any, Literal

from dagster import Config, ConfigurableResource, InitResourceContext

from harmonizer_assets.abandoned_runs import process_tags
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.settings import JudgeName, Settings


class JudgeOptions(Config):
    """Settings of the openai judge for one run; null leaves the home's setting."""

    profile: str | None = None
    """`fast` or `cheap`."""
    budget_usd: float | None = None
    """The most that the run may spend."""
    budget_tokens: int | None = None
    """The most tokens that the run may use."""
    llm_batch_size: int | None = None
    """Words per call; null lets the scheduler choose."""
    max_requests_in_flight: int | None = None
    """Calls in flight; null learns the number from the endpoint."""
    skip_high_confidence: bool | None = None
    """Whether similarity alone decides the clear cases."""

    def chosen(self) -> dict[str, Any]:
        """The settings that are to be replaced."""
        return {name: getattr(self, name) for name in JudgeOptions.model_fields}


class HarmonizerResource(ConfigurableResource):
    """Opens the harmonizer of a home."""

    home: str = ""
    """The home folder; empty means HARMONIZER_HOME, else ./harmonizer_home."""

    def setup_for_execution(self, context: InitResourceContext) -> None:
        """Note which process executes the run, so that it is known when that is gone."""
        if context.run is not None and context.instance is not None:
            context.instance.add_run_tags(context.run.run_id, process_tags())

    def open(self, options: JudgeOptions | None = None) -> Harmonizer:
        """Open the harmonizer, with some of the judge's settings replaced for this run."""
        home = Home.resolve(self.home or None)
        settings = Settings.load(home.settings_file)
        return Harmonizer(home, settings.with_judge(**options.chosen()) if options else settings)


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
    dead_letters: bool = False
    """Ask the words again that could not be judged."""
    options: JudgeOptions = JudgeOptions()
    """Settings of the openai judge for this run."""

    def open(self, harmonizer: HarmonizerResource) -> Harmonizer:
        """Open the harmonizer with the settings of this run."""
        return harmonizer.open(self.options)

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
