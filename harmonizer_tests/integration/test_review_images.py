"""Images of receipts come from the allowed roots, and from nowhere else."""

from __future__ import annotations

import asyncio
import os
import re

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from harmonizer_assets.core.base.errors import ConfigurationError, InputError
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.web.review.images import MAX_BYTES, Images
from harmonizer_tests.support.review_homes import keys, queue, review_home
from harmonizer_tests.support.review_page import reviewing
from harmonizer_tests.support.web import served_app

PNG = b"\x89PNG\r\n\x1a\n picture"
JPEG = b"\xff\xd8\xff\xe0 picture"
WEBP = b"RIFF\x00\x00\x00\x00WEBP picture"


@pytest.fixture
def root(tmp_path):
    """A root with images, links out of it, and a file beside it."""
    root = tmp_path / "images"
    (root / "inner 日本").mkdir(parents=True)
    (root / "inner 日本" / "a'b.png").write_bytes(PNG)
    (root / "photo").write_bytes(JPEG)
    (root / "page.png").write_bytes(b"<svg onload=alert(1)>")
    (root / "empty.png").write_bytes(b"")
    os.mkfifo(root / "pipe.png")
    with (root / "huge.png").open("wb") as huge:
        huge.write(PNG)
        huge.truncate(MAX_BYTES + 1)
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "images-too").mkdir()
    (tmp_path / "images-too" / "secret.png").write_bytes(PNG)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "linked").symlink_to(tmp_path / "images-too")
    return root


def test_an_image_of_a_folder_is_named_by_its_path_or_its_address(root, tmp_path):
    images = Images(tmp_path, ["nowhere", "images"])
    inner = root / "inner 日本" / "a'b.png"
    for uri in ("inner 日本/a'b.png", str(inner), inner.as_uri(), f"file://localhost{inner}"):
        assert images.read(uri) == (PNG, "image/png")
    assert images.read("photo") == (JPEG, "image/jpeg")


@pytest.mark.parametrize(
    "uri",
    [
        *("../secret.png", "inner 日本/../../secret.png", "linked/secret.png", "link.png"),
        *("page.png", "empty.png", "pipe.png", "huge.png", "inner 日本", ".", "", "/", "none.png"),
        *("/etc/passwd", "file:///etc/passwd", "file://evil.example/photo", "a\x00b", "ftp://x/y"),
        *("..%2fsecret.png", "x" * 5_000, "http://127.0.0.1:1/photo", "http://[", "data:,x"),
    ],
)
def test_nothing_else_of_the_machine_is_read(root, tmp_path, uri):
    with pytest.raises(InputError):
        Images(tmp_path, ["images"]).read(uri)


def test_a_file_beside_a_root_with_the_same_beginning_is_not_in_it(root, tmp_path):
    for path in (tmp_path / "secret.png", tmp_path / "images-too" / "secret.png"):
        with pytest.raises(InputError, match="image_roots"):
            Images(tmp_path, [str(root)]).read(str(path))


def test_without_roots_there_are_no_images(root, tmp_path):
    images = Images(tmp_path, [])
    assert not images.are_shown
    with pytest.raises(InputError, match="image_roots"):
        images.read(str(root / "photo"))


@pytest.fixture
def server():
    """A server of images, and the paths that it was asked for."""
    asked: list[str] = []

    async def endless():
        while True:
            yield PNG * 100_000
            # Without it the server would not notice that nobody listens any more.
            await asyncio.sleep(0)

    def serve(request):
        asked.append(request.url.path)
        name = request.path_params["path"]
        if name == "moved.webp":
            return RedirectResponse("/receipts/a.webp")
        if name == "endless.png":
            return StreamingResponse(endless())
        if name == "page.webp":
            return PlainTextResponse("<script>", media_type="image/webp")
        return Response(WEBP, status_code=200 if name.endswith("a.webp") else 404)

    app = Starlette(routes=[Route("/receipts/{path:path}", serve), Route("/{path:path}", serve)])
    with served_app(app) as port:
        yield f"http://127.0.0.1:{port}", asked


def test_an_image_of_an_address_is_fetched(server, tmp_path):
    address, _ = server
    images = Images(tmp_path, [f"{address}/receipts/"])
    for uri in ("a.webp", "inner/é a.webp?token=1"):
        assert images.read(f"{address}/receipts/{uri}") == (WEBP, "image/webp")


@pytest.mark.parametrize(
    "uri",
    [
        *("{0}/a.webp", "{0}/receipts", "{0}/receiptsa.webp", "{0}/receipts/../a.webp"),
        *("{0}/receipts/%2e%2e/a.webp", "{0}/receipts/..%2fa.webp", "{0}/receipts/..%5ca.webp"),
        *("{0}/receipts/%252e%252e/a.webp", "{0}/receipts/\\..\\a.webp"),
        "http://user:word@{1}/receipts/a.webp",
        *("http://127.0.0.1:1/receipts/a.webp", "http://localhost:1@{1}/receipts/a.webp"),
        *("https://{1}/receipts/a.webp", "//{1}/receipts/a.webp", "http:{1}/receipts/a.webp"),
    ],
)
def test_no_other_address_is_asked(server, tmp_path, uri):
    address, asked = server
    with pytest.raises(InputError):
        Images(tmp_path, [f"{address}/receipts/"]).read(uri.format(address, address[7:]))
    assert asked == []


@pytest.mark.parametrize("name", ["moved.webp", "endless.png", "page.webp", "none.png"])
def test_what_a_server_sends_is_passed_on_only_if_it_is_an_image(server, tmp_path, name):
    address, asked = server
    with pytest.raises(InputError):
        Images(tmp_path, [f"{address}/receipts"]).read(f"{address}/receipts/{name}")
    assert asked == [f"/receipts/{name}"]


def test_a_server_that_cannot_be_reached_is_no_crash(tmp_path):
    with pytest.raises(InputError, match="ConnectError"):
        Images(tmp_path, ["http://127.0.0.1:1/"]).read("http://127.0.0.1:1/a.png")


@pytest.mark.parametrize("root", ["", "ftp://x/y", "https://host", "https://u@host/", "file:///x"])
def test_what_is_no_root_is_refused_in_the_settings(home, root):
    home.settings_file.write_text(f'[review]\nimage_roots = ["{root}"]\n')
    with pytest.raises(ConfigurationError, match=r"review\.image_roots"):
        Settings.load(home.settings_file)


def test_the_page_shows_the_image_with_the_box_of_the_word(home, root):
    home.settings_file.write_text(f'[review]\nimage_roots = ["{root}"]\n')
    pipeline = review_home(home)
    known, unknown, hostile = keys(queue(pipeline, label="TIME"))
    for key, uri in ((known, "photo"), (unknown, None), (hostile, "/etc/passwd")):
        pipeline.warehouse.write(
            lambda con, key=key, uri=uri: con.execute(
                "UPDATE words SET extra = json_object('image_uri', $1::VARCHAR) "
                "WHERE image_id = $2 AND line_id = $3 AND word_id = $4",
                [uri, key.image_id, key.line_id, key.word_id],
            )
        )
    with reviewing(home) as ann:
        page = ann.get("item", known).text
        assert re.search(
            r'<rect x="0\.59\d*" y="0\.69\d*" width="0\.11\d*" height="0\.04\d*"/>', page
        )
        image = ann.get("image", known, encoding="latin-1")
        assert image.text == JPEG.decode("latin-1")
        assert image.headers["content-type"] == "image/jpeg"
        assert "<img" not in ann.get("item", unknown).text
        assert ann.get("image", unknown).status == 404
        refused = ann.get("image", hostile)
        assert (refused.status, "image_roots" in refused.text) == (404, True)
        assert "passwd" not in ann.get("item", hostile).text
