"""Open a home for a command; check all that can be checked before any work."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harmonizer_assets.core.base.errors import InputError, StoreError
from harmonizer_assets.core.base.files import write_atomically
from harmonizer_assets.core.base.home import Home

if TYPE_CHECKING:
    from harmonizer_assets.core.base.settings import JudgeName, JudgeOverrides
    from harmonizer_assets.core.pipeline import Pipeline
    from harmonizer_assets.core.records.taxonomy import Taxonomy
    from harmonizer_assets.core.store.warehouse import Warehouse


def open_home(
    home: Home,
    judge: JudgeName | None,
    *,
    taxonomy: Path | None = None,
    overrides: JudgeOverrides | None = None,
) -> Pipeline:
    """Open a home; create it if it does not exist.

    Args:
        home: to open.
        judge: the judge of the command; None means the one in the settings.
        taxonomy: a file that becomes the home's taxonomy.
        overrides: settings of the judge to replace.

    Raises:
        InputError: the taxonomy cannot be read or lacks label types that the home holds.
        ConfigurationError: the settings are wrong, or the judge cannot be used.
        StoreError: the home cannot be written.
    """
    from harmonizer_assets.core.base.settings import Settings
    from harmonizer_assets.core.pipeline import Pipeline
    from harmonizer_assets.core.records.taxonomy import Taxonomy

    home.ensure()
    home.keep_private()
    if taxonomy is not None:
        _keep_taxonomy(home, taxonomy, Taxonomy.load(taxonomy))
    pipeline = Pipeline(home, Settings.load(home.settings_file).with_judge(overrides))
    pipeline.judge.check(judge)
    return pipeline


def open_warehouse(home: Home) -> Warehouse:
    """Open the tables of a home, for commands that need nothing else of it.

    Raises:
        ConfigurationError: the settings are wrong.
    """
    from harmonizer_assets.core.base.settings import Settings
    from harmonizer_assets.core.store.warehouse import Warehouse

    waits = Settings.load(home.settings_file).waits
    return Warehouse(home, busy_timeout=waits.database_seconds)


def require_tables(home: Home) -> None:
    """Check that a home has been run.

    Raises:
        InputError: it has no tables yet.
    """
    if not home.database.exists():
        raise InputError(f"{home.root} holds no tables yet: run `harmonizer run` first")


def submit_files(
    home: Home, words: Path | None, labels: Path | None, time: dt.datetime | None = None
) -> None:
    """Put files, if there are any, into the home's inbox as one batch; its time is in UTC.

    Raises:
        InputError: a file cannot be read.
    """
    from harmonizer_assets.core.ingest.inbox import submit_batch

    if words is not None or labels is not None:
        utc = None if time is None else time.replace(tzinfo=dt.UTC)
        submit_batch(home, words, labels, time=utc)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write content as indented JSON.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def _keep_taxonomy(home: Home, path: Path, taxonomy: Taxonomy) -> None:
    """Copy a taxonomy file into the home."""
    from harmonizer_assets.core.store.tables import Tables

    held = Tables(open_warehouse(home)).label_types()
    missing = [name for name in held if name not in taxonomy.names]
    if missing:
        raise InputError(
            f"{path}: {home.root} holds labels of types that are not in it: {', '.join(missing)}; "
            "add them, or give another --home"
        )
    if path.resolve() == home.taxonomy.resolve():
        return
    try:
        write_atomically(home.taxonomy, path.read_bytes())
    except OSError as error:
        raise StoreError(f"{home.taxonomy}: cannot be written ({error.strerror})") from error
