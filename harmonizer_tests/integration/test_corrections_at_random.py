"""Whatever is done to labels in whatever order, they are what a simple model says they are.

`HARMONIZER_RANDOM_STEPS` says how many steps are taken in all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from harmonizer_assets.core.apply.undo import Selection, redo, undo
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.correction import CorrectionReport
from harmonizer_assets.core.records.label import LabelKey, label_key
from harmonizer_tests.support.corrections import applied, correction, labels
from harmonizer_tests.support.receipts import LABEL_COLUMNS, WORD_COLUMNS, write_csv

STEPS: Final = 25
EXAMPLES: Final = int(os.environ.get("HARMONIZER_RANDOM_STEPS", "500")) // STEPS

WORDS: Final = 3
TYPES: Final = ("DATE", "TIME", "TAX")
STATUSES: Final = ("PENDING", "VALID", "INVALID", "NEEDS_REVIEW")
State = tuple[str, tuple[str, str] | None, str]
"""Status, who has moved it there from which label, and the batch or operation that it is from."""
AFTER: Final = {
    "confirm": "VALID",
    "ask": "NEEDS_REVIEW",
    "mark_invalid": "INVALID",
    "move": "INVALID",
}

keys = st.builds(
    lambda word, label: LabelKey("image", 1, 1, word, label),
    st.integers(1, WORDS),
    st.sampled_from(TYPES),
)


@dataclass
class Made:
    """A correction, and what it did to rows of labels."""

    number: int
    operation: str
    actor: str
    rows: dict[LabelKey, tuple[State | None, State | None]]
    in_force: bool = True
    redoes: Made | None = None


def moved_by(row: dict[str, Any]) -> tuple[str, str] | None:
    """Who has moved a label there, and from which one."""
    if row["extra"] is None:
        return None
    extra = json.loads(row["extra"])
    return extra["label_proposed_by"], extra["label_consolidated_from"]


class Model:
    """What apply, undo and redo mean, written as plainly as possible."""

    def __init__(self) -> None:
        self.labels: dict[LabelKey, State] = {}
        self.made: list[Made] = []
        self.undone: dict[str, list[Made]] = {}

    def later(self, one: Made, chosen: list[Made]) -> list[Made]:
        return [
            other
            for other in self.made
            if other.in_force
            and other not in chosen
            and other.number > one.number
            and not other.rows.keys().isdisjoint(one.rows)
        ]

    def set(self, key: LabelKey, state: State | None) -> None:
        if state is None:
            self.labels.pop(key, None)
        else:
            self.labels[key] = state

    def before_all(self, key: LabelKey) -> tuple[State | None, State | None]:
        """What a batch had said of a label, and what it is by its corrections."""
        touching = [one for one in self.made if one.in_force and key in one.rows]
        if not touching:
            return None, None
        return touching[0].rows[key][0], touching[-1].rows[key][1]

    def settle(self, chosen: list[Made], fits: Callable[[Made, list[Made]], bool]) -> list[Made]:
        """Leave out what does not fit, until all that is left does."""
        while bad := [one for one in chosen if not fits(one, chosen)]:
            chosen = [one for one in chosen if one not in bad]
        return chosen

    def can_be_undone(self, one: Made, chosen: list[Made]) -> bool:
        if self.later(one, chosen):
            return False
        last = {
            key: max((o for o in chosen if key in o.rows), key=lambda o: o.number)
            for key in one.rows
        }
        return all(self.says(key, last[key].rows[key][1]) for key in one.rows)

    def can_be_redone(self, one: Made, chosen: list[Made]) -> bool:
        first = {
            key: min((o for o in chosen if key in o.rows), key=lambda o: o.number)
            for key in one.rows
        }
        return all(self.says(key, first[key].rows[key][0]) for key in one.rows)

    def says(self, key: LabelKey, state: State | None) -> bool:
        """Whether a label is as it was, whichever batch says so."""
        now = self.labels.get(key)
        return (now and now[:2]) == (state and state[:2])


class Corrections(RuleBasedStateMachine):
    """Steps in any order on one home."""

    @initialize()
    def new_home(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="corrections"))
        self.home = Home(self.folder / "home").ensure()
        self.pipeline = Pipeline(self.home)
        self.model = Model()
        self.batches = 0
        self.send({LabelKey("image", 1, 1, word, "DATE"): "PENDING" for word in (1, 2, 3)})

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def send(self, statuses: dict[LabelKey, str]) -> None:
        self.batches += 1
        folder = self.folder / str(self.batches)
        words = [
            {"image_id": "image", "receipt_id": 1, "line_id": 1, "word_id": word, "text": "x"}
            for word in range(1, WORDS + 1)
        ]
        rows = [
            {**key._asdict(), "validation_status": status, "merchant_name": "Shop"}
            for key, status in statuses.items()
        ]
        submit_batch(
            self.home,
            write_csv(folder / "words.csv", WORD_COLUMNS[:5], words),
            write_csv(folder / "labels.csv", LABEL_COLUMNS, rows),
        )
        [report] = self.pipeline.ingest().batches
        for key, status in statuses.items():
            said, corrected = self.model.before_all(key)
            repeats = said is not None and said[:2] == (status, None)
            now = self.model.labels.get(key)
            if not (repeats and corrected and now and corrected[2] == now[2]):
                self.model.set(key, (status, None, report.batch_id))

    @rule(statuses=st.dictionaries(keys, st.sampled_from(STATUSES), min_size=1, max_size=3))
    def a_batch_arrives(self, statuses: dict[LabelKey, str]) -> None:
        # Batches are told apart by content: an equal one that comes again changes nothing.
        self.send({**statuses, LabelKey("other", self.batches, 1, 1, "DATE"): "PENDING"})

    @rule(
        wanted=st.dictionaries(
            keys.map(lambda key: key.word),
            st.tuples(st.sampled_from(TYPES), st.sampled_from([*AFTER]), st.sampled_from(TYPES)),
            min_size=1,
        ),
        source=st.sampled_from(["person", "policy"]),
        actor=st.sampled_from(["ann", "bob"]),
        seen_now=st.booleans(),
    )
    def corrections_are_applied(
        self, wanted: dict[Any, Any], source: str, actor: str, seen_now: bool
    ) -> None:
        stored = {label_key(row): row for row in labels(self.pipeline)}
        rows = []
        for word, (label, action, to_label) in wanted.items():
            row = stored.get(LabelKey(*word, label))
            if row is None:
                continue
            target = to_label if action == "move" else None
            changed = {} if seen_now else {"seen_status": "another"}
            rows.append(correction(row, action, target, source=source, actor=actor, **changed))
        report = applied(self.pipeline, *rows)
        assert seen_now or not report.corrections
        for row in report.corrections:
            self.note_apply(report, row, source)

    def note_apply(self, report: CorrectionReport, row: dict[str, Any], source: str) -> None:
        key, action = label_key(row), row["action"]
        before = self.model.labels[key]
        assert source == "person" or before[0] not in ("VALID", "INVALID")
        changes: dict[LabelKey, tuple[State | None, State | None]] = {
            key: (before, (AFTER[action], before[1], report.operation_id))
        }
        if action == "move":
            target = key._replace(label=row["to_label"])
            there = self.model.labels.get(target)
            if there is None or (source == "person" and there[0] != "VALID"):
                status = "VALID" if source == "person" else "PENDING"
                moved = (row["actor"], key.label)
                changes[target] = (there, (status, moved, report.operation_id))
        number = row["correction_id"]
        self.model.made.append(Made(number, report.operation_id, row["actor"], changes))
        for changed, (_, after) in changes.items():
            self.model.set(changed, after)

    @rule(
        by=st.sampled_from(["actor", "operation", "correction"]),
        place=st.integers(0, 30),
        with_later=st.booleans(),
        commit=st.sampled_from([True, True, True, False]),
    )
    def corrections_are_undone(self, by: str, place: int, with_later: bool, commit: bool) -> None:
        if not self.model.made:
            return
        one = self.model.made[place % len(self.model.made)]
        value = {"actor": one.actor, "operation": one.operation, "correction": one.number}[by]
        chosen = [
            made
            for made in self.model.made
            if made.in_force
            and value
            == {"actor": made.actor, "operation": made.operation, "correction": made.number}[by]
        ]
        if with_later:
            while more := [other for made in chosen for other in self.model.later(made, chosen)]:
                chosen += list({id(other): other for other in more}.values())
        chosen = self.model.settle(chosen, self.model.can_be_undone)
        report = undo(
            self.pipeline.warehouse,
            Selection(**{by: value}),
            actor="cleo",
            with_later=with_later,
            commit=commit,
        )
        assert {row["correction_id"] for row in report.corrections} == {
            made.number for made in chosen
        }
        if not commit or not chosen:
            return
        for made in sorted(chosen, key=lambda made: -made.number):
            made.in_force = False
            for key, (before, _) in made.rows.items():
                self.model.set(key, before)
        self.model.undone[report.operation_id] = chosen

    @rule(place=st.integers(0, 30))
    def an_undo_is_taken_back(self, place: int) -> None:
        if not self.model.undone:
            return
        operation = [*self.model.undone][place % len(self.model.undone)]
        again = [made for made in self.model.undone[operation] if not self.is_redone(made)]
        chosen = self.model.settle(again, self.model.can_be_redone)
        report = redo(self.pipeline.warehouse, operation, actor="cleo", commit=True)
        assert {row["correction_id"] for row in report.corrections} == {
            made.number for made in chosen
        }
        highest = max(made.number for made in self.model.made)
        for nth, made in enumerate(sorted(chosen, key=lambda made: made.number), start=1):
            redone = Made(highest + nth, report.operation_id, made.actor, made.rows)
            redone.redoes = made
            self.model.made.append(redone)
            for key, (_, after) in made.rows.items():
                self.model.set(key, after)

    def is_redone(self, one: Made) -> bool:
        return any(made.redoes is one and made.in_force for made in self.model.made)

    @rule()
    def the_process_dies_while_it_applies(self) -> None:
        """Nothing that it had not committed is there; the next one finds the tables whole."""
        row = next(iter(labels(self.pipeline)))
        with contextlib.suppress(Killed):
            self.pipeline.warehouse.write(lambda con: self.half_applied(con, row))

    def half_applied(self, con: Any, row: dict[str, Any]) -> None:
        con.execute("DELETE FROM labels WHERE image_id = $1", [row["image_id"]])
        raise Killed

    @invariant()
    def labels_are_what_the_model_says(self) -> None:
        if not hasattr(self, "pipeline"):
            return
        found = {
            label_key(row): (row["validation_status"], moved_by(row), row["batch_id"])
            for row in labels(self.pipeline)
        }
        assert found == self.model.labels


class Killed(BaseException):
    """What an interrupt raises in the middle of a transaction."""


Corrections.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestCorrectionsAtRandom = Corrections.TestCase
