import gzip
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scratchpad_rag.data.download import CHECKSUMS, ensure_lim_files, lim_file_name
from scratchpad_rag.errors import DataError

BODY = gzip.compress(b'{"question": "who"}\n' * 500, mtime=0)
NAMES = {position: f"nq-open-20_total_documents_gold_at_{position}.jsonl.gz" for position in (0, 4)}


class Server(ThreadingHTTPServer):
    """Answers with `bodies[path]`, announcing `lengths[path]` bytes, and keeps what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: dict[str, bytes] = {}
        self.lengths: dict[str, int | None] = {}
        self.asked: list[str] = []
        self.stall = threading.Event()
        self.stalls = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/qa_data"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.server.stalls:
            self.server.stall.wait(10)
            return
        body = self.server.bodies.get(self.path)
        if body is None:
            self.send_error(404)
            return
        length = self.server.lengths.get(self.path, len(body))
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stall.set()
    server.shutdown()
    thread.join()
    server.server_close()


def offer(server: Server, *positions: int, body: bytes = BODY) -> None:
    for position in positions:
        server.bodies[f"/qa_data/20_total_documents/{NAMES[position]}"] = body


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_names() -> None:
    assert lim_file_name(20, 19) == "nq-open-20_total_documents_gold_at_19.jsonl.gz"
    assert lim_file_name(30, 29) == "nq-open-30_total_documents_gold_at_29.jsonl.gz"
    assert lim_file_name(10, 9) == "nq-open-10_total_documents_gold_at_9.jsonl.gz"
    assert lim_file_name(1, 0) == "nq-open-oracle.jsonl.gz"
    with pytest.raises(DataError, match="no files of 15 documents; choose from 1, 10, 20, 30"):
        lim_file_name(15, 0)
    with pytest.raises(DataError, match=r"gold one at 14; choose from 0, 4, 9$"):
        lim_file_name(10, 14)


def test_downloads_once_and_writes_checksums(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(server, 0, 4)
    folder = tmp_path / "new" / "folder"
    paths = ensure_lim_files(folder, 20, (4, 0), server.url)
    assert paths == [folder / NAMES[4], folder / NAMES[0]]
    assert [path.read_bytes() for path in paths] == [BODY, BODY]
    digest = hashlib.sha256(BODY).hexdigest()
    entry = {"size": len(BODY), "sha256": digest}
    assert json.loads((folder / CHECKSUMS).read_text()) == {NAMES[0]: entry, NAMES[4]: entry}
    assert f"{len(BODY):,} bytes, sha256 {digest}" in "".join(capsys.readouterr())
    assert ensure_lim_files(folder, 20, (0, 4), server.url) == paths[::-1]
    assert len(server.asked) == 2
    assert leftovers(folder) == sorted([CHECKSUMS, *NAMES.values()])


def test_oracle_lies_beside_the_folders(tmp_path: Path, server: Server) -> None:
    server.bodies["/qa_data/nq-open-oracle.jsonl.gz"] = BODY
    [path] = ensure_lim_files(tmp_path, 1, (0,), server.url + "/", progress=False)
    assert path.read_bytes() == BODY


def test_a_file_that_was_there_is_taken_as_it_is(tmp_path: Path, server: Server) -> None:
    (tmp_path / NAMES[0]).write_bytes(b"mine")
    assert ensure_lim_files(tmp_path, 20, (0,), server.url) == [tmp_path / NAMES[0]]
    assert server.asked == []


def test_a_file_that_changed_is_an_error(tmp_path: Path, server: Server) -> None:
    offer(server, 0)
    [path] = ensure_lim_files(tmp_path, 20, (0,), server.url, progress=False)
    path.write_bytes(BODY[:-1])
    with pytest.raises(DataError, match=r"delete the file to download it again") as caught:
        ensure_lim_files(tmp_path, 20, (0,), server.url)
    assert str(path) in str(caught.value)
    (tmp_path / CHECKSUMS).write_text("[]")
    with pytest.raises(DataError, match=r"checksums\.json: cannot be read as checksums"):
        ensure_lim_files(tmp_path, 20, (0,), server.url)


def refused(folder: Path, url: str, timeout_seconds: float = 5.0) -> str:
    with pytest.raises(DataError) as caught:
        ensure_lim_files(folder, 20, (0,), url, timeout_seconds, progress=False)
    assert leftovers(folder) == []
    assert caught.value.__cause__ is not None
    message = str(caught.value)
    assert "\n" not in message
    for way in ("--experiment_config sample_20_docs", "scratchpad-rag data build", str(folder)):
        assert way in message
    assert NAMES[0] in message
    return message


def test_not_found(tmp_path: Path, server: Server) -> None:
    assert "the server answered 404 Not Found" in refused(tmp_path, server.url)


def test_cut_off(tmp_path: Path, server: Server) -> None:
    offer(server, 0, body=BODY[:-10])
    server.lengths[f"/qa_data/20_total_documents/{NAMES[0]}"] = len(BODY)
    assert "the download was cut off, 10 bytes short" in refused(tmp_path, server.url)
    # Without a length only the gzip stream itself can tell.
    server.lengths[f"/qa_data/20_total_documents/{NAMES[0]}"] = None
    assert "not a complete gzip file" in refused(tmp_path, server.url)


def test_a_login_page_instead_of_the_file(tmp_path: Path, server: Server) -> None:
    offer(server, 0, body=b"<html>Please log in</html>")
    assert "not a complete gzip file" in refused(tmp_path, server.url)


def test_no_answer_in_time(tmp_path: Path, server: Server) -> None:
    server.stalls = True
    assert "0.2 seconds" in refused(tmp_path, server.url, timeout_seconds=0.2)


def test_unreachable_port_and_foolish_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:  # bound but not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/qa_data"
        assert "refused" in refused(tmp_path, url)
    assert "unknown url type" in refused(tmp_path, "nowhere")


def test_a_failed_download_keeps_what_came_before(tmp_path: Path, server: Server) -> None:
    offer(server, 0)
    with pytest.raises(DataError, match="404"):
        ensure_lim_files(tmp_path, 20, (0, 4), server.url, progress=False)
    assert leftovers(tmp_path) == sorted([CHECKSUMS, NAMES[0]])
    offer(server, 4)
    ensure_lim_files(tmp_path, 20, (0, 4), server.url, progress=False)
    assert len(server.asked) == 3
