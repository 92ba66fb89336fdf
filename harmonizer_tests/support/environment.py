"""The environment in which an endpoint is asked."""

from __future__ import annotations

from typing import Final

import pytest

KEY: Final = "sk-test-very-secret"
MODEL: Final = "gpt-4o-mini"


def use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Have an endpoint asked for `MODEL` with `KEY`; the fixture `home` takes both away."""
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HARMONIZER_MODEL", MODEL)
