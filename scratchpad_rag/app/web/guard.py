"""What the server lets in and out: only the page's own parts, asked for from this machine.

Gradio serves more than a page needs (files, uploads, a proxy, documentation of an API), and its
page may ask other sites for fonts and scripts. Requests for anything but the page are refused here,
and the browser is told to ask no other site.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 1 << 20  # of one request; a question and a session's points are far smaller
_HOSTS = ("127.0.0.1", "localhost")
_PATHS = (
    "/",
    "/config",
    "/favicon.ico",
    "/manifest.json",
    "/robots.txt",
    "/theme.css",
    "/gradio_api/queue/data",
    "/gradio_api/queue/join",
    "/gradio_api/startup-events",
)
_FOLDERS = ("/assets/", "/static/", "/gradio_api/heartbeat/")
# Gradio writes scripts and styles into the page and compiles templates, hence the unsafe words;
# what counts is that all must come from here, and that nothing can be sent elsewhere.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """ASGI middleware, pure so that streamed answers and hang-ups pass through it untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = _refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        await self.app(scope, _bounded(receive), _with_headers(send))


def _refusal(scope: Scope) -> PlainTextResponse | None:
    headers, path = Headers(scope=scope), scope["path"]
    if _host(headers.get("host", "")) not in _HOSTS:
        # A page of another site whose name was made to point here must not be answered.
        return PlainTextResponse("this server answers to localhost only", 403)
    if path not in _PATHS and not path.startswith(_FOLDERS):
        return PlainTextResponse("not found", 404)
    announced = headers.get("content-length", "")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        return PlainTextResponse(f"more than {MAX_BODY_BYTES:,} bytes", 413)
    return None


def _host(header: str) -> str:
    return header.rpartition(":")[0] or header


def _bounded(receive: Receive) -> Receive:
    """A body without an announced length is cut off where it becomes too long."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return {"type": "http.disconnect"} if received > MAX_BODY_BYTES else message

    return bounded


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return sending
