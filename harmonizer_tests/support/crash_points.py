"""Crash points: a run is killed wherever its files have just become others than they were.

    echo "$REQUEST" | python -m harmonizer_tests.support.crash_points

Each run is a fork of a process that has imported everything and opened nothing, so a point costs a
run and not an interpreter. The functions by which the product changes files are wrapped here; an
undisturbed run counts the points that it passes, then one run dies at each, and another goes on
from what that has left. For each line that the process reads, it writes one JSON line per point,
which says how that ended, and an empty line at the end.
"""

from __future__ import annotations

import datetime as dt
import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from harmonizer_assets.core.apply.undo import Selection, undo
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.scratch import scratch_folder
from harmonizer_assets.core.base.settings import RetentionSettings, Settings
from harmonizer_assets.core.index.vectors import IndexSession
from harmonizer_assets.core.judge.llm.batch.api import BatchApi
from harmonizer_assets.core.judge.llm.memory.journal import Journal
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import label_key
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.review.answers import Answer
from harmonizer_assets.core.store.database import DatabaseFile
from harmonizer_assets.core.store.deletions import Scope
from harmonizer_assets.core.store.prune import prune_files
from harmonizer_assets.core.store.warehouse import Warehouse
from harmonizer_tests.support.labels import scored_home
from harmonizer_tests.support.receipts import OFFLINE, shop_receipts, table
from harmonizer_tests.support.simulated_endpoint import Endpoint

IN_FLIGHT: Final = 2
"""Calls that may be in flight."""
MOST_BOUGHT_TWICE: Final = 2 * IN_FLIGHT
"""As `docs/concepts/caching.md` promises."""

_TWO_DAYS: Final = dt.timedelta(days=2)
_UUID: Final = re.compile(r"[0-9a-f-]{36}")
_QUICK: Final = {
    "first_token_seconds": 0.01,
    "tokens_per_second": 20_000.0,
    "batch_seconds": 0.0,
}
_FORK: Final = multiprocessing.get_context("fork")
# Forks of a process that has done nothing yet: Arrow may crash in a fork of one that has used it.
_CLEAN: Final = multiprocessing.get_context("forkserver")
_CLEAN.set_forkserver_preload([__name__])
_TABLES: Final = {
    "words": (),
    "labels": (),
    "label_corrections": ("operation_id", "answer_id", "run_id", "corrected_at"),
    "label_undos": ("operation_id",),
    "label_operations": ("operation_id", "done_at"),
    "batches": ("batch_id", "batch_time", "ingested_at", "name", "source"),
    "documents": (),
    "document_metadata": (),
    "index_state": ("updated_at",),
    "word_documents": (),
    "similarity_matches": (),
    "judgements": (),
    "label_decisions": (),
    "outliers": (),
    "merchant_alarms": (),
}
"""What is compared, without the columns that tell when, by which batch, and under which name."""

PRIVATE: Final = "Quittenbrand"
"""A text of the receipt that a scenario deletes."""
_PRIVATE_IMAGE: Final = "image-0-0"

SETTINGS: Final = Settings(triage={"refit_growth": 1.2})


class Points:
    """Counts the points that this process passes, and kills it at one of them."""

    def __init__(self, fatal: int = 0) -> None:
        self.names: list[str] = []
        self._fatal = fatal
        self._guard = threading.Lock()

    def passed(self, name: str) -> None:
        with self._guard:
            self.names.append(name)
            if len(self.names) == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)


def watch(points: Points, home: Home) -> None:
    """Wrap everything by which a run changes files, for the rest of this process.

    What comes before a change has a point of its own only where more has happened since the last
    one: a file was written that is about to be renamed, or an answer was received.
    """
    for name in ("add", "update_metadata", "delete"):
        _watch_calls(points, IndexSession, name, f"vectors: {name}")
    _watch_calls(points, Journal, "sends", "a line about a call")
    _watch_calls(points, Journal, "append", "a line of answers", before=True)
    for name in ("_upload", "_start", "_delete"):
        _watch_calls(points, BatchApi, name, f"Batch API: {name}")
    for name in ("replace", "rename"):
        _watch_paths(points, name, home, before=True)
    for name in ("unlink", "rmdir"):
        _watch_paths(points, name, home)
    _watch_transactions(points)


def _watch_calls(
    points: Points, owner: type, name: str, kind: str, *, before: bool = False
) -> None:
    original = getattr(owner, name)

    def watched(*args: Any, **options: Any) -> Any:
        if before:
            points.passed(f"before {kind}")
        result = original(*args, **options)
        points.passed(f"after {kind}")
        return result

    setattr(owner, name, watched)


def _watch_paths(points: Points, name: str, home: Home, *, before: bool = False) -> None:
    original = getattr(os, name)
    # What dies with a process in these folders, the system or the next one to come puts right.
    ignored = (home.locks, home.scratch)

    def watched(path: Any, *args: Any, dir_fd: int | None = None, **options: Any) -> None:
        folder = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        whole = Path(folder, path)
        counts = whole.is_relative_to(home.root) and not any(map(whole.is_relative_to, ignored))
        if dir_fd is not None:
            options["dir_fd"] = dir_fd
        if counts and before:
            points.passed(f"before {name} of {whole.name}")
        original(path, *args, **options)
        if counts:
            points.passed(f"after {name} of {whole.name}")

    setattr(os, name, watched)


def _watch_transactions(points: Points) -> None:
    run, close = Warehouse._run, DatabaseFile.close

    def watched_run(self: Any, fn: Any, *, read_only: bool, **options: Any) -> Any:
        result = run(self, fn, read_only=read_only, **options)
        if not read_only:
            points.passed("after a transaction")
        return result

    def watched_close(self: Any, *args: Any, **options: Any) -> None:
        # What is committed is in DuckDB's log, which closing merges into the file.
        if not self._read_only:
            points.passed("before the log of a transaction is merged")
        close(self, *args, **options)

    Warehouse._run = watched_run  # type: ignore[method-assign]
    DatabaseFile.close = watched_close  # type: ignore[method-assign]


@dataclass(frozen=True)
class Scenario:
    """A home, and a run that is to end alike wherever it was killed before.

    Attributes:
        prepare: fills an empty home.
        run: the run; it begins with whatever the home holds.
    """

    prepare: Callable[[Home], object]
    run: Callable[[Home], object]


def _new(home: Home) -> None:
    """A home in which the first batch waits."""
    with scratch_folder(home) as folder:
        shop_receipts(each=1).submit(Pipeline(home), folder)


def _index(home: Home) -> None:
    pipeline = Pipeline(home)
    pipeline.ingest()
    pipeline.index()


def _grown(home: Home) -> None:
    """A home with a model, in which a batch waits that adds, changes and orphans documents."""
    pipeline = Pipeline(home, SETTINGS)
    first = shop_receipts(each=9)
    more = shop_receipts(("Gamma Deli",), each=5, images="new")
    changed = {"Sandwich": "Tea", "Coffee": "Cake", "High": "Low", "9.00": "8.00", "3.50": "2.50"}
    with scratch_folder(home) as folder:
        first.submit(pipeline, folder / "first")
        pipeline.run(OFFLINE)
        rows = [word for word in first.words + more.words if word["text"] in changed]
        for word in rows:
            word["text"] = changed[word["text"]]
        more.words += [word for word in rows if word not in more.words]
        more.labels += [
            {**label, "validation_status": "VALID"}
            for label in first.labels
            if label["validation_status"] == "PENDING"
        ]
        more.submit(pipeline, folder / "more")


def _run_offline(home: Home) -> None:
    Pipeline(home, SETTINGS).run(OFFLINE)


def _with_private_receipt(home: Home) -> None:
    receipts = shop_receipts(each=2)
    for word in receipts.words:
        if word["image_id"] == _PRIVATE_IMAGE and word["text"] == "Sandwich":
            word["text"] = PRIVATE
    receipts.write(home.inbox / "monday")
    Pipeline(home).run(OFFLINE)


def _delete(home: Home) -> None:
    pipeline = Pipeline(home)
    pipeline.deletion.delete(Scope(_PRIVATE_IMAGE))
    pipeline.run(OFFLINE)


def _scored(home: Home) -> None:
    scored_home(home, label_types=2, merchants=2, words=3)


def run_with_a_model(home: Home) -> None:
    settings = Settings().with_judge(
        skip_high_confidence=False,
        backoff_seconds=0.0,
        llm_batch_size=1,
        max_requests_in_flight=IN_FLIGHT,
    )
    pipeline = Pipeline(home, settings)
    pipeline.harmonize(RunOptions(judge="openai"))


def _run_a_batch(home: Home) -> None:
    pipeline = Pipeline(home, Settings().with_judge(skip_high_confidence=False))
    pipeline.submit(RunOptions())
    pipeline.harmonize(RunOptions(collect=True))


def _answered(home: Home) -> None:
    pipeline = Pipeline(home)
    with scratch_folder(home) as folder:
        shop_receipts(each=6).submit(pipeline, folder)
    pipeline.run(OFFLINE)
    for row in table(pipeline, "review_queue"):
        pipeline.review.answer(label_key(row), "ann", Answer.WRONG, to_label=row["to_label"])


def _apply_and_undo_one(home: Home) -> None:
    """Apply all, and take back what concerns the first of two shops."""
    pipeline = Pipeline(home)
    pipeline.apply("ann", commit=True)
    first = min(row["merchant_key"] for row in table(pipeline, "label_row_changes"))
    undo(pipeline.warehouse, Selection(merchant=first), actor="ann", commit=True)
    pipeline.run(OFFLINE)


SCENARIOS: Final = {
    "new": Scenario(_new, _index),
    "grown": Scenario(_grown, _run_offline),
    "deletion": Scenario(_with_private_receipt, _delete),
    "model": Scenario(_scored, run_with_a_model),
    "batch": Scenario(_scored, _run_a_batch),
    "corrections": Scenario(_answered, _apply_and_undo_one),
}


def state(home: Home) -> dict[str, Any]:
    """What must be alike in the end."""
    pipeline = Pipeline(home)
    found: dict[str, Any] = {
        name: [_comparable(row) for row in table(pipeline, name, *leave_out)]
        for name, leave_out in _TABLES.items()
    }
    with pipeline.indexing.vectors.session() as session:
        stored = session._collection.get(include=["metadatas"])
    found["vectors"] = {
        name: dict(metadata)
        for name, metadata in zip(stored["ids"], stored["metadatas"], strict=True)
    }
    # What a killed process was writing goes when the home is pruned a day later.
    prune_files(home, RetentionSettings(), dt.datetime.now(dt.UTC) + _TWO_DAYS, dry_run=False)
    others = {"dagster", "locks", "tmp"}
    found["files"] = sorted(
        path.name
        for folder in home.root.iterdir()
        if folder.name not in others
        for path in (folder, *folder.rglob("*"))
        # DuckDB merges a log that a killed process has left when the next one writes.
        if path.suffix not in (".bin", ".html", ".wal") and not _UUID.fullmatch(path.name)
    )
    found["quotes"] = sorted(
        path.name
        for path in home.root.rglob("*")
        if path.is_file() and PRIVATE.encode() in path.read_bytes()
    )
    return found


def _comparable(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what differs by chance: ids and times of operations, and out of which cache.

    An answer that the killed run has bought comes out of the cache.
    """
    found = dict(row)
    if found.get("decided_by") == "cache":
        found["decided_by"] = "llm"
    if str(found.get("batch_id")).startswith("apply-"):
        found |= {"batch_id": "apply", "batch_time": None}
    if found.get("extra"):
        found["extra"] = {**json.loads(found["extra"]), "timestamp_added": None}
    return found


class Died(Exception):  # noqa: N818  it is what is wanted
    """The process has killed itself."""


def in_a_fork(fn: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a process of its own; return what it returns.

    Raises:
        Died: it was killed.
    """
    receiver, sender = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=lambda: sender.send(fn(*args)))
    process.start()
    sender.close()
    result = None
    with suppress(EOFError):
        result = receiver.recv()
    process.join()
    if process.exitcode == -signal.SIGKILL:
        raise Died
    if process.exitcode:
        raise RuntimeError(f"{fn.__name__} has failed, see above")
    return result


def dies_at(fatal: int, home: Home, work: Callable[..., object], *args: Any) -> bool:
    """Do something to a home in a process of its own, which kills itself at a point.

    Args:
        fatal: the number of the point.
        home: of which changes are points.
        work: a function of this or another importable module, of the home and `args`.
        args: that can be pickled.

    Returns:
        Whether it came to that point.
    """
    process = _CLEAN.Process(target=_watched_work, args=(fatal, home, work, *args))
    process.start()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{work.__name__} has failed, see above")
    return process.exitcode != 0


def _watched_work(fatal: int, home: Home, work: Callable[..., object], *args: Any) -> None:
    watch(Points(fatal), home)
    work(home, *args)


def apply_all(home: Home, actor: str) -> None:
    """Apply what people have answered."""
    Pipeline(home).apply(actor, commit=True)


def undo_all(home: Home, decided_by: str, actor: str) -> None:
    """Take back what one person has decided, and all that builds on it."""
    selection = Selection(actor=decided_by)
    undo(Pipeline(home).warehouse, selection, actor=actor, with_later=True, commit=True)


def import_answers(home: Home, path: Path) -> None:
    """Import a file of answers."""
    Pipeline(home).review.import_answers(path, "ndjson", "nobody")


def _prepared(scenario: Scenario, root: Path) -> list[str]:
    """Fill an empty home; return the modules in use."""
    scenario.prepare(Home(root).ensure())
    return sorted(sys.modules)


def _watched(scenario: Scenario, root: Path, fatal: int = 0) -> tuple[list[str], list[str]]:
    """Run until the fatal point; return the points that it has passed, and the modules in use."""
    points = Points(fatal)
    watch(points, Home(root))
    scenario.run(Home(root))
    return points.names, sorted(sys.modules)


def _import(modules: list[str]) -> None:
    """Import what a fork has imported, so that the next ones need not."""
    for module in modules:
        with suppress(ImportError):
            importlib.import_module(module)


def _finished(scenario: Scenario, root: Path) -> dict[str, Any]:
    scenario.run(Home(root))
    return state(Home(root))


def crashes(
    scenario: Scenario, folder: Path, endpoint: Endpoint | None, first: int, every: int
) -> Iterator[dict[str, Any]]:
    """Let a run die at points, and another go on; yield how each ended.

    Args:
        scenario: what is run.
        folder: for its homes.
        endpoint: that is asked.
        first: the number of the first point that is tried.
        every: of so many points after that one is tried.
    """
    prepared, undisturbed = folder / "prepared", folder / "undisturbed"
    _import(in_a_fork(_prepared, scenario, prepared))
    shutil.copytree(prepared, undisturbed)
    if endpoint is not None:
        endpoint.configure(**_QUICK)
    names, modules = in_a_fork(_watched, scenario, undisturbed)
    _import(modules)
    assert threading.active_count() == 1, "threads do not survive a fork"
    expected = in_a_fork(state, Home(undisturbed))
    for number, name in enumerate(names, start=1):
        if number < first or (number - first) % every:
            continue
        root = folder / str(number)
        shutil.copytree(prepared, root)
        if endpoint is not None:
            endpoint.configure(**_QUICK)
        died = _dies(scenario, root, number)
        found = in_a_fork(_finished, scenario, root)
        different = [key for key in expected if found[key] != expected[key]]
        asked = endpoint.words() if endpoint else {}
        yield {
            "point": f"{number} of {len(names)}: {name}",
            "died": died,
            "different": different,
            "words": len(asked),
            "bought twice": sum(asked.values()) - len(asked),
            "files at the endpoint": endpoint.stats()["files"] if endpoint else 0,
        }
        shutil.rmtree(root)


def _dies(scenario: Scenario, root: Path, number: int) -> bool:
    try:
        in_a_fork(_watched, scenario, root, number)
    except Died:
        return True
    return False


def main() -> None:
    """Try the scenarios that standard input names."""
    for line in sys.stdin:
        asked = json.loads(line)
        with patch.dict(os.environ, asked.get("environment", os.environ), clear=True):
            url = os.environ.get("OPENAI_BASE_URL")
            endpoint = Endpoint(url) if url else None
            scenario, folder = SCENARIOS[asked["scenario"]], Path(asked["folder"])
            for outcome in crashes(scenario, folder, endpoint, asked["first"], asked["every"]):
                print(json.dumps(outcome), flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
