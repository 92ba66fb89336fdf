"""What `deploy/` holds: the script starts a server that works, and ends as a whole."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sysconfig
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from harmonizer_assets.cli import main
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.support.brokers import UnreachableError, queue_on
from harmonizer_tests.support.receipts import OFFLINE, shop_receipts, table
from harmonizer_tests.support.served import wait_for

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVER = DEPLOY / "server"


@pytest.fixture
def broker():
    try:
        with queue_on("rabbitmq") as broker:
            yield broker
    except UnreachableError as error:
        pytest.skip(str(error))


def command_on_path() -> str:
    """PATH with the environment of these tests first, activated or not."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=2).close()
    except OSError:
        return False
    return True


@contextmanager
def serving(log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The script and what it starts; what is left of it at the end is killed."""
    # A test before may have left the signal ignored, and a shell cannot undo that.
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with log.open("w") as output:
            server = subprocess.Popen(
                [SERVER / "run"],
                env={**os.environ, "PATH": command_on_path(), **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    try:
        yield server
    finally:
        if server.poll() is None:
            left = psutil.Process(server.pid)
            for process in [left, *left.children(recursive=True)]:
                process.kill()
            server.wait()


@pytest.mark.timeout(600)
def test_the_script_serves_a_home_whose_labels_workers_score(
    home, tmp_path, postgres_url, broker, monkeypatch
):
    monkeypatch.setenv("DAGSTER_PG_URL", postgres_url)
    monkeypatch.setenv("HARMONIZER_BROKER_URL", broker.url)
    port, chroma_port, log = free_port(), free_port(), tmp_path / "log"
    home.settings_file.write_text(
        f'[units]\nexecutor = "celery"\nqueue = "{broker.queue}"\n'
        f'[index]\nserver = "http://127.0.0.1:{chroma_port}"\n'
    )
    with serving(log, PORT=str(port), WORKERS="1", CHROMA_PORT=str(chroma_port)) as server:
        wait_for(lambda: answers(port) or server.poll() is not None)
        assert server.poll() is None, log.read_text()
        pipeline = Pipeline(home, Settings.load(home.settings_file))
        shop_receipts(each=3).submit(pipeline, tmp_path / "files")
        wait_for(lambda: pipeline.tables.counts().labels and not pipeline.stale(OFFLINE))
        documents = {row["document_id"] for row in table(pipeline, "documents")}
        assert pipeline.indexing.vectors.ids() == documents
        assert (home.chroma_server / "chroma.sqlite3").exists()
        processes = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=120) == 143
        psutil.wait_procs(processes, timeout=60)
        assert [process for process in processes if process.is_running()] == []
    assert table(pipeline, "similarity_matches")
    assert re.search(r"Task harmonizer\.unit\[\S+\] succeeded", log.read_text())
    with open_instance(home) as instance:
        assert [run.is_success for run in instance.get_runs()] != []
    assert not (home.dagster / "history" / "runs.db").exists()
    assert not list(home.chroma.rglob("*.sqlite3"))


def test_the_script_names_the_port_that_the_chroma_server_cannot_have(home, tmp_path):
    names = ("DAGSTER_PG_URL", "HARMONIZER_BROKER_URL")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        home.settings_file.write_text(f'[index]\nserver = "http://127.0.0.1:{port}"\n')
        environment = {"CHROMA_PORT": str(port), **dict.fromkeys(names, "not used")}
        with serving(tmp_path / "log", **environment) as server:
            assert server.wait(timeout=60) == 1
    assert f"is port {port} free?" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("missing", ["HARMONIZER_HOME", "DAGSTER_PG_URL", "HARMONIZER_BROKER_URL"])
def test_the_script_names_what_is_not_set(missing, tmp_path):
    names = ("HARMONIZER_HOME", "DAGSTER_PG_URL", "HARMONIZER_BROKER_URL")
    environment = {"PATH": os.environ["PATH"], **dict.fromkeys(names, str(tmp_path / "x"))}
    del environment[missing]
    done = subprocess.run(
        [SERVER / "run"], check=False, env=environment, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert missing in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_script_says_so_where_the_command_is_not_installed(tmp_path):
    system = os.pathsep.join(
        path for path in ("/usr/bin", "/bin") if not Path(path, "harmonizer").exists()
    )
    names = ("HARMONIZER_HOME", "DAGSTER_PG_URL", "HARMONIZER_BROKER_URL")
    environment = {"PATH": system, **dict.fromkeys(names, str(tmp_path / "x"))}
    done = subprocess.run(
        [SERVER / "run"], check=False, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (127, 1)
    assert "the command harmonizer is not on PATH" in done.stderr
    assert list(tmp_path.iterdir()) == []


def home_of(service) -> Home:
    [volume] = [volume for volume in service["volumes"] if volume.startswith("home:")]
    return Home(Path(volume.partition(":")[2]))


def test_settings_and_commands_of_the_compose_file_exist():
    """No container runtime is needed to see that."""
    Settings.model_validate(tomllib.loads((SERVER / "harmonizer.toml").read_text()))
    services = yaml.safe_load((SERVER / "compose.yaml").read_text())["services"]
    ours = {name: service for name, service in services.items() if "build" in service}
    assert {*ours} == {"ui", "worker"}
    for service in ours.values():
        name, *options = service["command"]
        known = {option for given in main.commands[name].params for option in given.opts}
        assert {option for option in options if option.startswith("--")} <= known
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (SERVER / source).exists()
    assert home_of(services["chroma"]).chroma_server == Path(services["chroma"]["command"][2])
    assert all("ports" not in service for name, service in services.items() if name != "ui")
    assert services["ui"]["ports"] == ["127.0.0.1:8080:8080"]
