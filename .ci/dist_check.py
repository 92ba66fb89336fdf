"""Build sdist and wheel, install the wheel where nothing else is, and run the demo with it.

    python .ci/dist_check.py

The wheel is built from the sdist, so a file that either leaves out is missed here. It is installed
without extras, in the versions of constraints.txt.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "harmonizer_assets"
LABELS = 300


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="harmonizer-dist-") as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
        [_] = folder.glob("*.tar.gz")
        [wheel] = folder.glob("*.whl")
        check_content(wheel)
        binaries = install(wheel, folder / "venv")
        run(binaries / "python", "-c", "import harmonizer_assets", cwd=folder)
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


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel in a fresh environment; the folder of its programs."""
    binaries = folder / "bin"
    constrained = ("-c", ROOT / "constraints.txt", wheel)
    uv = Path(sys.executable).with_name("uv")
    venv.create(folder, with_pip=not uv.exists())
    if uv.exists():
        python = ("--python", binaries / "python")
        run(uv, "pip", "install", "--quiet", "--compile-bytecode", *python, *constrained)
    else:
        run(binaries / "pip", "install", "--quiet", *constrained)
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
