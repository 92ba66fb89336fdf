"""The web server that `harmonizer ui` starts is Dagster's, behind our guard."""

from __future__ import annotations

import json
import sys
from urllib.parse import quote

import pytest

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.dagster_compat import web_server
from harmonizer_tests.support.dagster_runs import PARTITIONED
from harmonizer_tests.support.served import Served
from harmonizer_tests.support.shops import copy_shop
from harmonizer_tests.support.web import ask, ask_websocket

EVIL = "http://evil.example"
JSON = "application/json"
MUTATION = """
mutation { setSensorCursor(sensorSelector: {
    repositoryName: "__repository__", repositoryLocationName: "harmonizer_assets.definitions",
    sensorName: "new_labels_sensor"
}, cursor: "changed") { __typename ... on Sensor { sensorState { status } } } }
"""
BODY = json.dumps({"query": MUTATION})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A home that is served from a background job, from the first test on that asks for it."""
    folder = tmp_path_factory.mktemp("guarded")
    served = Served(Home(folder / "home").ensure(), folder / "ui.log", in_background=True)
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture
def served(site):
    if not site.home.settings_file.exists():
        copy_shop(site.home)
        (site.home.reports / "run-1.html").write_text("<p>report</p>")
        site.home.settings_file.write_text(
            '[web]\nallowed_origins = ["https://labels.example.com"]\n'
        )
    if not site.is_running:
        site.start()
    return site


def refused(answer) -> bool:
    return answer.status == 403 and "__typename" not in answer.text


def test_the_ui_answers_its_own_pages_and_programs(served):
    own = {"Content_Type": JSON, "Origin": served.address}
    for headers in (own, {"Content_Type": JSON}):
        answer = ask(served.port, "/graphql", "POST", BODY, **headers)
        assert "__typename" in json.loads(answer.text)["data"]["setSensorCursor"], answer.text
    assert ask(served.port, "/runs").status == 200
    assert ask_websocket(served.port, Origin=served.address) == 101


def test_mutations_by_get_or_form_are_refused(served):
    assert refused(ask(served.port, f"/graphql?query={quote(MUTATION)}"))
    assert refused(ask(served.port, f"/graphql?query={quote(MUTATION)}", "POST", ""))
    assert refused(ask(served.port, "/graphql", "POST", BODY, Content_Type="text/plain"))
    assert refused(ask(served.port, "/report_asset_materialization/labels", "POST", ""))


def test_other_hosts_and_origins_are_refused(served):
    assert refused(ask(served.port, "/server_info", Host="evil.example"))
    assert refused(ask(served.port, "/graphql", "POST", BODY, Content_Type=JSON, Origin=EVIL))
    assert refused(ask(served.port, f"/graphql?query={quote(MUTATION)}", Origin=EVIL))
    assert refused(ask(served.port, "/reports/run-1.html", Host="evil.example"))
    assert ask_websocket(served.port, Origin=EVIL) == 403


def test_what_the_homes_settings_allow_passes(served):
    proxied = {"Host": "labels.example.com", "Origin": "https://labels.example.com"}
    assert ask(served.port, "/server_info", **proxied).status == 200
    assert ask_websocket(served.port, **proxied) == 101


def test_the_reports_are_served_beside_it(served):
    assert ask(served.port, "/reports/run-1.html").text == "<p>report</p>"


def test_the_graph_shows_the_partitions_that_hold_labels_as_materialized(served):
    query = "{ assetNodes { assetKey { path } partitionStats { numMaterialized } } }"
    shown = {
        node["assetKey"]["path"][0]: node["partitionStats"]["numMaterialized"]
        for node in served.ask(query)["assetNodes"]
        if node["partitionStats"]
    }
    held = len(Pipeline(served.home).partitions.held())
    assert shown == {**dict.fromkeys(PARTITIONED, held), "corrections": 0}


def test_a_dagster_that_starts_another_web_server_does_not_serve_unguarded(monkeypatch):
    started, dev = [], web_server.dev
    unknown = [sys.executable, "-m", "dagster_webserver_2", "--port", "1"]
    monkeypatch.setattr(dev, "open_ipc_subprocess", lambda *given, **_: started.append(given))
    monkeypatch.setattr(dev.dev_command, "main", lambda *_, **__: dev.open_ipc_subprocess(unknown))
    with pytest.raises(RuntimeError, match="it starts dagster_webserver_2"):
        web_server.run_dev([], ["-m", "ours"])
    assert started == []


def test_the_ui_stops_when_asked_even_as_a_background_job(served):
    assert served.processes()
    assert served.stop(60), "it had to be killed"
    assert served.processes() == []
