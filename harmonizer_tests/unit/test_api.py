"""What can be imported from `harmonizer_assets`, and nothing else."""

from __future__ import annotations

import inspect

import pytest

import harmonizer_assets
from harmonizer_assets import api


@pytest.mark.parametrize("name", api.__all__)
def test_a_public_name_can_be_imported_from_the_package(name):
    assert getattr(harmonizer_assets, name) is getattr(api, name)


def test_nothing_else_is_offered():
    assert {*dir(harmonizer_assets)} == {*api.__all__, "__version__"}
    offered: dict[str, object] = {}
    exec("from harmonizer_assets import *", offered)
    assert {*offered} - {"__builtins__"} == {*api.__all__}


def test_the_list_of_public_names_is_complete_and_sorted():
    found = {name for name, value in vars(api).items() if not inspect.ismodule(value)}
    assert {name for name in found if not name.startswith("_")} - {"annotations"} == {*api.__all__}
    assert [*api.__all__] == sorted(api.__all__)


@pytest.mark.parametrize("name", ["PartitionSelector", "Harmonizer", "annotations_"])
def test_a_name_that_is_not_public_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"'harmonizer_assets' has no attribute '{name}'"):
        getattr(harmonizer_assets, name)
