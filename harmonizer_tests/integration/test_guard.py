"""What the web UI's guard lets through, asked by HTTP as browsers and programs do."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.web.guard import Guard
from harmonizer_tests.support.web import ask, ask_websocket, served_app

PROXIED = "https://labels.example.com"
EVIL = "http://evil.example"
JSON = "application/json"


async def _accept(websocket):
    await websocket.accept()
    await websocket.close()


@pytest.fixture(scope="module")
def port():
    """Where an application is served that answers everything, behind the guard."""
    routes = [
        WebSocketRoute("/graphql", _accept),
        Route("/{path:path}", lambda _: PlainTextResponse("passed"), methods=["GET", "POST"]),
    ]
    with served_app(Guard(Starlette(routes=routes), [PROXIED])) as port:
        yield port


def passes(answer) -> bool:
    assert (answer.status == 200) == (answer.text == "passed")
    assert answer.status in {200, 403}
    return answer.status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:3000", "LOCALHOST", "[::1]:3000"])
def test_the_loopback_interface_is_reached_under_its_own_names_and_any_forwarded_port(port, host):
    assert passes(ask(port, Host=host))


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "127.1", "0.0.0.0"),
        *("localhost.", "localhost:99999999", "evil.example#127.0.0.1", "[", "[::1", "a:b", ""),
    ],
)
def test_any_other_host_name_is_refused_in_one_line_however_malformed_it_is(port, host):
    answer = ask(port, Host=host)
    # Some malformed names do not get as far as the guard.
    assert answer.status in {400, 403}
    assert "passed" not in answer.text
    assert "Traceback" not in answer.text


def test_a_websocket_under_another_host_name_is_refused(port):
    assert ask_websocket(port) == 101
    assert ask_websocket(port, Host="evil.example") == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "origin",
    [EVIL, "null", "http://127.0.0.1:9", "http://127.0.0.1", "https://localhost", "http://[", ""],
)
def test_a_page_of_another_origin_neither_reads_nor_changes_anything(port, origin, method):
    assert not passes(ask(port, "/graphql", method, "{}", Origin=origin, Content_Type=JSON))
    assert ask_websocket(port, Origin=origin) == 403


def test_the_own_pages_post_json_and_open_websockets(port):
    own = f"http://127.0.0.1:{port}"
    assert passes(ask(port, "/graphql", "POST", "{}", Origin=own, Content_Type=JSON))
    utf8 = f"{JSON}; charset=utf-8"
    assert passes(ask(port, "/graphql", "POST", "{}", Origin=own, Content_Type=utf8))
    assert ask_websocket(port, Origin=own) == 101


def test_a_program_without_an_origin_posts_json(port):
    assert passes(ask(port, "/graphql", "POST", "{}", Content_Type=JSON))


@pytest.mark.parametrize("path", ["/graphql?query=mutation", "/graphql/?query=x", "/%67raphql?q=x"])
def test_graphql_is_not_run_for_a_get(port, path):
    assert not passes(ask(port, path))
    assert not passes(ask(port, path, Accept="*/*"))


def test_the_page_of_graphiql_is_shown_unless_another_site_links_to_it_with_a_query(port):
    assert passes(ask(port, "/graphql", Accept="text/html,*/*"))
    linked = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "document"}
    assert not passes(ask(port, "/graphql?query=mutation", Accept="text/html", **linked))


@pytest.mark.parametrize(
    "content_type",
    [
        *("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""),
        *("text/plain; application/json", "text/plain;charset=application/json"),
        *("application/graphql", "application/jsonp"),
    ],
)
def test_what_a_form_of_another_site_could_send_changes_nothing(port, content_type):
    assert not passes(ask(port, "/graphql", "POST", "{}", Content_Type=content_type))


def test_a_post_without_a_content_type_changes_nothing(port):
    assert not passes(ask(port, "/report_asset_materialization/labels", "POST", ""))


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(port, method):
    assert not passes(ask(port, "/graphql", method, "{}", Content_Type=JSON))


def test_a_link_from_another_site_opens_a_page(port):
    page = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert passes(ask(port, "/runs", **page, Sec_Fetch_Dest="document"))


@pytest.mark.parametrize("kind", ["iframe", "script", "image", "style", "empty", "object"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_cannot_load_a_page_as_a_part_of_its_own(port, site, kind):
    assert not passes(ask(port, "/runs", Sec_Fetch_Site=site, Sec_Fetch_Dest=kind))


def test_browsers_are_told_not_to_frame_or_embed_the_pages(port):
    headers = ask(port, "/runs").headers
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"


def test_an_origin_that_the_settings_allow_passes_whatever_host_its_proxy_sends(port):
    for host in ("labels.example.com", f"127.0.0.1:{port}"):
        allowed = {"Host": host, "Origin": PROXIED, "Content_Type": JSON}
        assert passes(ask(port, "/graphql", "POST", "{}", **allowed))
        assert ask_websocket(port, Host=host, Origin=PROXIED) == 101
    unencrypted = {"Host": "labels.example.com", "Origin": "http://labels.example.com"}
    assert not passes(ask(port, "/graphql", "POST", "{}", **unencrypted, Content_Type=JSON))


@pytest.mark.parametrize(
    "origin", ["*", "labels.example.com", "https://*.example.com", "https://a.example/x", "null"]
)
def test_a_setting_that_is_no_origin_is_refused_by_name(home, origin):
    home.settings_file.write_text(f'[web]\nallowed_origins = ["{origin}"]\n')
    with pytest.raises(ConfigurationError, match=r"web\.allowed_origins"):
        Settings.load(home.settings_file)
