"""A web page that takes an image and shows a network's maps of it; it stores nothing."""

import base64
import hashlib
import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import anyio
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from python_multipart.exceptions import FormParserError
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.types import Message
from torch import Tensor

from benchmark.predict.maps import png
from common.drawing import Picture
from common.errors import DataError, reason
from datasets.decoding import FORMATS, read_any_image

TEMPLATES = Path(__file__).parent / "templates"
Draw = Callable[[Tensor], Mapping[str, Picture]]


class Limits(NamedTuple):
    """Limits of an upload: bytes, pixels, and seconds until it has arrived."""

    size: int = 10_000_000
    pixels: int = 16_000_000
    seconds: float = 60.0


class Refused(Exception):
    """An upload is refused: the HTTP status, and the reason in one line."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def application(draw: Draw, title: str, limits: Limits, host: str) -> Starlette:
    """GET / is a form; POST / takes its ``image`` and answers with the pictures of ``draw``.

    host: address of the page. A local one refuses requests for other host names, which prevents
    DNS rebinding by other pages.
    """
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    style = (TEMPLATES / "serve.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    headers = {
        "Content-Security-Policy": f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
        "; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    one = anyio.CapacityLimiter(1)  # a second image would only slow the first

    def page(status: int, error: str = "", name: str = "", **pictures: str) -> HTMLResponse:
        html = templates.get_template("serve.html.j2").render(
            title=title, style=style, error=error, name=name, pictures=pictures,
            limit=f"{limits.size / 1e6:g} MB, {limits.pixels / 1e6:g} megapixels",
            formats=", ".join(FORMATS),
        )  # fmt: skip
        return HTMLResponse(html, status, headers)

    async def get(_: Request) -> HTMLResponse:
        return page(200)

    async def post(request: Request) -> HTMLResponse:
        try:
            name, content = await _uploaded(request, limits)
            async with one:
                if await request.is_disconnected():  # while it waited for its turn
                    raise Refused(400, "nobody waits for the maps")
                pictures = await anyio.to_thread.run_sync(_drawn, draw, name, content, limits)
        except Refused as error:
            return page(error.status, str(error))
        except Exception as error:  # memory most of all
            return page(500, f"the network failed: {reason(error)}")
        return page(200, name=name, **pictures)

    allowed = ["127.0.0.1", "localhost", "[::1]", host]
    hosts = allowed if host in ("127.0.0.1", "localhost", "::1") else ["*"]
    return Starlette(
        routes=[Route("/", get, methods=["GET"]), Route("/", post, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
    )


async def _uploaded(request: Request, limits: Limits) -> tuple[str, bytes]:
    """Name and content of the form's image; its size is checked while it arrives."""
    received, most = 0, limits.size + 10_000  # for the rest of the form
    too_large = Refused(413, f"the file is larger than {limits.size / 1e6:g} MB")

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > most:
            # a browser shows the answer only after it has sent all: read on for a while
            while message.get("more_body") and received < 20 * most:
                message = await request.receive()
                received += len(message.get("body", b""))
            raise too_large
        return message

    try:
        with anyio.fail_after(limits.seconds):
            form = await Request(request.scope, receive).form(max_files=1, max_fields=0)
            image = form.get("image")
            if not isinstance(image, UploadFile) or not image.filename:
                raise Refused(400, "no image came: choose one first")
            content = await image.read()
            await form.close()
    except TimeoutError:
        raise Refused(408, f"the file took longer than {limits.seconds:g} s to arrive") from None
    except (HTTPException, FormParserError) as error:
        why = error.detail if isinstance(error, HTTPException) else error
        raise Refused(400, f"not a form with one image: {why}") from None
    if len(content) > limits.size:
        raise too_large
    name = "".join(c if c.isprintable() else "?" for c in image.filename)
    return name[-80:], content


def _drawn(draw: Draw, name: str, content: bytes, limits: Limits) -> dict[str, str]:
    """The image and its maps as PNG in base64, by suffix. Raises Refused if it is no image."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
    except Image.DecompressionBombError:
        raise Refused(413, f"{name}: more than {limits.pixels / 1e6:g} megapixels") from None
    except Exception:  # PIL raises almost anything for bytes that are no image
        raise Refused(415, f"{name}: not an image of {', '.join(FORMATS)}") from None
    if width * height > limits.pixels:
        raise Refused(
            413,
            f"{name}: {width}×{height} pixels are more than {limits.pixels / 1e6:g} megapixels: "
            "reduce the image",
        )
    with tempfile.NamedTemporaryFile(prefix="serve-") as file:
        file.write(content)
        file.flush()
        try:
            image = read_any_image(Path(file.name))
        except DataError as error:
            raise Refused(415, str(error).replace(file.name, name)) from None
    pictures = {"image": Image.fromarray(image.permute(1, 2, 0).numpy()), **draw(image)}
    return {key: base64.b64encode(png(picture)).decode() for key, picture in pictures.items()}
