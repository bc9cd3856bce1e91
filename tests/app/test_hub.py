"""Uploading to a server of our own that speaks the Hub's API."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from scratchpad_rag.app.hub import Destination, push, require_destination
from scratchpad_rag.errors import UserError

_LARGE = (".safetensors", ".gguf")


@dataclass
class Hub:
    """What was asked of the server and what was uploaded to it."""

    address: str = ""
    status: int = 200  # of every answer
    was_there: bool = False  # the repository, which then is public
    token: str = ""
    created: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # by SHA-256
    files: dict[str, bytes] = field(default_factory=dict)  # what the commit made, by path
    asked: list[str] = field(default_factory=list)

    @property
    def asked_private(self) -> bool:
        """Versions of huggingface_hub say it in two ways."""
        return self.created.get("private") is True or self.created.get("visibility") == "private"


@contextmanager
def serve_hub() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def answer(self, content: Any, status: int = 200) -> None:
            told = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def do_GET(self) -> None:
            hub.asked.append(f"GET {self.path}")
            private = hub.asked_private and not hub.was_there
            self.answer({"id": "me/reader", "private": private, "siblings": []}, hub.status)

        def do_PUT(self) -> None:
            hub.asked.append("PUT object")
            hub.objects[self.path.rsplit("/", 1)[1]] = self.body()
            self.answer({})

        def do_POST(self) -> None:
            body = self.body()
            hub.asked.append(f"POST {self.path}")
            hub.token = self.headers.get("Authorization", "")
            if hub.status != 200:
                self.answer({"error": "Invalid credentials in Authorization header"}, hub.status)
            elif self.path == "/api/repos/create":
                hub.created = json.loads(body)
                address = {"url": f"{hub.address}/me/reader"}
                self.answer(address, 409 if hub.was_there else 200)
            elif self.path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                paths = [file["path"] for file in json.loads(body)["files"]]
                modes = ["lfs" if path.endswith(_LARGE) else "regular" for path in paths]
                pairs = zip(paths, modes, strict=True)
                files = [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in pairs]
                self.answer({"files": files})
            elif self.path.endswith("/info/lfs/objects/batch"):
                wanted = json.loads(body)["objects"]
                self.answer({"transfer": "basic", "objects": [_accepted(hub, o) for o in wanted]})
            elif "/commit/" in self.path:
                _commit(hub, body)
                self.answer(
                    {
                        "commitUrl": f"{hub.address}/me/reader/commit/abc",
                        "commitOid": "abc",
                        "hookOutput": "",
                    }
                )
            else:
                self.answer({"error": f"no {self.path}"}, 404)

    return Handler


def _accepted(hub: Hub, asked: dict[str, Any]) -> dict[str, Any]:
    upload = {"href": f"{hub.address}/objects/{asked['oid']}"}
    return {"oid": asked["oid"], "size": asked["size"], "actions": {"upload": upload}}


def _commit(hub: Hub, body: bytes) -> None:
    for line in body.splitlines():
        operation = json.loads(line)
        value = operation["value"]
        if operation["key"] == "file":
            assert value["encoding"] == "base64"
            hub.files[value["path"]] = base64.b64decode(value["content"])
        elif operation["key"] == "lfsFile":
            hub.files[value["path"]] = hub.objects[value["oid"]]


def name_endpoint(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """What HF_ENDPOINT does, which huggingface_hub reads once, when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    hosts = getattr(constants, "HF_URL_HOSTS", frozenset())
    monkeypatch.setattr(constants, "HF_URL_HOSTS", hosts | {"127.0.0.1"}, raising=False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub() as server:
        name_endpoint(monkeypatch, server.address)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        # Its own storage protocol is spoken by the Hub alone.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "reader"
    (made / "adapter").mkdir(parents=True)
    (made / "README.md").write_text("---\nlicense: mit\n---\n# A reader\n", encoding="utf-8")
    (made / "model.safetensors").write_bytes(bytes(range(256)) * 400)
    (made / "adapter/adapter_model.safetensors").write_bytes(b"adapter" * 99)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("private", [True, False])
def test_every_byte_arrives(hub: Hub, folder: Path, private: bool) -> None:
    address = push(folder, Destination("me/reader", private))
    assert address == f"{hub.address}/me/reader"
    assert hub.files == contents(folder)
    assert hub.token == "Bearer hf_of_a_test"
    assert hub.created["name"] == "reader"
    assert hub.asked_private is private
    assert contents(folder).keys() == hub.files.keys()  # nothing is left in the folder


def test_a_repository_that_is_there_takes_a_new_commit(hub: Hub, folder: Path) -> None:
    hub.was_there = True
    push(folder, Destination("me/reader", private=False))
    assert hub.files == contents(folder)


def test_a_public_repository_gets_nothing_private(hub: Hub, folder: Path) -> None:
    hub.was_there = True
    with pytest.raises(UserError, match="me/reader is public, and --private was asked for"):
        push(folder, Destination("me/reader", private=True))
    assert hub.files == {}
    assert hub.objects == {}


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_refusal_is_one_line(hub: Hub, folder: Path, status: int) -> None:
    hub.status = status
    with pytest.raises(UserError, match=r"cannot upload to me/reader: \S") as told:
        push(folder, Destination("me/reader", private=False))
    assert "\n" not in str(told.value)
    assert str(status) in str(told.value)
    assert "hf_of_a_test" not in str(told.value)


def test_nobody_there_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # taken and not listened to
        name_endpoint(monkeypatch, f"http://127.0.0.1:{held.getsockname()[1]}")
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        with pytest.raises(UserError, match="cannot upload to me/reader: ") as told:
            push(folder, Destination("me/reader", private=False))
    assert "\n" not in str(told.value)


def test_a_name_that_no_repository_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    require_destination(Destination("me/reader", private=False))
    with pytest.raises(UserError, match="--push_to_hub me/a/reader: "):
        require_destination(Destination("me/a/reader", private=False))


def test_without_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="needs a token; set HF_TOKEN"):
        require_destination(Destination("me/reader", private=False))
