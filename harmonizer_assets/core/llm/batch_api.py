"""The OpenAI Batch API: answers within a day at half the price, into the same cache.

A submission is written down before it is sent and carries its own id in the batch's metadata, so
that a process that dies in between can find out whether the batch exists. While a batch is under
way its questions are not asked in any other way.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import openai
import pyarrow as pa

from harmonizer_assets.core.errors import InputError, JudgeError
from harmonizer_assets.core.judge import Usage
from harmonizer_assets.core.llm.batching import Batch, Packer, PartitionWork
from harmonizer_assets.core.llm.budget import Budget
from harmonizer_assets.core.llm.cache import UsageByPartition, add_usage, store_answers
from harmonizer_assets.core.llm.confidence import answer_from
from harmonizer_assets.core.llm.endpoint import read_completion, refusal, require_key
from harmonizer_assets.core.llm.judging import LLMJudge
from harmonizer_assets.core.llm.prices import Price
from harmonizer_assets.core.llm.shares import split_evenly
from harmonizer_assets.core.llm.wire import PROMPT_VERSION, MalformedAnswerError
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.stages import Chunk
from harmonizer_assets.core.warehouse import Warehouse

_WORDS_PER_CALL: Final = 30
_CALLS_PER_BATCH: Final = 20_000
_BYTES_PER_BATCH: Final = 90_000_000
"""Below the API's limits of 50,000 requests and 200 MB."""
_TAG: Final = "harmonizer_submission"
_SUBMITTING: Final = "submitting"
_OPEN: Final = (_SUBMITTING, "validating", "in_progress", "finalizing", "cancelling")
_WITH_RESULTS: Final = ("completed", "expired", "cancelled")

_INSERT_ITEMS: Final = "INSERT INTO llm_batch_items BY NAME SELECT * FROM items"
_STATE: Final = """
SELECT batch_id, submission_id, model, status, words, run_id, error, submitted_at, updated_at
FROM llm_batches
"""


@dataclass(frozen=True)
class BatchState:
    """One batch, as it was last seen; `batch_id` is null until the endpoint has taken it."""

    batch_id: str | None
    submission_id: str
    model: str
    status: str
    words: int
    run_id: str
    error: str | None
    submitted_at: dt.datetime
    updated_at: dt.datetime

    @property
    def is_open(self) -> bool:
        """Whether its answers are still to come."""
        return self.status in _OPEN


@dataclass(frozen=True)
class Collected:
    """What collecting has brought: batches that ended, answers, and questions without one."""

    batches: int
    answers: int
    unanswered: int


class BatchAPI:
    """Submits questions as batches and collects their answers."""

    def __init__(
        self,
        judge: LLMJudge,
        warehouse: Warehouse,
        price: Price | None,
        words_per_call: int | None = None,
    ) -> None:
        """Open a client with address and key from the environment.

        Args:
            judge: makes the questions and reads the answers.
            warehouse: of the home.
            price: of the model, at the standard tier.
            words_per_call: 30 by default; nobody waits for a batch, so calls are large.

        Raises:
            ConfigurationError: there is no key.
        """
        require_key()
        self._judge = judge
        self._warehouse = warehouse
        self._price = price.in_batch() if price else None
        self._words_per_call = words_per_call or _WORDS_PER_CALL
        # Few calls, none of them a question: the client's own retries do.
        self._client = openai.OpenAI()

    def states(self) -> list[BatchState]:
        """All batches, the latest first."""
        rows = self._warehouse.query(_STATE + "ORDER BY submitted_at DESC").to_pylist()
        return [BatchState(**row) for row in rows]

    def submit(self, chunks: Iterable[Chunk], run_id: str, budget: Budget) -> list[BatchState]:
        """Submit the questions of chunks that have no answer yet, as far as the budget goes.

        Raises:
            JudgeError: the endpoint does not take the batch.
        """
        self.adopt()
        before = {state.submission_id for state in self.states()}
        for batches in self._loads(chunks, budget):
            self._submit(batches, run_id)
        return [state for state in self.states() if state.submission_id not in before]

    def _loads(self, chunks: Iterable[Chunk], budget: Budget) -> Iterator[list[Batch]]:
        """The calls of each batch, within the API's limits and the budget."""
        wire = self._judge.wire
        packer = Packer(1_000, 1_000_000, 1_000_000)
        for chunk in chunks:
            for partition in self._judge.prepare(chunk):
                asks = [ask for ask in partition.asks.values() if not ask.deferred]
                if asks:
                    packer.add(PartitionWork(partition.key, asks))
        load: list[Batch] = []
        size = 0
        while (batch := packer.next(self._words_per_call, 0.0)) is not None:
            packer.started(batch)
            packer.ended(batch)
            messages, _ = wire.messages(batch.asks)
            most = self._judge.most_output_tokens(len(batch.asks))
            if budget.reserve(wire.most_prompt_tokens(messages), most) is None:
                break
            size += wire.prompt_bytes(batch.asks)
            load.append(batch)
            if len(load) >= _CALLS_PER_BATCH or size >= _BYTES_PER_BATCH:
                yield load
                load, size = [], 0
        if load:
            yield load

    def _submit(self, batches: Sequence[Batch], run_id: str) -> None:
        submission = uuid.uuid4().hex
        lines, items = [], []
        for number, batch in enumerate(batches):
            custom_id = f"call-{number}"
            messages, ids = self._judge.wire.messages(batch.asks)
            body = {
                "model": self._judge.model,
                "messages": messages,
                "max_completion_tokens": self._judge.most_output_tokens(len(ids)),
                **self._judge.request_parameters(),
            }
            line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions"}
            lines.append(json.dumps({**line, "body": body}, ensure_ascii=False))
            for item_id, ask in zip(ids, batch.asks, strict=True):
                items.append(
                    {
                        "submission_id": submission,
                        "custom_id": custom_id,
                        "item_id": item_id,
                        "verdict_key": ask.verdict_key,
                        "label_type": ask.head.label_type,
                        "merchant_key": ask.merchant_key,
                        "word_text": ask.word_text,
                        "chance": ask.chance,
                    }
                )
        self._warehouse.write(
            lambda con: _write_down(con, submission, self._judge.model, run_id, items)
        )
        content = "\n".join(lines).encode()
        try:
            file = self._client.files.create(file=("requests.jsonl", content), purpose="batch")
            made = self._client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={_TAG: submission},
            )
        except openai.APIError as failed:
            message = _told(failed, self._judge.model)
        else:
            self._see(submission, made.id, made.status, None)
            return
        self._see(submission, None, "failed", message)
        raise JudgeError(message)

    def adopt(self) -> None:
        """Find out what became of submissions whose process died before it was told."""
        lost = [state for state in self.states() if state.status == _SUBMITTING]
        if not lost:
            return
        found = {
            made.metadata[_TAG]: made
            for made in self._client.batches.list(limit=100)
            if made.metadata and _TAG in made.metadata
        }
        for state in lost:
            if made := found.get(state.submission_id):
                self._see(state.submission_id, made.id, made.status, None)
            else:
                self._see(state.submission_id, None, "failed", "it was never submitted")

    def refresh(self) -> list[BatchState]:
        """Ask how the open batches stand; those whose answers can be collected.

        Raises:
            JudgeError: the endpoint does not say.
        """
        self.adopt()
        for state in self.states():
            if state.is_open and state.batch_id is not None:
                made = self._retrieve(state.batch_id)
                self._see(state.submission_id, made.id, made.status, _first_error(made))
        return [state for state in self.states() if state.status in _WITH_RESULTS]

    def collect(self) -> Collected:
        """Store the answers of the batches that have ended.

        What a batch leaves without a valid answer is asked by the next submission or run.

        Raises:
            JudgeError: the endpoint does not hand them out.
        """
        batches = answers = unanswered = 0
        for state in self.refresh():
            if state.batch_id is not None:
                lines = self._results(state.batch_id)
                stored, left = self._warehouse.write(
                    lambda con, state=state, lines=lines: self._store(con, state, lines)  # type: ignore[misc]
                )
                batches, answers, unanswered = batches + 1, answers + stored, unanswered + left
        return Collected(batches, answers, unanswered)

    def cancel(self, batch_id: str) -> BatchState:
        """Cancel a batch; what it has answered by then can be collected.

        Raises:
            InputError: there is no such open batch.
            JudgeError: the endpoint does not cancel it.
        """
        for state in self.states():
            if state.batch_id == batch_id and state.is_open:
                try:
                    made = self._client.batches.cancel(batch_id)
                except openai.APIError as failed:
                    message = _told(failed, self._judge.model)
                else:
                    self._see(state.submission_id, made.id, made.status, None)
                    return next(s for s in self.states() if s.batch_id == batch_id)
                raise JudgeError(message)
        raise InputError(f"no open batch {batch_id!r}: `harmonizer batch status` lists them")

    def _retrieve(self, batch_id: str) -> Any:
        try:
            return self._client.batches.retrieve(batch_id)
        except openai.APIError as failed:
            message = _told(failed, self._judge.model)
        raise JudgeError(message)

    def _results(self, batch_id: str) -> list[dict[str, Any]]:
        made = self._retrieve(batch_id)
        if not made.output_file_id:
            return []
        try:
            content = self._client.files.content(made.output_file_id).content
        except openai.APIError as failed:
            message = _told(failed, self._judge.model)
        else:
            return [json.loads(line) for line in content.splitlines() if line.strip()]
        raise JudgeError(message)

    def _see(self, submission: str, batch_id: str | None, status: str, error: str | None) -> None:
        def note(con: duckdb.DuckDBPyConnection) -> None:
            con.execute(
                "UPDATE llm_batches SET batch_id = coalesce($2, batch_id), status = $3, "
                "error = $4, updated_at = now() WHERE submission_id = $1",
                [submission, batch_id, status, error],
            )
            if status not in (*_OPEN, *_WITH_RESULTS):
                con.execute("DELETE FROM llm_batch_items WHERE submission_id = $1", [submission])

        self._warehouse.write(note)

    def _store(
        self, con: duckdb.DuckDBPyConnection, state: BatchState, lines: Sequence[dict[str, Any]]
    ) -> tuple[int, int]:
        items: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        rows = con.execute(
            "SELECT * FROM llm_batch_items WHERE submission_id = $1 ORDER BY custom_id, item_id",
            [state.submission_id],
        ).to_arrow_table()
        for row in rows.to_pylist():
            items[row["custom_id"]][row["item_id"]] = row
        answers: list[dict[str, Any]] = []
        used: UsageByPartition = {}
        for line in lines:
            asked = items.get(line["custom_id"], {})
            body = (line.get("response") or {}).get("body")
            if asked and body:
                answers += self._answers(state, asked, body, used)
        store_answers(con, answers)
        add_usage(con, state.run_id, used)
        con.execute("DELETE FROM llm_batch_items WHERE submission_id = $1", [state.submission_id])
        con.execute(
            "UPDATE llm_batches SET status = 'collected', updated_at = now() "
            "WHERE submission_id = $1",
            [state.submission_id],
        )
        return len(answers), rows.num_rows - len(answers)

    def _answers(
        self,
        state: BatchState,
        asked: dict[str, dict[str, Any]],
        body: dict[str, Any],
        used: UsageByPartition,
    ) -> list[dict[str, Any]]:
        """The rows of the answers in one response; adds what it took to `used`."""
        reply = read_completion(body)
        cost = None
        if self._price is not None:
            cost = self._price.cost(
                reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens
            ) / len(asked)
        prompts = split_evenly(reply.prompt_tokens, len(asked))
        outputs = split_evenly(reply.completion_tokens, len(asked))
        shares = dict(zip(asked, zip(prompts, outputs, strict=True), strict=True))
        for number, (item_id, row) in enumerate(asked.items()):
            key = PartitionKey(row["label_type"], row["merchant_key"])
            prompt, output = shares[item_id]
            used.setdefault(key, Usage()).add(
                Usage(
                    calls=int(number == 0),
                    words_asked=1,
                    prompt_tokens=prompt,
                    completion_tokens=output,
                    cost_usd=cost,
                )
            )
        if reply.error:
            return []
        label_type = next(iter(asked.values()))["label_type"]
        try:
            parsed = self._judge.wire.parse(reply.content, list(asked), label_type)
        except MalformedAnswerError:
            return []
        now = dt.datetime.now(dt.UTC).isoformat()
        return [
            {
                **{name: asked[item_id][name] for name in _KEPT},
                "model": state.model,
                "prompt_version": PROMPT_VERSION,
                "prompt_tokens": shares[item_id][0],
                "completion_tokens": shares[item_id][1],
                "cost_usd": cost,
                "created_at": now,
                **vars(answer_from(entry, asked[item_id]["chance"])),
            }
            for item_id, entry in parsed.entries.items()
        ]


_KEPT: Final = ("verdict_key", "label_type", "merchant_key", "word_text")


def _write_down(
    con: duckdb.DuckDBPyConnection,
    submission: str,
    model: str,
    run_id: str,
    items: Sequence[dict[str, Any]],
) -> None:
    con.execute(
        "INSERT INTO llm_batches VALUES (NULL, $1, $2, $3, $4, $5, NULL, now(), now())",
        [submission, model, _SUBMITTING, len(items), run_id],
    )
    con.register("items", pa.Table.from_pylist(list(items)))
    con.execute(_INSERT_ITEMS)
    con.unregister("items")


def _told(failed: openai.APIError, model: str) -> str:
    if isinstance(failed, openai.APIStatusError):
        return refusal(failed.status_code, model)
    return f"the endpoint cannot be reached ({type(failed).__name__}): check OPENAI_BASE_URL"


def _first_error(made: Any) -> str | None:
    errors = made.errors.data if made.errors and made.errors.data else []
    return str(errors[0].message)[:500] if errors else None
