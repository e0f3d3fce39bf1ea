"""serve: what is taken and refused, one line of error each, a page that loads nothing else."""

import base64
import hashlib
import io
import re
import socket
import sys
import tempfile
import types

import anyio
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from benchmark.predict.serve import Limits, application
from tests.support import line

LOCAL = "127.0.0.1"
SMALL = Limits(size=50_000, pixels=10_000)


def grey(image):
    """Stands for a network: a map of the image's size."""
    return {"depth": Image.new("I;16", (image.shape[-1], image.shape[-2]), 7),
            "depth_view": Image.new("RGB", (8, 8))}  # fmt: skip


def client(draw=grey, limits=SMALL, host=LOCAL):
    return TestClient(
        application(draw, "depth <by> x", limits, host), base_url=f"http://{LOCAL}:8000"
    )


def encoded(width=40, height=30, form="PNG"):
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 10, 10)).save(out, form)
    return out.getvalue()


def sent(content, name="a.png", **options):
    return client(**options).post("/", files={"image": (name, content)})


def error(response, status):
    """The one line of a refusal."""
    assert response.status_code == status
    (found,) = re.findall(r'<p class="error" role="alert">(.*)</p>', response.text)
    assert "Traceback" not in response.text
    return found


def test_the_page_has_a_form_and_loads_nothing():
    page = client().get("/")
    assert page.status_code == 200
    assert 'method="post" enctype="multipart/form-data"' in page.text
    assert "depth &lt;by&gt; x" in page.text
    assert not re.search(r"<script|https?:|@import|url\(", page.text)
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    style = re.search(r"<style>(.*)</style>", page.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_an_image_comes_back_with_its_maps(form, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    page = sent(encoded(form=form))
    assert page.status_code == 200
    shown = re.findall(r'<img alt="(.*?)" src="data:image/png;base64,(.*?)"', page.text)
    assert [name for name, _ in shown] == ["image", "depth_view"]
    picture = Image.open(io.BytesIO(base64.b64decode(shown[0][1])))
    assert picture.size == (40, 30)
    assert np.abs(np.array(picture).mean((0, 1)) - (200, 10, 10)).max() < 4
    link = re.search(r'download="depth.png" href="data:image/png;base64,(.*?)"', page.text)[1]
    exact = Image.open(io.BytesIO(base64.b64decode(link)))
    assert np.array(exact).max() == 7
    assert list(tmp_path.iterdir()) == []
    assert page.headers["cache-control"] == "no-store"


def test_files_that_are_too_large():
    assert error(sent(b"x" * 50_001), 413) == "the file is larger than 0.05 MB"
    assert error(sent(b"x" * 500_000), 413) == "the file is larger than 0.05 MB"
    whole = encoded() + b"\0" * (50_000 - len(encoded()))  # what follows an image is ignored
    assert sent(whole).status_code == 200


def test_images_of_too_many_pixels_are_not_decoded(monkeypatch):
    monkeypatch.setattr("benchmark.predict.serve.read_any_image", lambda _: pytest.fail("decoded"))
    small = encoded(200, 51)
    assert len(small) < 50_000
    assert "200×51 pixels are more than 0.01 megapixels" in error(sent(small), 413)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own limit
    assert "megapixels" in error(sent(encoded()), 413)


def test_what_is_no_image():
    assert "not an image of JPEG, PNG" in error(sent(b"hello", "a.txt"), 415)
    assert "not an image" in error(sent(b"", "a.png"), 415)
    assert "not an image" in error(sent(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), 415)
    cut = encoded()[:-30]
    told = error(sent(cut, "cut.png"), 415)
    assert told.startswith("cut.png: ")
    assert tempfile.gettempdir() not in told


def test_a_name_is_shown_as_text():
    page = sent(encoded(), "<img src=x onerror=1>.png")
    assert "<img src=x" not in page.text
    assert "&lt;img src=x onerror=1&gt;.png" in page.text
    assert error(sent(b"", "a\nb" + "c" * 200 + ".png"), 415).startswith("ccc")


def test_forms_without_an_image():
    app = client()
    assert "choose one first" in error(app.post("/"), 400)
    assert "choose one first" in error(app.post("/", files={"other": ("a.png", b"x")}), 400)
    assert "not a form with one image" in error(
        app.post("/", data={"image": "x"}, files={"a": b"x"}), 400
    )
    two = [("image", ("a.png", b"x")), ("image", ("b.png", b"x"))]
    assert "Too many files" in error(app.post("/", files=two), 400)
    junk = {"content-type": "multipart/form-data; boundary=x"}
    assert "not a form with one image" in error(app.post("/", content=b"junk", headers=junk), 400)
    assert app.put("/").status_code == 405
    assert app.get("/../etc/passwd").status_code == 404


def test_a_network_that_fails_says_why():
    def fails(image):
        raise RuntimeError("out of memory\nwith details")

    assert (
        error(sent(encoded(), draw=fails), 500) == "the network failed: RuntimeError: out of memory"
    )


def test_other_names_for_a_local_page_are_refused():
    for host, status in ((LOCAL, 200), ("localhost:8000", 200), ("evil.example", 400)):
        assert client().get("/", headers={"host": host}).status_code == status
    public = client(host="0.0.0.0")
    assert public.get("/", headers={"host": "here.example"}).status_code == 200


def test_an_upload_that_does_not_end():
    app = application(grey, "x", Limits(seconds=0.05), LOCAL)
    answers = []

    async def receive():
        await anyio.sleep(30)

    async def send(message):
        answers.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/", "raw_path": b"/", "root_path": "",
        "query_string": b"", "http_version": "1.1", "scheme": "http",
        "headers": [(b"host", b"localhost"),
                    (b"content-type", b"multipart/form-data; boundary=x")],
    }  # fmt: skip
    anyio.run(app, scope, receive, send)
    assert answers[0]["status"] == 408


@pytest.fixture
def opened(monkeypatch):
    """A checkpoint that need not be there."""
    config = types.SimpleNamespace(task="depth", decoder="fcn", backbone="b", channels=3)
    found = types.SimpleNamespace(config=config)
    monkeypatch.setattr("benchmark.results.checkpoint.open_checkpoint", lambda _: found)
    monkeypatch.setattr(
        "benchmark.predict.maps.Mapper", lambda *_: types.SimpleNamespace(pictures=grey)
    )


def test_mistakes_end_in_a_line(cli, opened):
    with socket.create_server((LOCAL, 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("serve", "--checkpoint", "x", "--port", port)
    assert done.exit_code == 2
    assert f"--port {port}: cannot listen" in line(done)
    assert "--device tpu" in line(cli("serve", "--checkpoint", "x", "--device", "tpu"))


def test_a_package_that_is_not_installed(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = cli("serve", "--checkpoint", "x")
    assert done.exit_code == 2
    assert "pip install -e .[serve]" in line(done)


def test_it_listens_where_it_is_told_to(cli, opened, monkeypatch):
    import uvicorn

    seen = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda _, sockets: seen.append(sockets[0]))
    with socket.create_server((LOCAL, 0)) as free:
        port = free.getsockname()[1]
    done = cli("serve", "--checkpoint", "x", "--port", port)
    assert done.exit_code == 0
    assert seen[0].getsockname() == (LOCAL, port)
    assert f"http://{LOCAL}:{port}/: " in done.stderr
    done = cli("serve", "--checkpoint", "x", "--port", port + 1, "--host", "0.0.0.0")
    assert "anyone who reaches this address" in done.stderr
    for one in seen:
        one.close()
