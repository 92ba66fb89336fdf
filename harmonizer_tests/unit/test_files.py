from __future__ import annotations

import os
import threading

import pytest

from harmonizer_assets.core.base.files import open_atomically, staged, write_atomically


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    return path


def names(path):
    return [each.name for each in path.parent.iterdir()]


@pytest.mark.parametrize(
    ("content", "stored"), [("né\n", "né\n".encode()), (b"\x00\xff", b"\x00\xff")]
)
def test_text_and_bytes_take_the_place_of_what_was_there(old, content, stored):
    write_atomically(old, content)
    assert old.read_bytes() == stored
    assert names(old) == ["notes.txt"]


def test_until_it_is_complete_readers_see_the_old_content(old):
    with open_atomically(old) as file:
        file.write(b"new")
        file.flush()
        assert old.read_text() == "old"
        [partial] = [name for name in names(old) if name != old.name]
        assert partial.startswith(".notes.txt.")
    assert old.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_the_old_content_and_nothing_else(old, error):
    def fail():
        with open_atomically(old) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert old.read_text() == "old"
    assert names(old) == ["notes.txt"]


def test_a_writer_may_make_the_file_itself(old):
    with staged(old) as partial:
        partial.write_text("new")
    assert old.read_text() == "new"


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "notes.txt", "new")


def test_threads_that_write_one_file_at_the_same_time_do_not_share_a_part(old):
    with open_atomically(old) as ours:
        ours.write(b"ours")
        thread = threading.Thread(target=write_atomically, args=(old, "theirs"))
        thread.start()
        thread.join()
        assert old.read_text() == "theirs"
    assert old.read_text() == "ours"


@pytest.mark.parametrize(("folder", "file"), [(0o700, 0o600), (0o750, 0o640), (0o755, 0o644)])
def test_a_new_file_has_no_rights_that_its_folder_does_not_have(tmp_path, folder, file):
    tmp_path.chmod(folder)
    umask = os.umask(0o022)
    try:
        write_atomically(tmp_path / "new.txt", "x")
    finally:
        os.umask(umask)
    assert (tmp_path / "new.txt").stat().st_mode & 0o777 == file


def test_a_file_that_is_replaced_leaves_its_rights(old):
    old.chmod(0o640)
    write_atomically(old, "new")
    assert old.stat().st_mode & 0o777 == 0o640
