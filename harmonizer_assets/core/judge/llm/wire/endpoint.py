"""One call to an OpenAI-compatible endpoint, and its possible outcomes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from harmonizer_assets.core.base.clients import keep_clients_quiet
from harmonizer_assets.core.base.errors import ConfigurationError, JudgeError
from harmonizer_assets.core.judge.llm.wire.complaints import Complaint
from harmonizer_assets.core.judge.llm.wire.dialect import endpoint_address
from harmonizer_assets.core.judge.llm.wire.headers import retry_after
from harmonizer_assets.core.judge.llm.wire.replies import Outcome, Reply, read_completion

if TYPE_CHECKING:
    import openai

DEFAULT_MODEL: Final = "gpt-4o-mini"


def model_name() -> str:
    """Return the model that the environment names, or the default."""
    return os.environ.get("HARMONIZER_MODEL") or DEFAULT_MODEL


def require_key() -> None:
    """Check that there is a key and a usable address for the endpoint.

    Raises:
        ConfigurationError: OPENAI_API_KEY is not set, or OPENAI_BASE_URL is no address, or holds
            credentials, too.
    """
    if not os.environ.get("OPENAI_API_KEY"):
        raise ConfigurationError(
            "the openai judge needs a key: set OPENAI_API_KEY (and OPENAI_BASE_URL for another "
            "endpoint, HARMONIZER_MODEL for the model), or use --judge offline"
        )
    check_address()


def check_address() -> None:
    """Check the address of the endpoint; the message does not repeat it, it may hold a token.

    Raises:
        ConfigurationError: OPENAI_BASE_URL is no address, or holds credentials.
    """
    try:
        parts = urlsplit(endpoint_address())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, usable = None, False
    if parts is not None and "@" in parts.netloc:
        raise ConfigurationError(
            "OPENAI_BASE_URL holds a user name or password, which cannot be sent together with "
            "OPENAI_API_KEY: take them out of the address"
        )
    if not usable:
        raise ConfigurationError(
            "OPENAI_BASE_URL is no address: it must begin with http:// or https:// and name a "
            "server, for example http://localhost:8000/v1"
        )


class UnsupportedParameterError(JudgeError):
    """The endpoint does not take a parameter, which it names.

    Attributes:
        parameter: its name.
    """

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class Endpoint:
    """A client without retries of its own: only the scheduler retries."""

    def __init__(self, model: str, request: Mapping[str, Any], length: str) -> None:
        """Open a client with address and key from the environment.

        Args:
            model: its name.
            request: parameters of all calls, besides model and messages.
            length: name of the parameter that limits the length of an answer.

        Raises:
            ConfigurationError: there is no key, or no usable address.
        """
        import openai

        require_key()
        keep_clients_quiet()
        self._model = model
        self._request = dict(request)
        self._length = length
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
        import openai

        began = time.monotonic()
        try:
            raw = await self._client.chat.completions.with_raw_response.create(
                model=self._model,
                messages=list(messages),  # type: ignore[arg-type]
                timeout=timeout,
                # The client would walk through the schema, which never changes, for every call.
                extra_body={**self._request, self._length: max_tokens},
            )
            return _read(raw.content, raw.headers, time.monotonic() - began)
        except openai.APIStatusError as failed:
            reply = self._status_reply(failed, time.monotonic() - began)
        except openai.APIConnectionError as broken:
            unreachable = _is_unreachable(broken)
            return Reply(
                Outcome.FAILED,
                time.monotonic() - began,
                error="no connection" if unreachable else f"no answer ({type(broken).__name__})",
                # The client takes a refused connection for one that took too long.
                timed_out=isinstance(broken, openai.APITimeoutError) and not unreachable,
                unreachable=unreachable,
            )
        except Exception as failed:
            reply = (
                f"the endpoint cannot be asked ({type(failed).__name__}): check OPENAI_API_KEY and "
                "OPENAI_BASE_URL"
            )
        if isinstance(reply, str):
            # Raised out here, the error is not chained to one that holds the request and its key.
            raise JudgeError(reply)
        return reply

    def _status_reply(self, failed: openai.APIStatusError, seconds: float) -> Reply | str:
        """Interpret an HTTP error; return a text if no call can succeed."""
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
                retry_after=retry_after(headers),
                headers=headers,
                status=status,
            )
        if status in (408, 409) or status >= 500:
            return Reply(
                Outcome.FAILED,
                seconds,
                error=f"endpoint failed (HTTP {status})",
                retry_after=retry_after(headers),
                status=status,
            )
        return self._complaint_reply(Complaint.of(failed), seconds)

    def _complaint_reply(self, complaint: Complaint, seconds: float) -> Reply | str:
        """Interpret an error that is about the request; return a text if no call can succeed."""
        sent, status = (self._length, *self._request), complaint.status
        if complaint.is_content_filter():
            said = "a content filter stopped the question"
            return Reply(Outcome.DECLINED, seconds, error=said, status=status)
        if complaint.is_about_length(sent):
            said = f"the endpoint finds the call too long (HTTP {status})"
            return Reply(Outcome.UNUSABLE, seconds, error=said, status=status)
        told = complaint.told(self._model)
        if parameter := complaint.unsupported(sent):
            return Reply(
                Outcome.UNSUPPORTED, seconds, error=told, status=status, parameter=parameter
            )
        return told


def _is_unreachable(broken: BaseException) -> bool:
    """Return whether an error of the client says that no connection could be made."""
    # By name, since the client brings its own copy of the HTTP library.
    cause = broken.__cause__
    return cause is not None and type(cause).__name__ in ("ConnectError", "ConnectTimeout")


def _read(body: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
    try:
        completion = json.loads(body)
    except (ValueError, RecursionError):
        completion = None
    return replace(read_completion(completion), seconds=seconds, headers=headers, status=200)
