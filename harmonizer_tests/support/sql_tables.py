"""Tables of words and labels in a SQL database, as others have them."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from harmonizer_tests.support.receipts import Receipts

NOON = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)


def database(url: str, schema: str | None = None, *more: sa.Column) -> sa.MetaData:
    """Tables with a column of their own and a time of the last change; more are of labels."""
    metadata = sa.MetaData(schema=schema)
    key = [
        ("image_id", sa.String),
        ("receipt_id", sa.Integer),
        ("line_id", sa.Integer),
        ("word_id", sa.Integer),
    ]
    changed = ("updated_at", sa.DateTime(timezone=True))
    boxes = [(name, sa.Float) for name in ("x", "y", "width", "height")]
    texts = [(name, sa.String) for name in ("label", "validation_status", "merchant_name")]
    for name, columns in {
        "the words": [*key, ("text", sa.String), *boxes, changed],
        "label's": [*key, *texts, ("note", sa.String), changed],
    }.items():
        of_labels = more if name == "label's" else ()
        ours = (sa.Column(column, kind) for column, kind in columns)
        sa.Table(name, metadata, *ours, *of_labels)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        if schema:
            connection.execute(sa.schema.CreateSchema(schema))
        metadata.create_all(connection)
    return metadata


def insert(url: str, metadata: sa.MetaData, receipts: Receipts, time: dt.datetime = NOON) -> None:
    words, labels = metadata.sorted_tables
    if words.name != "the words":
        words, labels = labels, words
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        for table_, found in ((words, receipts.words), (labels, receipts.labels)):
            if found:
                connection.execute(table_.insert(), [{**row, "updated_at": time} for row in found])
