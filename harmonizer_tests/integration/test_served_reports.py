"""The reports as the web UI serves them: what its list shows, and nothing else."""

from __future__ import annotations

import re
import socket
import struct

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from harmonizer_assets.web.guard import Guard
from harmonizer_assets.web.links import report_link
from harmonizer_assets.web.reports import with_reports
from harmonizer_tests.support.web import ask, served_app


@pytest.fixture
def port(home, tmp_path):
    """Where a home's reports are served beside another application."""
    home.reports.mkdir()
    (home.reports / "run-1.html").write_text("<p>first</p>")
    (home.reports / "50% <b>.html").write_text("<p>strange</p>")
    (home.reports / "latest.html").write_text("<p>latest</p>")
    (home.reports / "secret.txt").write_text("secret")
    (home.reports / ".hidden.html").write_text("secret")
    (home.reports / "folder.html").mkdir()
    (home.reports / "folder.html" / "inner.html").write_text("secret")
    (tmp_path / "elsewhere.html").write_text("secret")
    (home.reports / "link.html").symlink_to(tmp_path / "elsewhere.html")
    (home.reports / "dangling.html").symlink_to(tmp_path / "nothing.html")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner.html").write_text("secret")
    (home.reports / "linked").symlink_to(tmp_path / "folder")
    other = Starlette(routes=[Route("/{path:path}", lambda _: PlainTextResponse("other"))])
    with served_app(Guard(with_reports(other, home))) as port:
        yield port


def test_every_page_on_the_list_is_served_under_the_link_that_runs_give_it(home, port):
    links = re.findall('href="([^"]+)"', ask(port, "/reports/").text)
    pages = ["run-1.html", "50% <b>.html", "latest.html"]
    assert sorted(links) == sorted(report_link(home.reports / page) for page in pages)
    assert {ask(port, link).text for link in links} == {
        "<p>first</p>",
        "<p>strange</p>",
        "<p>latest</p>",
    }


@pytest.mark.parametrize(
    "path",
    [
        *("secret.txt", ".hidden.html", "link.html", "dangling.html", "folder.html", "x.html"),
        *("linked/inner.html", "folder.html/inner.html", "folder.html%2finner.html"),
        *("%2frun-1.html", "./run-1.html", "../reports/run-1.html", "%5crun-1.html"),
        *("%2e%2e/harmonizer.toml", "..%2fharmonizer.toml"),
        *("run-1.html/", "run-1.html%00", "run-1.html%20", "run-1.HTML"),
    ],
)
def test_what_is_not_on_the_list_is_not_served(home, port, path):
    home.settings_file.write_text("secret = 1")
    answer = ask(port, f"/reports/{path}")
    assert answer.status == 404
    assert "secret" not in answer.text


def test_a_home_without_reports_has_an_empty_list(home):
    with served_app(with_reports(Starlette(), home)) as port:
        assert ask(port, "/reports/").status == 200
        assert ask(port, "/reports/latest.html").status == 404


def test_all_other_paths_reach_the_other_application(port):
    for path in ("/", "/runs", "/reportsx", "/report/run-1.html"):
        assert ask(port, path).text == "other"


def test_a_page_runs_no_script_and_has_no_part_in_the_web_uis_origin(port):
    for path in ("/reports/", "/reports/run-1.html"):
        policy = ask(port, path).headers["content-security-policy"]
        assert policy.startswith("sandbox; default-src 'none'")


@pytest.mark.parametrize("host", ["evil.invalid", "[", "a[b"])
def test_reports_stand_behind_the_guard(port, host):
    assert ask(port, "/reports/run-1.html", Host=host).status in {400, 403}
    assert ask(port, "/reports/run-1.html", Origin="http://evil.invalid").status == 403


def test_a_browser_that_leaves_early_is_no_error_on_the_terminal(home, port, capsys):
    (home.reports / "long.html").write_bytes(b" " * 50_000_000)
    with socket.create_connection(("127.0.0.1", port)) as browser:
        browser.sendall(b"GET /reports/long.html HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert browser.recv(20).startswith(b"HTTP/1.1 200")
        # Closing at once resets the connection, while the page is still being sent.
        browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert ask(port, "/reports/run-1.html").text == "<p>first</p>"
    assert capsys.readouterr().err == ""
