"""A home is backed up while things run, and restored elsewhere."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import boto3
import pytest

from harmonizer_assets.core.backup import back_up, backup, restore
from harmonizer_assets.core.backup.archive import Archive, open_archive
from harmonizer_assets.core.base.errors import InputError, StoreBusyError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.index.vector_files import write_pages
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_tests.support.aws import aws_server
from harmonizer_tests.support.cli import cli, shown_error
from harmonizer_tests.support.crash_points import (
    MOST_BOUGHT_TWICE,
    dies_at,
    run_with_a_model,
)
from harmonizer_tests.support.environment import use_aws, use_endpoint
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.labels import scored_home
from harmonizer_tests.support.modes import modes_count
from harmonizer_tests.support.receipts import OFFLINE, harmonize, shop_receipts, table
from harmonizer_tests.support.simulated_endpoint import simulated_endpoint

TABLES = ("words", "labels", "similarity_matches", "judgements", "outliers", "batches")


@pytest.fixture
def pipeline(home, tmp_path) -> Pipeline:
    def make(fresh: Home) -> None:
        shop_receipts(each=3).submit(Pipeline(fresh), tmp_path / "files")
        harmonize(Pipeline(fresh))

    copy_home(home, "to back up", make)
    return Pipeline(home)


@pytest.fixture
def url(tmp_path) -> str:
    return str(tmp_path / "backups")


@pytest.fixture
def bucket_url(monkeypatch):
    use_aws(monkeypatch)
    with aws_server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        boto3.client("s3").create_bucket(Bucket="backups")
        yield "s3://backups/of this home"


def backed_up(pipeline: Pipeline, url: str, keep: int | None = None):
    return back_up(pipeline.warehouse, pipeline.indexing.vectors, open_archive(url), keep=keep)


def restored(url: str, root: Path, name: str | None = None) -> Pipeline:
    home = Home(root)
    restore(open_archive(url), home, name)
    return Pipeline(home)


def contents(pipeline: Pipeline) -> dict[str, object]:
    return {name: table(pipeline, name) for name in TABLES}


@pytest.mark.parametrize("place", ["url", "bucket_url"])
def test_a_restored_home_has_equal_tables_and_nothing_to_do(request, pipeline, tmp_path, place):
    url = request.getfixturevalue(place)
    pipeline.home.settings_file.write_text("[judge]\nllm_batch_size = 7\n")
    report = backed_up(pipeline, url)
    copy = restored(url, tmp_path / "new" / "home")
    assert contents(copy) == contents(pipeline)
    assert copy.settings.judge.llm_batch_size == 7
    assert copy.indexing.vectors.ids() == pipeline.indexing.vectors.ids()
    assert not copy.stale(OFFLINE)
    assert 0.9 * report.size < report.stored <= report.size


def test_what_may_not_be_read_in_the_inbox_is_left_out_and_said(pipeline, url, tmp_path):
    failed = pipeline.home.inbox / ".failed"
    refused = [failed / "monday" / "labels.csv", failed / "tuesday", pipeline.home.inbox / "new"]
    for folder in ("monday", "tuesday", "new"):
        path = (failed if folder != "new" else pipeline.home.inbox) / folder / "labels.csv"
        path.parent.mkdir(parents=True)
        path.write_text("not to be read")
    (failed / "monday" / "error.txt").write_text("a reason")
    for path in refused:
        path.chmod(0)
    with modes_count():
        result = cli("backup", url, home=pipeline.home.root)
    for path in refused:
        path.chmod(0o700)
    assert result.returncode == 0, result.stderr
    assert "3 files or folders of the inbox are not in it" in result.stdout
    assert [path for path in refused if f"  {path}\n" in result.stdout] == refused
    copy = restored(url, tmp_path / "new").home
    found = {path.relative_to(copy.inbox) for path in copy.inbox.rglob("*") if path.is_file()}
    assert found == {Path(".failed/monday/error.txt")}


@pytest.mark.parametrize(
    "name",
    ["reports/latest.html", "models", "chroma/chroma.sqlite3", "journals/x.jsonl", "dagster/a.db"],
)
def test_a_file_of_the_home_that_may_not_be_read_is_named_with_what_to_do(pipeline, url, name):
    path = pipeline.home.root / name
    path.parent.mkdir(exist_ok=True)
    if not path.is_dir():
        path.touch()
    path.chmod(0)
    with modes_count():
        result = cli("backup", url, home=pipeline.home.root)
    path.chmod(0o700)
    assert result.returncode == 1
    assert shown_error(result) == (
        f"Error: {pipeline.home.root} cannot be backed up: {path}: Permission denied; see that it "
        "belongs to the user who makes the backup, or move it out of the home"
    )
    assert open_archive(url).names() == []


def test_files_of_a_restored_home_are_for_its_owner_alone(pipeline, url, tmp_path):
    backed_up(pipeline, url)
    root = restored(url, tmp_path / "new").home.root
    assert {oct(path.stat().st_mode & 0o077) for path in (root, *root.rglob("*"))} == {"0o0"}


def test_a_backup_and_a_restored_home_are_on_the_disk_before_they_count(
    pipeline, url, tmp_path, synced
):
    synced.clear()
    backed_up(pipeline, url)
    there = Path(unquote(urlsplit(url).path))
    chunks = {path for path in synced if path.parent == there / "chunks"}
    [manifest] = [path for path in synced if path.parent == there / "backups"]
    assert len(chunks) == len(list((there / "chunks").iterdir()))
    before, after = synced[: synced.index(manifest)], synced[synced.index(manifest) :]
    assert chunks <= set(before)
    assert before[-2:] == [there / "chunks", there]
    assert after == [manifest, there / "backups", there]
    synced.clear()
    home = restored(url, tmp_path / "again").home
    partial = tmp_path / ".again.restoring"
    files = {path for path in synced if path != home.root.parent}
    assert partial / "harmonizer.duckdb" in files
    assert {partial, partial / "chroma"} <= files
    assert tmp_path in synced[synced.index(partial) :]


def test_batches_that_arrive_meanwhile_are_in_a_backup_or_after_it_and_earlier_ones_are_in_it(
    pipeline, url, tmp_path
):
    """The inbox is filled and ingested all the time; each backup holds what came before it."""
    done, sent = threading.Event(), []

    def arrivals() -> None:
        other = Pipeline(pipeline.home)
        while not done.is_set():
            name = f"batch-{len(sent)}"
            shop_receipts(["Alpha Mart"], 1, images=name).submit(other, tmp_path / name)
            sent.append(name)
            other.ingest()

    thread = threading.Thread(target=arrivals)
    thread.start()
    try:
        for number in range(3):
            before = list(sent)
            report = backed_up(pipeline, url)
            copy = restored(url, tmp_path / f"copy-{number}", report.name)
            copy.ingest()
            held = {row["image_id"] for row in table(copy, "words")}
            assert {f"{name}-0-0" for name in before} <= held
    finally:
        done.set()
        thread.join()


def test_answers_that_were_paid_for_are_not_bought_again_after_a_restore(
    home, url, tmp_path, monkeypatch
):
    """Those in the tables, and those that a killed run has left in its journal."""
    scored_home(home, label_types=2, merchants=2, words=3)
    with simulated_endpoint() as endpoint:
        use_endpoint(monkeypatch, endpoint.url)
        endpoint.configure(first_token_seconds=0.01, tokens_per_second=20_000.0)
        fatal = next(n for n in range(6, 60, 3) if journal_is_left(n, home, tmp_path / str(n)))
        paid = endpoint.words()
        pipeline = Pipeline(home)
        backed_up(pipeline, url)
        copy = Home(tmp_path / "copy")
        restore(open_archive(url), copy)
        assert any(copy.journals.iterdir()), f"killed at point {fatal}"
        run_with_a_model(copy)
        asked = endpoint.words()
    assert len(asked) > len(paid) > 0
    assert sum(asked.values()) - len(asked) <= MOST_BOUGHT_TWICE
    run_again = table(Pipeline(copy), "llm_verdicts")
    assert len({row["verdict_key"] for row in run_again}) == len(run_again)


def journal_is_left(fatal: int, home: Home, _folder: Path) -> bool:
    """Have a run killed at a point; say whether a journal with answers is left."""
    dies_at(fatal, home, run_with_a_model)
    return any('"answers"' in path.read_text() for path in home.journals.glob("*.ndjson"))


def test_a_second_backup_stores_what_has_changed(pipeline, url):
    first = backed_up(pipeline, url)
    second = backed_up(pipeline, url)
    assert second.stored < first.stored / 2
    assert second.size == pytest.approx(first.size, rel=0.2)
    assert open_archive(url).names() == [first.name, second.name]


def test_what_an_interrupted_backup_has_stored_counts_for_the_next_one_alone(
    pipeline, url, monkeypatch
):
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Archive, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            backed_up(pipeline, url)
    assert open_archive(url).names() == []
    report = backed_up(pipeline, url)
    assert report.stored < report.size / 2
    assert [*pipeline.home.scratch.rglob("*.duckdb")] == []


def test_old_backups_go_with_the_chunks_that_no_other_one_has(pipeline, url, tmp_path):
    for number in range(3):
        shop_receipts(["Alpha Mart"], 1, images=f"n{number}").submit(
            pipeline, tmp_path / f"{number}"
        )
        pipeline.ingest()
        report = backed_up(pipeline, url, keep=2)
    assert report.removed == 1
    archive = open_archive(url)
    assert archive.names()[-1] == report.name
    needed = {
        chunk
        for name in archive.names()
        for file in archive.manifest(name).files
        for chunk in file.chunks
    }
    assert {path.name for path in Path(url, "chunks").iterdir()} == needed
    assert contents(restored(url, tmp_path / "new")) == contents(pipeline)


def test_a_damaged_backup_is_said_with_the_file_and_leaves_no_home(pipeline, url, tmp_path):
    backed_up(pipeline, url)
    biggest = max(Path(url, "chunks").iterdir(), key=lambda path: path.stat().st_size)
    biggest.write_bytes(b"something else")
    with pytest.raises(StoreError, match=r"is damaged \(chunk"):
        restored(url, tmp_path / "new")
    assert [path.name for path in tmp_path.glob("*new*")] == []


def after_the_copies(monkeypatch, happens) -> None:
    """Have something happen between the copies of what changes and the listing of the rest."""
    copies = backup._copies

    def copied(*arguments):
        folder = copies(*arguments)
        happens()
        return folder

    monkeypatch.setattr(backup, "_copies", copied)


def test_an_index_that_is_being_replaced_is_in_a_backup_once(pipeline, url, tmp_path, monkeypatch):
    home = pipeline.home

    def replaced() -> None:
        """As between the two renames."""
        shutil.copytree(home.chroma, home.new_chroma)
        home.chroma.rename(home.old_chroma)

    before = pipeline.indexing.vectors.ids()
    after_the_copies(monkeypatch, replaced)
    report = backed_up(pipeline, url)
    files = open_archive(url).manifest(report.name).files
    folders = {file.path.partition("/")[0] for file in files}
    assert [name for name in folders if name.startswith("chroma")] == ["chroma"]
    assert restored(url, tmp_path / "new").indexing.vectors.ids() == before


def test_restored_vectors_that_are_taken_up_meanwhile_are_in_a_backup(
    pipeline, url, tmp_path, monkeypatch
):
    home, vectors = pipeline.home, pipeline.indexing.vectors
    before = vectors.ids()
    with vectors.session() as session:
        write_pages(home.restored_vectors, vectors.collection_name, session.everything())
    shutil.rmtree(home.chroma)
    home.ensure()
    after_the_copies(monkeypatch, vectors.ids)
    backed_up(pipeline, url)
    assert not home.restored_vectors.exists()
    assert restored(url, tmp_path / "new").indexing.vectors.ids() == before


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", ""])
def test_a_backup_that_names_a_file_outside_of_the_home_is_refused(pipeline, url, tmp_path, path):
    report = backed_up(pipeline, url)
    manifest = Path(url, "backups", f"{report.name}.json")
    content = json.loads(manifest.read_text())
    content["files"][0]["path"] = path
    manifest.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="is damaged"):
        restored(url, tmp_path / "new")
    assert list(tmp_path.glob("**/evil")) == []


def test_two_backups_at_the_same_time_are_refused(pipeline, url):
    held, release = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        held.set()
        release.wait(60)

    def first() -> None:
        archive = open_archive(url)
        back_up(pipeline.warehouse, pipeline.indexing.vectors, archive, on_progress=slow)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert held.wait(60)
        with pytest.raises(StoreBusyError, match="is backing"):
            backed_up(pipeline, url)
    finally:
        release.set()
        thread.join()


def test_a_home_is_not_restored_over_another_one(pipeline, url, tmp_path):
    backed_up(pipeline, url)
    before = contents(pipeline)
    with pytest.raises(InputError, match="is not empty"):
        restore(open_archive(url), pipeline.home)
    assert contents(pipeline) == before


def test_the_commands_back_up_and_restore(pipeline, home, url, tmp_path):
    assert "were new at file:///" in cli("backup", url, home=home.root).stdout
    [name] = cli("restore", url, "--list", home=tmp_path / "new").stdout.split()
    assert name in cli("restore", url, home=tmp_path / "new").stdout
    assert contents(Pipeline(Home(tmp_path / "new"))) == contents(pipeline)
    assert "holds no backup 'x'" in shown_error(
        cli("restore", url, "--backup", "x", home=tmp_path / "other")
    )
    nothing = cli("restore", tmp_path / "empty", home=tmp_path / "other")
    assert (nothing.returncode, "holds no backup" in shown_error(nothing)) == (2, True)
    assert "no tables yet" in shown_error(cli("backup", url, home=tmp_path / "other"))
