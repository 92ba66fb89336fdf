"""What every store of units keeps to, on disk and on S3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from harmonizer_assets.core.base.errors import ConfigurationError, StoreError
from harmonizer_assets.core.store.objects import MissingObjectError, ObjectStore, open_store
from harmonizer_assets.core.units.store import Failure, UnitStore
from harmonizer_tests.support.aws import aws_server
from harmonizer_tests.support.environment import use_aws

UNIT = "a" * 64


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with aws_server() as url:
        yield url


@pytest.fixture(params=["file", "s3"])
def objects(request, tmp_path, monkeypatch) -> ObjectStore:
    if request.param == "file":
        return open_store((tmp_path / "store of units").as_uri())
    use_aws(monkeypatch)
    endpoint = request.getfixturevalue("s3_url")
    bucket = f"units-{tmp_path.name.replace('_', '-').lower()[-40:]}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=bucket)
    return open_store(f"s3://{bucket}/home", endpoint)


def test_an_object_is_written_once_and_never_changed(objects):
    assert objects.put("results/a", b"first")
    assert not objects.put("results/a", b"second")
    assert objects.get("results/a") == b"first"


def test_a_file_that_was_uploaded_to_a_disk_is_on_it(tmp_path, synced):
    store = open_store((tmp_path / "store").as_uri())
    (tmp_path / "file").write_bytes(b"content")
    store.upload("version/words.parquet", tmp_path / "file")
    [partial, folder] = synced
    assert (partial.parent, folder) == (tmp_path / "store" / "version",) * 2
    assert "words.parquet" in partial.name


def test_of_many_that_write_one_object_at_once_one_does(objects):
    with ThreadPoolExecutor(8) as pool:
        wrote = list(pool.map(lambda n: objects.put("results/a", str(n).encode()), range(8)))
    assert wrote.count(True) == 1
    assert objects.get("results/a") == str(wrote.index(True)).encode()


def test_what_is_not_there_is_said_to_be_missing(objects):
    with pytest.raises(MissingObjectError, match="results/a"):
        objects.get("results/a")
    assert not objects.exists("results/a")
    assert objects.list("results/") == []
    objects.delete(["results/a"])


def test_names_are_listed_by_their_beginning(objects):
    for name in ("dead/ab", "dead/ac", "dead/b", "units/ab"):
        objects.put(name, b"")
    assert objects.list("dead/") == ["dead/ab", "dead/ac", "dead/b"]
    assert objects.list("dead/a") == ["dead/ab", "dead/ac"]
    objects.delete(["dead/ab", "dead/b"])
    assert objects.list("dead/") == ["dead/ac"]
    assert objects.exists("units/ab")


def test_half_written_files_are_not_listed(tmp_path):
    store = open_store(tmp_path.as_uri())
    store.put("dead/a", b"")
    (tmp_path / "dead" / ".partial-xyz").write_bytes(b"half")
    assert store.list("dead/") == ["dead/a"]


def test_files_of_writers_that_were_killed_go_when_all_goes_and_else_when_they_are_old(tmp_path):
    store = UnitStore(open_store(tmp_path.as_uri()))
    store.add(UNIT, b"")
    new, old = (tmp_path / "units" / f".partial-{age}" for age in ("new", "old"))
    for path in (new, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    store.sweep()
    assert [*tmp_path.rglob("*.*")] == [new]
    store.clear()
    assert [*tmp_path.rglob("*.*")] == []


@pytest.mark.parametrize(("rights", "of_files"), [(0o700, 0o600), (0o770, 0o660)])
def test_files_have_the_rights_of_the_folder(tmp_path, rights, of_files):
    folder = tmp_path / "store"
    folder.mkdir()
    folder.chmod(rights)
    open_store(folder.as_uri()).put("dead/a", b"")
    assert (folder / "dead").stat().st_mode & 0o777 == rights
    assert (folder / "dead" / "a").stat().st_mode & 0o777 == of_files


def test_a_store_is_made_for_its_owner_alone(tmp_path):
    open_store((tmp_path / "store").as_uri()).put("dead/a", b"")
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("url", ["", "/folder", "file://host/folder", "s3:///prefix", "ftp://a/b"])
def test_a_url_of_no_store_is_refused(url):
    with pytest.raises(ConfigurationError, match="no store: write"):
        open_store(url)


def test_a_disk_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "units").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="units"):
        open_store(tmp_path.as_uri()).put("units/a", b"")


def test_a_bucket_that_is_not_there_is_named(s3_url, monkeypatch):
    use_aws(monkeypatch)
    with pytest.raises(StoreError, match="s3://nowhere: the bucket answers NoSuchBucket"):
        open_store("s3://nowhere", s3_url).put("units/a", b"")


def test_attempts_are_counted_across_workers(objects):
    store = UnitStore(objects)
    with ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(lambda _: store.begin(UNIT, 3), range(8)))
    assert sorted(n for n in begun if n) == [1, 2, 3]
    assert store.attempts(UNIT) == 3


def test_a_dead_letter_says_what_the_last_attempt_said(objects):
    store = UnitStore(objects)
    store.begin(UNIT, 2)
    store.note(UNIT, 1, Failure("ValueError: a spoiled word", "Traceback ..."))
    store.bury(UNIT)
    store.begin(UNIT, 2)
    store.bury(UNIT)
    [letter] = store.dead_letters()
    assert (letter.attempts, letter.error, letter.traceback) == (
        1,
        "ValueError: a spoiled word",
        "Traceback ...",
    )


def test_an_attempt_whose_process_ended_is_named_in_the_dead_letter(objects):
    store = UnitStore(objects)
    store.begin(UNIT, 1)
    store.bury(UNIT)
    [letter] = store.dead_letters()
    assert letter.error.startswith("attempt 1: its process ended without a word")


def test_nothing_is_left_of_a_unit_that_is_removed(objects):
    store = UnitStore(objects)
    unit = UNIT
    store.add(unit, b"content")
    store.begin(unit, 3)
    store.note(unit, 1, Failure("error"))
    store.put_result(unit, b"result")
    store.bury(unit)
    store.mark_split(unit)
    other = "b" * 64
    store.begin(other, 3)
    store.begin(unit, 3)
    assert store.remove([unit]) == 2
    assert store.attempts(other) == 1
    store.remove([other])
    folders = ("units/", "results/", "attempts/", "errors/", "dead/", "split/")
    assert [objects.list(folder) for folder in folders] == [[]] * len(folders)


def test_a_sweep_leaves_dead_units_alone(objects):
    store = UnitStore(objects)
    dead, left = UNIT, "b" * 64
    store.add(dead, b"dead")
    store.add(left, b"left by a killed run")
    for unit in (dead, left):
        store.begin(unit, 1)
        store.note(unit, 1, Failure("error"))
    store.put_result(left, b"result")
    store.share(b"a model")
    store.bury(dead)
    store.sweep()
    assert [letter.unit for letter in store.dead_letters()] == [dead]
    assert store.bundle(dead) == b"dead"
    assert store.last_failure(dead).error == "error"
    folders = ("units/", "shared/", "results/", "attempts/", "errors/")
    assert [len(objects.list(folder)) for folder in folders] == [1, 0, 0, 1, 1]


def test_what_units_share_is_refused_where_it_is_not_what_its_name_says(tmp_path: Path):
    store = UnitStore(open_store(tmp_path.as_uri()))
    name = store.share(b"content")
    (tmp_path / "shared" / name).write_bytes(b"something else")
    with pytest.raises(StoreError, match="damaged"):
        store.shared(name)
