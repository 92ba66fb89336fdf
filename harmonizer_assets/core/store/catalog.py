"""The catalog: which tables the database has, and their columns."""

from __future__ import annotations

from harmonizer_assets.core.store.database import Connection

_COLUMNS = """
SELECT c.table_name, c.column_name
FROM duckdb_columns() c JOIN duckdb_tables() t USING (database_name, table_name)
WHERE c.database_name = current_database() AND NOT t.temporary
"""


def columns_by_table(con: Connection) -> dict[str, list[str]]:
    """List the columns of each table that is stored, without views and temporary tables."""
    found: dict[str, list[str]] = {}
    for table, column in con.execute(_COLUMNS).fetchall():
        found.setdefault(table, []).append(column)
    return found
