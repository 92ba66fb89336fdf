"""What answers, apply, undo and redo mean, written as plainly as possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from harmonizer_assets.core.records.label import LabelKey, label_key

State = tuple[str, tuple[str, str | None] | None, str]
"""Status, who has moved or added it there and from which label, and the batch or operation that it
is from."""
Verdict = tuple[str, str | None]
"""What a person says, and the label that is right."""

ACTIONS: Final = {"right": "confirm", "wrong": "mark_invalid", "add": "add"}
AFTER: Final = {
    "confirm": "VALID",
    "add": "VALID",
    "ask": "NEEDS_REVIEW",
    "mark_invalid": "INVALID",
    "move": "INVALID",
}


@dataclass
class Said:
    """What one person has said about one label."""

    answer_id: str
    key: LabelKey
    reviewer: str
    verdict: Verdict
    seen: str | None
    at: int
    import_id: Any = None
    withdrawn: bool = False


@dataclass
class Made:
    """A correction, and what it did to rows of labels."""

    number: int
    operation: str
    actor: str
    key: LabelKey
    action: str
    to_label: str | None
    answer_id: str | None
    rows: dict[LabelKey, tuple[State | None, State | None]]
    in_force: bool = True
    redoes: Made | None = None


class Model:
    """Labels, the answers about them, and the corrections that they have led to."""

    def __init__(self) -> None:
        self.labels: dict[LabelKey, State] = {}
        self.queue: dict[LabelKey, str] = {}
        self.said: list[Said] = []
        self.made: list[Made] = []
        self.undone: dict[str, list[Made]] = {}
        self.time = 0

    def tick(self) -> int:
        self.time += 1
        return self.time

    # Answers

    def say(
        self,
        answer_id: str,
        key: LabelKey,
        reviewer: str,
        verdict: Verdict,
        *,
        seen: str | None = None,
        import_id: Any = None,
    ) -> None:
        """Note an answer; who gives it sees the state in the queue, or else the present one."""
        present = self.labels.get(key)
        saw = seen or self.queue.get(key) or (present and present[0])
        if verdict[0] == "add":
            saw = None
        self.said.append(Said(answer_id, key, reviewer, verdict, saw, self.tick(), import_id))

    def standing(self) -> list[Said]:
        """The last answer of each person about each label."""
        last = {(one.key, one.reviewer): one for one in self.said if not one.withdrawn}
        return list(last.values())

    def standing_of(self, key: LabelKey, reviewer: str) -> Said | None:
        found = [one for one in self.standing() if (one.key, one.reviewer) == (key, reviewer)]
        return found[0] if found else None

    def settled(self) -> list[Said]:
        """The latest answer that says what most say, for each label on which most agree."""
        votes: dict[LabelKey, Counter[Verdict]] = {}
        heard = [one for one in self.standing() if one.verdict[0] != "skip"]
        for one in heard:
            votes.setdefault(one.key, Counter())[one.verdict] += 1
        found = []
        for key, counted in votes.items():
            most = [verdict for verdict, n in counted.items() if n == max(counted.values())]
            if len(most) == 1:
                agreeing = [one for one in heard if (one.key, one.verdict) == (key, most[0])]
                found.append(max(agreeing, key=lambda one: one.at))
        return found

    def due(self) -> dict[LabelKey, tuple[str, str | None, str]]:
        """The corrections that answers lead to: action, right label and answer."""
        done = {(one.answer_id, one.key) for one in self.made}
        wanted = {
            one.key: (action_of(one.verdict), one.verdict[1], one.answer_id)
            for one in self.settled()
            if (one.answer_id, one.key) not in done and self.fits(one)
        }
        return {
            key: (action, to_label, answer)
            for key, (action, to_label, answer) in wanted.items()
            if action != "move" or not self.collides(key, to_label, wanted)
        }

    def fits(self, one: Said) -> bool:
        """Whether a label is still as it was answered about, and not yet as it is to be."""
        now, action = self.labels.get(one.key), action_of(one.verdict)
        if action == "add":
            return now is None
        if now is None or now[0] != one.seen or one.verdict[1] == one.key.label:
            return False
        return not (self.is_applied(one.key, action, one.verdict[1])) and (
            action == "move" or now[0] != AFTER[action]
        )

    def is_applied(self, key: LabelKey, action: str, to_label: str | None) -> bool:
        about = [one for one in self.made if one.in_force and one.key == key]
        if not about:
            return False
        last = max(about, key=lambda one: one.number)
        same = (last.action, last.to_label) == (action, to_label)
        return same and self.says(key, last.rows[key][1])

    def collides(self, key: LabelKey, to_label: str | None, wanted: Mapping[LabelKey, Any]) -> bool:
        """Whether another correction of the same word changes the label that is to be given."""
        return any(
            other.label == to_label
            or (action == "move" and target == to_label and other.label < key.label)
            for other, (action, target, _) in wanted.items()
            if other.word == key.word
        )

    # Corrections

    def note_apply(self, row: Mapping[str, Any], source: str = "person") -> None:
        """Note a correction that was made, as `label_corrections` has it."""
        key, action, operation = label_key(row), row["action"], row["operation_id"]
        before = self.labels.get(key)
        changes: dict[LabelKey, tuple[State | None, State | None]] = {}
        if action == "add":
            changes[key] = (None, ("VALID", (row["actor"], None), operation))
        else:
            assert before is not None
            assert source == "person" or before[0] not in ("VALID", "INVALID")
            changes[key] = (before, (AFTER[action], before[1], operation))
        if action == "move":
            target = key._replace(label=row["to_label"])
            there = self.labels.get(target)
            if there is None or (source == "person" and there[0] != "VALID"):
                status = "VALID" if source == "person" else "PENDING"
                changes[target] = (there, (status, (row["actor"], key.label), operation))
        self.made.append(
            Made(
                row["correction_id"],
                operation,
                row["actor"],
                key,
                action,
                row["to_label"],
                row["answer_id"],
                changes,
            )
        )
        for changed, (_, after) in changes.items():
            self.set(changed, after)

    def note_undo(self, operation: str, chosen: Iterable[Made]) -> None:
        """Note that corrections were taken back."""
        taken = sorted(chosen, key=lambda made: -made.number)
        for made in taken:
            made.in_force = False
            for key, (before, _) in made.rows.items():
                self.set(key, before)
        self.undone[operation] = taken

    def note_redo(self, operation: str, chosen: Iterable[Made]) -> None:
        """Note that corrections were made again, with numbers after all others."""
        highest = max(made.number for made in self.made)
        for nth, made in enumerate(sorted(chosen, key=lambda made: made.number), start=1):
            again = Made(**{**vars(made), "number": highest + nth, "operation": operation})
            again.in_force, again.redoes = True, made
            self.made.append(again)
            for key, (_, after) in made.rows.items():
                self.set(key, after)

    def undoable(self, chosen: list[Made], *, with_later: bool) -> list[Made]:
        """What an undo of corrections takes back."""
        chosen = [one for one in chosen if not self._was_overtaken(one)]
        if with_later:
            while more := [other for made in chosen for other in self.later(made, chosen)]:
                chosen = [*chosen, *{id(other): other for other in more}.values()]
        return _settle(chosen, self._can_be_undone)

    def redoable(self, operation: str) -> list[Made]:
        """What a redo of an undo makes again."""
        redone = [made.redoes for made in self.made if made.in_force and made.redoes]
        again = [made for made in self.undone[operation] if made not in redone]
        return _settle(again, self._can_be_redone)

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

    def receive(self, key: LabelKey, status: str, batch_id: str) -> None:
        """Note what a batch says.

        What the last batch said before a correction, it may say again, until one agrees with it.
        """
        touching = [one for one in self.made if one.in_force and key in one.rows]
        now = self.labels.get(key)
        moved = None
        if touching and now:
            operations = {one.operation for one in self.made}
            befores = [one.rows[key][0] for one in touching]
            said = [one for one in befores if one is None or one[2] not in operations][-1]
            corrected = touching[-1].rows[key][1]
            if corrected and corrected[2] == now[2] and said and said[:2] == (status, None):
                return
            if corrected and corrected[:2] == now[:2] and corrected[0] == status:
                moved = corrected[1]
        self.set(key, (status, moved, batch_id))

    def says(self, key: LabelKey, state: State | None) -> bool:
        """Whether a label is as it was, whichever batch says so."""
        now = self.labels.get(key)
        return (now and now[:2]) == (state and state[:2])

    def _was_overtaken(self, one: Made) -> bool:
        """Whether a batch had changed a label before it was corrected again."""
        for key, (_, after) in one.rows.items():
            following = [made for made in self.later(one, [one]) if key in made.rows]
            if following:
                before = min(following, key=lambda made: made.number).rows[key][0]
                if (before and before[:2]) != (after and after[:2]):
                    return True
        return False

    def _can_be_undone(self, one: Made, chosen: list[Made]) -> bool:
        if self.later(one, chosen):
            return False
        last = {
            key: max((o for o in chosen if key in o.rows), key=lambda o: o.number)
            for key in one.rows
        }
        return all(self.says(key, last[key].rows[key][1]) for key in one.rows)

    def _can_be_redone(self, one: Made, chosen: list[Made]) -> bool:
        first = {
            key: min((o for o in chosen if key in o.rows), key=lambda o: o.number)
            for key in one.rows
        }
        return all(self.says(key, first[key].rows[key][0]) for key in one.rows)


def action_of(verdict: Verdict) -> str:
    """The correction that an answer leads to."""
    return "move" if verdict[1] is not None else ACTIONS[verdict[0]]


def _settle(chosen: list[Made], fits: Callable[[Made, list[Made]], bool]) -> list[Made]:
    """Leave out what does not fit, until all that is left does."""
    while bad := [one for one in chosen if not fits(one, chosen)]:
        chosen = [one for one in chosen if one not in bad]
    return chosen
