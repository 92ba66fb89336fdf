"""What the contracts of `[tool.importlinter]` cannot express."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import harmonizer_assets

PACKAGE = Path(harmonizer_assets.__file__).parent


def test_core_can_be_used_where_dagster_is_not_imported():
    code = (
        "import sys, harmonizer_assets.core.pipeline; "
        "sys.exit(any(name.split('.')[0] == 'dagster' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_the_warehouse_opens_the_database():
    openers = {
        path.name
        for path in PACKAGE.rglob("*.py")
        if "duckdb.connect(" in path.read_text(encoding="utf-8")
    }
    # Ingest and corrupt open private scratch databases, and answers that homes share may be in a
    # file of their own: never the home's. Whoever publishes reads the read-only copy.
    assert openers == {"database.py", "staging.py", "corrupt.py", "duckdb_file.py", "copied.py"}


def test_no_window_has_a_filter():
    """With another window of a finer partition beside it, DuckDB takes the square of the rows."""
    filtered = re.compile(r"FILTER\s*\((?:[^()]|\([^()]*\))*\)\s*OVER")
    queries = [path for kind in ("*.py", "*.sql") for path in PACKAGE.rglob(kind)]
    assert filtered.search("count(*) FILTER (NOT (a OR b)) OVER (PARTITION BY c)")
    assert [path for path in queries if filtered.search(path.read_text(encoding="utf-8"))] == []


def test_help_does_not_wait_for_dagster():
    code = (
        "import sys; from click.testing import CliRunner; "
        "from harmonizer_assets.cli.main import main; "
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0; "
        "sys.exit('dagster' in sys.modules or 'chromadb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
