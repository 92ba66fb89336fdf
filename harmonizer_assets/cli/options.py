"""Options that several commands share; those of the openai judge come from its settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

import click

from harmonizer_assets.core.base.home import Home

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from harmonizer_assets.core.base.settings import JudgeOverrides

FILE: Final = click.Path(path_type=Path)
HOME_HELP: Final = "Home folder [default: $HARMONIZER_HOME, else ./harmonizer_home]."
HOME: Final = "harmonizer_assets.home"
"""The key of click's `Context.meta` under which the home of a command is."""
_LAST: Final = frozenset({"--home", "--help"})
"""Options of every command; help lists them last."""


def _resolve_home(context: click.Context, _: click.Parameter, folder: Path | None) -> Home:
    home = Home.resolve(folder or context.find_root().params.get("home"))
    context.meta[HOME] = home
    return home


# `--home` may stand after the command's name as well as before it.
home_option = click.option("--home", type=FILE, callback=_resolve_home, help=HOME_HELP)
words_option = click.option("--words", type=FILE, help="Words: Parquet, CSV or NDJSON.")
labels_option = click.option("--labels", type=FILE, help="Labels: Parquet, CSV or NDJSON.")
label_types_option = click.option(
    "--label-type", "label_types", multiple=True, help="Only this label type; may be repeated."
)
merchants_option = click.option(
    "--merchant",
    "merchants",
    multiple=True,
    help="Only this merchant, by name or key; may be repeated.",
)
verbose_option = click.option("--verbose", is_flag=True, help="Show Dagster's log.")


@dataclass(frozen=True)
class JudgeOption:
    """An option that replaces one setting of the judge for one run.

    Attributes:
        flag: how it is written, such as `--batch-size`.
        field: of `JudgeSettings`; type, bounds, choices, default and help come from there.
        help: instead of the field's docstring.
        value: what the flag sets; None makes it an option that takes a value.
    """

    flag: str
    field: str
    help: str | None = None
    value: bool | None = None

    def to_click(self) -> click.Option:
        """Make the option; its value is passed under the field's name."""
        from harmonizer_assets.core.base.settings import JudgeSettings

        field = JudgeSettings.model_fields[self.field]
        names = [self.flag, self.field]
        text = f"{self.help or ' '.join((field.description or '').split())} {self._setting(field)}"
        if self.value is None:
            return click.Option(names, type=option_type(field), help=text)
        return click.Option(
            names,
            is_flag=True,
            help=text,
            callback=lambda _context, _option, given: self.value if given else None,
        )

    def _setting(self, field: FieldInfo) -> str:
        shown = self.value is None and field.default is not None
        default = f", default: {field.default}" if shown else ""
        return f"[setting: {self.field}{default}]"


JUDGE_OPTION: Final = JudgeOption(
    "--judge", "judge", help="Who decides what similarity leaves open."
)
JUDGE_OPTIONS: Final = (
    JudgeOption("--profile", "profile"),
    JudgeOption("--budget-usd", "budget_usd"),
    JudgeOption("--budget-tokens", "budget_tokens"),
    JudgeOption("--batch-size", "llm_batch_size"),
    JudgeOption("--in-flight", "max_requests_in_flight"),
    JudgeOption(
        "--ask-all",
        "skip_high_confidence",
        help="Ask about what similarity decides, too.",
        value=False,
    ),
    JudgeOption(
        "--ignore-bought",
        "keep_bought_answers",
        help="Leave labels with a bought answer to the judge of this run again.",
        value=False,
    ),
)


def option_type(field: FieldInfo) -> click.ParamType:
    """Derive an option's type from a setting: choices of a Literal, bounds of a number.

    Raises:
        TypeError: the field is neither a Literal, an int nor a float, with or without None.
    """
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    if get_origin(field.annotation) is Literal:
        return click.Choice(kinds)
    kind = kinds[0] if len(kinds) == 1 else field.annotation
    bounds = {
        name: getattr(constraint, name)
        for constraint in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(constraint, name)
    }
    limits: dict[str, Any] = {
        "min": bounds.get("ge", bounds.get("gt")),
        "max": bounds.get("le", bounds.get("lt")),
        "min_open": "gt" in bounds,
        "max_open": "lt" in bounds,
    }
    if kind is int:
        return click.IntRange(**limits)
    if kind is float:
        return click.FloatRange(**limits)
    raise TypeError(f"no option can be made of a setting of type {field.annotation}")


class JudgeCommand(click.Command):
    """A command with the options of the openai judge, passed as one argument `overrides`.

    The options are made on first use, since they need the settings, which take longer to import
    than all of `harmonizer --help`.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """List the command's own options, then the judge's, then those of every command."""
        params = [*super().get_params(ctx), *_click_options(self.judge_options())]
        return sorted(params, key=lambda parameter: not _LAST.isdisjoint(parameter.opts))

    def judge_options(self) -> tuple[JudgeOption, ...]:
        """Name the options that come from the judge's settings."""
        return JUDGE_OPTIONS

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command with the judge's options as one object."""
        ctx.params["overrides"] = _take_overrides(ctx.params)
        return super().invoke(ctx)


class RunCommand(JudgeCommand):
    """A `JudgeCommand` that also lets people choose the judge."""

    def judge_options(self) -> tuple[JudgeOption, ...]:
        """Name the options that come from the judge's settings."""
        return (JUDGE_OPTION, *JUDGE_OPTIONS)


@cache
def _click_options(options: tuple[JudgeOption, ...]) -> list[click.Option]:
    return [option.to_click() for option in options]


def _take_overrides(params: dict[str, Any]) -> JudgeOverrides:
    from harmonizer_assets.core.base.settings import JudgeOverrides

    return JudgeOverrides(**{option.field: params.pop(option.field) for option in JUDGE_OPTIONS})
