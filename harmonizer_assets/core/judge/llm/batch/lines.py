"""The lines of a batch job's results: what is in them, whatever it may be."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from harmonizer_assets.core.judge.llm.calls.estimates import tokens_in
from harmonizer_assets.core.judge.llm.wire.complaints import Complaint
from harmonizer_assets.core.judge.llm.wire.replies import Outcome, Reply, read_completion

_NO_RESULT: Final = Reply(Outcome.FAILED, 0.0, error="the batch has no result for the call")
_SEVERAL: Final = "the batch has several results for the call"


@dataclass
class BatchLines:
    """The lines of a job's output and error files, by the ids of their calls.

    Attributes:
        unreadable: lines that are no JSON object or name no call, and files that are gone.
    """

    unreadable: int = 0
    _results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def read(cls, contents: Iterable[bytes | None]) -> Self:
        """Read the contents of files, None of one that is gone; no line need be what it should."""
        lines = cls()
        for content in contents:
            if content is None:
                lines.unreadable += 1
                continue
            for line in content.splitlines():
                if line.strip():
                    lines._add(line)
        return lines

    def _add(self, line: bytes) -> None:
        try:
            result = json.loads(line)
        except (ValueError, RecursionError):
            result = None
        custom_id = result.get("custom_id") if isinstance(result, dict) else None
        if not isinstance(custom_id, str):
            self.unreadable += 1
            return
        known = self._results.setdefault(custom_id, [])
        # The same result twice is one result.
        if _without_id(result) not in map(_without_id, known):
            known.append(result)

    def reply(self, custom_id: str, model: str) -> Reply:
        """Return the reply to a call.

        Several different results are no answer: which of them is meant would be a guess. Their
        usage is that of the first.
        """
        results = self._results.get(custom_id)
        if not results:
            return _NO_RESULT
        reply = _reply(results[0], model)
        if len(results) > 1:
            return replace(reply, outcome=Outcome.UNUSABLE, error=_SEVERAL, parameter=None)
        return reply

    def complaints(self) -> Iterable[Complaint]:
        """Return what the endpoint says in the calls that it has rejected."""
        for results in self._results.values():
            status, body = _response(results[0])
            if status is not None and status != 200:
                yield Complaint.of_body(status, body)


def _without_id(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "id"}


def _response(result: dict[str, Any]) -> tuple[int | None, Any]:
    response = result.get("response")
    if not isinstance(response, dict):
        return None, None
    status = response.get("status_code", 200)
    return (status if isinstance(status, int) else None), response.get("body")


def _reply(result: dict[str, Any], model: str) -> Reply:
    status, body = _response(result)
    if status is None:
        said = Complaint.of_body(0, result.get("error")).words
        return Reply(Outcome.FAILED, 0.0, error=f"not answered in the batch: {said or 'no reason'}")
    if status != 200:
        told = Complaint.of_body(status, body).told(model)
        return Reply(Outcome.FAILED, 0.0, error=told, status=status)
    reply = replace(read_completion(body), status=status)
    if reply.is_completion and not reply.usage_known:
        return replace(reply, completion_tokens=tokens_in(reply.content))
    return reply
