"""Delete words and labels for good: `harmonizer delete`."""

from __future__ import annotations

from functools import partial

import click

from harmonizer_assets.cli.opening import open_home, require_tables
from harmonizer_assets.cli.options import home_option
from harmonizer_assets.core.base.home import Home

_NOT_COVERED = (
    "Not covered: files outside the home (your own files, exports, backups), answers that homes "
    "share, what the files of a Chroma server or a PostgreSQL keep until they are overwritten, "
    "logs of steps in a bucket, what the endpoint's provider keeps, accepted rules that are not "
    "for a deleted merchant alone, what people wrote into merchants.yaml, fitted models (numbers "
    "only; --models removes them), texts of one or two characters, and the ids themselves."
)
_SHARED = (
    "Answers that homes share in {url} may quote what is deleted. Remove there those whose text "
    "holds it, such as `DELETE FROM harmonizer_answers WHERE answer LIKE '%TEXT%'`, or items whose "
    "attribute `answer` does; what is gone is asked again."
)


@click.command()
@click.option("--image", "image_id", required=True, help="The image.")
@click.option("--receipt", "receipt_id", type=int, help="Only this receipt of it.")
@click.option("--line", "line_id", type=int, help="Only this line of the receipt.")
@click.option("--word", "word_id", type=int, help="Only this word of the line.")
@click.option("--label", help="Only labels of this type; the words stay.")
@click.option("--allow-again", is_flag=True, help="Accept the rows when a later batch brings them.")
@click.option(
    "--models",
    is_flag=True,
    help="Remove fitted models too, which hold no text but have learnt from it. The next run fits "
    "one anew and scores all partitions again.",
)
@click.option("--yes", is_flag=True, help="Delete; without it, only say what would go.")
@home_option
def delete(
    *,
    home: Home,
    image_id: str,
    receipt_id: int | None,
    line_id: int | None,
    word_id: int | None,
    label: str | None,
    allow_again: bool,
    models: bool,
    yes: bool,
) -> None:
    """Delete an image, a receipt, a line, a word, or labels of them, with every trace.

    It goes from tables, vectors, answers, reports, events and copies in the home. That it happened
    stays in the table `deletions`, by ids. Rows that are sent again stay away.
    """
    from harmonizer_assets.core.base.errors import InputError, StoreError
    from harmonizer_assets.core.erase import may_quote
    from harmonizer_assets.core.store.deletions import Scope
    from harmonizer_assets.dagster_compat.instance import open_instance
    from harmonizer_assets.defs.erasing import erase_from_dagster

    require_tables(home)
    if (word_id is not None and line_id is None) or (line_id is not None and receipt_id is None):
        raise InputError("a word needs its --line and --receipt, a line its --receipt")
    pipeline = open_home(home, "offline")
    scope = Scope(image_id, receipt_id, line_id, word_id, label)
    if not yes:
        counts, files, unread = pipeline.deletion.preview(scope)
        click.echo(
            f"{counts.words:,} words and {counts.labels:,} labels would be deleted, what was "
            f"computed from them, and {len(files):,} files of the home that quote them."
        )
        for path in files:
            click.echo(f"  {path.relative_to(home.root)}")
        if unread:
            click.echo(f"{len(unread):,} files or folders may not be read and would stay:")
        for path in unread:
            click.echo(f"  {path.relative_to(home.root)}")
        _say_what_stays(pipeline.settings.judge.answers)
        click.echo("Nothing was deleted. Run the command again with --yes to delete them.")
        return
    with open_instance(home) as instance:
        deleted, erased = pipeline.deletion.delete(
            scope,
            for_good=not allow_again,
            models=models,
            others=[partial(erase_from_dagster, home, instance)],
        )
    click.echo(f"{deleted.words:,} words and {deleted.labels:,} labels deleted.")
    if erased is not None:
        click.echo(
            f"With them: {erased.documents:,} documents of the vector index, {erased.rows:,} rows "
            f"and {erased.elsewhere:,} events that quoted them, {len(erased.files):,} files."
        )
        for name in erased.files:
            click.echo(f"  {name}")
    _say_what_stays(pipeline.settings.judge.answers)
    click.echo("Run `harmonizer run` to bring what depended on them up to date.")
    if erased is not None and erased.kept:
        raise StoreError(may_quote(erased.kept))


def _say_what_stays(shared: str | None) -> None:
    click.echo(_NOT_COVERED)
    if shared is not None:
        click.echo(_SHARED.format(url=shared))
