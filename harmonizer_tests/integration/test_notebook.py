"""The notebook of the documentation, run as it stands."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"


@pytest.fixture(scope="module")
def record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_record", DOCS / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_runs_and_ends_at_a_corrected_file(record, tmp_path):
    notebook = json.loads((EXAMPLES / "formats.ipynb").read_text(encoding="utf-8"))
    shutil.copy(EXAMPLES / "receipts.jsonl", tmp_path)
    record.run_cells(notebook, tmp_path)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    printed = ["".join(line for one in cell["outputs"] for line in one["text"]) for cell in cells]
    assert printed[0] == "1021 words, 745 labels, 0 left out\n"
    assert "5 labels corrected" in printed[2]
    assert "lines differ" in printed[3]
    before = (tmp_path / "receipts.jsonl").read_text().splitlines()
    after = (tmp_path / "corrected.jsonl").read_text().splitlines()
    changed = [json.loads(b) for a, b in zip(before, after, strict=True) if a != b]
    assert 0 < len(changed) <= 5


def test_a_cell_that_fails_fails_the_notebook(record, tmp_path):
    notebook = {"cells": [{"cell_type": "code", "source": ["1 / 0"]}]}
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        record.run_cells(notebook, tmp_path)
