"""Quoting for SQL that is put together from names and texts which cannot be bound."""

from __future__ import annotations


def quoted(identifier: str) -> str:
    """Quote a name of a table or column."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text as a string literal, for places such as ATTACH and COPY that bind no values."""
    return "'" + text.replace("'", "''") + "'"
