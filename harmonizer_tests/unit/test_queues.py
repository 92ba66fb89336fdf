from __future__ import annotations

import os

import pytest

from harmonizer_assets.core.base.queues import WaitingQueue


@pytest.fixture
def queue(tmp_path):
    return WaitingQueue(tmp_path / "queue")


def test_who_has_waited_longest_is_first(queue):
    assert queue.is_empty()
    with queue.joined() as first, queue.joined() as second:
        assert not queue.is_empty()
        assert first.ahead() is None
        assert second.ahead() == queue.first()
        first.leave()
        assert second.ahead() is None
    assert queue.is_empty()
    assert queue.first() is None


def test_who_has_died_is_forgotten(queue):
    queue.folder.mkdir()
    (queue.folder / "00000000000000000001-123-abc").touch()
    with queue.joined() as place:
        assert place.ahead() is None
    assert os.listdir(queue.folder) == []


def test_who_was_taken_for_dead_takes_another_place(queue):
    with queue.joined() as place:
        for file in queue.folder.iterdir():
            file.unlink()
        assert place.ahead() is None
        assert len(os.listdir(queue.folder)) == 1
