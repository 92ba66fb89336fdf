"""Which parts of a text are secret."""

from __future__ import annotations

import traceback
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.base.errors import HarmonizerError, InputError
from harmonizer_assets.core.base.secrets import redacted, secrets_removed, translated

KEY = "0123-very-secret"


@given(st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=8), st.text())
def test_no_value_of_a_variable_that_is_named_as_a_secret_is_left(secret, around):
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "DB_PASSWORD"):
        shown = redacted(f"{around}\n{secret}\n", {name: secret})
        assert shown.splitlines()[-1] == "[secret]" or secret not in shown


@given(st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=4))
def test_neither_a_password_in_a_url_nor_its_escaped_form_is_left(password):
    for written in (password, quote(password, safe="")):
        url = f"postgresql://user:{written}@host/database"
        shown = redacted(f"<{password}> <{written}>", {"HARMONIZER_TABLE_URL": url})
        assert shown == "<[secret]> <[secret]>" or password in "<[secret]>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user:pa@ss:word@host/x", "postgresql://[secret]@host/x"),
        ("Authorization: Bearer abc.def", "Authorization: [secret]"),
        ("Incorrect API key provided: sk-proj-****wxyz.", "Incorrect API key provided: [secret]"),
        ("write to support@example.com", "write to support@example.com"),
        ("12.50 TOTAL", "12.50 TOTAL"),
    ],
)
def test_what_has_the_form_of_a_secret_is_one_wherever_it_comes_from(text, shown):
    assert redacted(text, {}) == shown


def test_a_password_that_a_parser_cuts_at_any_of_its_signs_is_told_on_neither_side():
    url = {"DAGSTER_PG_URL": "postgresql://user:pass@ss:word/tail@host/x"}
    for said in ("pass", "word", "ss:word/tail", "word/tail", "tail", "pass@ss", "pass@ss:word"):
        assert redacted(f"invalid: '{said}'", url) == "invalid: '[secret]'"


def test_short_values_are_words_and_stay():
    assert redacted("none of the words", {"OPENAI_API_KEY": "none"}) == "none of the words"


def test_an_address_that_is_secret_as_a_whole_is_told_in_no_part():
    hook = {"HARMONIZER_ALERT_WEBHOOK": "https://hooks.example/services/T0001/abcdef?token=ghijkl"}
    shown = redacted("POST /services/T0001/abcdef token ghijkl", hook)
    for part in ("T0001", "abcdef", "ghijkl"):
        assert part not in shown


def chained(raised: pytest.ExceptionInfo[BaseException]) -> bool:
    return raised.value.__cause__ is not None or raised.value.__context__ is not None


def test_an_error_of_another_package_becomes_ours_and_is_not_kept(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with (
        pytest.raises(InputError, match=r"the client said: \[secret\]") as raised,
        translated(lambda error: InputError(f"the client said: {error}")),
    ):
        raise ValueError(KEY)
    assert not chained(raised)


def test_our_own_errors_and_kinds_that_are_not_named_pass(monkeypatch):
    for error in (InputError("ours"), KeyError("another")):
        with pytest.raises(type(error)), translated(lambda _: InputError("x"), ValueError):
            raise error


def test_only_errors_that_show_a_secret_are_replaced(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(KeyError), secrets_removed():
        raise KeyError("harmless")
    with pytest.raises(InputError, match=r"x \[secret\]") as ours, secrets_removed():
        raise InputError(f"x {KEY}")
    with (
        pytest.raises(HarmonizerError, match="unexpected ValueError: y") as raised,
        secrets_removed(),
    ):
        raise ValueError("y") from KeyError(KEY)
    for found in (ours, raised):
        assert not chained(found)
        assert KEY not in "".join(traceback.format_exception(found.value))
