"""Complaints: what an endpoint says in an HTTP error, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from harmonizer_assets.core.base.secrets import redacted

if TYPE_CHECKING:
    import openai

_MAX_WORDS: Final = 300
_MAX_DEPTH: Final = 6
_TELLING: Final = (
    "message",
    "msg",
    "detail",
    "error",
    "error_description",
    "title",
    "param",
    "loc",
)
"""Fields that hold an endpoint's own words. Others may repeat the request, receipts included."""

_TOO_LONG: Final = re.compile(
    r"context[ _-]?(?:length|window|size)|too (?:large|long|many)|at most \d"
    r"|maximum (?:of|is|allowed)|exceed|reduce the (?:length|prompt|number)",
    re.IGNORECASE,
)
_TOO_LONG_CODES: Final = ("context_length_exceeded", "string_above_max_length")
LENGTH_NAMES: Final = ("max_completion_tokens", "max_tokens")
_FILTERED: Final = re.compile(r"content[ _-](?:filter|policy|management)", re.IGNORECASE)
_ALIASES: Final = {
    "max_tokens": "max_completion_tokens",
    "max_output_tokens": "max_completion_tokens",
    "json_schema": "response_format",
    "json schema": "response_format",
    "json_object": "response_format",
    "structured output": "response_format",
    "guided": "response_format",
    "grammar": "response_format",
    "schema": "response_format",
}
"""Words that name a parameter that is sent under another name."""


class Complaint:
    """An HTTP error of an endpoint.

    Attributes:
        status: the HTTP status.
        code: the endpoint's own code, or an empty text.
        words: what the endpoint says, in one short line without secrets.
    """

    def __init__(self, status: int, code: str, parameter: str, words: str) -> None:
        self.status = status
        self.code = code
        self.words = words
        self._parameter = parameter

    @classmethod
    def of(cls, failed: openai.APIStatusError) -> Self:
        """Read an error of the client."""
        return cls.of_body(failed.status_code, failed.body)

    @classmethod
    def of_body(cls, status: int, body: Any) -> Self:
        """Read the body of an error, given as JSON data or text that may be anything."""
        found = body.get("error", body) if isinstance(body, dict) else body
        known = found if isinstance(found, dict) else {}
        code, parameter = known.get("code"), known.get("param")
        return cls(
            status,
            str(code) if isinstance(code, str | int) else "",
            parameter if isinstance(parameter, str) else "",
            _words(found),
        )

    def is_content_filter(self) -> bool:
        """Return whether a filter has stopped the call because of the words in it."""
        said = f"{self.code} {self.words}"
        return self.status in (400, 403, 422) and bool(_FILTERED.search(said))

    def is_about_length(self, sent: Sequence[str]) -> bool:
        """Return whether the call is too long, so that fewer words could be answered.

        Args:
            sent: names of the request's parameters.
        """
        if self.status == 413 or self.code in _TOO_LONG_CODES:
            return True
        named = self._named(sent)
        return bool(_TOO_LONG.search(self.words)) and (named is None or named in LENGTH_NAMES)

    def unsupported(self, sent: Sequence[str]) -> str | None:
        """Return which of the parameters that were sent is refused by its name, if any.

        Args:
            sent: names of the request's parameters.
        """
        return self._named(sent) if self.status in (400, 404, 422) else None

    def _named(self, sent: Sequence[str]) -> str | None:
        names = {name: name for name in sent}
        names |= {alias: name for alias, name in _ALIASES.items() if name in names}
        # The limit of an answer's length has two names, each of which may be meant.
        if "max_tokens" in sent:
            names["max_completion_tokens"] = "max_tokens"
        for said in (self._parameter.lower(), self.words.lower()):
            found = [(said.find(alias), name) for alias, name in names.items() if alias in said]
            if found:
                return min(found)[1]
        return None

    def told(self, model: str) -> str:
        """Describe an error that no retry can resolve, with what to do."""
        said = f": {self.words!r}" if self.words else ""
        status = f"(HTTP {self.status})"
        match self.status:
            case 401 | 403:
                return f"the endpoint refuses the key {status}: check OPENAI_API_KEY{_also(said)}"
            case 404 if self._names(model):
                return (
                    f"the endpoint does not know model {model!r} {status}: check HARMONIZER_MODEL"
                )
            case 404 | 405:
                return (
                    f"no chat completions at this address {status}: check OPENAI_BASE_URL, which "
                    f"mostly ends in /v1{_also(said)}"
                )
        return (
            f"the endpoint rejects the request {status}{said or ' without saying why'}; check "
            "HARMONIZER_MODEL and the settings in [judge]"
        )

    def _names(self, model: str) -> bool:
        return "model" in self.code or model.lower() in self.words.lower()


def _also(said: str) -> str:
    return f"; it says{said}" if said else ""


def _words(body: Any) -> str:
    """Return what an error's body says, in one short line without secrets."""
    if isinstance(body, str):
        body = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", " ", body)
    told = " ".join(" ".join(_texts(body, 0)).split())
    shown = "".join(letter if letter.isprintable() else " " for letter in redacted(told))
    return shown if len(shown) <= _MAX_WORDS else f"{shown[:_MAX_WORDS]}…"


def _texts(said: Any, depth: int) -> Iterator[str]:
    """Find the texts in the telling fields of an error."""
    if isinstance(said, str):
        yield said
    elif depth < _MAX_DEPTH and isinstance(said, dict):
        for name in _TELLING:
            if name in said:
                yield from _texts(said[name], depth + 1)
    elif depth < _MAX_DEPTH and isinstance(said, list | tuple):
        for part in said:
            yield from _texts(part, depth + 1)
