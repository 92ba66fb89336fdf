"""The results of a batch job: checked, priced and stored like any other answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.judge.llm.batch.lines import BatchLines
from harmonizer_assets.core.judge.llm.batch.table import (
    BatchJob,
    JobItem,
    items_of,
    note_collected,
    note_error,
)
from harmonizer_assets.core.judge.llm.confidence import answer_from
from harmonizer_assets.core.judge.llm.memory.cache import add_usage, store_answers
from harmonizer_assets.core.judge.llm.money.ledger import settle
from harmonizer_assets.core.judge.llm.money.prices import Price
from harmonizer_assets.core.judge.llm.money.shares import (
    Share,
    UsageByPartition,
    cost_of,
    share_out,
)
from harmonizer_assets.core.judge.llm.wire.answers import AnswerReader, MalformedAnswerError
from harmonizer_assets.core.judge.llm.wire.prompt import PROMPT_VERSION
from harmonizer_assets.core.judge.llm.wire.replies import Reply
from harmonizer_assets.core.records.label import Usage
from harmonizer_assets.core.records.partition import PartitionKey


@dataclass(frozen=True)
class Collected:
    """Totals of a collection.

    Attributes:
        batches: jobs that ended.
        answers: that were stored.
        unanswered: questions without an answer.
        reasons: why, with the number of their questions.
        unreadable: lines of results that name no call.
        changed: words whose question has changed since the submission: what was answered about them
            is of no use now, and they are asked anew.
    """

    batches: int = 0
    answers: int = 0
    unanswered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    changed: tuple[str, ...] = ()

    def __add__(self, more: Collected) -> Collected:
        return Collected(
            self.batches + more.batches,
            self.answers + more.answers,
            self.unanswered + more.unanswered,
            self.reasons + more.reasons,
            self.unreadable + more.unreadable,
            self.changed + more.changed,
        )


def store_results(
    con: duckdb.DuckDBPyConnection,
    job: BatchJob,
    lines: BatchLines,
    reader: AnswerReader,
    price: Price | None,
) -> Collected:
    """Store the answers of one job and their usage, inside a transaction.

    Args:
        con: a connection inside a transaction.
        job: that has ended.
        lines: of its files.
        reader: checks the answers.
        price: of the model through the Batch API.
    """
    items = items_of(con, job.submission_id)
    answers: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    used: UsageByPartition = {}
    for custom_id, asked in items.items():
        reply = lines.reply(custom_id, job.model)
        cost = None if price is None else cost_of(reply, price)
        shares = dict(zip(asked, share_out(reply, cost, len(asked)), strict=True))
        if reply.status is not None:
            _add(used, asked, shares, reply)
        answers += _answers(job.model, asked, reply, shares, reader, reasons)
    store_answers(con, answers)
    add_usage(con, job.run_id, used)
    total = Usage()
    for usage in used.values():
        total.add(usage)
    if not (total.estimated_calls or lines.unreadable):
        # Where a result does not tell, the ledger keeps what the job may have used at most.
        tokens = total.prompt_tokens + total.completion_tokens
        settle(con, job.submission_id, tokens, total.cost_usd)
    note_collected(con, job.submission_id)
    if reasons:
        [(reason, count)] = reasons.most_common(1)
        note_error(con, job.submission_id, f"{count} questions without an answer: {reason}")
    return Collected(1, len(answers), reasons.total(), reasons, lines.unreadable)


def _add(
    used: UsageByPartition,
    asked: Mapping[str, JobItem],
    shares: Mapping[str, Share],
    reply: Reply,
) -> None:
    """Add the usage of one call."""
    for number, (item_id, item) in enumerate(asked.items()):
        share = shares[item_id]
        used.setdefault(PartitionKey(item.label_type, item.merchant_key), Usage()).add(
            Usage(
                calls=int(number == 0),
                words_asked=1,
                prompt_tokens=share.prompt_tokens,
                completion_tokens=share.completion_tokens,
                cost_usd=share.cost,
                estimated_calls=int(number == 0 and reply.is_completion and not reply.usage_known),
            )
        )


def _answers(
    model: str,
    asked: Mapping[str, JobItem],
    reply: Reply,
    shares: Mapping[str, Share],
    reader: AnswerReader,
    reasons: Counter[str],
) -> list[dict[str, Any]]:
    """Make the rows of the valid answers in one response; count why there are no others."""
    if reply.error:
        reasons[reply.error] += len(asked)
        return []
    label_type = next(iter(asked.values())).label_type
    try:
        parsed = reader.parse(reply.content, list(asked), label_type)
    except MalformedAnswerError as malformed:
        reasons[str(malformed)] += len(asked)
        return []
    reasons.update(parsed.rejected.values())
    now = utc_now().isoformat()
    return [
        {
            "verdict_key": asked[item_id].verdict_key,
            "label_type": asked[item_id].label_type,
            "merchant_key": asked[item_id].merchant_key,
            "word_text": asked[item_id].word_text,
            "model": model,
            "prompt_version": PROMPT_VERSION,
            "prompt_tokens": shares[item_id].prompt_tokens,
            "completion_tokens": shares[item_id].completion_tokens,
            "cost_usd": shares[item_id].cost,
            "created_at": now,
            **vars(answer_from(entry, asked[item_id].chance)),
        }
        for item_id, entry in parsed.entries.items()
    ]
