"""What commands offer and how they print; what they do is tested on real homes elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from rich.table import Table

from harmonizer_assets.cli import main
from harmonizer_assets.cli.options import JUDGE_OPTIONS, JudgeCommand, JudgeOption, option_type
from harmonizer_assets.cli.show import Column, FirstThatFits, as_text, facts, listing, show
from harmonizer_assets.core.base.settings import JudgeOverrides, JudgeSettings

VALUED = [option for option in JUDGE_OPTIONS if option.value is None]
TRIED = ["-1", "0", "1", "50", "51", "0.5", "2000", "2001", "fast", "cheap", "dear", ""]


def commands(
    command: click.Command = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """All commands and groups with what people type after `harmonizer`."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, (*path, name))


COMMANDS = dict(commands())


def overrides_of(*arguments: str) -> JudgeOverrides:
    @click.command(cls=JudgeCommand)
    def command(overrides: JudgeOverrides) -> JudgeOverrides:
        return overrides

    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    overrides: JudgeOverrides = result.return_value
    return overrides


# What is offered


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_is_a_sentence(name):
    text = COMMANDS[name].help or ""
    first = text.strip().split("\n\n")[0]
    assert first[:1].isupper()
    assert first.endswith(".")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_every_argument_is_named_in_the_commands(name):
    command = COMMANDS[name]
    for parameter in command.get_params(click.Context(command)):
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts
        else:
            assert parameter.name is not None
            assert parameter.name.upper() in (command.help or "")


def test_help_does_not_wait_for_what_only_commands_need():
    code = (
        "import sys; from click.testing import CliRunner; from harmonizer_assets.cli import main; "
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0; "
        "sys.exit(bool({'pydantic', 'rich', 'duckdb', 'numpy', 'dagster'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Options that come from settings


@pytest.mark.parametrize("option", VALUED, ids=lambda option: option.flag)
@pytest.mark.parametrize("value", TRIED)
def test_an_option_takes_what_its_setting_takes(option: JudgeOption, value: str):
    def of_the_option() -> object:
        try:
            return getattr(overrides_of(option.flag, value), option.field)
        except click.UsageError:
            return "refused"

    def of_the_setting() -> object:
        try:
            return getattr(JudgeSettings.model_validate({option.field: value}), option.field)
        except ValidationError:
            return "refused"

    assert of_the_option() == of_the_setting()


def test_options_that_are_not_given_replace_no_setting():
    overrides = overrides_of()
    assert overrides == JudgeOverrides()
    assert {getattr(overrides, option.field) for option in JUDGE_OPTIONS} == {None}


def test_ask_all_turns_the_skipping_of_clear_cases_off():
    assert overrides_of("--ask-all").skip_high_confidence is False


def test_an_options_help_names_its_setting_and_says_what_that_says():
    text = " ".join(CliRunner().invoke(main, ["run", "--help"]).output.split())
    assert "Words per call; chosen from latency, limits and prices when it is not set." in text
    assert "[setting: llm_batch_size]" in text
    assert "[setting: profile, default: fast]" in text


def test_open_bounds_stay_open():
    kind = option_type(JudgeSettings.model_fields["timeout_seconds"])
    assert isinstance(kind, click.FloatRange)
    assert (kind.min, kind.min_open) == (0, True)


def test_a_setting_of_another_type_cannot_become_an_option():
    with pytest.raises(TypeError, match="no option"):
        option_type(JudgeSettings.model_fields["reasoning_effort"])


# Printing


@pytest.fixture
def printed(capsys, monkeypatch):
    """Prints parts as where output is piped; gives the lines."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def print_(*parts) -> list[str]:
        show(*parts)
        return capsys.readouterr().out.split("\n")[:-1]

    return print_


def test_piped_output_is_plain_and_never_wrapped(printed, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    long = "word " * 200
    assert printed(facts([("a", long), ("name", "b")])) == [f"a     {long}".rstrip(), "name  b"]


def test_columns_of_the_environment_wrap_piped_output_beside_the_names(printed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    lines = printed(facts([("name", "one two three four five")]))
    assert lines == ["name  one two three", "      four five"]


def test_words_of_receipts_are_text_and_never_obeyed(printed):
    word = "[bold red]TOTAL[/] :smile: \x1b[31m\x07"
    shown = "[bold red]TOTAL[/] :smile: ?[31m?"
    assert printed(as_text(word)) == [shown]
    assert printed(facts([("line", word)])) == [f"line  {shown}"]
    assert printed(listing([Column("line")], [(word,)])) == ["line", shown]


def test_numbers_stand_under_each_other_and_missing_cells_are_empty(printed):
    columns = [Column("name"), Column("n", is_number=True), Column("note")]
    rows = [("a", "1", None), ("heading",), ("b", "1,000", "x")]
    assert printed(listing(columns, rows)) == [
        "name         n  note",
        "a            1",
        "heading",
        "b        1,000  x",
    ]


def test_a_number_without_room_is_marked_as_cut_off(printed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "4")
    assert printed(listing([Column("n", is_number=True)], [("0.1234",)])) == ["   n", "0.1…"]


@pytest.mark.parametrize(("columns", "shown"), [("10", "wide table"), ("9", "slim")])
def test_the_first_table_that_fits_is_shown(printed, monkeypatch, columns, shown):
    monkeypatch.setenv("COLUMNS", columns)
    tables: list[Table] = [listing([Column(head)], []) for head in ("wide table", "slim")]
    assert printed(FirstThatFits(tables)) == [shown]
