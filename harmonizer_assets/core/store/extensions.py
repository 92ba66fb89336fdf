"""Extensions of DuckDB, from packages that were installed with the extra; none is downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import duckdb

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.sql import literal
from harmonizer_assets.core.store.database import Connection


def load_extension(con: Connection, name: str) -> None:
    """Load an extension: that of the package, else one that was installed in DuckDB itself.

    DuckDB checks that its makers have signed it, wherever it comes from.

    Raises:
        ConfigurationError: there is none for this version of DuckDB.
    """
    file = _packaged(name)
    try:
        con.execute(f"LOAD {literal(name if file is None else str(file))}")
    except duckdb.Error:
        raise ConfigurationError(
            f"DuckDB {duckdb.__version__} finds no extension {name!r} of its version: install the "
            "extra with `pip install 'label-harmonizer[ducklake]'`"
        ) from None


def _packaged(name: str) -> Path | None:
    package = importlib.util.find_spec(f"duckdb_extension_{name}")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent / "extensions" / f"v{duckdb.__version__}"
    file = folder / f"{name}.duckdb_extension"
    return file if file.exists() else None
