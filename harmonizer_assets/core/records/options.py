"""Options of one run."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harmonizer_assets.core.base.errors import RunStoppedError
from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.core.records.account import Account

if TYPE_CHECKING:
    # The command line makes options before it needs pydantic.
    from harmonizer_assets.core.base.settings import JudgeName


@dataclass(frozen=True)
class RunOptions:
    """Options of one run: what it does, and how.

    Settings of the judge that hold for one run only (budgets, batch sizes) are in
    `JudgeOverrides`; a pipeline is opened with them.

    Attributes:
        run_id: key of the run's usage, failures and report.
        launch_id: the first of the runs that retry each other; by default this run.
        backfill_id: the backfill that the run belongs to, if any.
        judge: decides the labels that similarity leaves open; None means the one in the settings.
        label_types: only these; None means all.
        merchants: only these, by key or display name; None means all.
        refresh: compute partitions again although nothing that they depend on has changed.
        dead_letters: ask the words again that could not be judged.
        collect: store the answers of batch jobs that have ended, and bring the partitions that
            they are about up to date; no others.
        on_progress: called with the progress of the work.
        stop: when set, the run starts nothing new and ends with `RunStoppedError`.
    """

    run_id: str = ""
    judge: JudgeName | None = None
    label_types: Sequence[str] | None = None
    merchants: Sequence[str] | None = None
    refresh: bool = False
    dead_letters: bool = False
    collect: bool = False
    on_progress: ProgressFn | None = None
    stop: threading.Event | None = None
    launch_id: str = ""
    backfill_id: str | None = None

    @property
    def account(self) -> Account:
        """The account that the run's spending is charged to."""
        return Account(self.run_id, self.launch_id or self.run_id, self.backfill_id)

    def named(self, judge: JudgeName) -> RunOptions:
        """Return the same with an id and a judge, the given one, where there is none yet."""
        return replace(self, run_id=self.run_id or uuid.uuid4().hex, judge=self.judge or judge)

    def check_stop(self) -> None:
        """End the run if its caller has stopped it.

        Raises:
            RunStoppedError: `stop` is set.
        """
        if self.stop is not None and self.stop.is_set():
            raise RunStoppedError("stopped; what is finished is kept, run again to go on")
