"""Against a real server on this machine, which misbehaves as each test asks."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

from scratchpad_rag.backends.http import BackendError, HttpBackend, HttpSettings
from scratchpad_rag.errors import ConfigError, UserError
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.prompts.template import ChatMarkers, Wording
from scratchpad_rag.records import Example, Passage, Region, Rendered, Span

pytest.importorskip("openai")

KEY = "sk-very-secret-0123456789"
SOON = {"Retry-After-Ms": "10"}  # the client obeys, so that tests need not wait
USAGE = {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]  # names in lower case
    body: dict[str, Any]
    number: int  # from 0, in the order of arrival
    at_seconds: float

    @property
    def text(self) -> str:
        return str(
            self.body["prompt"] if "prompt" in self.body else self.body["messages"][-1]["content"]
        )


class Reply(NamedTuple):
    body: Any  # a str is sent as it is
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012
    content_type: str = "application/json"


DROP = Reply(None, status=0)  # the connection is closed without a word
HANG = Reply(None, status=1)  # nothing is said until the client leaves


def chat_reply(text: str | None, reason: str = "stop", **changes: Any) -> Reply:
    choice = {
        "index": 0,
        "finish_reason": reason,
        "message": {"role": "assistant", "content": text},
    }
    return Reply(
        {"id": "1", "object": "chat.completion", "choices": [choice], "usage": USAGE, **changes}
    )


class Server(ThreadingHTTPServer):
    """Answers every request with what `answer` returns; by default the last message, echoed."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.base_url = f"http://127.0.0.1:{self.server_port}/v1"
        self.answer: Callable[[Asked], Reply] = lambda asked: chat_reply(f"echo {asked.text}")
        self.lock = threading.Lock()
        self.asked: list[Asked] = []
        self.now = self.most = 0  # requests at a time
        self.left = 0  # clients that went while the server was silent

    def script(self, *replies: Reply) -> None:
        """One reply after the other; the last one again and again."""
        self.answer = lambda asked: replies[min(asked.number, len(replies) - 1)]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that cancels is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, else each waits 40 ms for the other's receipt
    server: Server

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with server.lock:
            asked = Asked(self.path, headers, body, len(server.asked), time.monotonic())
            server.asked.append(asked)
            server.now += 1
            server.most = max(server.most, server.now)
        reply = server.answer(asked)
        with server.lock:  # before the reply, upon which the next request may come at once
            server.now -= 1
        if reply is HANG:
            select.select([self.connection], [], [], 30)
            with server.lock:
                server.left += 1
        if reply is HANG or reply is DROP:
            self.close_connection = True
            return
        raw = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Type": reply.content_type}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def backend(
    server: Server, notify: Callable[[str], None] | None = None, **given: Any
) -> HttpBackend:
    settings = {"base_url": server.base_url, "max_new_tokens": 24, **given}
    return HttpBackend("tiny", HttpSettings(**settings), notify)


def ask(text: str) -> Rendered:
    return Rendered(text, len(text), (Span(0, len(text), Region.QUESTION),))


def asks(count: int) -> list[Rendered]:
    return [ask(f"q{number}") for number in range(count)]


def fail(backend: HttpBackend) -> str:
    """The one line that a failing backend says."""
    with pytest.raises(BackendError) as caught:
        list(backend.generate(asks(1)))
    assert isinstance(caught.value, UserError)
    message = str(caught.value)
    assert "\n" not in message
    # Nothing of the library's own is shown above the line.
    assert "openai" not in "".join(traceback.format_exception(caught.value))
    assert backend_threads() == []
    return message


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def backend_threads() -> list[str]:
    """Our thread, and those that asyncio starts for a loop."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("scratchpad-rag", "asyncio", "AnyIO"))]


EXAMPLE = Example(
    id="1",
    question="who wrote “Mårren”",
    answers=("Ada Holm",),
    passages=(Passage("Marren", "A town.\nBy a river."), Passage("Holm", "She wrote.")),
    gold=(1,),
)
SYSTEM = (
    "Write a high-quality answer for the given question using only the provided context "
    "(some of which might be irrelevant)."
)
USER = (
    "Question: Who wrote “Mårren”?\n\n"
    "Context:\n"
    "Document (Title: Marren) A town.\nBy a river.\n\n"
    "Document (Title: Holm) She wrote.\n\n"
    "Question: Who wrote “Mårren”?\n\n"
    "Answer:"
)
MARKERS = ChatMarkers("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


def test_a_chat_request_holds_the_system_sentence_and_the_rest(server: Server) -> None:
    server.script(chat_reply("Ada Holm", "length"))
    (completion,) = backend(server).generate([render_prompt(EXAMPLE, Wording())])
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}],
        "max_tokens": 24,
        "temperature": 0,
    }
    assert completion.text == "Ada Holm"
    assert completion.token_ids == ()
    assert (completion.prompt_tokens, completion.new_tokens) == (30, 4)
    assert completion.prefilled_tokens == 30
    assert completion.finish_reason == "length"
    assert (completion.forward_passes, completion.first_token_seconds) == (0, 0.0)
    assert completion.wall_seconds > 0


def test_a_completions_request_holds_the_prompt_as_it_is(server: Server) -> None:
    choice = {"index": 0, "text": " Ada Holm\n", "finish_reason": "stop", "logprobs": None}
    server.script(Reply({"choices": [choice], "usage": USAGE}))
    plain = render_prompt(EXAMPLE, Wording())
    marked = render_prompt(EXAMPLE, Wording(chat=MARKERS))
    asking = backend(server, endpoint="completions", concurrency=1)
    first, _ = asking.generate([plain, marked])
    assert first.text == " Ada Holm\n"
    assert first.finish_reason == "stop"
    assert [asked.path for asked in server.asked] == ["/v1/completions"] * 2
    assert server.asked[0].body == {
        "model": "tiny",
        "prompt": f"{SYSTEM}\n\n{USER}",
        "max_tokens": 24,
        "temperature": 0,
    }
    assert server.asked[1].body["prompt"] == f"<|system|>{SYSTEM}<|user|>{USER}<|assistant|>"


def test_a_prompt_without_a_system_sentence_is_one_message(server: Server) -> None:
    list(backend(server).generate([render_prompt(EXAMPLE, Wording(system=""))]))
    assert server.asked[0].body["messages"] == [{"role": "user", "content": USER}]


def test_only_the_prompt_of_a_sample_is_sent(server: Server) -> None:
    list(backend(server).generate([Rendered("Question?\n\nAnswer: 1911", 18, ())]))
    assert server.asked[0].text == "Question?\n\nAnswer:"


def test_chat_markers_are_refused_before_anything_is_sent(server: Server) -> None:
    prompts = [render_prompt(EXAMPLE, Wording()), render_prompt(EXAMPLE, Wording(chat=MARKERS))]
    with pytest.raises(ConfigError, match="chat template"):
        next(backend(server).generate(prompts))
    assert server.asked == []
    assert backend_threads() == []


def test_no_prompts_are_no_completions(server: Server) -> None:
    assert list(backend(server).generate([])) == []
    assert server.asked == []


def test_tokens_from_the_servers_cache_are_not_prefilled(server: Server) -> None:
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 12}}
    unknown = {**USAGE, "prompt_tokens_details": {"cached_tokens": None}}
    server.script(chat_reply("x", usage=usage), chat_reply(None, usage=unknown))
    first, second = backend(server, concurrency=1).generate(asks(2))
    assert (first.prompt_tokens, first.prefilled_tokens) == (30, 18)
    assert (second.prompt_tokens, second.prefilled_tokens) == (30, 30)
    assert second.text == ""  # a message without content


def test_missing_usage_is_noted_once(server: Server) -> None:
    server.script(chat_reply("x", usage=None))
    notes: list[str] = []
    asking = backend(server, notes.append)
    completions = [*asking.generate(asks(3)), *asking.generate(asks(1))]
    assert [(c.prompt_tokens, c.new_tokens, c.prefilled_tokens) for c in completions] == [
        (0, 0, 0)
    ] * 4
    assert len(notes) == 1
    assert "counts no tokens" in notes[0]
    assert len(list(backend(server).generate(asks(2)))) == 2  # nobody to tell is no error


def test_order_is_kept_though_answers_come_out_of_order(server: Server) -> None:
    others = threading.Semaphore(0)

    def answer(asked: Asked) -> Reply:
        if asked.text == "q0":
            for _ in range(5):
                assert others.acquire(timeout=10)
        else:
            others.release()
        return chat_reply(f"echo {asked.text}")

    server.answer = answer
    texts = [c.text for c in backend(server, concurrency=4).generate(asks(6))]
    assert texts == [f"echo q{number}" for number in range(6)]


def test_each_comes_as_soon_as_it_and_those_before_are_done(server: Server) -> None:
    taken = threading.Event()

    def answer(asked: Asked) -> Reply:
        if asked.text == "q2":
            assert taken.wait(10)  # else only all at the end would come
        return chat_reply(asked.text)

    server.answer = answer
    completions = backend(server, concurrency=4).generate(asks(4))
    assert [next(completions).text, next(completions).text] == ["q0", "q1"]
    taken.set()
    assert [c.text for c in completions] == ["q2", "q3"]


def test_concurrency_is_used_and_bounded(server: Server) -> None:
    held: list[int] = []
    release = threading.Event()

    def answer(asked: Asked) -> Reply:
        if asked.number == 0:
            wait_until(lambda: len(server.asked) >= 4)  # the others come while this one waits
            time.sleep(0.2)
            held.append(len(server.asked))
            release.set()
        assert release.wait(10)
        return chat_reply(asked.text)

    server.answer = answer
    assert len(list(backend(server, concurrency=4).generate(asks(12)))) == 12
    assert held == [4]
    assert server.most == 4


def test_a_slow_consumer_holds_back_requests(server: Server) -> None:
    completions = backend(server, concurrency=2).generate(asks(100))
    next(completions)
    wait_until(lambda: len(server.asked) == 8)  # four times the concurrency
    time.sleep(0.2)
    assert len(server.asked) == 8
    assert next(completions).text == "echo q1"
    wait_until(lambda: len(server.asked) == 9)
    assert len(list(completions)) == 98
    assert len(server.asked) == 100


def test_429_waits_as_long_as_the_server_asks(server: Server) -> None:
    server.script(Reply({}, 429, {"Retry-After": "1"}), chat_reply("x"))
    (completion,) = backend(server).generate(asks(1))
    first, second = server.asked
    assert second.at_seconds - first.at_seconds >= 1  # unasked it is half a second at most
    assert completion.text == "x"
    assert completion.wall_seconds >= 1  # the waiting counts


@pytest.mark.parametrize("failure", [Reply("", 500, SOON), Reply("", 503, SOON), DROP])
def test_a_passing_failure_is_tried_again(server: Server, failure: Reply) -> None:
    server.script(failure, chat_reply("x"))
    assert [c.text for c in backend(server, max_retries=1).generate(asks(1))] == ["x"]
    assert len(server.asked) == 2


def test_always_500_is_one_line_after_the_tries(server: Server) -> None:
    server.script(Reply({"error": {"message": "out of\nmemory."}}, 500, SOON))
    message = fail(backend(server, max_retries=3))
    assert len(server.asked) == 4
    assert message == (
        f"{server.base_url}/chat/completions answered 500 (out of memory) after 4 tries; "
        "look into the server's log or try again later"
    )


def test_always_429_names_concurrency(server: Server) -> None:
    server.script(Reply({"detail": "slow down"}, 429, SOON))
    message = fail(backend(server, max_retries=1))
    assert "answered 429 (slow down) after 2 tries; lower concurrency" in message


def test_a_slow_server_is_given_up(server: Server) -> None:
    server.script(HANG)
    begin = time.monotonic()
    message = fail(backend(server, timeout_seconds=0.2, max_retries=1))
    # Two tries with at most half a second between them; the rest is for a busy machine.
    assert 0.4 <= time.monotonic() - begin < 5
    assert len(server.asked) == 2
    assert "gave no answer within 0.2 s after 2 tries; raise timeout_seconds" in message


def test_a_dropped_connection_and_a_missing_server_are_told_apart(server: Server) -> None:
    server.script(DROP)
    message = fail(backend(server, max_retries=0))
    assert "dropped the connection (Server disconnected without sending a response)" in message
    assert "after 1 try; check that the server runs" in message
    with Server() as gone:
        base_url = gone.base_url
    message = fail(backend(server, base_url=base_url, max_retries=0))
    assert message.startswith(f"{base_url}/chat/completions cannot be reached (")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_fails_at_once(
    server: Server, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script(Reply({"error": {"message": f"no such key {KEY}"}}, status))
    message = fail(backend(server))
    assert f"wants a key ({status}) after 1 try; put it into the variable OPENAI_API_KEY" in message
    monkeypatch.setenv("MY_KEY", KEY)
    message = fail(backend(server, api_key_env="MY_KEY"))
    assert f"refused the key ({status}) after 1 try; check the variable MY_KEY" in message
    assert KEY not in message
    assert len(server.asked) == 2


def test_404_names_the_model(server: Server) -> None:
    server.script(Reply({"error": {"message": "not found"}}, 404))
    message = fail(backend(server, base_url=f"{server.base_url}/"))
    assert f"{server.base_url}/chat/completions knows no model 'tiny' (404)" in message
    assert f"{server.base_url}/models lists its models" in message
    assert len(server.asked) == 1


def test_a_refused_request_repeats_the_servers_words(server: Server) -> None:
    server.script(Reply({"error": {"message": "maximum context length is 8 tokens"}}, 400))
    assert "answered 400 (maximum context length is 8 tokens) after 1 try" in fail(backend(server))
    server.script(Reply("<html>" + "x" * 1000, 422, content_type="text/html"))
    assert len(fail(backend(server))) < 400


@pytest.mark.parametrize(
    "reply",
    [
        Reply("<html>Welcome</html>", content_type="text/html"),
        Reply('{"choices": [', content_type="application/json"),
        Reply({"error": {"message": "overloaded"}}),
        Reply({"choices": []}),
        Reply([1]),
        Reply({"choices": [{"finish_reason": "stop", "text": "of the other endpoint"}]}),
        chat_reply([{"type": "thinking"}]),  # type: ignore[arg-type]
    ],
)
def test_an_answer_that_is_no_completion_is_refused(server: Server, reply: Reply) -> None:
    server.script(reply)
    assert "something that is no completion; check base_url" in fail(backend(server))


@pytest.mark.parametrize("reason", ["content_filter", "tool_calls", None])
def test_other_ends_are_refused_by_name(server: Server, reason: str) -> None:
    server.script(chat_reply("x", reason))
    assert f"finish_reason {reason!r}" in fail(backend(server))


def test_completions_before_an_error_are_not_lost(server: Server) -> None:
    bad = Reply({"error": "too long"}, 400)
    server.answer = lambda asked: bad if asked.text == "q2" else chat_reply(asked.text)
    completions = backend(server).generate(asks(9))
    assert [next(completions).text, next(completions).text] == ["q0", "q1"]
    with pytest.raises(BackendError, match=r"answered 400 \(too long\)"):
        next(completions)
    assert backend_threads() == []


def test_the_key_is_sent_and_never_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")  # as an editor leaves it
    caplog.set_level(logging.DEBUG)
    server.script(
        chat_reply("x"),
        Reply({"error": {"message": f"{'x' * 190} {KEY} is not welcome"}}, 400),
        Reply(f"Bearer {KEY}", 500, SOON),
    )
    asking = backend(server, api_key_env="MY_KEY", max_retries=1)
    list(asking.generate(asks(1)))
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    shown = [repr(asking), repr(asking.settings), str(asking.settings)]
    for _ in range(2):
        with pytest.raises(BackendError) as caught:
            list(asking.generate(asks(1)))
        shown += [str(caught.value), repr(caught.value)]
        shown += traceback.format_exception(caught.value)
    shown.append("".join(f"{record.getMessage()}{record.__dict__}" for record in caplog.records))
    assert caplog.records
    assert "***" in "".join(shown)
    # The beginning too, which a line cut short would leave.
    assert KEY[:8] not in "".join(shown)


def test_a_server_that_needs_no_key_is_sent_a_placeholder(server: Server) -> None:
    server.script(chat_reply("x"), Reply({"error": "none of this"}, 400))
    asking = backend(server)
    list(asking.generate(asks(1)))
    assert server.asked[0].headers["authorization"] == "Bearer none"
    assert "(none of this)" in fail(asking)


def test_closing_early_cancels_what_is_under_way(server: Server) -> None:
    server.answer = lambda asked: chat_reply("x") if asked.text == "q0" else HANG
    completions = backend(server, concurrency=3).generate(asks(50))
    next(completions)
    wait_until(lambda: len(server.asked) == 4)
    completions.close()  # type: ignore[attr-defined]
    assert backend_threads() == []
    wait_until(lambda: server.left == 3)  # the server sees them go
    assert len(server.asked) == 4  # what waited for its turn is never sent


def test_an_error_cancels_what_is_under_way(server: Server) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.text != "q0":
            return HANG
        wait_until(lambda: len(server.asked) == 3)
        return Reply("", 400)

    server.answer = answer
    with pytest.raises(BackendError):
        list(backend(server, concurrency=3).generate(asks(50)))
    assert backend_threads() == []
    # All but the one that failed, whose turn another may have taken before the end.
    wait_until(lambda: server.left == len(server.asked) - 1)
    assert len(server.asked) <= 4


def test_ctrl_c_cancels_what_is_under_way(server: Server) -> None:
    def answer(asked: Asked) -> Reply:
        os.kill(os.getpid(), signal.SIGINT)
        return HANG

    server.answer = answer
    with pytest.raises(KeyboardInterrupt):
        list(backend(server).generate(asks(1)))
    assert backend_threads() == []
    wait_until(lambda: server.left == 1)


def test_a_caller_may_run_an_event_loop(server: Server) -> None:
    async def notebook_cell() -> list[str]:
        return [c.text for c in backend(server).generate(asks(3))]

    assert asyncio.run(notebook_cell()) == ["echo q0", "echo q1", "echo q2"]
    assert backend_threads() == []


def test_two_generators_can_be_read_in_turns(server: Server) -> None:
    asking = backend(server, concurrency=2)
    pairs = zip(asking.generate(asks(5)), asking.generate(asks(5)), strict=True)
    assert [(a.text, b.text) for a, b in pairs] == [(f"echo q{n}",) * 2 for n in range(5)]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"base_url": "localhost:8000/v1"}, "base_url 'localhost:8000/v1' is not an address"),
        ({"base_url": "ftp://localhost/v1"}, "base_url 'ftp://localhost/v1' is not"),
        ({"base_url": "http://"}, "base_url 'http://' is not"),
        ({"base_url": "http://a b/v1"}, "base_url 'http://a b/v1' is not"),
        ({"base_url": "http://a:99999/v1"}, "base_url 'http://a:99999/v1' is not"),
        ({"base_url": "http://[::zz]/v1"}, "is not an address"),
        ({"base_url": "http://me:s3cret@a/v1"}, "base_url is not an address"),
        ({"base_url": "http://a/v1?key=s3cret"}, "base_url is not an address"),
        ({"api_key_env": "sk-s3cret"}, "api_key_env is not the name of an environment variable"),
        ({"endpoint": "responses"}, "unknown endpoint 'responses'; choose from chat, completions"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be 1 or more"),
        ({"concurrency": 0}, "concurrency is 0; it must be 1 or more"),
        ({"timeout_seconds": 0.0}, "timeout_seconds is 0.0; it must be above 0"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds is nan"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds is inf"),
        ({"max_retries": -1}, "max_retries is -1; it must be 0 or more"),
    ],
)
def test_bad_settings_are_refused_in_one_line(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HttpSettings(**{"base_url": "http://localhost/v1", "max_new_tokens": 1, **given})
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8000/v1", "https://api.openai.com/v1/", "http://[::1]:80", "https://a_b.c."],
)
def test_good_addresses(url: str) -> None:
    assert HttpSettings(url, 1).url == url.rstrip("/") + "/chat/completions"


def test_a_model_and_a_sendable_key_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = HttpSettings("http://localhost/v1", 1)
    with pytest.raises(ConfigError, match="name that the server gives the model"):
        HttpBackend("", settings)
    for key in ("s3cret two", "s3crét", "s3c\nret"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(ConfigError, match="the key in OPENAI_API_KEY") as caught:
            HttpBackend("tiny", settings)
        assert "s3c" not in str(caught.value)


def test_a_proxy_that_cannot_be_used_is_one_line(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("ALL_PROXY", "nonsense://localhost:1")
    with pytest.raises(ConfigError, match="as the environment asks") as caught:
        next(backend(server).generate(asks(1)))
    assert "\n" not in str(caught.value)


def test_a_missing_openai_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"pip install 'scratchpad-rag\[http\]'"):
        HttpBackend("tiny", HttpSettings("http://localhost/v1", 1))


def test_importing_the_module_imports_no_openai() -> None:
    code = "import sys, scratchpad_rag.backends.http; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
