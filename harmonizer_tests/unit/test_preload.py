from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from harmonizer_assets.core.base.preload import preload


def test_modules_are_imported_in_a_thread_and_a_missing_one_is_left_to_who_uses_it(
    tmp_path, monkeypatch
):
    (tmp_path / "slow_to_load.py").write_text("import threading\nBY = threading.current_thread()\n")
    monkeypatch.syspath_prepend(tmp_path)
    missing = "no_such_library"
    thread = preload(["slow_to_load", missing, "never_reached"])
    thread.join()
    assert sys.modules["slow_to_load"].BY is thread
    with pytest.raises(ImportError, match="no_such_library"):
        importlib.import_module(missing)


def test_a_process_ends_while_libraries_are_still_being_imported():
    code = (
        "from harmonizer_assets.core.index.stage import load_libraries\n"
        "load_libraries()\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
