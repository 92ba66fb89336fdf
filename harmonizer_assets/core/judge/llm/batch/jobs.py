"""Batch jobs of the OpenAI Batch API: answers within a day at half the price, into the same cache.

A submission is recorded before it is sent and carries its own id in the job's metadata, so that
after a crash in between it can be found out whether the job exists. While a job is under way its
questions are not asked in any other way.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

import duckdb

from harmonizer_assets.core.base.errors import InputError, JudgeError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.secrets import redacted
from harmonizer_assets.core.judge.llm.batch.api import URL, BatchApi, NotThereError
from harmonizer_assets.core.judge.llm.batch.lines import BatchLines
from harmonizer_assets.core.judge.llm.batch.results import Collected, store_results
from harmonizer_assets.core.judge.llm.batch.table import (
    GIVEN_UP,
    SUBMITTING,
    WITH_RESULTS,
    BatchJob,
    JobItem,
    batch_jobs,
    items_of,
    note_files_deleted,
    note_status,
    note_uploads_deleted,
    with_files,
    without_job,
    write_down,
)
from harmonizer_assets.core.judge.llm.calls.packing import Call, Packer
from harmonizer_assets.core.judge.llm.calls.work import PartitionWork
from harmonizer_assets.core.judge.llm.judging import LLMJudge
from harmonizer_assets.core.judge.llm.lease import asking, asking_if_idle
from harmonizer_assets.core.judge.llm.memory.journal import recover
from harmonizer_assets.core.judge.llm.money.budget import Budget
from harmonizer_assets.core.judge.llm.money.ledger import Spent, add_spent
from harmonizer_assets.core.judge.llm.money.prices import Price
from harmonizer_assets.core.records.account import Account
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.stages.stage import Chunk
from harmonizer_assets.core.store.warehouse import Warehouse

_log = logging.getLogger(__name__)

_WORDS_PER_CALL: Final = 30
_CALLS_PER_JOB: Final = 20_000
_BYTES_PER_JOB: Final = 90_000_000
"""Below the API's limits of 50,000 requests and 200 MB."""


class _Load(NamedTuple):
    """The calls of one job, and what they may cost at most."""

    calls: list[Call]
    most: Spent


class BatchJobs:
    """Submits questions as batch jobs and collects their answers."""

    def __init__(
        self,
        home: Home,
        judge: LLMJudge,
        warehouse: Warehouse,
        price: Price | None,
        words_per_call: int | None = None,
    ) -> None:
        """Open a client with address and key from the environment.

        Args:
            home: whose lease on asking is held while jobs are submitted.
            judge: makes the questions and reads the answers.
            warehouse: of the home.
            price: of the model, at the standard tier.
            words_per_call: 30 by default; latency does not matter here, so calls are large.

        Raises:
            ConfigurationError: there is no key.
        """
        self._home = home
        self._judge = judge
        self._warehouse = warehouse
        self._price = price.in_batch() if price else None
        self._words_per_call = words_per_call or _WORDS_PER_CALL
        self._api = BatchApi(judge.model)

    def states(self) -> list[BatchJob]:
        """Return all batch jobs as they were last seen, the latest first."""
        return batch_jobs(self._warehouse)

    def submit(
        self,
        chunks: Iterable[Chunk],
        account: Account,
        on_wait: Callable[[], None] | None = None,
    ) -> list[BatchJob]:
        """Submit the questions of chunks that have no answer yet, within the budget.

        Args:
            chunks: of scored labels.
            account: key of the usage, and charged with what the jobs may cost at most until they
                are collected.
            on_wait: called once if another run of the home has to finish first.

        Raises:
            JudgeError: the endpoint does not take the job.
        """
        with asking(self._home, on_wait, timeout=self._judge.wait_seconds):
            # What others have bought by now is not submitted.
            recover(self._home.journals, self._warehouse)
            self.adopt()
            self._delete_uploads()
            before = {job.submission_id for job in self.states()}
            budget = self._judge.budget(account, in_batch=True)
            for load in self._loads(chunks, budget):
                self._submit(load, account)
            return [job for job in self.states() if job.submission_id not in before]

    def adopt(self) -> None:
        """Find the jobs of submissions whose process died before it got the response.

        Call it while nobody else submits: a job that is being submitted looks like a lost one.

        Raises:
            JudgeError: the endpoint does not list its jobs.
        """
        lost = [job for job in self.states() if job.status == SUBMITTING]
        if not lost:
            return
        found = self._api.submitted()
        for job in lost:
            if made := found.get(job.submission_id):
                self._see(job.submission_id, made.id, made.status, None)
            else:
                self._see(job.submission_id, None, "failed", "it was never submitted")

    def refresh(self) -> list[BatchJob]:
        """Update the status of open jobs; return those whose answers can be collected.

        Raises:
            JudgeError: the endpoint does not return the status.
        """
        problems: list[JudgeError] = []
        if any(job.status == SUBMITTING for job in self.states()):
            with asking_if_idle(self._home) as is_idle:
                if is_idle:
                    self.adopt()
        for job in self.states():
            if job.is_open and job.batch_id is not None:
                try:
                    made = self._api.retrieve(job.batch_id)
                except JudgeError as error:
                    # The others are looked at all the same.
                    problems.append(error)
                else:
                    self._see(job.submission_id, made.id, made.status, _first_error(made))
        ended = [job for job in self.states() if job.status in WITH_RESULTS]
        if problems and not ended:
            raise problems[0]
        return ended

    def collect(self) -> Collected:
        """Store the answers of the jobs that have ended.

        Questions without a valid answer are asked by the next submission or run.

        Raises:
            JudgeError: the endpoint does not return them.
        """
        total, problem = Collected(), None
        for job in self.refresh():
            if job.batch_id is None:
                continue
            try:
                lines = self._api.results(job.batch_id)
            except JudgeError as error:
                # The results of the others are stored all the same.
                problem = problem or error
                continue
            total += self._collect(job, lines)
        self._delete_files()
        if problem is not None:
            raise problem
        return total

    def cancel(self, batch_id: str) -> BatchJob:
        """Cancel a job; what it has answered by then can be collected.

        A job that the endpoint does not know, since it was submitted elsewhere or is long gone, is
        given up, so that its questions can be asked again.

        Raises:
            InputError: there is no such open job.
            JudgeError: the endpoint does not cancel it.
        """
        found = {job.batch_id: job for job in self.states() if job.is_open or self._is_lost(job)}
        if batch_id not in found:
            raise InputError(f"no open batch {batch_id!r}: `harmonizer batch status` lists them")
        submission = found[batch_id].submission_id
        try:
            made = self._api.cancel(batch_id)
        except NotThereError:
            self._see(submission, batch_id, GIVEN_UP, "the endpoint does not know it")
        else:
            self._see(submission, made.id, made.status, None)
        self._delete_files()
        return next(one for one in self.states() if one.batch_id == batch_id)

    def _is_lost(self, job: BatchJob) -> bool:
        """Return whether the results of a job are waited for that the endpoint does not know."""
        if job.status not in WITH_RESULTS or job.batch_id is None:
            return False
        try:
            self._api.retrieve(job.batch_id)
        except NotThereError:
            return True
        return False

    def _loads(self, chunks: Iterable[Chunk], budget: Budget) -> Iterator[_Load]:
        """Yield the calls of each job, within the API's limits and the budget."""
        load, most = list[Call](), Spent()
        size, prompts = 0, self._judge.wording.prompts
        for call in self._calls(chunks):
            messages, _ = prompts.messages(call.asks)
            output = self._judge.most_output_tokens(len(call.asks))
            reserved = budget.reserve(prompts.most_prompt_tokens(messages), output)
            if reserved is None:
                _log.info("the budget ends the submission")
                break
            size += prompts.prompt_bytes(call.asks)
            load.append(call)
            most += Spent.at_most(reserved.tokens, reserved.usd if self._price else None)
            if len(load) >= _CALLS_PER_JOB or size >= _BYTES_PER_JOB:
                yield _Load(load, most)
                load, most, size = [], Spent(), 0
        if load:
            yield _Load(load, most)

    def _calls(self, chunks: Iterable[Chunk]) -> Iterator[Call]:
        packer = Packer(1_000, 1_000_000, 1_000_000)
        for chunk in chunks:
            for partition in self._judge.prepare(chunk):
                asks = [ask for ask in partition.asks.values() if not ask.deferred]
                if asks:
                    packer.add(PartitionWork(partition.key, asks))
        while (call := packer.next(self._words_per_call, 0.0)) is not None:
            packer.started(call)
            packer.ended(call)
            yield call

    def _submit(self, load: _Load, account: Account) -> None:
        submission = uuid.uuid4().hex
        lines, items = self._requests(load.calls, submission)

        def record(con: duckdb.DuckDBPyConnection) -> None:
            write_down(con, submission, self._judge.model, account.run_id, items)
            add_spent(con, submission, account, load.most, purpose="batch")

        self._warehouse.write(record)
        try:
            made = self._api.create("\n".join(lines).encode(), submission)
        except JudgeError as error:
            self._see(submission, None, "failed", str(error))
            raise
        self._see(submission, made.id, made.status, None)

    def _requests(self, calls: Sequence[Call], submission: str) -> tuple[list[str], list[JobItem]]:
        """Make the lines of a job's file, and the items to be stored about its words."""
        lines, items = [], []
        for number, call in enumerate(calls):
            custom_id = f"call-{number}"
            messages, ids = self._judge.wording.prompts.messages(call.asks)
            body = {
                "model": self._judge.model,
                "messages": messages,
                self._judge.wording.dialect.length: self._judge.most_output_tokens(len(ids)),
                **self._judge.wording.parameters(),
            }
            line = {"custom_id": custom_id, "method": "POST", "url": URL}
            lines.append(json.dumps({**line, "body": body}, ensure_ascii=False))
            items += [
                JobItem.of(submission, custom_id, item_id, ask)
                for item_id, ask in zip(ids, call.asks, strict=True)
            ]
        return lines, items

    def _collect(self, job: BatchJob, lines: BatchLines) -> Collected:
        items = self._warehouse.read(lambda con: items_of(con, job.submission_id))
        changed = self._changed([item for asked in items.values() for item in asked.values()])
        stored = self._warehouse.write(
            lambda con: store_results(con, job, lines, self._judge.answers, self._price)
        )
        self._judge.wording.learn(lines.complaints())
        for reason, count in stored.reasons.items():
            _log.info("%d questions of batch %s have no answer: %s", count, job.batch_id, reason)
        if changed:
            _log.info("%d questions of batch %s have changed", len(changed), job.batch_id)
        return replace(stored, changed=changed)

    def _changed(self, items: Sequence[JobItem]) -> tuple[str, ...]:
        """Return the words whose question is another one now than when it was submitted."""
        partitions = {PartitionKey(item.label_type, item.merchant_key) for item in items}
        known = self._judge.keys_now(sorted(partitions))
        return tuple(item.word_text for item in items if item.verdict_key not in known)

    def _delete_files(self) -> None:
        """Delete the files of jobs whose results are stored, and of those that have none."""
        for batch_id in with_files(self._warehouse):
            if self._api.delete_files(batch_id):
                self._warehouse.write(partial(note_files_deleted, batch_id=batch_id))
        self._delete_uploads()

    def _delete_uploads(self) -> None:
        """Delete the files of submissions that became no job: killed after the upload, say."""
        submissions = without_job(self._warehouse)
        if not submissions:
            return
        looked_for = self._api.delete_uploads(submissions)
        done = [name for name, was_there in looked_for.items() if was_there or submissions[name]]
        if done:
            self._warehouse.write(lambda con: note_uploads_deleted(con, done))

    def _see(self, submission: str, batch_id: str | None, status: str, error: str | None) -> None:
        _log.info("batch job %s: %s", batch_id or "without an id", status)
        self._warehouse.write(lambda con: note_status(con, submission, batch_id, status, error))


def _first_error(made: Any) -> str | None:
    errors = made.errors.data if made.errors and made.errors.data else []
    return redacted(str(errors[0].message))[:500] if errors else None
