from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from harmonizer_assets.core.base.config_files import load_config, parse_yaml
from harmonizer_assets.core.base.errors import ConfigurationError, TaxonomyError


class Shop(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    floors: list[int] = Field(default=[])

    @field_validator("name")
    @classmethod
    def _no_blanks(cls, name: str) -> str:
        if " " in name:
            raise ValueError("a name has no blanks")
        return name


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("shop.toml", "name = 'x'\nfloors = [1, 2]\n"),
        ("shop.yaml", "name: x\nfloors: [1, 2]\n"),
        ("shop.yml", "name: x\nfloors:\n  - 1\n  - 2\n"),
    ],
)
def test_the_suffix_names_the_format(tmp_path, file, content):
    path = tmp_path / file
    path.write_text(content)
    assert load_config(path, Shop) == Shop(name="x", floors=[1, 2])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "shop.yaml: expected a mapping with the key 'name'"),
        ("- a", "shop.yaml: expected a mapping with the key 'name'"),
        ("floors: []", "shop.yaml: name: Field required"),
        ("name: a b", "shop.yaml: name: a name has no blanks"),
        ("name: x\nfloors: [1, two]", "shop.yaml: floors.1: Input should be a valid integer"),
        ("name: x\nflors: []", "shop.yaml: flors: Extra inputs are not permitted"),
        ("name: x\nname: y", "shop.yaml: not valid YAML: 'name' stands twice (line 2)"),
        ("name: [", "shop.yaml: not valid YAML"),
        ("? [name]\n: x", "shop.yaml: not valid YAML"),
    ],
)
def test_an_unusable_file_is_one_line_with_file_field_and_problem(content, complaint):
    with pytest.raises(ConfigurationError) as error:
        parse_yaml(content, "shop.yaml", Shop)
    assert str(error.value).startswith(complaint)
    assert "\n" not in str(error.value)


def test_a_key_that_stands_twice_deep_inside_is_refused_as_well():
    with pytest.raises(ConfigurationError, match="'b' stands twice"):
        parse_yaml("name: x\nfloors: [{a: {b: 1, b: 2}}]", "shop.yaml", Shop)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path, content):
    path = tmp_path / "shop.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TaxonomyError, match=r"shop\.yaml: cannot be read"):
        load_config(path, Shop, TaxonomyError)
