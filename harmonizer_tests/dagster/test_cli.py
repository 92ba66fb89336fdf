from __future__ import annotations

import json
import re
import signal
import socket
import sys
import time
from pathlib import Path

import duckdb
import pytest

from harmonizer_assets.cli.show_outcome import show_worst
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.measure.samples.receipts import SampleSpec, write_samples
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.dagster_compat.instance import sole_daemon
from harmonizer_tests.support.cli import cli, cli_on_terminal, shown_error, started
from harmonizer_tests.support.modes import modes_count
from harmonizer_tests.support.receipts import OFFLINE, harmonize, shop_receipts, table
from harmonizer_tests.support.served import wait_for


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> dict[str, Path]:
    """A home that has been run once, without pictures, with the files that went in."""
    folder = tmp_path_factory.mktemp("shop")
    receipts = shop_receipts(["Trader Joe's", "O'Reilly | Sons", "日本"])
    words, labels = receipts.write(folder)
    wrong = set(receipts.wrong)
    truth = folder / "truth.ndjson"
    key = ("image_id", "receipt_id", "line_id", "word_id", "label")
    truth.write_text(
        "".join(
            json.dumps(
                {
                    **{name: row[name] for name in key},
                    "is_error": tuple(row[name] for name in key) in wrong,
                    "true_label": "GRAND_TOTAL" if row["line_id"] == 7 else row["label"],
                }
            )
            + "\n"
            for row in receipts.labels
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        result = cli("run", "--words", words, "--labels", labels, home=folder / "home")
    assert result.returncode == 0, result.stderr
    assert "outliers" in result.stdout
    return {"home": folder / "home", "words": words, "labels": labels, "truth": truth}


def test_a_second_run_says_that_nothing_changed(shop):
    result = cli("run", "--words", shop["words"], "--labels", shop["labels"], home=shop["home"])
    assert result.returncode == 0
    assert "0 embeddings computed, 0 rows changed" in result.stdout


def test_home_may_stand_after_the_commands_name(shop, tmp_path):
    out = tmp_path / "outliers.csv"
    result = cli("export", "outliers", "--out", out, "--home", shop["home"])
    assert result.returncode == 0
    assert "GRAND_TOTAL" in out.read_text()


def test_home_may_come_from_the_environment(shop, tmp_path):
    out = tmp_path / "decisions.parquet"
    result = cli("export", "label_decisions", "--out", out, HARMONIZER_HOME=str(shop["home"]))
    assert result.returncode == 0
    assert duckdb.sql(f"SELECT count(*) FROM '{out}'").fetchone() == (
        len(shop["labels"].read_text().splitlines()) - 1,
    )


def test_evaluate_prints_and_writes_the_same_figures(shop, tmp_path):
    figures = tmp_path / "figures.json"
    result = cli("evaluate", "--truth", shop["truth"], "--json", figures, home=shop["home"])
    assert result.returncode == 0
    overall = json.loads(figures.read_text())["overall"]
    assert (overall["errors"], overall["found"]) == (3, 3)
    assert overall["precision"] == overall["recall"] == overall["auprc"] == 1.0
    assert overall["suggestion_accuracy"] == 1.0
    assert ["all", "144", "3", "3"] in [line.split()[:4] for line in result.stdout.splitlines()]


def test_an_evaluation_fits_into_80_columns(shop):
    result = cli("evaluate", "--truth", shop["truth"], home=shop["home"], COLUMNS="80")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("MERCHANT_NAME ") for line in lines)
    assert ["all", "144", "3", "3"] in [line.split()[:4] for line in lines]


@pytest.mark.parametrize("columns", [80, 200])
def test_a_suspicious_label_takes_a_few_lines_whatever_the_width(
    shop, columns, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", str(columns))
    show_worst(Pipeline(Home(shop["home"])))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= columns
    title, *findings = shown.strip().split("\n\n")
    assert title == "Most suspicious"
    assert len(findings) == 3
    for finding in findings:
        head, line, *reason = finding.splitlines()
        assert re.match(r"[01]\.\d{3}  [A-Z_]+ → GRAND_TOTAL   \S", head)
        assert re.match(r" {7}.*\[\S+\]", line)
        assert "GRAND_TOTAL" in reason[0]
        assert len(reason) <= 400 / columns + 1


def test_a_terminal_gets_tables_that_fit_it(shop):
    code, output = cli_on_terminal(
        "evaluate", "--truth", shop["truth"], home=shop["home"], columns=80
    )
    assert code == 0, output
    assert "\x1b[1m" in output
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()
    assert max(map(len, lines)) <= 80
    assert ["all", "144", "3", "3"] in [line.split()[:4] for line in lines]


def test_a_readers_shell_finds_the_tables_in_the_snapshot(shop):
    with duckdb.connect(Home(shop["home"]).snapshot, read_only=True) as reader:
        assert reader.execute("SELECT count(*) FROM outliers WHERE is_outlier").fetchone() == (3,)


def test_the_classic_rule_and_a_selection_of_partitions(shop, tmp_path):
    home = Home(tmp_path / "home").ensure()
    home.settings_file.write_text("[similarity]\nscorer = 'count_rule'\n")
    result = cli(
        "run",
        *("--words", shop["words"], "--labels", shop["labels"]),
        *("--label-type", "DATE", "--merchant", "Trader Joe's"),
        home=home.root,
    )
    assert result.returncode == 0, result.stderr
    rows = table(Pipeline(home), "similarity_matches")
    assert {(row["label_type"], row["scorer"]) for row in rows} == {("DATE", "count_rule")}
    assert len({row["merchant_key"] for row in rows}) == 1
    assert "all_partitions_current did not pass" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "--labels", "nowhere.csv"], "nowhere.csv: no such file"),
        (["run", "--judge", "oracle"], "'oracle' is not one of"),
        (["run", "--judge", "openai"], "set OPENAI_API_KEY"),
        (["run", "--label-type", "GRAND_TOTL"], "did you mean 'GRAND_TOTAL'"),
        (["run", "--merchant", "Trader Jo"], "did you mean"),
        (["run", "--taxonomy", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["evaluate", "--truth", "nowhere.csv"], "nowhere.csv: no such file"),
        (["export", "secrets", "--out", "x.csv"], "no table 'secrets'"),
        (["export", "words", "--out", "x.doc"], "suffix names the format"),
        (["frobnicate"], "No such command"),
    ],
)
def test_bad_usage_exits_with_2_and_one_clear_message(shop, arguments, complaint):
    result = cli(*arguments, home=shop["home"], OPENAI_API_KEY="")
    assert result.returncode == 2
    assert complaint in shown_error(result)


def test_a_home_without_tables_is_said_to_be_one(tmp_path):
    result = cli("export", "words", "--out", tmp_path / "x.csv", home=tmp_path / "none")
    assert result.returncode == 2
    assert "run `harmonizer run` first" in shown_error(result)


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("prune", "--yes"), ".pruned"),
        (("prune",), "dagster/history/runs.db"),
        (("run",), "dagster/history/runs.db"),
        (("run", "--refresh"), "chroma/chroma.sqlite3"),
    ],
)
def test_a_file_that_this_user_may_not_read_is_named_with_the_remedy(shop, command, file):
    (path,) = shop["home"].glob(file)
    path.chmod(0)
    with modes_count():
        result = cli(*command, home=shop["home"])
    path.chmod(0o600)
    assert result.returncode != 0
    assert shown_error(result).startswith(
        f"Error: this user may not read and write {path}: its owner can allow it with `chmod u+rw`"
    )


@pytest.mark.parametrize(
    ("command", "file", "remedy"),
    [
        ("report", "harmonizer.duckdb", "(check who owns the home folder)"),
        ("run", "dagster/dagster.yaml", "see that it belongs to the user who runs this"),
    ],
)
def test_an_error_that_names_the_file_itself_says_what_to_do_alone(shop, command, file, remedy):
    path = shop["home"] / file
    path.chmod(0)
    with modes_count():
        result = cli(command, home=shop["home"])
    path.chmod(0o600)
    said = shown_error(result)
    assert said.startswith(f"Error: {path}: ")
    assert said.endswith(remedy)


def test_a_truth_file_of_other_labels_is_refused(shop, tmp_path):
    truth = tmp_path / "truth.csv"
    truth.write_text("image_id,receipt_id,line_id,word_id,label,is_error\nx,1,1,1,DATE,true\n")
    result = cli("evaluate", "--truth", truth, home=shop["home"])
    assert result.returncode == 2
    assert "none of its 1 rows names a label" in shown_error(result)


def test_a_broken_file_changes_nothing(shop, tmp_path):
    broken = tmp_path / "labels.parquet"
    broken.write_bytes(b"PAR1PAR1")
    before = table(Pipeline(Home(shop["home"])), "labels")
    result = cli("run", "--labels", broken, home=shop["home"])
    assert result.returncode == 2
    assert str(broken) in shown_error(result)
    assert table(Pipeline(Home(shop["home"])), "labels") == before


def test_the_port_of_the_ui_must_be_free(shop):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = cli("ui", "--port", port, home=shop["home"])
    assert result.returncode == 2
    assert f"port {port} is taken" in shown_error(result)


def test_a_home_is_served_once_since_two_daemons_would_do_everything_twice(shop):
    with sole_daemon(Home(shop["home"])):
        result = cli("ui", home=shop["home"])
    assert result.returncode == 2
    assert "is served already" in shown_error(result)


def test_an_endpoint_that_refuses_the_key_fails_the_run_without_showing_it(shop, tmp_path):
    from harmonizer_tests.support.chat_server import chat_server

    home = Home(tmp_path / "home").ensure()
    home.settings_file.write_text("[similarity]\nvalid_below = 0.001\noutlier_above = 0.999\n")
    with chat_server() as server:
        server.faults, server.error_code = [401] * 100, "invalid_api_key"
        result = cli(
            "run",
            *("--words", shop["words"], "--labels", shop["labels"], "--judge", "openai"),
            home=home.root,
            OPENAI_API_KEY="sk-test-very-secret",
            OPENAI_BASE_URL=server.url,
        )
    assert result.returncode == 1
    assert "refuses the key" in shown_error(result)
    files = [path for path in home.root.rglob("*") if path.is_file()]
    assert files
    assert all(b"sk-test-very-secret" not in path.read_bytes() for path in files)


def runs_begun(home: Path) -> int:
    """How many runs have a log of their own."""
    logs = (home / "dagster" / "history" / "runs").glob("*.db")
    return sum(log.name != "index.db" for log in logs)


def test_a_run_that_is_killed_continues_and_ends_like_an_undisturbed_one(tmp_path):
    samples = write_samples(SampleSpec(labels=300), tmp_path)
    files = ("--words", samples.words, "--labels", samples.labels)
    undisturbed = Pipeline(Home(tmp_path / "undisturbed").ensure())
    submit_batch(undisturbed.home, samples.words, samples.labels)
    harmonize(undisturbed)
    for runs, pause in ((1, 0.5), (2, 1.0)):
        with started("run", *files, home=tmp_path / "killed") as process:
            wait_for(lambda runs=runs: runs_begun(tmp_path / "killed") == runs)
            time.sleep(pause)
            process.kill()
        assert process.returncode == -signal.SIGKILL
    assert cli("run", *files, home=tmp_path / "killed").returncode == 0
    killed = Pipeline(Home(tmp_path / "killed"))
    for name in ("label_decisions", "outliers", "similarity_matches", "merchant_alarms"):
        assert table(killed, name) == table(undisturbed, name)


def test_two_runs_at_the_same_time_both_succeed_and_lose_nothing(tmp_path):
    home, counts, runs = tmp_path / "home", [], []
    for number in range(2):
        receipts = shop_receipts([f"Shop {number}", f"Cafe {number}"], images=f"{number}-image")
        counts.append(len(receipts.labels))
        words, labels = receipts.write(tmp_path / str(number))
        runs.append(("run", "--words", words, "--labels", labels))
    with started(*runs[0], home=home) as process:
        # One is in this process, from the moment at which the other one begins.
        wait_for(lambda: runs_begun(home))
        assert cli(*runs[1], home=home).returncode == 0
        assert process.poll() is None, "they did not run at the same time"
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert cli("run", home=home).returncode == 0
    pipeline = Pipeline(Home(home))
    assert pipeline.tables.counts().labels == sum(counts)
    assert pipeline.stale(OFFLINE) == []


@pytest.mark.pictures
def test_corrupt_says_how_to_run_and_evaluate_what_it_made(shop, tmp_path, monkeypatch):
    out = tmp_path / "noisy"
    result = cli(
        "corrupt", "--words", shop["words"], "--labels", shop["labels"], "--out", out, "--rate", 0.2
    )
    assert result.returncode == 0, result.stderr
    assert f"evaluate --truth {out / 'truth.parquet'}" in result.stdout
    home = tmp_path / "home"
    made = ("--words", out / "words.parquet", "--labels", out / "labels.parquet")
    # Only the evaluation is to draw.
    with monkeypatch.context() as during:
        during.setitem(sys.modules, "matplotlib", None)
        run = cli("run", *made, home=home)
    assert run.returncode == 0, run.stderr
    evaluated = cli(
        "evaluate", "--truth", out / "truth.parquet", "--plots", tmp_path / "p", home=home
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert (tmp_path / "p" / "reliability.png").exists()
    again = cli("corrupt", "--words", shop["words"], "--labels", shop["labels"], "--out", out)
    assert again.returncode == 2
    assert "--force" in shown_error(again)


def test_evaluate_without_a_truth_file_says_what_to_give(shop):
    result = cli("evaluate", home=shop["home"])
    assert result.returncode == 2
    assert "give --truth" in shown_error(result)
