"""The review of one home: what is asked, what people answer, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.settings import ReviewSettings
from harmonizer_assets.core.records.label import LABEL_GIVEN, LabelKey, label_key
from harmonizer_assets.core.review.answers import (
    DISAGREEMENTS,
    NUMBERED,
    Answer,
    give_answer,
    withdraw_answer,
)
from harmonizer_assets.core.review.context import (
    Context,
    Grounds,
    read_context,
    read_grounds,
)
from harmonizer_assets.core.review.corrections import tier_states, wanted_corrections
from harmonizer_assets.core.review.exchange.exporting import ExportReport, export_review
from harmonizer_assets.core.review.exchange.formats import FORMATS
from harmonizer_assets.core.review.exchange.importing import ImportReport, import_answers
from harmonizer_assets.core.review.policy import ReviewPolicy
from harmonizer_assets.core.review.queue import (
    MOST_LISTED,
    Progress,
    ReviewFilter,
    check_same_proposal,
    next_item,
    open_counts,
    open_items,
    open_listed,
    progress,
    queued_item,
    update_review_queue,
)
from harmonizer_assets.core.review.tiers import TierState
from harmonizer_assets.core.store.numbers import newest_first, next_number, oldest_first
from harmonizer_assets.core.store.warehouse import Warehouse


class Review:
    """What people are asked about the labels of a home, and what they answer.

    Examples:
        >>> review = pipeline.review
        >>> [item] = review.items("ann", limit=1)
        >>> review.answer(label_key(item), "ann", Answer.RIGHT)
    """

    def __init__(
        self,
        warehouse: Warehouse,
        policy: ReviewPolicy,
        settings: ReviewSettings,
        label_types: Sequence[str],
    ) -> None:
        self._warehouse = warehouse
        self._policy = policy
        self._settlement = settings.settlement
        self._label_types = label_types

    @property
    def policy(self) -> ReviewPolicy:
        """Return the policy of the home."""
        return self._policy

    def update(self) -> int:
        """Compute the queue again; return how many labels it holds."""
        return update_review_queue(self._warehouse, self._policy)

    def items(
        self, reviewer: str, chosen: ReviewFilter | None = None, limit: int | None = 50
    ) -> list[dict[str, Any]]:
        """List the labels that a reviewer can answer about; see `queue.open_items`."""
        return open_items(self._warehouse, reviewer, self._settlement, chosen, limit)

    def next(
        self, reviewer: str, chosen: ReviewFilter | None = None
    ) -> tuple[dict[str, Any] | None, Progress]:
        """Return the first of `items` and `progress`, faster than both; see `queue.next_item`."""
        return next_item(self._warehouse, reviewer, self._settlement, chosen)

    def item(self, reviewer: str, key: LabelKey) -> dict[str, Any] | None:
        """Return one label of the queue as `items` does, also where it is answered or settled."""
        return queued_item(self._warehouse, reviewer, self._settlement, key)

    def counts(self, reviewer: str) -> list[dict[str, Any]]:
        """Count the open labels by what they can be filtered by; see `queue.open_counts`."""
        return open_counts(self._warehouse, reviewer, self._settlement)

    def context(self, key: LabelKey) -> Context | None:
        """Return what stands around a label's word; None where the word is not there."""
        return read_context(self._warehouse, key.word)

    def grounds(self, key: LabelKey) -> Grounds:
        """Return what speaks against a label, with examples for and against it."""
        return read_grounds(self._warehouse, key)

    def kind(self, reviewer: str, kind_id: str) -> list[dict[str, Any]]:
        """List the open labels that one answer about a kind would settle."""
        return self.listed(reviewer, ReviewFilter(kind_id=kind_id), limit=None)

    def listed(
        self, reviewer: str, chosen: ReviewFilter, limit: int | None = MOST_LISTED
    ) -> list[dict[str, Any]]:
        """List the open labels of a part of the queue; see `queue.open_listed`."""
        return open_listed(self._warehouse, reviewer, self._settlement, chosen, limit)

    def progress(self, reviewer: str, chosen: ReviewFilter | None = None) -> Progress:
        """Count how far a review is."""
        return progress(self._warehouse, reviewer, self._settlement, chosen)

    def disagreements(self) -> list[dict[str, Any]]:
        """List the labels about which people have said different things, with what each said."""
        return self._warehouse.query(DISAGREEMENTS).to_pylist()

    def opinions(self, key: LabelKey) -> list[dict[str, Any]]:
        """List the answers about a label that stand, the earliest first, without skips."""
        return self._warehouse.query(
            f"FROM standing_answers WHERE {LABEL_GIVEN} AND verdict <> '{Answer.SKIP}' "
            f"ORDER BY {oldest_first('answered_at')}, answer_id",
            key._asdict(),
        ).to_pylist()

    def answer(
        self,
        key: LabelKey,
        reviewer: str,
        verdict: Answer,
        *,
        to_label: str | None = None,
        note: str | None = None,
        proposal_shown: bool = False,
    ) -> str:
        """Store what a person says about one label; return the id of the answer.

        Args:
            key: the label.
            reviewer: who says it.
            verdict: what is said.
            to_label: the right type, where the label is wrong and another one is right.
            note: why.
            proposal_shown: whether the reviewer was shown what is proposed; see `give_answer`.

        Raises:
            InputError: the label is not there, or the right type is none of the taxonomy.
            StoreError: the answer cannot be stored.
        """
        self._check(key.label if verdict == Answer.ADD else to_label)
        return give_answer(
            self._warehouse,
            [key],
            reviewer,
            verdict,
            to_label=to_label,
            note=note,
            proposal_shown=proposal_shown,
        )

    def answer_kind(
        self,
        kind_id: str,
        reviewer: str,
        verdict: Answer,
        *,
        expected: Sequence[LabelKey],
        to_label: str | None = None,
        note: str | None = None,
    ) -> str:
        """Store one answer about all open labels of a kind; return the id of the answer.

        Args:
            kind_id: the kind.
            reviewer: who says it.
            verdict: what is said of each.
            expected: the labels that the reviewer was shown. If others are open by now, nothing is
                stored, so that nobody answers about labels that they have not seen.
            to_label: the right type, where the labels are wrong and another one is right.
            note: why.

        Raises:
            InputError: the kind's open labels are not those that were shown.
            StoreError: the answer cannot be stored.
        """
        self._check(to_label)
        labels = [label_key(row) for row in self.kind(reviewer, kind_id)]
        if {*labels} != {*expected} or not labels:
            raise InputError("the labels of this kind are others by now: look at the list again")
        return self._about_shown(labels, reviewer, verdict, to_label, note, kind_id)

    def answer_listed(
        self,
        labels: Sequence[LabelKey],
        reviewer: str,
        verdict: Answer,
        *,
        to_label: str | None = None,
        note: str | None = None,
    ) -> str:
        """Store one answer about labels of a list for which the same is proposed; return its id.

        It says nothing of other labels of their kinds: no rule applies it to labels that come
        later.

        Args:
            labels: that the answer is about; those of the list that it is not about stay open.
            reviewer: who says it.
            verdict: what is said of each.
            to_label: the right type, where the labels are wrong and another one is right.
            note: why.

        Raises:
            InputError: a label is not open, or not the same is proposed for all of them; nothing
                was stored.
            StoreError: the answer cannot be stored.
        """
        self._check(to_label)
        check_same_proposal(self._warehouse, reviewer, self._settlement, labels)
        return self._about_shown(labels, reviewer, verdict, to_label, note)

    def _about_shown(
        self,
        labels: Sequence[LabelKey],
        reviewer: str,
        verdict: Answer,
        to_label: str | None,
        note: str | None,
        kind_id: str | None = None,
    ) -> str:
        """Store one answer about labels that were shown with what is proposed."""
        return give_answer(
            self._warehouse,
            labels,
            reviewer,
            verdict,
            to_label=to_label,
            note=note,
            proposal_shown=True,
            kind_id=kind_id,
        )

    def withdraw(self, answer_id: str, reviewer: str) -> None:
        """Take an answer back; see `answers.withdraw_answer`."""
        withdraw_answer(self._warehouse, answer_id, reviewer)

    def last_answer(self, reviewer: str) -> dict[str, Any] | None:
        """Return the last answer of a reviewer that stands, with one of its labels."""
        rows = self._warehouse.query(
            "FROM standing_answers WHERE reviewer = $reviewer "
            f"ORDER BY {newest_first('answered_at')}, answer_id LIMIT 1",
            {"reviewer": reviewer},
        ).to_pylist()
        return rows[0] if rows else None

    def tiers(self) -> Mapping[str, TierState]:
        """Say of each rule of the policy what its blind sample says, and whether it is open."""
        return self._warehouse.read(lambda con: tier_states(con, self._policy))

    def reopen(self, rule: str, actor: str, note: str | None = None) -> None:
        """Count the blind sample of a rule anew, after a disagreement has closed it.

        Raises:
            InputError: the policy has no such rule.
        """
        if self._policy.rule(rule) is None:
            known = ", ".join(rule.name for rule in self._policy.rules)
            raise InputError(f"the review policy has no rule {rule!r}: it has {known}")
        self._warehouse.write(
            lambda con: con.execute(
                "INSERT INTO review_reopenings BY NAME SELECT $1 AS policy, $2 AS actor, "
                f"$3 AS note, now() AS reopened_at, {next_number(*NUMBERED)} AS number",
                [rule, actor, note],
            )
        )

    def export(
        self,
        path: Path,
        exchange_format: str,
        chosen: ReviewFilter | None = None,
        *,
        limit: int | None = None,
        overwrite: bool = False,
    ) -> ExportReport:
        """Write labels of the queue for another tool, the most valuable first.

        Args:
            path: of the file.
            exchange_format: one of `FORMATS`.
            chosen: the part of the queue.
            limit: how many; None for all.
            overwrite: whether files that are there are replaced.

        Raises:
            InputError: the file has another suffix, is there already or cannot be written.
        """
        return export_review(
            self._warehouse,
            FORMATS[exchange_format],
            path,
            self._label_types,
            chosen=chosen or ReviewFilter(),
            limit=limit,
            overwrite=overwrite,
        )

    def import_answers(self, path: Path, exchange_format: str, reviewer: str) -> ImportReport:
        """Store what people have said in another tool as answers; see `importing.import_answers`.

        Args:
            path: of the file.
            exchange_format: one of `FORMATS`.
            reviewer: who has answered where the file names nobody.

        Raises:
            InputError: the file cannot be read; nothing was stored.
            StoreError: the answers cannot be stored; nothing was.
        """
        return import_answers(
            self._warehouse, FORMATS[exchange_format], path, self._label_types, reviewer
        )

    def wanted(self) -> pa.Table:
        """Return the corrections that answers or open rules want, with the columns of `WANTED`."""
        return self._warehouse.read(
            lambda con: wanted_corrections(con, self._policy, self._settlement)
        )

    def _check(self, to_label: str | None) -> None:
        if to_label is not None and to_label not in self._label_types:
            raise InputError(f"{to_label!r} is no label type of the home's taxonomy")
