"""Whatever is done to labels in whatever order, they are what a simple model says they are.

`HARMONIZER_RANDOM_STEPS` says how many steps are taken in all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
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
from harmonizer_assets.core.records.label import LabelKey, label_key
from harmonizer_assets.core.review.answers import Answer
from harmonizer_tests.support.correction_model import AFTER, Made, Model, Verdict
from harmonizer_tests.support.corrections import applied, correction, labels
from harmonizer_tests.support.crash_points import apply_all, dies_at, import_answers, undo_all
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import LABEL_COLUMNS, WORD_COLUMNS, table, write_csv

STEPS: Final = 25
EXAMPLES: Final = int(os.environ.get("HARMONIZER_RANDOM_STEPS", "200")) // STEPS

WORDS: Final = 3
TYPES: Final = ("DATE", "TIME", "TAX")
STATUSES: Final = ("PENDING", "VALID", "INVALID", "NEEDS_REVIEW")
PEOPLE: Final = ("ann", "bob", "cleo")
FATAL_POINTS: Final = 3
"""At one of so many changes of the home's files a process dies."""

keys = st.builds(
    lambda word, label: LabelKey("image", 1, 1, word, label),
    st.integers(1, WORDS),
    st.sampled_from(TYPES),
)
places = st.integers(0, 30)
people = st.sampled_from(PEOPLE)
types = st.sampled_from(TYPES)


@dataclass
class Exported:
    """A file that was exported for review, and what one person has answered in it."""

    path: Path
    at: int
    rows: list[dict[str, Any]]
    said: tuple[str, LabelKey, list[tuple[LabelKey, Verdict]]] | None = None


def ingested(pipeline: Pipeline, folder: Path, statuses: dict[LabelKey, str]) -> str:
    """Ingest a batch of labels and all words; return its id."""
    words = [
        {"image_id": "image", "receipt_id": 1, "line_id": 1, "word_id": word, "text": "x"}
        for word in range(1, WORDS + 1)
    ]
    rows = [
        {**key._asdict(), "validation_status": status, "merchant_name": "Shop"}
        for key, status in statuses.items()
    ]
    submit_batch(
        pipeline.home,
        write_csv(folder / "words.csv", WORD_COLUMNS[:5], words),
        write_csv(folder / "labels.csv", LABEL_COLUMNS, rows),
    )
    [report] = pipeline.ingest().batches
    return report.batch_id


def _first_batch(home: Home) -> None:
    first = {LabelKey("image", 1, 1, word, "DATE"): "PENDING" for word in range(1, WORDS + 1)}
    ingested(Pipeline(home), home.scratch / "first", first)


class Corrections(RuleBasedStateMachine):
    """Steps in any order on one home."""

    @initialize()
    def new_home(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="corrections"))
        self.home = Home(self.folder / "home").ensure()
        copy_home(self.home, "corrections at random", _first_batch)
        self.pipeline = Pipeline(self.home)
        self.model = Model()
        self.files: list[Exported] = []
        self.batches = 1
        for row in labels(self.pipeline):
            self.model.receive(label_key(row), row["validation_status"], row["batch_id"])

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    # Batches

    def send(self, statuses: dict[LabelKey, str]) -> None:
        self.batches += 1
        batch_id = ingested(self.pipeline, self.folder / str(self.batches), statuses)
        for key, status in statuses.items():
            self.model.receive(key, status, batch_id)

    @rule(statuses=st.dictionaries(keys, st.sampled_from(STATUSES), min_size=1, max_size=3))
    def a_batch_arrives(self, statuses: dict[LabelKey, str]) -> None:
        # Batches are told apart by content: an equal one that comes again changes nothing.
        self.send({**statuses, LabelKey("other", self.batches, 1, 1, "DATE"): "PENDING"})

    # Review

    @rule(key=keys, reviewer=people, verdict=st.sampled_from([*Answer]), to_label=types)
    def somebody_answers(
        self, key: LabelKey, reviewer: str, verdict: Answer, to_label: str | None
    ) -> None:
        is_there = key in self.model.labels
        if is_there == (verdict == Answer.ADD):
            return
        right = to_label if verdict == Answer.WRONG and to_label != "TAX" else None
        answer = self.pipeline.review.answer(key, reviewer, verdict, to_label=right)
        self.model.say(answer, key, reviewer, (str(verdict), right))

    @rule(place=places)
    def an_answer_is_withdrawn(self, place: int) -> None:
        given = [one for one in self.model.said if not one.withdrawn]
        if given:
            one = given[place % len(given)]
            self.pipeline.review.withdraw(one.answer_id, one.reviewer)
            for said in self.model.said:
                said.withdrawn |= said.answer_id == one.answer_id

    @rule()
    def labels_are_exported_for_review(self) -> None:
        """All labels of the words, as they are now, come into the queue and into a file."""
        self.pipeline.warehouse.write(fill_queue)
        self.model.queue = {key: state[0] for key, state in self.model.labels.items()}
        path = self.folder / f"review-{len(self.files)}.ndjson"
        self.pipeline.review.export(path, "ndjson")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [row for row in rows if row["image_id"] == "image"]
        self.files.append(Exported(path, self.model.tick(), rows))

    @rule(file=places, row=places, reviewer=people, verdict=st.sampled_from([*Answer]), to=types)
    def a_file_is_imported(
        self, file: int, row: int, reviewer: str, verdict: Answer, to: str
    ) -> None:
        """Perhaps an old file, perhaps one that was imported before."""
        if not self.files:
            return
        chosen = self.files[file % len(self.files)]
        if chosen.said is None and chosen.rows:
            self.fill_in(chosen, chosen.rows[row % len(chosen.rows)], reviewer, verdict, to)
        if chosen.said is not None:
            expected = self.expected_answers(chosen)
            report = self.pipeline.review.import_answers(chosen.path, "ndjson", "nobody")
            assert sum(report.answers.values()) == len(expected)
            self.note_import(chosen, expected)

    def fill_in(
        self, file: Exported, row: dict[str, Any], reviewer: str, verdict: Answer, to: str
    ) -> None:
        key = label_key(row)
        if to == key.label and verdict in (Answer.WRONG, Answer.ADD):
            verdict = Answer.RIGHT
        needs_label = verdict in (Answer.WRONG, Answer.ADD)
        row |= {
            "answer": str(verdict),
            "answer_by": reviewer,
            "answer_label": to if needs_label else None,
        }
        file.path.write_text("\n".join(map(json.dumps, file.rows)))
        said: list[tuple[LabelKey, Verdict]] = [(key, (str(verdict), to if needs_label else None))]
        if verdict == Answer.ADD:
            said = [(key, ("right", None)), (key._replace(label=to), ("add", None))]
        file.said = (reviewer, key, said)

    def expected_answers(self, file: Exported) -> list[tuple[LabelKey, Verdict]]:
        """The answers of a file that are taken."""
        assert file.said is not None
        reviewer, own, said = file.said
        status = next(row["validation_status"] for row in file.rows if label_key(row) == own)
        found = []
        for key, verdict in said:
            mine, now = self.model.standing_of(key, reviewer), self.model.labels.get(key)
            came_before = any(one.import_id == (file.path, key) for one in self.model.said)
            answered_here = (
                mine is not None
                and mine.import_id is None
                and mine.at > file.at
                and mine.verdict != verdict
            )
            is_as_it_was = now is None if verdict[0] == "add" else now is not None
            if verdict[0] != "add" and now is not None:
                is_as_it_was = now[0] == status
            if not came_before and not answered_here and is_as_it_was:
                found.append((key, verdict))
        return found

    def note_import(self, file: Exported, taken: list[tuple[LabelKey, Verdict]]) -> None:
        assert file.said is not None
        reviewer, own, _ = file.said
        status = next(row["validation_status"] for row in file.rows if label_key(row) == own)
        ids = {
            label_key(row): row["answer_id"]
            for row in table(self.pipeline, "review_answers")
            if row["import_id"]
            and row["reviewer"] == reviewer
            and row["answer_id"] not in {one.answer_id for one in self.model.said}
        }
        assert {*ids} == {key for key, _ in taken}
        for key, verdict in taken:
            seen = status if key == own else None
            self.model.say(ids[key], key, reviewer, verdict, seen=seen, import_id=(file.path, key))

    # Corrections

    @rule()
    def answers_are_applied(self) -> None:
        due = self.model.due()
        report = self.pipeline.apply("dora", commit=True)
        made = {
            label_key(row): (row["action"], row["to_label"], row["answer_id"])
            for row in report.corrections
        }
        assert made == due
        for row in report.corrections:
            self.model.note_apply({**row, "operation_id": report.operation_id})

    @rule(
        wanted=st.dictionaries(
            keys.map(lambda key: key.word),
            st.tuples(types, st.sampled_from([*AFTER.keys() - {"add"}]), types),
            min_size=1,
        ),
        source=st.sampled_from(["person", "policy"]),
        actor=people,
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
            self.model.note_apply({**row, "operation_id": report.operation_id}, source)

    @rule(
        by=st.sampled_from(["actor", "operation", "correction", "answer"]),
        place=places,
        with_later=st.booleans(),
        commit=st.sampled_from([True, True, True, False]),
    )
    def corrections_are_undone(self, by: str, place: int, with_later: bool, commit: bool) -> None:
        if not self.model.made:
            return
        one = self.model.made[place % len(self.model.made)]
        value = selected(by, one)
        if value is None:
            return
        same = [made for made in self.model.made if made.in_force and selected(by, made) == value]
        chosen = self.model.undoable(same, with_later=with_later)
        report = undo(
            self.pipeline.warehouse,
            Selection(**{by: value}),
            actor="dora",
            with_later=with_later,
            commit=commit,
        )
        assert {row["correction_id"] for row in report.corrections} == {
            made.number for made in chosen
        }
        if commit and chosen:
            self.model.note_undo(report.operation_id, chosen)

    @rule(place=places)
    def an_undo_is_taken_back(self, place: int) -> None:
        if not self.model.undone:
            return
        operation = [*self.model.undone][place % len(self.model.undone)]
        chosen = self.model.redoable(operation)
        report = redo(self.pipeline.warehouse, operation, actor="dora", commit=True)
        assert {row["correction_id"] for row in report.corrections} == {
            made.number for made in chosen
        }
        self.model.note_redo(report.operation_id, chosen)

    # Kills

    @rule(fatal=st.integers(1, FATAL_POINTS))
    def a_process_is_killed_while_it_applies(self, fatal: int) -> None:
        """All of an apply is done, or nothing."""
        due = self.model.due()
        before = self.operations()
        dies_at(fatal, self.home, apply_all, "dora")
        made = [
            row
            for row in table(self.pipeline, "label_corrections")
            if row["operation_id"] not in before
        ]
        assert not made or len(made) == len(due)
        for row in sorted(made, key=lambda row: row["correction_id"]):
            self.model.note_apply(row)

    @rule(fatal=st.integers(1, FATAL_POINTS), place=places)
    def a_process_is_killed_while_it_undoes(self, fatal: int, place: int) -> None:
        in_force = [made for made in self.model.made if made.in_force]
        if not in_force:
            return
        actor = in_force[place % len(in_force)].actor
        mine = [made for made in in_force if made.actor == actor]
        chosen = self.model.undoable(mine, with_later=True)
        before = self.operations()
        dies_at(fatal, self.home, undo_all, actor, "dora")
        for operation in self.operations() - before:
            self.model.note_undo(operation, chosen)

    @rule(fatal=st.integers(1, FATAL_POINTS), place=places)
    def a_process_is_killed_while_it_imports(self, fatal: int, place: int) -> None:
        """Whether it had stored the answers or not, the next import makes up for it."""
        filled = [file for file in self.files if file.said]
        if not filled:
            return
        file = filled[place % len(filled)]
        expected = self.expected_answers(file)
        dies_at(fatal, self.home, import_answers, file.path)
        self.pipeline.review.import_answers(file.path, "ndjson", "nobody")
        self.note_import(file, expected)

    def operations(self) -> set[str]:
        return {row["operation_id"] for row in table(self.pipeline, "label_operations")}

    @invariant()
    def labels_are_what_the_model_says(self) -> None:
        if not hasattr(self, "pipeline"):
            return
        found = {
            label_key(row): (row["validation_status"], moved_by(row), row["batch_id"])
            for row in labels(self.pipeline)
        }
        assert found == self.model.labels


def moved_by(row: dict[str, Any]) -> tuple[str, str | None] | None:
    """Who has moved or added a label there, and from which one."""
    if row["extra"] is None:
        return None
    extra = json.loads(row["extra"])
    return extra["label_proposed_by"], extra.get("label_consolidated_from")


def selected(by: str, made: Made) -> Any:
    """What an undo of a correction would name."""
    return {
        "actor": made.actor,
        "operation": made.operation,
        "correction": made.number,
        "answer": made.answer_id,
    }[by]


def fill_queue(con: Any) -> None:
    """Have people asked about all labels as they are; no run has scored them."""
    con.execute("DELETE FROM review_queue")
    con.execute(
        "INSERT INTO review_queue BY NAME SELECT l.* EXCLUDE (extra), label AS label_type, "
        "coalesce(w.text, '') AS word_text, 'confirm' AS action, 'kind' AS kind_id, "
        "1 AS n_alike, false AS is_blind, 0.5 AS value "
        "FROM labels l LEFT JOIN words w USING (image_id, receipt_id, line_id, word_id)"
    )


Corrections.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestCorrectionsAtRandom = Corrections.TestCase
