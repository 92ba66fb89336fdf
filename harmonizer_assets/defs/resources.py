"""Dagster resources, and the configuration of runs."""

import threading
from collections.abc import Iterable
from typing import Any, Final, Literal

from dagster import Config, ConfigurableResource, DagsterRun, InitResourceContext
from pydantic import Field, create_model

from harmonizer_assets.core.base.collector import collect_garbage_seldom
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.core.base.settings import BUDGETS, JudgeOverrides, Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.account import Account
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.dagster_compat.run_health import process_tags
from harmonizer_assets.dagster_compat.tags import BACKFILL_ID_TAG, ROOT_RUN_ID_TAG

LAUNCH_TAG: Final = "harmonizer/launch"
"""On a run that one command starts after another one: the first of them, whose budget it shares."""


def _plain(annotation: Any) -> Any:
    """Return the type of a setting in Dagster's configuration, where choices are text."""
    text = "Literal" in str(annotation)
    kinds = (kind for kind in (bool, int, float) if kind.__name__ in str(annotation))
    return (str if text else next(kinds, str)) | None


def _options(model: str, doc: str, settings: Iterable[str]) -> type[Config]:
    """Make the configuration of some of the judge's settings, each of them null by default."""
    described = JudgeOverrides.described()
    fields: Any = {
        name: (
            _plain(described[name].annotation),
            Field(default=None, description=described[name].description),
        )
        for name in settings
    }
    return create_model(model, __base__=Config, __doc__=doc, **fields)


_OVERRIDES = tuple(JudgeOverrides.described())
JudgeOptions = _options(
    "JudgeOptions",
    "Settings of the openai judge for one run; null leaves the home's setting.",
    _OVERRIDES,
)
BudgetOptions = _options(
    "BudgetOptions",
    "Budgets of an embedder behind an endpoint for one run; null leaves the home's.",
    BUDGETS,
)


class HarmonizeConfig(Config):
    """Which partitions a run is to bring up to date, and how."""

    label_types: list[str] | None = Field(
        default=None, description="Only these label types; null means all."
    )
    merchants: list[str] | None = Field(
        default=None, description="Only these merchants, by key or display name; null means all."
    )
    judge: Literal["settings", "offline", "openai"] = Field(
        default="settings",
        description="Who decides what similarity leaves open: one of the judges, or as the "
        "settings say.",
    )
    refresh: bool = Field(
        default=False,
        description="Compute partitions again although their labels have not changed.",
    )
    dead_letters: bool = Field(
        default=False, description="Ask the words again that could not be judged."
    )
    collect: bool = Field(
        default=False,
        description="Store the answers of batch jobs that have ended, and compute the partitions "
        "that they are about; no others.",
    )
    options: JudgeOptions = Field(  # type: ignore[valid-type]
        default=JudgeOptions(), description="Settings of the openai judge for this run."
    )

    def overrides(self) -> JudgeOverrides:
        """Return the judge's settings that are replaced for this run."""
        return JudgeOverrides(**{name: getattr(self.options, name) for name in _OVERRIDES})

    def to_options(
        self, run: DagsterRun, on_progress: ProgressFn, stop: threading.Event
    ) -> RunOptions:
        """Return the options as the pipeline takes them."""
        account = account_of(run)
        return RunOptions(
            run_id=run.run_id,
            launch_id=account.launch_id,
            backfill_id=account.backfill_id,
            judge=None if self.judge == "settings" else self.judge,
            label_types=self.label_types,
            merchants=self.merchants,
            refresh=self.refresh,
            dead_letters=self.dead_letters,
            collect=self.collect,
            on_progress=on_progress,
            stop=stop,
        )


class CorrectionsConfig(Config):
    """Whether labels are corrected, and on whose behalf."""

    commit: bool = Field(
        default=False, description="Correct labels; otherwise only say which would be."
    )
    actor: str = Field(default="dagster", description="Who applies them, for the record.")
    note: str | None = Field(default=None, description="Why, for the record.")


def account_of(run: DagsterRun) -> Account:
    """Return the account that a run's spending is charged to."""
    launch = run.tags.get(LAUNCH_TAG) or run.tags.get(ROOT_RUN_ID_TAG, run.run_id)
    return Account(run.run_id, launch, run.tags.get(BACKFILL_ID_TAG))


class HomeResource(ConfigurableResource):
    """Opens the pipeline of a home."""

    home: str = Field(
        default="", description="The home folder; empty means HARMONIZER_HOME, else the default."
    )

    def setup_for_execution(self, context: InitResourceContext) -> None:
        """Set up this process, and tag the run with it: that it is gone is noticed by the tags."""
        collect_garbage_seldom()
        if context.run is not None and context.instance is not None:
            context.instance.add_run_tags(context.run.run_id, process_tags())

    def open(self, overrides: JudgeOverrides | None = None) -> Pipeline:
        """Open the pipeline, with some of the judge's settings replaced for this run."""
        home = Home.resolve(self.home or None)
        home.keep_private()
        return Pipeline(home, Settings.load(home.settings_file).with_judge(overrides))
