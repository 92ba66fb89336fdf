"""Build sdist and wheel, install the wheel where nothing else is, and use it as a new user does.

    python .ci/dist_check.py

The wheel is built from the sdist, so a file that either leaves out is missed here. It is installed
without extras, in the versions of constraints.txt. Then the four commands of the README lead from
one file in a foreign format to the first finding, each timed, and the demo runs.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "harmonizer_assets"
LABELS = 300
FOREIGN = ROOT / "docs" / "examples" / "receipts.jsonl"
"""A file in a format that is not ours."""
FOUND = "outliers.csv"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="harmonizer-dist-") as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
        [_] = folder.glob("*.tar.gz")
        [wheel] = folder.glob("*.whl")
        check_content(wheel)
        binaries = first_finding(wheel, folder)
        demo = ("demo", "--labels", LABELS, "--home", folder / "home")
        run(binaries / "harmonizer", *demo, cwd=folder)
    print(f"{wheel.name}: complete, installs, and runs the demo without extras")


def check_content(wheel: Path) -> None:
    """Compare what the wheel holds with the package's folder."""
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        missing = wanted.difference(archive.namelist())
    if missing:
        raise SystemExit(f"{wheel.name} lacks {', '.join(sorted(missing))}: see setup.cfg")


def first_finding(wheel: Path, folder: Path) -> Path:
    """Go from the wheel and one foreign file to the first finding; print how long each step takes.

    Returns:
        The folder of the programs.
    """
    shutil.copy(FOREIGN, folder)
    steps = (
        ("import", "hugging-face", FOREIGN.name),
        ("run",),
        ("export", "outliers", "--out", FOUND),
    )
    began = time.perf_counter()
    binaries = install(wheel, folder / "venv")
    times = [("pip install", time.perf_counter() - began)]
    for step in steps:
        started = time.perf_counter()
        run(binaries / "harmonizer", *step, cwd=folder)
        times.append((f"harmonizer {step[0]}", time.perf_counter() - started))
    with (folder / FOUND).open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["is_outlier"] == "true"]
    if not found or not all(row["reasoning"] for row in found):
        raise SystemExit(f"{FOREIGN.name}: no finding with a reason in {FOUND}")
    for name, seconds in times:
        print(f"{name}: {seconds:.0f} s")
    total = sum(seconds for _, seconds in times)
    print(f"from the wheel to {len(found)} findings in {len(times)} commands: {total:.0f} s")
    return binaries


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel in a fresh environment, as the README says; the folder of its programs."""
    binaries = folder / "bin"
    venv.create(folder, with_pip=True)
    run(binaries / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    return binaries


def run(*command: object, cwd: Path = ROOT) -> None:
    """Run a program that sees nothing of this checkout or of a home elsewhere."""
    hidden = ("PYTHONPATH", "HARMONIZER_HOME", "DAGSTER_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    words = [str(part) for part in command]
    done = subprocess.run(
        words, cwd=cwd, env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}{done.stderr}\n{' '.join(words)}: {done.returncode}")


if __name__ == "__main__":
    main()
