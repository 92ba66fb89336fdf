"""The command line: `harmonizer`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from harmonizer_assets import __version__
from harmonizer_assets.cli.backup import backup, restore
from harmonizer_assets.cli.batch import batch
from harmonizer_assets.cli.check import check
from harmonizer_assets.cli.corrections import apply, history, push, redo, undo
from harmonizer_assets.cli.delete import delete
from harmonizer_assets.cli.demo import demo
from harmonizer_assets.cli.evaluate import corrupt, evaluate
from harmonizer_assets.cli.exchange import exchange
from harmonizer_assets.cli.export import export, report
from harmonizer_assets.cli.importing import import_formats
from harmonizer_assets.cli.merchants import merchants
from harmonizer_assets.cli.next import next_labels
from harmonizer_assets.cli.options import FILE, HOME, HOME_HELP
from harmonizer_assets.cli.plan import plan
from harmonizer_assets.cli.propose import propose_labels
from harmonizer_assets.cli.prune import prune
from harmonizer_assets.cli.published import published
from harmonizer_assets.cli.review import review
from harmonizer_assets.cli.rules import patterns, rules
from harmonizer_assets.cli.run import retry_dead_letters, run
from harmonizer_assets.cli.signals import Interrupts, ignore_interrupts, interrupts
from harmonizer_assets.cli.ui import ui
from harmonizer_assets.cli.units import units
from harmonizer_assets.cli.worker import worker
from harmonizer_assets.cli.writing_back import write_back_file
from harmonizer_assets.core.base.collector import collect_garbage_seldom
from harmonizer_assets.core.base.errors import ConfigurationError, HarmonizerError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.interrupts import interrupts_raised
from harmonizer_assets.core.base.secrets import secrets_removed

# Dagster, Chroma, scikit-learn, pydantic and rich take up to seconds to import: the modules of
# this package import them inside the commands that need them.


_MAY_BE_REFUSED: Final = (StoreError, ConfigurationError)
"""Errors that come of files of the home as well."""


class _Group(click.Group):
    """Turns errors into one line and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        collect_garbage_seldom()
        with interrupts() as noted:
            return self._invoke(context, noted)

    def _invoke(self, context: click.Context, noted: Interrupts) -> Any:
        try:
            with secrets_removed(), interrupts_raised():
                return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            _end_interrupted(noted)
        except HarmonizerError as error:
            if noted.came():
                _end_interrupted(noted)
            said = str(error)
            if isinstance(error, _MAY_BE_REFUSED):
                said = _with_refused_file(context, said)
            click.echo(f"Error: {said}", err=True)
            sys.exit(error.exit_code)
        except BrokenPipeError:
            # The reader of our output has gone; the interpreter's last flush must not fail as well.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:
            if noted.came():
                _end_interrupted(noted)
            if "--verbose" in sys.argv:
                raise
            said = (
                f"unexpected {type(error).__name__}: {error} (--verbose shows where; what is "
                "finished is kept)"
            )
            click.echo(f"Error: {_with_refused_file(context, said, is_expected=False)}", err=True)
            sys.exit(1)


def _with_refused_file(context: click.Context, said: str, *, is_expected: bool = True) -> str:
    """Name the file of the home that this user may not read and write: a likely cause of an error.

    An error of ours that names it says what to do as well.
    """
    home: Home | None = context.meta.get(HOME)
    path = home.refused() if home is not None else None
    if path is None or (is_expected and str(path) in said):
        return said
    return (
        f"this user may not read and write {path}: its owner can allow it with `chmod u+rw`, or "
        f"give it to this user with `chown`. What failed: {said}"
    )


def _end_interrupted(noted: Interrupts) -> NoReturn:
    """Say in one line that a signal has ended the command; another signal does not disturb it."""
    ignore_interrupts()
    click.echo("Interrupted; what is finished is kept, run again to continue.", err=True)
    sys.exit(noted.exit_code())


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--home", type=FILE, help=HOME_HELP)
@click.version_option(__version__, prog_name="harmonizer")
def main(home: Path | None) -> None:
    """Find wrong labels on the words of receipts, say why, and propose the right ones."""


for command in (
    apply,
    backup,
    batch,
    check,
    corrupt,
    demo,
    delete,
    evaluate,
    exchange,
    export,
    history,
    import_formats,
    merchants,
    next_labels,
    patterns,
    plan,
    propose_labels,
    prune,
    published,
    push,
    redo,
    report,
    restore,
    retry_dead_letters,
    review,
    rules,
    run,
    ui,
    undo,
    write_back_file,
    units,
    worker,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
