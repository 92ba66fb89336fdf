"""Merchants as people write them, from the command line to Dagster's partitions."""

from __future__ import annotations

import csv
import json

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.defs.partitions import MERCHANTS
from harmonizer_tests.support.cli import cli, shown_error
from harmonizer_tests.support.dagster_runs import last_materializations
from harmonizer_tests.support.environment import use_endpoint
from harmonizer_tests.support.receipts import shop_receipts, table
from harmonizer_tests.support.simulated_endpoint import simulated_endpoint

FARM, SHOUTED, NUMBERED = "Sprouts Farmers Market", "SPROUTS FARMERS MARKET ", "Sprouts #12"
NAMES = (FARM, SHOUTED, "Sprouts", NUMBERED)
TOGETHER = {merchant_key(FARM), merchant_key("Sprouts")}
APART = f"apart: [{FARM}, '{SHOUTED}', '{NUMBERED}']\n"


def partitions(home: Home) -> set[str]:
    with open_instance(home) as instance:
        return set(instance.get_dynamic_partitions(MERCHANTS))


def run(home: Home, *options: object) -> str:
    result = cli("run", *options, home=home.root)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_partitions_follow_a_split_and_a_merge_and_nothing_is_asked_again(
    home, tmp_path, monkeypatch
):
    home.settings_file.write_text("[judge]\nskip_high_confidence = false\n")
    words, labels = shop_receipts(NAMES, each=2).write(tmp_path)
    with simulated_endpoint(first_token_seconds=0.01, tokens_per_second=50_000.0) as endpoint:
        use_endpoint(monkeypatch, endpoint.url)
        told = run(home, "--judge", "openai", "--words", words, "--labels", labels)
        assert f"{NUMBERED!r} is 'Sprouts' (store number; 24 labels)" in told
        assert partitions(home) == TOGETHER
        asked = endpoint.stats()["requests"]
        assert asked
        decided = table(Pipeline(home), "label_decisions", "merchant_key", "decided_by")
        home.merchants.write_text(APART)
        told = run(home, "--judge", "openai")
        assert "2 names moved (harmonizer merchants)" in " ".join(told.split())
        assert f"{NUMBERED!r} moved from 'Sprouts' to {NUMBERED!r}" in told
        assert partitions(home) == {merchant_key(name) for name in NAMES}
        home.merchants.unlink()
        run(home, "--judge", "openai")
        # The merchants that are part of others again are partitions no more.
        assert partitions(home) == TOGETHER
        assert endpoint.stats()["requests"] == asked
    found = table(Pipeline(home), "label_decisions", "merchant_key", "decided_by")
    what = ("image_id", "line_id", "word_id", "label", "is_outlier", "suggested_label")
    assert [[row[name] for name in what] for row in found] == [
        [row[name] for name in what] for row in decided
    ]
    with open_instance(home) as instance:
        [shown] = last_materializations(instance, "labels").values()
        assert shown.metadata["merchant_moves"].value == 2
        assert len(shown.metadata["merchant_remarks"].value) == 2


def test_the_command_lists_names_and_writes_them(home, tmp_path):
    pipeline = Pipeline(home)
    shop_receipts([*NAMES, "Sproutts"], each=1).submit(pipeline, tmp_path)
    pipeline.ingest()
    as_json, as_csv = tmp_path / "names.json", tmp_path / "names.csv"
    result = cli("merchants", "--json", as_json, "--csv", as_csv, home=home.root)
    assert result.returncode == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "5 names of 3 merchants"
    assert any(line.startswith(f"{NUMBERED} Sprouts store number 20") for line in lines)
    assert "1 pairs of merchants are alike and stay apart" in lines
    assert "Sprouts Sproutts" in lines
    names = {row["name"]: row for row in json.loads(as_json.read_text())["names"]}
    assert set(names) == {*NAMES, "Sproutts"}
    assert names[NUMBERED]["how"] == "store number"
    with as_csv.open(newline="") as file:
        assert {row["name"] for row in csv.DictReader(file)} == set(names)


def test_a_mistake_in_the_file_is_one_line_that_says_where(home, tmp_path):
    words, labels = shop_receipts(NAMES[:1], each=1).write(tmp_path)
    home.merchants.write_text("merchants: {Sprouts: Sprouts Market}\n")
    result = cli("run", "--words", words, "--labels", labels, home=home.root)
    assert result.returncode == 2
    assert f"{home.merchants}: merchants.Sprouts: " in shown_error(result)
