"""What the guard lets in and out, and which ports are taken."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from scratchpad_rag.app.terminal import main
from scratchpad_rag.app.web.serve import bound
from scratchpad_rag.errors import UserError

pytest.importorskip("starlette", reason="the page needs Gradio, which brings starlette")


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            body = b"cut off"
            break
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{len(body)} bytes".encode()})


@pytest.fixture
def client() -> Any:
    from starlette.testclient import TestClient

    from scratchpad_rag.app.web.guard import Guard

    return TestClient(Guard(_echo), base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/theme.css",
        "/assets/index.js",
        "/static/js/a.js",
        "/gradio_api/queue/join",
        "/gradio_api/queue/data",
        "/gradio_api/heartbeat/abc",
    ],
)
def test_the_page_s_own_parts_are_served(client: Any, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "connect-src 'self'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/upload",
        "/gradio_api/proxy=https://example.org",
        "/gradio_api/info",
        "/gradio_api/run/predict",
        "/gradio_api/call/predict",
        "/gradio_api/openapi.json",
        "/monitoring",
        "/docs",
        "/openapi.json",
        "/login",
        "/assets",
    ],
)
def test_nothing_else_is(client: Any, path: str) -> None:
    assert client.get(path).status_code == 404
    assert client.post(path).status_code == 404


def test_another_host_s_name_is_refused(client: Any) -> None:
    """A page elsewhere may point a name of its own at this machine (DNS rebinding)."""
    for host in ("example.org", "example.org:7860", "127.0.0.1.example.org", ""):
        assert client.get("/", headers={"host": host}).status_code == 403
    for host in ("localhost", "localhost:7860", "127.0.0.1"):
        assert client.get("/", headers={"host": host}).status_code == 200


def test_long_bodies_are_refused_or_cut_off(client: Any) -> None:
    join = "/gradio_api/queue/join"
    assert client.post(join, content=b"x" * 1000).text == "1000 bytes"
    assert client.post(join, content=b"x" * (1 << 20)).text == f"{1 << 20} bytes"
    assert client.post(join, content=b"x" * ((1 << 20) + 1)).status_code == 413

    def unannounced() -> Any:
        for _ in range(40):
            yield b"x" * (1 << 15)

    assert client.post(join, content=unannounced()).text == "7 bytes"  # "cut off"


def taken() -> socket.socket:
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    held.listen()
    return held


def test_a_port_in_use_is_named_and_a_free_one_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with taken() as held:
        port = held.getsockname()[1]
        assert main(["--web", "--port", str(port)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: port {port} is in use; --port ")
        assert said.endswith(" is free\n")
        assert said.count("\n") == 1  # nothing was loaded before
        free = int(said.split("--port ")[1].split()[0])
        assert free > port
        bound(free).close()


def test_the_port_is_held_from_the_moment_it_was_found_free() -> None:
    with bound(0) as held, pytest.raises(UserError, match="in use"):
        bound(held.getsockname()[1])


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_what_is_no_port(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--web", "--port", port]) == 2
    assert "a port is a number from 1 to 65535" in capsys.readouterr().err


def test_bad_flags_are_refused_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--web", "--checkpoint_path", "nowhere.pt"]) == 2
    assert capsys.readouterr().err == "error: there is no checkpoint nowhere.pt\n"
    assert main(["--web", "--model_config", "nothing_of_the_kind"]) == 2
    assert "nothing_of_the_kind" in capsys.readouterr().err
    assert main(["--port", "7000"]) == 2
    assert "--port is for the page" in capsys.readouterr().err


def test_without_gradio_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["--web"]) == 2
    assert "pip install 'scratchpad-rag[web]'" in capsys.readouterr().err
