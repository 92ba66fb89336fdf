"""The structure of the code in numbers: modules, classes, functions, imports, tests.

    python -m benchmarks.structure [CHECKOUT ...]

Several checkouts give one column each, for a before and after.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PACKAGE: Final = "harmonizer_assets"
TESTS: Final = "harmonizer_tests"
_BROAD: Final = frozenset({"Exception", "BaseException"})


def measure(checkout: Path) -> dict[str, str]:
    """Measure one checkout; figures by name, as text."""
    trees = {
        path: ast.parse(path.read_text()) for path in sorted((checkout / PACKAGE).rglob("*.py"))
    }
    lines = {path: len(path.read_text().splitlines()) for path in trees}
    functions = [_length(node) for tree in trees.values() for node in _functions(tree)]
    classes = [
        (node, path.relative_to(checkout))
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    handlers = [
        node
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
    ]
    longest = max(lines, key=lambda path: lines[path])
    largest, _ = max(classes, key=lambda found: _length(found[0]))
    widest, _ = max(classes, key=lambda found: len(_public_methods(found[0])))
    private = _private_dagster(trees, checkout)
    tests = sum(len(path.read_text().splitlines()) for path in (checkout / TESTS).rglob("*.py"))
    cut = statistics.quantiles(functions, n=20)
    return {
        "modules": str(len(trees)),
        "most modules in one folder": _fullest(trees, checkout),
        "source lines": f"{sum(lines.values()):,}",
        "longest module": f"{longest.relative_to(checkout / PACKAGE)}, {lines[longest]}",
        "modules over 400 lines": str(sum(count > 400 for count in lines.values())),
        "longest class": f"{largest.name}, {_length(largest)}",
        "most public methods": f"{widest.name}, {len(_public_methods(widest))}",
        "function length, median / 95 %": f"{statistics.median(functions):.0f} / {cut[-1]:.0f}",
        "broad excepts of all": f"{sum(map(_is_broad, handlers))} of {len(handlers)}",
        "private Dagster imports": ", ".join(f"{name} {n}" for name, n in private.items())
        or "none",
        "import edges between packages": str(len(_edges(trees, checkout))),
        "test lines per source line": f"{tests / sum(lines.values()):.2f}",
    }


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _public_methods(node: ast.ClassDef) -> list[str]:
    return [
        part.name
        for part in node.body
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
        and not part.name.startswith("_")
    ]


def _is_broad(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or (
        isinstance(handler.type, ast.Name) and handler.type.id in _BROAD
    )


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def _private_dagster(trees: dict[Path, ast.Module], checkout: Path) -> Counter[str]:
    """Count imports of Dagster's internals by the package that makes them."""
    found: Counter[str] = Counter()
    for path, tree in trees.items():
        found[_package(path, checkout)] += sum(
            module.startswith("dagster._") for module in _imported(tree)
        )
    return Counter({name: count for name, count in sorted(found.items()) if count})


def _edges(trees: dict[Path, ast.Module], checkout: Path) -> set[tuple[str, str]]:
    packages = {_package(path, checkout) for path in trees}
    edges = set()
    for path, tree in trees.items():
        own = _package(path, checkout)
        for module in _imported(tree):
            parts = module.removeprefix(f"{PACKAGE}.").split(".")
            for size in range(len(parts), 0, -1):
                other = ".".join(parts[:size])
                if module.startswith(f"{PACKAGE}.") and other in packages:
                    if other != own:
                        edges.add((own, other))
                    break
    return edges


def _package(path: Path, checkout: Path) -> str:
    return ".".join(path.relative_to(checkout / PACKAGE).parent.parts) or PACKAGE


def _fullest(trees: dict[Path, ast.Module], checkout: Path) -> str:
    counts = Counter(_package(path, checkout) for path in trees if path.name != "__init__.py")
    name, count = counts.most_common(1)[0]
    return f"{name}, {count}"


def main() -> None:
    """Print a table with one column per checkout."""
    checkouts = [Path(name) for name in sys.argv[1:]] or [Path(__file__).parents[1]]
    measured = [measure(checkout) for checkout in checkouts]
    print("| |" + "".join(f" {checkout.resolve().name} |" for checkout in checkouts))
    print("| --- |" + " --- |" * len(checkouts))
    for name in measured[0]:
        print(f"| {name} |" + "".join(f" {figures[name]} |" for figures in measured))


if __name__ == "__main__":
    main()
