"""Run the commands of a page and put their real output into it.

    python docs/record.py docs/tutorial.md

Every block fenced as `console` is recorded: lines that begin with `$ ` are commands (`> ` goes on),
and what they print replaces what stands below them. All commands of a page run in one empty folder,
one after the other. Run it again when a command prints something else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
# A terminal shows progress in place and removes it.
PROGRESS = re.compile(r"\w+: [\d,]+( of [\d,]+\b.*)?$")
SHOWN_FOLDER = "/home/you"
COLUMNS = "96"


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


def main(page: Path) -> None:
    """Record all blocks of a page."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()

        def recorded(block: re.Match[str]) -> str:
            return "".join(record(command, folder) for command in commands_of(block[0]))

        page.write_text(BLOCK.sub(recorded, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
