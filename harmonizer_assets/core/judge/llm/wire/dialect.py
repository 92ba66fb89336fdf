"""Dialects: the parameters that an endpoint takes for a model, where they are not the usual ones.

Newer models refuse a temperature, older servers know the limit of an answer's length by its former
name only, and many take no JSON schema. What an endpoint refuses by name is changed or left out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import duckdb

from harmonizer_assets.core.base.clock import utc_now

AnswerFormat = Literal["schema", "object", "text"]
LengthName = Literal["max_completion_tokens", "max_tokens"]

DEFAULT_ADDRESS: Final = "https://api.openai.com/v1"

_LOOSER: Final[Mapping[AnswerFormat, AnswerFormat]] = {"schema": "object", "object": "text"}

_READ: Final = """
SELECT length_parameter, left_out, answer_format FROM llm_dialects
WHERE (endpoint, model) = ($1, $2)
"""
_USED: Final = """
SELECT DISTINCT length_parameter, left_out, answer_format
FROM llm_dialects WHERE model = $1 ORDER BY ALL
"""
_FORGET: Final = "DELETE FROM llm_dialects WHERE (endpoint, model) = ($1, $2)"
_STORE: Final = "INSERT INTO llm_dialects VALUES ($1, $2, $3, $4, $5, $6)"


@dataclass(frozen=True)
class Dialect:
    """How one endpoint is asked for one model.

    Attributes:
        length: name of the parameter that limits the length of an answer.
        left_out: parameters that are not sent, sorted.
        answers: `schema`: answers are bound to a JSON schema; `object`: to JSON, the prompt shows
            the schema; `text`: to nothing, the prompt shows the schema.
    """

    length: LengthName = "max_completion_tokens"
    left_out: tuple[str, ...] = ()
    answers: AnswerFormat = "schema"

    @property
    def identity(self) -> str:
        """Return a part of the cache key; empty for the usual dialect."""
        if self == Dialect():
            return ""
        return f"/{self.length},{self.answers},without={'+'.join(self.left_out)}"

    def sent(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return these parameters of a request as this dialect sends them."""
        kept = {name: value for name, value in parameters.items() if name not in self.left_out}
        match self.answers:
            case "object":
                kept["response_format"] = {"type": "json_object"}
            case "text":
                kept.pop("response_format", None)
        return kept

    def without(self, parameter: str) -> Dialect | None:
        """Return the dialect of an endpoint that refuses a parameter; None if that was tried."""
        match parameter:
            case "max_completion_tokens":
                return replace(self, length="max_tokens")
            case "max_tokens":
                return None
            case "response_format":
                looser = _LOOSER.get(self.answers)
                return None if looser is None else replace(self, answers=looser)
        if parameter in self.left_out:
            return None
        return replace(self, left_out=tuple(sorted({*self.left_out, parameter})))


def endpoint_address() -> str:
    """Return the address of the endpoint that the environment names, or OpenAI's own."""
    return os.environ.get("OPENAI_BASE_URL") or DEFAULT_ADDRESS


def read_dialect(con: duckdb.DuckDBPyConnection, model: str) -> Dialect | None:
    """Read how the present endpoint is asked for a model; None before its first answer."""
    row = con.execute(_READ, [_endpoint(), model]).fetchone()
    return None if row is None else Dialect(row[0], tuple(row[1]), row[2])


def used_dialects(con: duckdb.DuckDBPyConnection, model: str) -> list[Dialect]:
    """Read how any endpoint has been asked for a model, the usual dialect among them."""
    rows = con.execute(_USED, [model]).fetchall()
    found = [Dialect(length, tuple(left_out), answers) for length, left_out, answers in rows]
    return found if Dialect() in found else [*found, Dialect()]


def store_dialect(con: duckdb.DuckDBPyConnection, model: str, dialect: Dialect) -> None:
    """Store how the present endpoint is asked for a model, inside a transaction."""
    con.execute(_FORGET, [_endpoint(), model])
    now = utc_now()
    values = [dialect.length, list(dialect.left_out), dialect.answers, now]
    con.execute(_STORE, [_endpoint(), model, *values])


def _endpoint() -> str:
    # Not the address itself, which may hold a token.
    return hashlib.sha256(endpoint_address().rstrip("/").encode()).hexdigest()[:16]
