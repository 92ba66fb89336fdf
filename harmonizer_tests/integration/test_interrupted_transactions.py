"""An interrupt at any line of a transaction is an interrupt, and the next transaction works."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from harmonizer_assets.core.store import database, warehouse
from harmonizer_assets.core.store.warehouse import Warehouse

FILES = {database.__file__, warehouse.__file__}
SESSION = {"_watch_session"}
"""Functions of another thread, which no signal interrupts."""


class Interrupt:
    """Raises KeyboardInterrupt before one line of the code that opens and closes the file."""

    def __init__(self, line: int) -> None:
        self._left = line
        self.came = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in FILES or code.co_name in SESSION:
            return None
        if event == "line" and not self.came:
            self._left -= 1
            if self._left < 0:
                self.came = True
                raise KeyboardInterrupt
        return self

    def __enter__(self) -> Interrupt:
        sys.settrace(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)


@pytest.mark.parametrize("in_session", [False, True])
def test_an_interrupt_at_any_line_is_no_error_and_leaves_the_file_usable(home, in_session):
    house = Warehouse(home)
    house.write(lambda con: con.execute("CREATE TABLE counted (n INTEGER)"))
    points = 0
    while True:
        if in_session:
            house._file.begin_session()
        interrupt = Interrupt(points)
        try:
            with interrupt:
                house.read(lambda con: con.execute("FROM counted").fetchall())
                house.write(lambda con: con.execute("INSERT INTO counted VALUES (1)"))
        except KeyboardInterrupt:
            pass
        finally:
            if in_session:
                house._file.end_session()
        if not interrupt.came:
            break
        house.write(lambda con: con.execute("INSERT INTO counted VALUES (2)"))
        points += 1
    assert points > 40
