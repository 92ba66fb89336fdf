"""One call to an OpenAI-compatible endpoint, and what can come of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self

import openai

from harmonizer_assets.core.errors import ConfigurationError, JudgeError
from harmonizer_assets.core.llm.limits import seconds_of

DEFAULT_MODEL: Final = "gpt-4o-mini"

# Some endpoints say with a 400 that one particular text cannot be answered.
_ABOUT_THE_TEXT: Final = ("context_length_exceeded", "content_filter", "content_policy_violation")


def model_name() -> str:
    """The model that the environment names, or the default."""
    return os.environ.get("HARMONIZER_MODEL") or DEFAULT_MODEL


def require_key() -> None:
    """See that there is a key for the endpoint.

    Raises:
        ConfigurationError: OPENAI_API_KEY is not set.
    """
    if not os.environ.get("OPENAI_API_KEY"):
        raise ConfigurationError(
            "the openai judge needs a key: set OPENAI_API_KEY (and OPENAI_BASE_URL for another "
            "endpoint, HARMONIZER_MODEL for the model), or use --judge offline"
        )


class Outcome(Enum):
    """How a call ended."""

    ANSWERED = "answered"
    UNUSABLE = "unusable"
    """Answered, but refused, cut off or broken: about these words, not about the endpoint."""
    FAILED = "failed"
    RATE_LIMITED = "rate limited"


@dataclass(frozen=True)
class Reply:
    """What came of one call.

    Attributes:
        content: the model's text, where the outcome is `ANSWERED`.
        error: what went wrong otherwise, fit for a table.
        usage_known: whether the endpoint said how many tokens it took.
        cut_off: whether the answer reached the limit of its length.
        retry_after: seconds that the endpoint asks to wait.
    """

    outcome: Outcome
    seconds: float
    content: str = ""
    error: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    usage_known: bool = False
    cut_off: bool = False
    retry_after: float | None = None
    timed_out: bool = False
    headers: Mapping[str, str] | None = None


class Endpoint:
    """A client without retries of its own: retrying has one owner, the scheduler."""

    def __init__(self, model: str, request: Mapping[str, Any]) -> None:
        """Open a client with address and key from the environment.

        Args:
            model: its name.
            request: what all calls have in common, besides model and messages.

        Raises:
            ConfigurationError: there is no key.
        """
        require_key()
        self._model = model
        self._request = dict(request)
        # aiohttp carries hundreds of simultaneous calls at half the CPU time of the default.
        self._client = openai.AsyncOpenAI(
            max_retries=0, http_client=openai.DefaultAioHttpClient(timeout=None)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def ask(
        self, messages: Sequence[Mapping[str, str]], max_tokens: int, timeout: float
    ) -> Reply:
        """Make one call.

        Raises:
            JudgeError: no call can succeed: the key, the quota, the model or the request itself.
        """
        began = time.monotonic()
        try:
            raw = await self._client.chat.completions.with_raw_response.create(
                model=self._model,
                messages=list(messages),  # type: ignore[arg-type]
                max_completion_tokens=max_tokens,
                timeout=timeout,
                # The client would walk through the schema, which never changes, for every call.
                extra_body=self._request,
            )
            return _read(raw.content, raw.headers, time.monotonic() - began)
        except openai.APIStatusError as failed:
            reply = self._status_reply(failed, time.monotonic() - began)
        except openai.APIConnectionError as broken:
            return Reply(
                Outcome.FAILED,
                time.monotonic() - began,
                error=f"no answer ({type(broken).__name__})",
                timed_out=isinstance(broken, openai.APITimeoutError),
            )
        if isinstance(reply, str):
            # Raised out here, the error is not chained to one that holds the request and its key.
            raise JudgeError(reply)
        return reply

    def _status_reply(self, failed: openai.APIStatusError, seconds: float) -> Reply | str:
        """What an HTTP error means; a text if no call can succeed."""
        status, headers = failed.status_code, failed.response.headers
        if failed.code == "insufficient_quota":
            return (
                "the endpoint says that the quota is used up (insufficient_quota): "
                "check the plan and billing, then run again"
            )
        if status == 429:
            return Reply(
                Outcome.RATE_LIMITED,
                seconds,
                error="rate limited (HTTP 429)",
                retry_after=_retry_after(headers),
                headers=headers,
            )
        if status in (408, 409) or status >= 500:
            return Reply(
                Outcome.FAILED,
                seconds,
                error=f"endpoint failed (HTTP {status})",
                retry_after=_retry_after(headers),
            )
        if failed.code in _ABOUT_THE_TEXT:
            return Reply(Outcome.UNUSABLE, seconds, error=f"not answered ({failed.code})")
        return refusal(status, self._model)


def _read(body: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
    try:
        completion = json.loads(body)
    except (ValueError, RecursionError):
        completion = None
    return replace(read_completion(completion), seconds=seconds, headers=headers)


def read_completion(completion: Any) -> Reply:
    """Read a chat completion, given as JSON data that may be anything."""
    try:
        usage = completion.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        prompt_tokens = int(usage.get("prompt_tokens") or 0)
        cached_tokens = int(details.get("cached_tokens") or 0)
        completion_tokens = int(usage.get("completion_tokens") or 0)
        choice = completion["choices"][0]
        message = choice["message"]
        content, refused = message.get("content"), message.get("refusal")
        reason = choice.get("finish_reason")
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
    ):
        return Reply(Outcome.UNUSABLE, 0.0, error="the response is not a chat completion")
    error = ""
    if refused or reason == "content_filter" or not isinstance(content, str) or not content:
        error = "the model refused to answer"
    elif reason == "length":
        error = "the answer was truncated"
    return Reply(
        Outcome.UNUSABLE if error else Outcome.ANSWERED,
        0.0,
        content=content if isinstance(content, str) else "",
        error=error,
        usage_known=bool(usage),
        cut_off=reason == "length",
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    milliseconds = headers.get("retry-after-ms")
    if milliseconds and (found := seconds_of(milliseconds)) is not None:
        return found / 1000
    text = headers.get("retry-after")
    if not text:
        return None
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return seconds_of(text)


def refusal(status: int, model: str) -> str:
    """What an HTTP status means that no retry can mend."""
    match status:
        case 401 | 403:
            return f"the endpoint refuses the key (HTTP {status}): check OPENAI_API_KEY"
        case 404:
            return f"the endpoint does not know model {model!r} (HTTP 404): check HARMONIZER_MODEL"
        case _:
            return f"the endpoint rejects the request (HTTP {status}): check HARMONIZER_MODEL"
