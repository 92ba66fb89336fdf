"""The command line: `harmonizer`."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harmonizer_assets import __version__
from harmonizer_assets.core.errors import (
    BudgetReached,
    HarmonizerError,
    InputError,
    PartitionsFailedError,
    SourceError,
    StoreError,
)
from harmonizer_assets.core.home import Home
from harmonizer_assets.ui import DEFAULT_PORT, serve

if TYPE_CHECKING:
    from harmonizer_assets.core.harmonizer import Harmonizer
    from harmonizer_assets.core.rules import RuleChange
    from harmonizer_assets.core.settings import JudgeName
    from harmonizer_assets.core.taxonomy import Taxonomy
    from harmonizer_assets.runs import PipelineOutcome

# Dagster, Chroma and scikit-learn take seconds to import: commands import them when they need them.

F = TypeVar("F", bound=Callable[..., None])
_FILE = click.Path(path_type=Path)
_LISTED = 20
"""Rows of a list that are shown; files hold them all."""


def _model_options(command: F) -> F:
    """Options of the openai judge; they replace the home's settings for one run."""
    for option in (
        click.option(
            "--profile",
            type=click.Choice(["fast", "cheap"]),
            help="Least time or least cost [default: fast].",
        ),
        click.option("--budget-usd", type=click.FloatRange(0), help="Spend at most this."),
        click.option("--budget-tokens", type=click.IntRange(0), help="Use at most this."),
        click.option("--batch-size", type=click.IntRange(1, 50), help="Words per call [chosen]."),
        click.option(
            "--in-flight", type=click.IntRange(1, 2_000), help="Calls in flight [learned]."
        ),
        click.option("--ask-all", is_flag=True, help="Ask about what similarity decides, too."),
    ):
        command = option(command)

    @wraps(command)
    def with_options(
        profile: str | None,
        budget_usd: float | None,
        budget_tokens: int | None,
        batch_size: int | None,
        in_flight: int | None,
        ask_all: bool,
        **others: Any,
    ) -> None:
        model_options = {
            "profile": profile,
            "budget_usd": budget_usd,
            "budget_tokens": budget_tokens,
            "llm_batch_size": batch_size,
            "max_requests_in_flight": in_flight,
            "skip_high_confidence": False if ask_all else None,
        }
        command(model_options=model_options, **others)

    return with_options  # type: ignore[return-value]


def _home_option(command: F) -> F:
    """Let `--home` stand after the command's name as well as before it."""

    @click.option("--home", type=_FILE, help="Home folder [default: ./harmonizer_home].")
    @wraps(command)
    def with_home(home: Path | None, **options: Any) -> None:
        chosen = home or click.get_current_context().find_root().params.get("home")
        command(home=Home.resolve(chosen), **options)

    return with_home  # type: ignore[return-value]


class _Group(click.Group):
    """Turns errors into one line and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except HarmonizerError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Interrupted; what is finished is kept, run again to continue.", err=True)
            sys.exit(130)
        except BrokenPipeError:
            # Whoever read our output has gone; the interpreter's own last flush must not fail too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:
            if "--verbose" in sys.argv:
                raise
            click.echo(
                f"Error: unexpected {type(error).__name__}: {error} (--verbose shows where; what "
                "is finished is kept)",
                err=True,
            )
            sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--home", type=_FILE, help="Home folder [default: ./harmonizer_home].")
@click.version_option(__version__, prog_name="harmonizer")
def main(home: Path | None) -> None:
    """Find wrong labels on the words of receipts, say why, and propose the right ones."""


@main.command()
@click.option("--words", type=_FILE, help="Words: Parquet, CSV or NDJSON.")
@click.option("--labels", type=_FILE, help="Labels: Parquet, CSV or NDJSON.")
@click.option(
    "--judge",
    type=click.Choice(["offline", "openai"]),
    help="Who decides what similarity leaves open [default: offline].",
)
@click.option("--label-type", "label_types", multiple=True, help="Only this label type.")
@click.option("--merchant", "merchants", multiple=True, help="Only this merchant: name or key.")
@click.option("--taxonomy", type=_FILE, help="Label types of this home, as YAML.")
@click.option("--batch-time", type=click.DateTime(), help="Time of the batch, UTC [default: now].")
@click.option("--refresh", is_flag=True, help="Compute partitions again though nothing changed.")
@click.option("--verbose", is_flag=True, help="Show Dagster's log.")
@_model_options
@_home_option
def run(
    *,
    home: Home,
    words: Path | None,
    labels: Path | None,
    judge: JudgeName | None,
    label_types: tuple[str, ...],
    merchants: tuple[str, ...],
    taxonomy: Path | None,
    batch_time: dt.datetime | None,
    refresh: bool,
    verbose: bool,
    model_options: dict[str, Any],
) -> None:
    """Ingest words and labels, then bring every partition that they touch up to date.

    Without files, the batches that wait in the home's inbox are ingested.
    """
    from harmonizer_assets.selection import check_label_types

    harmonizer = _open(home, taxonomy, judge, model_options)
    chosen = judge or harmonizer.settings.judge.judge
    # What can be seen to be wrong with the options comes out before anything is ingested; a
    # merchant may only come with the files.
    check_label_types(harmonizer, label_types)
    _submit(home, words, labels, batch_time)
    outcome = _run(
        harmonizer,
        chosen,
        label_types=list(label_types) or None,
        merchants=list(merchants) or None,
        refresh=refresh,
        options=model_options,
        verbose=verbose,
    )
    _show_outcome(harmonizer, outcome)
    _refuse_half_done(outcome)


@main.command("retry-dead-letters")
@click.option("--verbose", is_flag=True, help="Show Dagster's log.")
@_model_options
@_home_option
def retry_dead_letters(*, home: Home, verbose: bool, model_options: dict[str, Any]) -> None:
    """Ask the words again that could not be judged after all attempts."""
    _require_home(home)
    harmonizer = _open(home, None, "openai", model_options)
    before = harmonizer.counts().dead_letters
    if not before:
        click.echo("There are no dead letters.")
        return
    outcome = _run(harmonizer, "openai", dead_letters=True, options=model_options, verbose=verbose)
    _show_outcome(harmonizer, outcome)
    click.echo(f"{before:,} dead letters before, {outcome.counts.dead_letters:,} now.")
    _refuse_half_done(outcome)


@main.command()
@click.option("--words", type=_FILE, help="Words: Parquet, CSV or NDJSON.")
@click.option("--labels", type=_FILE, help="Labels: Parquet, CSV or NDJSON.")
@click.option("--label-type", "label_types", multiple=True, help="Only this label type.")
@click.option("--merchant", "merchants", multiple=True, help="Only this merchant: name or key.")
@click.option("--refresh", is_flag=True, help="Plan for all partitions, changed or not.")
@click.option("--json", "json_file", type=_FILE, help="Also write the plan as JSON.")
@click.option("--verbose", is_flag=True, help="Show Dagster's log.")
@_model_options
@_home_option
def plan(
    *,
    home: Home,
    words: Path | None,
    labels: Path | None,
    label_types: tuple[str, ...],
    merchants: tuple[str, ...],
    refresh: bool,
    json_file: Path | None,
    verbose: bool,
    model_options: dict[str, Any],
) -> None:
    """Say what `run --judge openai` would ask, take and cost, with one real prompt.

    Ingests and scores like `run`, but asks nobody; it needs no key.
    """
    from harmonizer_assets.selection import check_label_types

    harmonizer = _open(home, None, "offline", model_options)
    check_label_types(harmonizer, label_types)
    _submit(home, words, labels, None)
    warnings.simplefilter("ignore")
    from harmonizer_assets.runs import run_plan
    from harmonizer_assets.terminal import terminal_progress

    with terminal_progress():
        made = run_plan(
            harmonizer,
            label_types=list(label_types) or None,
            merchants=list(merchants) or None,
            refresh=refresh,
            options=model_options,
            log_level="INFO" if verbose else "CRITICAL",
        )
    if json_file is not None:
        _write_json(json_file, made.to_dict())
    click.echo(made.to_text())


@main.group()
def batch() -> None:
    """Ask through the OpenAI Batch API: within a day, at half the price."""


@batch.command("submit")
@click.option("--label-type", "label_types", multiple=True, help="Only this label type.")
@click.option("--merchant", "merchants", multiple=True, help="Only this merchant: name or key.")
@click.option("--verbose", is_flag=True, help="Show Dagster's log.")
@_model_options
@_home_option
def batch_submit(
    *,
    home: Home,
    label_types: tuple[str, ...],
    merchants: tuple[str, ...],
    verbose: bool,
    model_options: dict[str, Any],
) -> None:
    """Ingest, score, and submit the questions that are open."""
    harmonizer = _open(home, None, "openai", model_options)
    warnings.simplefilter("ignore")
    from harmonizer_assets.runs import run_submit
    from harmonizer_assets.terminal import terminal_progress

    with terminal_progress():
        ids = run_submit(
            harmonizer,
            label_types=list(label_types) or None,
            merchants=list(merchants) or None,
            options=model_options,
            log_level="INFO" if verbose else "CRITICAL",
        )
    if not ids:
        click.echo("There is nothing to ask.")
    for batch_id in ids:
        click.echo(f"{batch_id} submitted; `harmonizer batch collect` stores what it answers")


@batch.command("status")
@_home_option
def batch_status(*, home: Home) -> None:
    """List all batches as they stand now."""
    _require_home(home)
    harmonizer = _open(home, None, "offline")
    if harmonizer.has_open_batches():
        harmonizer.check_judge("openai")
        harmonizer.batch_api().refresh()
    for row in harmonizer.warehouse.query(
        "SELECT coalesce(batch_id, '-') AS id, status, words, submitted_at, error "
        "FROM llm_batches ORDER BY submitted_at DESC"
    ).to_pylist():
        submitted = f"{row['submitted_at']:%Y-%m-%d %H:%M}"
        error = f"  {row['error']}" if row["error"] else ""
        click.echo(f"{row['id']}  {row['status']}  {row['words']:,} words  {submitted}{error}")


@batch.command("collect")
@click.option("--verbose", is_flag=True, help="Show Dagster's log.")
@_home_option
def batch_collect(*, home: Home, verbose: bool) -> None:
    """Store the answers of the batches that have ended, and bring up to date what waited."""
    _require_home(home)
    harmonizer = _open(home, None, "openai")
    collected = harmonizer.batch_api().collect()
    click.echo(
        f"{collected.batches:,} batches, {collected.answers:,} answers, "
        f"{collected.unanswered:,} questions without one (asked by the next run or batch)"
    )
    if collected.answers:
        # What no batch has answered is left to be asked when somebody says so.
        outcome = _run(harmonizer, "openai", options={"budget_tokens": 0}, verbose=verbose)
        _show_outcome(harmonizer, outcome)


@batch.command("cancel")
@click.argument("batch_id")
@_home_option
def batch_cancel(*, home: Home, batch_id: str) -> None:
    """Cancel a batch; what it has answered by then can be collected."""
    _require_home(home)
    state = _open(home, None, "openai").batch_api().cancel(batch_id)
    click.echo(f"{batch_id}: {state.status}")


def _refuse_half_done(outcome: PipelineOutcome) -> None:
    """Say with the exit code what did not go all the way."""
    if outcome.set_aside:
        raise InputError(
            "; ".join(f"{source} was set aside: {error}" for source, error in outcome.set_aside)
        )
    if outcome.unread_sources:
        raise SourceError("; ".join(outcome.unread_sources))
    if outcome.failed_partitions:
        named = [
            f"{asset} {'|'.join(key)} ({_printable(error)})"
            for asset, key, error in outcome.failed_partitions[:_LISTED]
        ]
        more = " ..." if len(outcome.failed_partitions) > _LISTED else ""
        raise PartitionsFailedError(
            f"{len(outcome.failed_partitions):,} partitions failed, all others are done: "
            f"{'; '.join(named)}{more}; run again to try these again (tracebacks are in the "
            "table partition_failures)"
        )
    if outcome.stopped_at_budget:
        raise BudgetReached(
            "stopped at the budget: what was answered is kept, the rest is unresolved; run again "
            "to go on"
        )


@main.command()
@click.option(
    "--labels",
    "n_labels",
    type=click.IntRange(200, 1_000_000),
    default=5_000,
    show_default=True,
    help="How many labels to make, about.",
)
@click.option("--merchants", type=click.IntRange(1), help="How many merchants [default: by size].")
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of the generator.")
@click.option("--verbose", is_flag=True, help="Show Dagster's log.")
@_home_option
def demo(*, home: Home, n_labels: int, merchants: int | None, seed: int, verbose: bool) -> None:
    """Make sample receipts with known errors, find them, and say how well that went.

    Needs no key and no network.
    """
    from harmonizer_assets.core.sample_data import SampleSpec, write_samples

    harmonizer = _open(home, None, "offline")
    folder = home.root / "demo" / f"{n_labels}-labels-{merchants or 'some'}-merchants-seed-{seed}"
    _refuse_mixing(harmonizer, folder)
    folder.mkdir(parents=True, exist_ok=True)
    samples = write_samples(SampleSpec(labels=n_labels, merchants=merchants, seed=seed), folder)
    click.echo(
        f"{samples.n_labels:,} labels on {samples.n_words:,} words, {samples.n_errors:,} of them "
        f"wrong on purpose (seed {seed}): {folder}"
    )
    _submit(home, samples.words, samples.labels, None)
    outcome = _run(harmonizer, "offline", verbose=verbose)
    _show_outcome(harmonizer, outcome)
    click.echo("\nAgainst the known errors (offline judge, no language model):\n")
    click.echo(harmonizer.evaluate(samples.truth).to_text())
    _show_worst(harmonizer)
    shown = click.format_filename(home.root)
    click.echo(
        f"\nTables   {home.snapshot}\n"
        f"Export   harmonizer --home {shown} export outliers --out outliers.csv\n"
        f"Web UI   harmonizer --home {shown} ui"
    )


@main.command()
@click.option("--truth", type=_FILE, help="Label key, is_error, true_label [as in the settings].")
@click.option("--json", "json_file", type=_FILE, help="Also write the figures as JSON.")
@click.option("--plots", type=_FILE, help="Also write plots into this folder.")
@_home_option
def evaluate(*, home: Home, truth: Path | None, json_file: Path | None, plots: Path | None) -> None:
    """Compare what was found with what is known to be wrong."""
    from harmonizer_assets.core import quality_history

    _require_home(home)
    harmonizer = _open(home, None, "offline")
    truth = truth or harmonizer.truth_file
    if truth is None:
        raise InputError("no truth file: give --truth, or set [evaluation] truth in the settings")
    evaluation = harmonizer.evaluate(truth)
    if json_file is not None:
        _write_json(json_file, evaluation.to_dict())
    click.echo(evaluation.to_text())
    click.echo(f"promise: {harmonizer.guarantee()}")
    history = quality_history.read(harmonizer.warehouse, evaluation.truth_sha256)
    if len(history) > 1:
        earlier = " -> ".join(f"{row['f1'] or 0:.3f}" for row in history[-5:])
        click.echo(f"F1 of the last {len(history[-5:])} evaluations against this file: {earlier}")
    if plots is not None:
        from harmonizer_assets.core.plots import write_plots

        for file in write_plots(evaluation, plots):
            click.echo(f"{file} written")


@main.command()
@click.option("--words", type=_FILE, required=True, help="Words: Parquet, CSV or NDJSON.")
@click.option("--labels", type=_FILE, required=True, help="Labels that are taken as right.")
@click.option("--out", type=_FILE, required=True, help="Folder for words, labels and truth.")
@click.option("--rate", type=click.FloatRange(0, 0.5), default=0.08, show_default=True)
@click.option(
    "--validated",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of the right labels that become VALID.",
)
@click.option("--seed", type=int, default=7, show_default=True)
@click.option("--force", is_flag=True, help="Replace files that are there.")
def corrupt(
    *, words: Path, labels: Path, out: Path, rate: float, validated: float, seed: int, force: bool
) -> None:
    """Put known errors into clean labels, to measure on them what is found."""
    from harmonizer_assets.core.corrupt import CorruptionSpec, corrupt_files

    spec = CorruptionSpec(rate=rate, validated=validated, seed=seed)
    made = corrupt_files(words, labels, out, spec, force=force)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in made.errors.items())
    click.echo(
        f"{made.n_labels:,} labels, {sum(made.errors.values()):,} of them wrong ({kinds}): {out}\n"
        f"harmonizer run --words {made.words} --labels {made.labels}\n"
        f"harmonizer evaluate --truth {made.truth}"
    )


@main.command()
@click.option("--json", "json_file", type=_FILE, help="Also write all of it as JSON.")
@_home_option
def patterns(*, home: Home, json_file: Path | None) -> None:
    """List wrong labels that recur, and validated labels that contradict each other."""
    from harmonizer_assets.core.warehouse import Warehouse

    _require_home(home)
    warehouse = Warehouse(home)
    found = {
        "patterns": "SELECT * FROM label_patterns ORDER BY support DESC, pattern_id",
        "findings": "SELECT * FROM findings ORDER BY n_labels DESC, sentence",
        "contradictions": "SELECT * FROM label_contradictions ORDER BY n_a + n_b DESC, sentence",
    }
    rows = {name: warehouse.query(sql).to_pylist() for name, sql in found.items()}
    if json_file is not None:
        _write_json(json_file, rows)
    click.echo(f"{len(rows['patterns']):,} patterns; `harmonizer rules accept ID` makes one a rule")
    for row in rows["patterns"][:_LISTED]:
        click.echo(
            f"  {row['pattern_id']}  {_printable(row['sentence'])}  "
            f"({row['support']:,} wrong, {row['against']:,} right)"
        )
    click.echo(f"{len(rows['findings']):,} findings")
    for row in rows["findings"][:_LISTED]:
        click.echo(f"  {_printable(row['sentence'])}")
    click.echo(f"{len(rows['contradictions']):,} contradictions among validated labels")
    for row in rows["contradictions"][:_LISTED]:
        click.echo(f"  {_printable(row['sentence'])} ({row['merchant_key']})")


@main.group()
def rules() -> None:
    """Patterns that a person has accepted; they decide labels before anything else."""


@rules.command("list")
@_home_option
def rules_list(*, home: Home) -> None:
    """List all rules, those that were retired included."""
    from harmonizer_assets.core.rules import list_rules
    from harmonizer_assets.core.warehouse import Warehouse

    _require_home(home)
    listed = list_rules(Warehouse(home))
    if not listed:
        click.echo("There are no rules.")
    for row in listed:
        kept = f", {row['overruled']:,} validated labels stay" if row["overruled"] else ""
        by = f", by {_printable(row['decided_by'])}" if row["decided_by"] else ""
        click.echo(
            f"{row['rule_id']}  {row['status']} (version {row['version']}{by})  "
            f"{_printable(row['sentence'])}  decides {row['decides']:,} labels{kept}"
        )


def _rule_options(command: F) -> F:
    """Who changes a rule, and why."""
    command = click.option("--note", help="Why, for the record.")(command)
    return click.option("--by", default="", help="Who decides, for the record.")(command)


@rules.command("accept")
@click.argument("pattern_id")
@_rule_options
@_home_option
def rules_accept(*, home: Home, pattern_id: str, by: str, note: str | None) -> None:
    """Make the pattern PATTERN_ID a rule."""
    from harmonizer_assets.core.rules import accept_rule
    from harmonizer_assets.core.warehouse import Warehouse

    _require_home(home)
    _show_change(accept_rule(Warehouse(home), pattern_id, decided_by=by, note=note))


@rules.command("retire")
@click.argument("rule_id")
@_rule_options
@_home_option
def rules_retire(*, home: Home, rule_id: str, by: str, note: str | None) -> None:
    """Have the rule RULE_ID decide nothing any more."""
    from harmonizer_assets.core.rules import retire_rule
    from harmonizer_assets.core.warehouse import Warehouse

    _require_home(home)
    _show_change(retire_rule(Warehouse(home), rule_id, decided_by=by, note=note))


def _show_change(change: RuleChange) -> None:
    click.echo(f"{_printable(change.sentence)} (rules version {change.version})")
    if change.overruled:
        click.echo(f"{change.overruled:,} labels that a person has validated stay as they are")
    click.echo(f"`harmonizer run` computes {change.partitions:,} partitions again")


@main.command()
@click.option("--out", type=_FILE, help="Folder for the page [default: HOME/reports].")
@_home_option
def report(*, home: Home, out: Path | None) -> None:
    """Write one HTML page that says what was found."""
    _require_home(home)
    click.echo(_open(home, None, "offline").write_report(folder=out))


@main.command()
@click.argument("table")
@click.option("--out", type=_FILE, required=True, help="File: .parquet, .csv or .ndjson.")
@_home_option
def export(*, home: Home, table: str, out: Path) -> None:
    """Write TABLE to a file; its suffix names the format."""
    from harmonizer_assets.core.warehouse import Warehouse

    _require_home(home)
    rows = Warehouse(home).export(table, out)
    click.echo(f"{rows:,} rows of {table} written to {out}")


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True)
@_home_option
def ui(*, home: Home, port: int) -> None:
    """Serve Dagster's web UI and daemon, on the loopback interface only."""
    from harmonizer_assets.instance import prepare_instance, sole_daemon

    prepare_instance(home)
    with sole_daemon(home):
        click.echo(f"http://127.0.0.1:{port} (stop with Ctrl-C)")
        sys.stdout.flush()
        code = serve(home, port)
    sys.exit(code)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    try:
        path.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def _open(
    home: Home,
    taxonomy: Path | None,
    judge: JudgeName | None,
    model_options: dict[str, Any] | None = None,
) -> Harmonizer:
    """Open the harmonizer, having checked all that can be checked before any work."""
    from harmonizer_assets.core.harmonizer import Harmonizer
    from harmonizer_assets.core.settings import Settings
    from harmonizer_assets.core.taxonomy import Taxonomy

    home.ensure()
    if taxonomy is not None:
        _keep_taxonomy(home, taxonomy, Taxonomy.load(taxonomy))
    # Dagster's definitions read the taxonomy of the home that the environment names.
    os.environ["HARMONIZER_HOME"] = str(home.root)
    settings = Settings.load(home.settings_file)
    harmonizer = Harmonizer(home, settings.with_judge(**(model_options or {})))
    harmonizer.check_judge(judge or harmonizer.settings.judge.judge)
    return harmonizer


def _keep_taxonomy(home: Home, path: Path, taxonomy: Taxonomy) -> None:
    """Make a taxonomy file the home's."""
    from harmonizer_assets.core.warehouse import Warehouse

    present = Warehouse(home).query("SELECT DISTINCT label FROM labels")["label"].to_pylist()
    missing = sorted({*present} - {*taxonomy.names})
    if missing:
        raise InputError(
            f"{path}: {home.root} holds labels of types that are not in it: {', '.join(missing)}; "
            "add them, or give another --home"
        )
    if path.resolve() == home.taxonomy.resolve():
        return
    partial = home.taxonomy.with_name(f".{home.taxonomy.name}.{os.getpid()}")
    try:
        partial.write_bytes(path.read_bytes())
        partial.replace(home.taxonomy)
    except OSError as error:
        raise StoreError(f"{home.taxonomy}: cannot be written ({error.strerror})") from error


def _refuse_mixing(harmonizer: Harmonizer, folder: Path) -> None:
    """Keep the demo's sample apart from anybody's real labels, and from other samples."""
    sources = harmonizer.warehouse.query("SELECT DISTINCT source FROM batches")["source"]
    if any(str(folder) not in source for source in sources.to_pylist()):
        raise InputError(
            f"{harmonizer.home.root} holds other labels already: give the demo a home of its own "
            "(harmonizer demo --home DIR)"
        )


def _require_home(home: Home) -> None:
    if not home.database.exists():
        raise InputError(f"{home.root} holds no tables yet: run `harmonizer run` first")


def _submit(home: Home, words: Path | None, labels: Path | None, time: dt.datetime | None) -> None:
    from harmonizer_assets.core.ingest import submit_batch

    if words is not None or labels is not None:
        utc = None if time is None else time.replace(tzinfo=dt.UTC)
        submit_batch(home, words, labels, time=utc)


def _run(
    harmonizer: Harmonizer, judge: JudgeName, *, verbose: bool, **options: Any
) -> PipelineOutcome:
    warnings.simplefilter("ignore")
    from harmonizer_assets.runs import run_pipeline
    from harmonizer_assets.terminal import terminal_progress

    with terminal_progress():
        return run_pipeline(
            harmonizer, judge=judge, log_level="INFO" if verbose else "CRITICAL", **options
        )


def _show_outcome(harmonizer: Harmonizer, outcome: PipelineOutcome) -> None:
    from rich.console import Console
    from rich.table import Table

    counts = outcome.counts
    decided = harmonizer.decided_by()
    table = Table(show_header=False, box=None, pad_edge=False)
    rows: list[tuple[str, str]] = [
        (
            "labels",
            f"{counts.labels:,} in {counts.partitions:,} partitions of "
            f"{counts.merchants:,} merchants",
        ),
        ("valid", f"{counts.valid:,}"),
        ("outliers", f"{counts.outliers:,}"),
        ("unresolved", f"{counts.unresolved:,}"),
        ("decided by", ", ".join(f"{name} {count:,}" for name, count in decided.items())),
        ("triage", harmonizer.guarantee()),
        (
            "alarms",
            f"{counts.merchant_alarms:,} on merchants, {counts.receipt_alarms:,} on receipts",
        ),
        ("patterns", f"{counts.patterns:,} could become rules (harmonizer patterns)"),
        ("quarantined", f"{outcome.quarantined:,} rows by this run, {counts.quarantined:,} in all"),
        ("changed", f"{outcome.words_changed:,} words, {outcome.labels_changed:,} labels"),
        ("embedded", f"{outcome.embedded:,} documents"),
        *_usage_rows(outcome),
        (
            "computed",
            ", ".join(
                f"{asset} {count:,} partitions"
                for asset, count in outcome.partitions_computed.items()
            ),
        ),
    ]
    for name, value in rows:
        table.add_row(name, value)
    Console(soft_wrap=True).print(table)
    if outcome.unchanged:
        click.echo("Nothing had changed: 0 embeddings computed, 0 rows changed.")
    for name, severity in outcome.failed_checks:
        click.echo(f"Check {name} did not pass ({severity.lower()}).", err=True)


def _usage_rows(outcome: PipelineOutcome) -> list[tuple[str, str]]:
    if not outcome.llm:
        return []

    def total(name: str) -> int:
        return sum(row[name] for row in outcome.llm)

    costs = [row["cost_usd"] for row in outcome.llm]
    cost = "at unknown prices" if None in costs else f"{sum(costs):.4f} USD"
    return [
        (
            "model",
            f"{total('words_asked'):,} words in {total('calls'):,} calls "
            f"({total('retries'):,} repeated), {total('cache_hits'):,} known already, "
            f"{total('prompt_tokens'):,} tokens in, {total('completion_tokens'):,} out, {cost}",
        )
    ]


def _show_worst(harmonizer: Harmonizer) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    worst = harmonizer.warehouse.query(
        "SELECT line, label, outlier_score, merchant_name, reasoning FROM outliers "
        "WHERE is_outlier ORDER BY outlier_score DESC, image_id, line_id, word_id LIMIT 6"
    ).to_pylist()
    table = Table("line", "label", "score", "merchant", "why", title="Most suspicious")
    for row in worst:
        # Text, not markup: words of receipts may hold square brackets.
        table.add_row(
            Text(_printable(row["line"])),
            row["label"],
            f"{row['outlier_score']:.3f}",
            Text(_printable(row["merchant_name"] or "unknown")[:30]),
            Text(_printable(row["reasoning"])),
        )
    Console().print(table)


def _printable(text: str | None) -> str:
    """Text of receipts without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text or "")


if __name__ == "__main__":
    main()
