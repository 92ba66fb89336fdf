"""Replies: the possible outcomes of a call, and the reading of a chat completion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from harmonizer_assets.core.records.account import token_count


class Outcome(Enum):
    """How a call ended."""

    ANSWERED = "answered"
    UNUSABLE = "unusable"
    """Answered, but empty, cut off or broken, or too long a call: fewer words may do better."""
    DECLINED = "declined"
    """The model refuses these words, or a content filter does: asking again changes nothing."""
    UNSUPPORTED = "unsupported"
    """The endpoint does not take a parameter of the request, which it names."""
    FAILED = "failed"
    RATE_LIMITED = "rate limited"


@dataclass(frozen=True)
class Reply:
    """The outcome of one call.

    Attributes:
        content: the model's text, where the outcome is `ANSWERED`.
        error: what went wrong otherwise, safe to be stored.
        usage_known: whether the endpoint said how many tokens it took.
        cut_off: whether the answer reached the limit of its length.
        retry_after: seconds that the endpoint asks to wait.
        timed_out: whether no answer came in time.
        unreachable: whether no connection could be made.
        status: the HTTP status, or None where there was no response.
        is_completion: whether a model has worked on the call, whatever has come of it.
        parameter: the one that the endpoint does not support, where the outcome is `UNSUPPORTED`.
        cached_tokens, written_tokens: of the prompt, that the provider had in its cache, and that
            it has put there.
    """

    outcome: Outcome
    seconds: float
    content: str = ""
    error: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    completion_tokens: int = 0
    usage_known: bool = False
    cut_off: bool = False
    retry_after: float | None = None
    timed_out: bool = False
    unreachable: bool = False
    headers: Mapping[str, str] | None = None
    status: int | None = None
    is_completion: bool = False
    parameter: str | None = None


def read_completion(completion: Any) -> Reply:
    """Read a chat completion, given as JSON data that may be anything."""
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        content, refused = _text(message.get("content")), message.get("refusal")
        reason = choice.get("finish_reason")
    except (TypeError, KeyError, IndexError, AttributeError):
        return Reply(Outcome.UNUSABLE, 0.0, error="the response is not a chat completion")
    outcome, error = _outcome(content, reason, refused=bool(refused))
    return Reply(
        outcome,
        0.0,
        content=content,
        error=error,
        is_completion=True,
        cut_off=reason == "length",
        **_usage(completion.get("usage")),
    )


def _usage(usage: Any) -> dict[str, Any]:
    """Read how many tokens a call took; what cannot be is unknown, and costs the most it may."""
    try:
        details = usage.get("prompt_tokens_details") or {}
        prompt, completion = (
            token_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")
        )
        cached, written = (
            token_count(details.get(name)) for name in ("cached_tokens", "cache_write_tokens")
        )
    except (ValueError, AttributeError):
        return {}
    if cached + written > prompt:
        cached = written = 0
    return {
        "usage_known": prompt + completion > 0,
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "written_tokens": written,
        "completion_tokens": completion,
    }


def _outcome(content: str, reason: Any, *, refused: bool) -> tuple[Outcome, str]:
    if reason == "content_filter":
        return Outcome.DECLINED, "a content filter stopped the answer"
    if refused:
        return Outcome.DECLINED, "the model refused to answer"
    if reason == "length":
        return Outcome.UNUSABLE, "the answer was truncated"
    if not content.strip():
        return Outcome.UNUSABLE, "the answer is empty"
    return Outcome.ANSWERED, ""


def _text(content: Any) -> str:
    """Return a message's text, which some endpoints divide into parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
