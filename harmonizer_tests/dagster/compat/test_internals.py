"""Where Dagster's internals are used, and that the table of them is complete."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import harmonizer_assets
from harmonizer_assets import dagster_compat

PACKAGE = Path(harmonizer_assets.__file__).parent
COMPAT = PACKAGE / "dagster_compat"
TABLE = dagster_compat.__doc__ or ""


def private_imports(path: Path) -> Iterator[str]:
    """Names that a file imports from private modules of Dagster."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{name.name}" for name in node.names]
        for module in modules:
            if re.match(r"dagster(_\w+)?\.(\w+\.)*_", module):
                yield module.rpartition(".")[2]


def rows() -> dict[str, str]:
    """The table's rows by adapter."""
    parts = re.split(r"^`(\w+)`", TABLE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_private_modules_of_dagster_are_imported_here_only():
    others = {*PACKAGE.rglob("*.py")} - {*COMPAT.rglob("*.py")}
    assert len(others) > 50
    assert {path: found for path in others if (found := [*private_imports(path)])} == {}


def test_the_table_names_each_adapter_and_its_internals_and_each_has_its_test():
    adapters = {path.stem: {*private_imports(path)} for path in COMPAT.glob("[!_]*.py")}
    assert rows().keys() == adapters.keys()
    for adapter, imported in adapters.items():
        row = rows()[adapter]
        assert {name for name in imported if not re.search(rf"\b{name}\b", row)} == set()
        assert Path(__file__).with_name(f"test_{adapter}.py").exists(), adapter


def test_the_table_names_no_internal_that_is_no_longer_imported():
    imported = {name for path in COMPAT.glob("*.py") for name in private_imports(path)}
    named = {*re.findall(r"\b[A-Z][a-z]\w+[A-Z]\w+|\b[A-Z]+_[A-Z_]+\b", "".join(rows().values()))}
    assert named - imported == {"NoOpComputeLogManager"}
