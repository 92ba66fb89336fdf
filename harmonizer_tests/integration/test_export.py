"""Exports: safe in spreadsheets, lossless on the way back, and never over a file by mistake."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from pathlib import Path

import pytest

from harmonizer_assets.core.base.errors import InputError, StoreError
from harmonizer_assets.core.base.formulas import MARKER
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.store import Warehouse, export_table
from harmonizer_assets.dagster_compat.instance import prepare_instance
from harmonizer_tests.support.cli import cli, shown_error
from harmonizer_tests.support.receipts import WORD_COLUMNS, shop_receipts, table, write_csv

FORMULAS = (
    *("=cmd|' /C calc'!A0", "+1+cmd", "-2+3", "@SUM(1)", " =1", "x;=1", "'=1", "\uff1d1", "-"),
    *("-12.50", "+1,234.50", "plain", "it's", 'a "quote"', "1,5"),
)
ODD = '=HYPERLINK("x")'


@pytest.fixture
def formulas(pipeline, tmp_path) -> Pipeline:
    """A home with words, and an extra column, that a spreadsheet would run."""
    words = shop_receipts().words[: len(FORMULAS)]
    for word, text in zip(words, FORMULAS, strict=True):
        word["text"], word[ODD] = text, text
    submit(pipeline, write_csv(tmp_path / "words.csv", (*WORD_COLUMNS, ODD), words))
    return pipeline


def submit(pipeline: Pipeline, words) -> None:
    submit_batch(pipeline.home, words, None)
    assert not pipeline.ingest().failed


def cells(path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.reader(file)]


def test_no_cell_of_an_exported_csv_is_run_by_a_spreadsheet(formulas, tmp_path):
    export_table(formulas.warehouse, "words", tmp_path / "out.csv")
    rows = cells(tmp_path / "out.csv")
    assert MARKER in rows[0]
    for cell in (cell for row in rows for cell in row):
        assert not re.match(r"\s*[=+@\uff1d-]", cell) or re.fullmatch(r"[+-][0-9.,]+", cell), cell
    assert "-12.50" in {row[rows[0].index("text")] for row in rows}


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_exported_comes_back_equal(formulas, tmp_path, exact):
    export_table(formulas.warehouse, "words", tmp_path / "out.csv", exact=exact)
    other = Pipeline(Home(tmp_path / "other").ensure())
    submit(other, tmp_path / "out.csv")
    assert table(other, "words", "batch_id", "batch_time") == table(
        formulas, "words", "batch_id", "batch_time"
    )


def test_an_exact_export_holds_the_texts_as_they_are(formulas, tmp_path):
    export_table(formulas.warehouse, "words", tmp_path / "out.csv", exact=True)
    header, *rows = cells(tmp_path / "out.csv")
    assert ODD in header
    assert MARKER not in header
    assert {row[header.index("text")] for row in rows} == {*FORMULAS}


def test_an_export_without_formulas_has_no_further_column(pipeline, tmp_path):
    words, _ = shop_receipts().write(tmp_path / "files")
    submit(pipeline, words)
    export_table(pipeline.warehouse, "words", tmp_path / "out.csv")
    assert MARKER not in cells(tmp_path / "out.csv")[0]


def test_an_export_onto_a_file_asks_for_overwrite(formulas, tmp_path):
    out = tmp_path / "mine.csv"
    out.write_text("mine")
    arguments = ("export", "words", "--out", out)
    refused = cli(*arguments, home=formulas.home.root)
    assert refused.returncode == 2
    assert f"{out} is there already" in shown_error(refused)
    assert "--overwrite" in shown_error(refused)
    assert out.read_text() == "mine"
    assert cli(*arguments, "--overwrite", "--exact", home=formulas.home.root).returncode == 0
    assert ODD in cells(out)[0]


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="no folder that even root cannot write")
@pytest.mark.parametrize("suffix", ["csv", "parquet", "ndjson"])
def test_an_export_into_a_folder_that_cannot_be_written_names_the_file(formulas, suffix):
    with pytest.raises(InputError, match=rf"^/proc/x\.{suffix}: cannot be written"):
        export_table(formulas.warehouse, "words", Path(f"/proc/x.{suffix}"))


@pytest.fixture
def read_only_home():
    """A home with words that this process may read and not write, and a folder that it may."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pipeline = Pipeline(Home(root / "home"))
        words, _ = shop_receipts().write(root / "files")
        submit(pipeline, words)
        (root / "out").mkdir()
        for path in (root, *root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (root / "out").chmod(0o777)
        user = os.geteuid()
        for path in (root / "home", *(root / "home").rglob("*")):
            path.chmod(path.stat().st_mode & 0o555)
        if user == 0:
            os.seteuid(65_534)
        try:
            yield root
        finally:
            os.seteuid(user)
            for path in (root / "home", *(root / "home").rglob("*")):
                path.chmod(0o755)


def test_a_home_that_is_read_only_is_exported_and_what_would_write_says_so(read_only_home):
    home, out = Home(read_only_home / "home"), read_only_home / "out"
    assert export_table(Warehouse(home), "words", out / "words.csv") > 0
    message = f"the home {home.root} cannot be written: .* read-only for this user; check its owner"
    for write in (
        home.ensure,
        lambda: prepare_instance(home),
        lambda: Warehouse(home).write(lambda con: con.execute("DELETE FROM words")),
        lambda: submit_batch(home, read_only_home / "files" / "words.csv", None),
    ):
        with pytest.raises(StoreError, match=message):
            write()


def test_an_export_into_a_folder_that_nobody_may_enter_names_the_file(read_only_home):
    folder = read_only_home / "out" / "closed"
    folder.mkdir(mode=0o000)
    with pytest.raises(InputError, match=r"closed/words\.csv: cannot be written \(Permission"):
        export_table(Warehouse(Home(read_only_home / "home")), "words", folder / "words.csv")
    folder.chmod(0o700)


def test_an_export_onto_a_folder_names_it(formulas, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv: cannot be written"):
        export_table(formulas.warehouse, "words", tmp_path / "folder.csv", overwrite=True)
    assert [*tmp_path.glob(".folder*")] == []
