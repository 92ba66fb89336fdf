from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["core.judge", "core.judge.llm"])
def test_who_asks_no_model_does_not_pay_for_the_clients_and_the_prices(module):
    code = (
        f"import sys, harmonizer_assets.{module}\n"
        "found = {'openai', 'aiohttp', 'httpx', 'genai_prices', 'dagster'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(found)}' if found else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
