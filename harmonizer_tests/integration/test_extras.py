"""Without an optional package only its own feature is missing, and the error names the extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.figure import png
from harmonizer_assets.core.judge.llm.memory.shared.sharing import open_cache
from harmonizer_assets.core.report.pictures import pictures
from harmonizer_assets.core.store.objects import open_store
from harmonizer_assets.core.units.executors.aws_lambda import LambdaExecutor
from harmonizer_assets.core.units.executors.brokers import broker_of
from harmonizer_assets.core.units.executors.celery import make_app
from harmonizer_assets.core.units.store import UnitStore
from harmonizer_tests.support.receipts import harmonize, shop_receipts


def without(package: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that cannot import a package."""
    hidden = f"import sys; sys.modules[{package!r}] = None; {code}"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", hidden],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.mark.parametrize("package", ["matplotlib", "boto3", "botocore", "celery", "kombu", "redis"])
def test_definitions_load_without_an_optional_package(package, home):
    loaded = without(package, "from harmonizer_assets.definitions import defs; defs()")
    assert loaded.returncode == 0, loaded.stderr


def test_without_celery_units_on_a_queue_name_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "celery", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'label-harmonizer\[celery\]'"):
        make_app(broker_of("redis://localhost", "units", 3, 60.0))


def test_without_boto3_a_store_in_a_bucket_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'label-harmonizer\[s3\]'"):
        open_store("s3://bucket/units")


def test_without_boto3_units_on_lambda_name_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "boto3", None)
    store = UnitStore(open_store(tmp_path.as_uri()))
    with pytest.raises(ConfigurationError, match=r"pip install 'label-harmonizer\[s3\]'"):
        LambdaExecutor(store, "units", 3, 60.0, 2)


@pytest.mark.parametrize(
    ("package", "url", "extra"),
    [
        ("boto3", "dynamodb://answers", "s3"),
        ("psycopg2", "postgresql://ann@localhost/answers", "sql"),
    ],
)
def test_without_its_driver_a_cache_of_shared_answers_names_its_extra(
    monkeypatch, package, url, extra
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=rf"pip install 'label-harmonizer\[{extra}\]'"):
        open_cache(url)


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_a_picture_that_is_asked_for_names_its_extra():
    with pytest.raises(ConfigurationError, match=r"pip install 'label-harmonizer\[plots\]'"):
        png((1.0, 1.0), lambda figure: None)


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_a_run_shows_everything_but_its_pictures(pipeline, tmp_path):
    shop_receipts().submit(pipeline, tmp_path)
    harmonize(pipeline)
    assert pictures(pipeline.warehouse) == {}
    assert pipeline.publish("run").report.stat().st_size
