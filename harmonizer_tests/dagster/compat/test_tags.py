"""Names that Dagster keeps in private modules, and ours for them."""

from __future__ import annotations

import pytest
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy
from dagster._core.storage import tags as dagsters

from harmonizer_assets.dagster_compat import tags

NAMES = [name for name in vars(tags) if name.endswith("_TAG")]


@pytest.mark.parametrize("name", NAMES)
def test_a_tag_is_called_what_dagster_calls_it(name):
    assert getattr(tags, name) == getattr(dagsters, name)


def test_the_retry_strategy_is_one_of_dagsters():
    assert ReexecutionStrategy[tags.RETRY_ALL_STEPS] is ReexecutionStrategy.ALL_STEPS
