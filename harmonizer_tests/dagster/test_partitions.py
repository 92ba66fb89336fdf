"""Partitions as Dagster keeps them."""

from __future__ import annotations

import sqlalchemy.event
from sqlalchemy.engine import Engine

from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.defs.partitions import add_merchants


def test_a_merchant_that_another_run_adds_in_the_same_moment_is_added_once(home):
    added_by_another = ["b"]
    with open_instance(home) as first, open_instance(home) as second:

        def interrupt(_connection, _cursor, statement, *_):
            if statement.startswith("INSERT INTO dynamic_partitions") and added_by_another:
                second.add_dynamic_partitions("merchants", [added_by_another.pop()])

        sqlalchemy.event.listen(Engine, "before_cursor_execute", interrupt)
        try:
            add_merchants(first, ["a", "b", "c"])
        finally:
            sqlalchemy.event.remove(Engine, "before_cursor_execute", interrupt)
        assert not added_by_another
        assert sorted(first.get_dynamic_partitions("merchants")) == ["a", "b", "c"]
