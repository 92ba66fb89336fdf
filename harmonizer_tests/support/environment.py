"""The environment in which an endpoint is asked, or services of AWS are."""

from __future__ import annotations

from typing import Final

import pytest

KEY: Final = "sk-test-very-secret"
MODEL: Final = "gpt-4o-mini"
AWS: Final = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "not-a-real-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""Credentials that moto's server takes, and a region."""


def use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Have an endpoint asked for `MODEL` with `KEY`; the fixture `home` takes both away."""
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HARMONIZER_MODEL", MODEL)


def use_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have credentials and a region in the environment, as a client of AWS needs them."""
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
