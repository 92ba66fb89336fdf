"""Run the commands of a page, or the cells of a notebook, and put their real output into it.

    python docs/record.py docs/tutorial.md
    python docs/record.py docs/examples/formats.ipynb

Every block fenced as `console` is recorded: lines that begin with `$ ` are commands (`> ` goes on),
and what they print replaces what stands below them. All commands of a page run in one empty folder,
one after the other, beside a link `label-harmonizer` to this repository; the cells of a notebook
run in a folder with the files that lie beside it. Run it again when something else is printed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
# A terminal shows progress in place and removes it.
PROGRESS = re.compile(r"\w+: [\d,]+( of [\d,]+\b.*)?$")
SHOWN_FOLDER = "/home/you"
COLUMNS = "96"
ROOT = Path(__file__).resolve().parents[1]
END = "-- end of the cell --"


def commands_of(block: str) -> list[str]:
    """The commands of one block, in order, with the lines that continue them."""
    commands: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            commands.append(line[2:])
        elif commands and line.startswith("> "):
            commands[-1] += f"\n{line[2:]}"
    return commands


def record(command: str, folder: Path) -> str:
    """Run one command; what a terminal would show of it.

    Raises:
        SystemExit: it failed.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HARMONIZER_HOME": "first_home",
        "COLUMNS": COLUMNS,
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{command}\n{done.stdout}\nended with {done.returncode}")
    lines = [line.rstrip() for line in done.stdout.splitlines() if not PROGRESS.match(line)]
    shown = "\n".join(lines)
    prompt = command.replace("\n", "\n> ")
    return f"$ {prompt}\n{shown.replace(str(folder), SHOWN_FOLDER)}".rstrip() + "\n"


def run_cells(notebook: dict[str, Any], folder: Path) -> None:
    """Run the cells of a notebook in one process, and put what they print into it.

    Raises:
        SystemExit: one failed.
    """
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    parts = [f"{''.join(cell['source'])}\nprint({END!r}, flush=True)" for cell in cells]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(parts)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"a cell failed:\n{done.stdout}{done.stderr}")
    for cell, text in zip(cells, done.stdout.split(f"{END}\n"), strict=False):
        output = {"name": "stdout", "output_type": "stream", "text": text.splitlines(True)}
        cell["outputs"] = [output] if text else []


def record_notebook(path: Path) -> None:
    """Run a notebook and write it with its output."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        for file in path.parent.glob("*.jsonl"):
            shutil.copy(file, scratch)
        run_cells(notebook, Path(scratch))
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def main(page: Path) -> None:
    """Record all blocks of a page."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        (folder / "label-harmonizer").symlink_to(ROOT)

        def recorded(block: re.Match[str]) -> str:
            return "".join(record(command, folder) for command in commands_of(block[0]))

        page.write_text(BLOCK.sub(recorded, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    given = Path(sys.argv[1])
    record_notebook(given) if given.suffix == ".ipynb" else main(given)
