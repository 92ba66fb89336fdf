from __future__ import annotations

import pytest
import yaml
from dagster import MultiPartitionsDefinition, StaticPartitionsDefinition
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.base.errors import TaxonomyError
from harmonizer_assets.core.records.taxonomy import Taxonomy


def test_the_default_has_the_18_core_receipt_labels_each_with_a_definition():
    taxonomy = Taxonomy.default()
    assert len(taxonomy.names) == 18
    assert {"MERCHANT_NAME", "GRAND_TOTAL", "COUPON"} <= set(taxonomy.names)
    assert all(taxonomy.definition(name) for name in taxonomy.names)


def test_a_home_may_bring_its_own(home):
    home.taxonomy.write_text("label_types:\n  NAME: The holder's name.\n  BORN: Date of birth.\n")
    assert Taxonomy.of_home(home).names == ("NAME", "BORN")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "label_types"),
        ("label_types: [A, B]", "label_types"),
        ("label_types: {}", "label_types"),
        ("label_types: {A: ''}", "definition is missing"),
        ("label_types: {'A|B': x}", r"may hold letters, .* but not '\|'"),
        ("label_types: {'A, B': x}", "but not"),
        ("label_types: {'[x]': x}", "but not"),
        ("label_types: {'a]b': x}", "but not"),
        ("label_types: {'a...b': x}", "but not"),
        ('label_types: {"a\\tb": x}', "but not"),
        ("label_types: {NO: x}", "quote names"),
        ("label_types:\n  A: x\n  A: y\n", "stands twice"),
        ("label_types: {A", "not valid YAML"),
    ],
)
def test_an_unusable_file_is_refused_with_the_reason(content, complaint):
    with pytest.raises(TaxonomyError, match=complaint) as error:
        Taxonomy.parse(content, "types.yaml")
    assert str(error.value).startswith("types.yaml")


@given(name=st.text(min_size=1, max_size=20))
def test_every_name_that_is_accepted_can_be_a_partition(name):
    content = yaml.safe_dump({"label_types": {name: "x"}}, allow_unicode=True)
    try:
        [accepted] = Taxonomy.parse(content, "types.yaml").names
    except TaxonomyError:
        return
    StaticPartitionsDefinition([accepted])
    other = StaticPartitionsDefinition(["shop"])
    MultiPartitionsDefinition(
        {"label_type": StaticPartitionsDefinition([accepted]), "merchant": other}
    )
