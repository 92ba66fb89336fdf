from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml

from harmonizer_assets import api
from harmonizer_assets.core.base.config_files import parse_yaml
from harmonizer_assets.core.base.settings import JudgeOverrides, Settings
from harmonizer_assets.core.judge.llm.money.prices import HomePrices
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.core.store import EXPORTABLE
from harmonizer_assets.defs.checks import CHECKS
from harmonizer_assets.defs.jobs import HARMONIZE_STEP, JOBS
from harmonizer_assets.defs.resources import HarmonizeConfig
from harmonizer_assets.defs.schedules import SCHEDULES
from harmonizer_assets.defs.sensors import SENSORS
from harmonizer_assets.web.lineage import CODE_VERSIONS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generated(generate: ModuleType) -> dict[str, str]:
    return {uri: page() for uri, page in generate.PAGES.items()}


def written_pages() -> Iterator[Path]:
    yield from DOCS.rglob("*.md")


def blocks(generated: dict[str, str], opening: str) -> Iterator[tuple[str, str]]:
    """Where and what is fenced with an opening that this regular expression describes."""
    pages = {page.name: page.read_text(encoding="utf-8") for page in written_pages()}
    pages["README.md"] = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, text in (pages | generated).items():
        for fenced in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.M | re.S):
            if re.fullmatch(opening, fenced[1]):
                yield name, fenced[2]


def section(page: str, anchor: str) -> str:
    """The text from the heading with this anchor to the next one."""
    found = re.search(rf"^#+ [^\n]*{{ #{re.escape(anchor)} }}\n(.*?)(?=^#+ |\Z)", page, re.M | re.S)
    assert found, f"no section #{anchor}"
    return found[1]


def test_every_command_has_a_section_with_each_of_its_options(generate, generated):
    page = generated["reference/commands.md"]
    for name, command in generate.commands():
        text = section(page, name.replace(" ", "-"))
        for option in command.params:
            if isinstance(option, click.Option):
                assert f"`{option.opts[0]}`" in text, f"{name} {option.opts[0]}"


def test_every_command_has_an_example_or_a_guide(generate, generated):
    page = generated["reference/commands.md"]
    for name, _ in generate.commands():
        text = section(page, name.replace(" ", "-"))
        assert f"```sh\n{name}" in text or "Guide: [" in text, name


def test_every_setting_has_a_row_with_its_value_default_and_description(generate, generated):
    page = generated["reference/settings.md"]
    for name, model in generate.settings():
        text = section(page, name.replace(".", "-"))
        for field_name, field in model.model_fields.items():
            if generate._section_of(field) is None:
                row = re.search(rf"^\| `{field_name}` \|(.+)\|(.+)\|(.+)\|$", text, re.M)
                assert row, f"{name}.{field_name}"
                assert all(cell.strip() for cell in row.groups()), f"{name}.{field_name}"


def test_every_section_of_the_settings_is_found(generate):
    sections = {name.partition(".")[0] for name, _ in generate.settings()}
    assert sections == set(Settings.model_fields)


def test_every_exportable_table_has_a_section_with_its_columns(generate, generated):
    page = generated["reference/tables.md"]
    columns = generate.table_columns()
    assert set(columns) == set(EXPORTABLE)
    for table in EXPORTABLE:
        text = section(page, table)
        for name, _ in columns[table]:
            row = re.search(rf"^\| `{name}` \| .+? \| (.+) \|$", text, re.M)
            assert row, f"{table}.{name}"


def test_every_environment_variable_of_the_code_is_explained(generate, generated):
    page = generated["reference/environment.md"]
    for name in generate.environment_variables():
        assert f"| `{name}` |" in page


def test_every_exit_code_is_explained(generate, generated):
    page = generated["reference/exit-codes.md"]
    codes = {str(error.exit_code) for error in generate.errors()}
    assert codes >= {"1", "2", "3"}
    for code in codes:
        assert re.search(rf"^\| `{code}` \| .+ \|$", page, re.M)


def test_a_command_without_a_description_fails_the_build(generate, monkeypatch):
    monkeypatch.setitem(generate.main.commands, "new", click.Command("new", help="Something new."))
    with pytest.raises(generate.UndocumentedError, match="harmonizer new"):
        generate.commands_page()


def test_an_option_without_a_help_text_fails_the_build(generate, monkeypatch):
    export = generate.main.commands["export"]
    monkeypatch.setattr(export, "params", [*export.params, click.Option(["--quietly"])])
    with pytest.raises(generate.UndocumentedError, match="harmonizer export --quietly"):
        generate.commands_page()


def test_a_setting_without_a_description_fails_the_build(generate):
    class Section(generate.BaseModel):
        """A section."""

        limit: int = 3

    with pytest.raises(generate.UndocumentedError, match=r"new\.limit"):
        generate._settings_section("new", Section)


def test_a_table_without_a_description_fails_the_build(generate):
    with pytest.raises(generate.UndocumentedError, match="nowhere"):
        generate._table_section("nowhere", [("image_id", "VARCHAR")])


def test_links_of_the_written_pages_and_the_readme_lead_to_pages_and_headings(generated):
    for page in [*written_pages(), ROOT / "README.md", ROOT / "CHANGELOG.md"]:
        for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve() if target else page
            uri = path.relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else ""
            assert path.exists() or uri in generated, f"{page.name}: {target}"
            if anchor:
                text = generated.get(uri) or path.read_text(encoding="utf-8")
                assert anchor in anchors(text), f"{page.name}: {target}#{anchor}"


def anchors(text: str) -> set[str]:
    given = set(re.findall(r"^#+ .*{ #(\S+) }$", text, re.M))
    plain = re.findall(r"^#+ (.+)$", text, re.M)
    return given | {
        re.sub(r"[^\w\s-]", "", title.lower()).strip().replace(" ", "-") for title in plain
    }


def test_every_page_is_in_the_navigation(generate):
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    written = {page.relative_to(DOCS).as_posix() for page in written_pages()}
    assert listed == written | set(generate.PAGES)


def test_the_readme_can_be_read_in_one_sitting():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_descriptions_name_no_command_that_is_gone(generate):
    names = {name for name, _ in generate.commands()}
    assert set(yaml.safe_load((DOCS / "descriptions.yaml").read_text())["commands"]) == names


def test_descriptions_name_no_column_that_is_gone(generate):
    columns = {
        column
        for table, listed in generate.table_columns().items()
        for name, _ in listed
        for column in (name, f"{table}.{name}")
    }
    assert set(generate.descriptions()["columns"]) <= columns


def test_every_public_name_is_in_the_python_reference(generate, generated):
    for name in api.__all__:
        assert re.search(rf"^::: \S+\.{name}$", generated["reference/python.md"], re.M), name


def test_a_page_that_loads_from_another_host_is_refused(generate):
    remote = ['<img src="//cdn.example/x.png">', '<script async src="https://cdn.example/x.js">']
    assert all(generate.REMOTE.search(tag) for tag in remote)
    assert not generate.REMOTE.search('<a href="https://dagster.io">Dagster</a>')
    assert not generate.REMOTE.search('<script src="assets/javascripts/bundle.js">')


def test_settings_that_the_pages_show_are_accepted(generated):
    shown = list(blocks(generated, 'toml title="HOME/harmonizer.toml"'))
    assert len(shown) >= 6
    for _, block in shown:
        Settings.model_validate(tomllib.loads(block))


def test_taxonomies_and_prices_that_the_pages_show_are_accepted(generated):
    for page, block in blocks(generated, 'yaml title="invoices.yaml"'):
        assert Taxonomy.parse(block, page).label_types
    for page, block in blocks(generated, 'yaml title="HOME/prices.yaml"'):
        assert parse_yaml(block, page, HomePrices).models


def test_commands_that_the_pages_show_are_accepted(generate, generated):
    shown = [
        (page, line)
        for page, block in blocks(generated, "(?:sh|console)?")
        for line in re.findall(r"^(?:\$ )?harmonizer [^#|>\n]+", block, re.M)
    ]
    assert len(shown) >= 40
    for page, line in shown:
        words = shlex.split(line.removeprefix("$ ").removesuffix(" 2"))[1:]
        command: click.Command = generate.main
        if words[0] == "--home":
            del words[:2]
        while isinstance(command, click.Group) and words[0] != "--version":
            command = command.commands[words.pop(0)]
        try:
            command.make_context("harmonizer", [*words])
        except click.exceptions.Exit:
            assert "--version" in words
        except click.UsageError as error:
            pytest.fail(f"{page}: {line}: {error.format_message()}")


def test_the_run_options_that_the_page_shows_are_those_of_the_harmonize_step(generated):
    shown = (DOCS / "reference/dagster.md").read_text(encoding="utf-8")
    block = re.search(r"## Run options.*?```yaml\n(.*?)```", shown, re.S)
    assert block is not None
    config = yaml.safe_load(block[1])["ops"][HARMONIZE_STEP]["config"]
    assert set(config) == set(HarmonizeConfig.model_fields)
    assert set(config["options"]) == set(JudgeOverrides.described())
    HarmonizeConfig.model_validate(config)


def test_every_asset_job_and_check_is_on_the_page_about_dagster():
    page = (DOCS / "reference/dagster.md").read_text(encoding="utf-8")
    jobs = [job.name for job in JOBS]
    checks = [check.spec.name for check in CHECKS]
    for name in [*CODE_VERSIONS, *jobs, *checks]:
        assert f"`{name}`" in page, name


def test_every_sensor_and_schedule_is_on_the_page_about_them():
    page = (DOCS / "how-to/schedules-and-alerts.md").read_text(encoding="utf-8")
    for definition in [*SENSORS, *SCHEDULES]:
        assert f"| `{definition.name}` |" in page, definition.name
