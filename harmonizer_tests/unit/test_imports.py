from __future__ import annotations

import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name not in sys.argv[2:]:
        importlib.import_module(module.name)
print(*{name.partition(".")[0] for name in sys.modules})
"""

HEAVY = {"boto3", "chromadb", "dagster", "matplotlib", "openai", "scipy", "sklearn", "sqlalchemy"}

LOADED_BY_CELERY = "harmonizer_assets.core.units.executors.sqs_transport"
"""Extends a class of kombu, and is imported by its name where the broker is SQS, by no module."""


@pytest.mark.parametrize(
    "package", ["base", "records", "index", "score", "units", "decide", "measure", "report"]
)
def test_a_package_is_imported_without_the_libraries_that_take_long(package):
    code = [sys.executable, "-c", IMPORT_ALL, f"harmonizer_assets.core.{package}", LOADED_BY_CELERY]
    done = subprocess.run(code, check=True, capture_output=True, text=True)
    assert not HEAVY & set(done.stdout.split())
