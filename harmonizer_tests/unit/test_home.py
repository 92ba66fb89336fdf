"""Where a home may lie."""

from __future__ import annotations

import pytest

from harmonizer_assets.core.base.errors import InputError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_tests.support.modes import modes_count


@pytest.mark.parametrize("sign", ["?", "#"])
def test_a_path_that_no_database_can_be_opened_under_is_refused_before_anything_is_made(
    tmp_path, sign
):
    folder = tmp_path / f"my{sign}home"
    for make in (lambda: Home(folder), lambda: Home.resolve(folder / "inner")):
        with pytest.raises(InputError, match=f"DuckDB and SQLite take the '[{sign}]' in its path"):
            make()
    assert [*tmp_path.iterdir()] == []


def test_a_home_that_is_a_file_is_named_with_the_remedy(tmp_path):
    (tmp_path / "home").write_text("a file")
    with pytest.raises(StoreError, match=r"home cannot be made: .*; give another with --home"):
        Home(tmp_path / "home").ensure()


def test_a_home_is_for_its_owner_alone_and_one_that_is_there_keeps_its_rights(tmp_path):
    made = Home(tmp_path / "above" / "made").ensure()
    assert {path.stat().st_mode & 0o777 for path in (made.root, *made.root.iterdir())} == {0o700}
    (tmp_path / "shared").mkdir(mode=0o755)
    (tmp_path / "shared").chmod(0o750)
    assert Home(tmp_path / "shared").ensure().root.stat().st_mode & 0o777 == 0o750


def test_the_file_that_this_user_may_not_use_is_found_but_none_of_the_inbox(tmp_path):
    home = Home(tmp_path / "home").ensure()
    home.models.mkdir()
    (home.inbox / "waiting.csv").touch(0)
    model = home.model_file("12ab")
    model.touch()
    (home.models / "gone").symlink_to(tmp_path / "nowhere")
    with modes_count():
        assert home.refused() is None
        for mode in (0o400, 0o200):
            model.chmod(mode)
            assert home.refused() == model
        model.chmod(0o600)
        home.models.chmod(0o500)
        assert home.refused() == home.models
