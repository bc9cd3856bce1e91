"""Serves the page on this machine: a port that is free, a server that ends when told to."""

from __future__ import annotations

import logging
import os
import socket
import webbrowser
from collections.abc import Mapping
from threading import Thread
from typing import TYPE_CHECKING, Any

from scratchpad_rag.app.flags import existing_checkpoint, say
from scratchpad_rag.errors import UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from scratchpad_rag.app.web.page import Page

HOST = "127.0.0.1"
DEFAULT_PORT = 7860
_TRIES = 100  # ports looked at for a free one to offer
_WAITING_ROOM = 20  # questions that may wait
_SHUTDOWN_SECONDS = 5.0


def bound(port: int) -> socket.socket:
    """A socket at a port of this machine, held from now on. Raises UserError naming a free one."""
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: a port is a number from 1 to 65535")
    try:
        return _bind(port)
    except PermissionError as error:
        raise UserError(f"--port {port} needs more rights; take one from 1024") from error
    except OSError as error:
        free = _free_port(port + 1)
        offer = f"; --port {free} is free" if free else ""
        raise UserError(f"port {port} is in use{offer}") from error


def _bind(port: int) -> socket.socket:
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere the option lets two programs share a port
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((HOST, port))
        held.listen(128)
    except OSError:
        held.close()
        raise
    return held


def _free_port(first: int) -> int | None:
    for port in range(first, min(first + _TRIES, 65536)):
        try:
            _bind(port).close()
        except OSError:
            continue
        return port
    return None


def application(page: Page) -> ASGIApp:
    """The page as an ASGI application that lets nothing else in or out."""
    import gradio as gr
    from fastapi import FastAPI

    from scratchpad_rag.app.web.dress import head, theme
    from scratchpad_rag.app.web.guard import Guard

    blocks = page.build()
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=1,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        head=head(),
    )
    return Guard(app)


class PageServer:
    """A server of the page on a socket that is already held.

    `run` blocks until Ctrl-C; `start` and `stop` do the same from another thread.
    """

    def __init__(self, page: Page, held: socket.socket) -> None:
        import uvicorn

        class Server(uvicorn.Server):
            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                # Streams of pages that are still open are cut off, each with a traceback.
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
                await super().shutdown(sockets)

        self.page = page
        self.held = held
        self._server = Server(
            uvicorn.Config(
                application(page), log_level="warning", lifespan="on", timeout_graceful_shutdown=1
            )
        )
        self._thread: Thread | None = None

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.held.getsockname()[1]}"

    def run(self) -> None:
        """Serve until the process is told to end; what is being read is stopped then."""
        try:
            self._server.run(sockets=[self.held])
        finally:
            self.page.desk.close(_SHUTDOWN_SECONDS)

    def start(self) -> None:
        self._thread = Thread(target=self.run, name="page", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(2 * _SHUTDOWN_SECONDS)


def run(flags: Mapping[str, Any]) -> None:
    """The page as the flags of the demo say; ends quietly with Ctrl-C.

    Raises UserError before anything is loaded: for a missing checkpoint, a port in use, flags that
    make no config, and where Gradio is not installed.
    """
    _require_gradio()
    existing_checkpoint(flags.get("checkpoint_path"))
    with bound(DEFAULT_PORT if flags.get("port") is None else flags["port"]) as held:
        address = f"http://{HOST}:{held.getsockname()[1]}"
        say(f"Starting the page at {address}")
        try:
            server = page_server(flags, held)
            say(f"Open {address} in a browser; Ctrl-C ends it")
            if flags.get("open"):
                webbrowser.open(address)
            server.run()
        except KeyboardInterrupt:
            say("")


def page_server(flags: Mapping[str, Any], held: socket.socket) -> PageServer:
    """A server of the page that the flags of the demo ask for; what it needs begins to load."""
    from scratchpad_rag.app.terminal import resolve

    checkpoint = existing_checkpoint(flags.get("checkpoint_path"))
    config = resolve(flags, checkpoint)

    from scratchpad_rag.app.web.asking import Desk
    from scratchpad_rag.app.web.follow import follow
    from scratchpad_rag.app.web.loading import Loading
    from scratchpad_rag.app.web.page import Defaults, Page

    loading = Loading(config, checkpoint)
    defaults = Defaults(config.data.total_docs, config.generate.max_new_tokens)
    server = PageServer(Page(loading, follow, Desk(_WAITING_ROOM), defaults), held)
    loading.start()
    return server


def _require_gradio() -> None:
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise UserError(
            "the page needs Gradio: pip install 'scratchpad-rag[web]' "
            "(python demo.py without --web asks in the terminal)"
        )
