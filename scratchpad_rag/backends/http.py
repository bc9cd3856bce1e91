"""Any server that speaks OpenAI's protocol: requests go out side by side, answers come in order."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from scratchpad_rag.errors import BackendError, ConfigError
from scratchpad_rag.prompts.template import SEPARATOR
from scratchpad_rag.records import Completion, Region, Rendered

if TYPE_CHECKING:
    from openai import APIError, APIStatusError, AsyncOpenAI

_PATHS = {"chat": "/chat/completions", "completions": "/completions"}
_HOST = r"[\w-]{1,63}(\.[\w-]{1,63})*\.?"
_BASE_URL = re.compile(rf"https?://(\[[0-9a-fA-F:.]+\]|{_HOST})(:\d+)?(/[!-~]*)?", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NO_KEY = "none"  # local servers ask for no key, but the client insists on sending one
_LOOK_AHEAD = 4  # answers not yet taken, in multiples of the concurrency: a long one holds few up
_LONGEST_WORDS = 200  # characters of a server's own message that are repeated


@dataclass(frozen=True)
class HttpSettings:
    """Where the server is and how it is asked. Raises ConfigError for a value that cannot work."""

    base_url: str  # such as http://localhost:8000/v1, without user name, password and query
    max_new_tokens: int
    endpoint: str = "chat"  # chat (the server's own template) | completions (the prompt as it is)
    api_key_env: str = "OPENAI_API_KEY"  # the variable that holds the key; unset: no key is needed
    concurrency: int = 8  # requests at a time
    timeout_seconds: float = 60.0  # a try without a sign of the server for so long is given up
    max_retries: int = 5  # after the first try: for 429, 5xx, dropped connections and timeouts

    def __post_init__(self) -> None:
        if not _is_address(self.base_url):
            # A password may stand in it.
            shown = "" if set("@?#") & set(self.base_url) else f" {self.base_url!r}"
            raise ConfigError(
                f"base_url{shown} is not an address such as http://localhost:8000/v1 "
                "(without user name, password and query)"
            )
        if not _VARIABLE.fullmatch(self.api_key_env):  # which may be a key, pasted in its place
            raise ConfigError(
                "api_key_env is not the name of an environment variable; it never holds the key"
            )
        if self.endpoint not in _PATHS:
            raise ConfigError(
                f"unknown endpoint {self.endpoint!r}; choose from {', '.join(_PATHS)}"
            )
        for name, least in (("max_new_tokens", 1), ("concurrency", 1), ("max_retries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        if not 0 < self.timeout_seconds < float("inf"):
            raise ConfigError(f"timeout_seconds is {self.timeout_seconds}; it must be above 0")

    @property
    def url(self) -> str:
        """The address that requests go to."""
        return self.base_url.rstrip("/") + _PATHS[self.endpoint]


def _is_address(url: str) -> bool:
    try:
        port = urlsplit(url).port
    except ValueError:  # a port above 65535, an IPv6 address that is none
        return False
    return port != 0 and not set("@?#") & set(url) and bool(_BASE_URL.fullmatch(url))


class _Answer(NamedTuple):
    body: Any  # the server's JSON
    wall_seconds: float


class HttpBackend:
    """Greedy completions of a model that a server runs.

    Token ids, forward passes and the time of the first token are not known (empty or 0). `notify`
    is told once where the server does not say how many tokens it read and wrote.
    """

    def __init__(
        self, model: str, settings: HttpSettings, notify: Callable[[str], None] | None = None
    ) -> None:
        """Raises ConfigError where openai is not installed or the key cannot be sent."""
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise ConfigError(
                "the http backend needs the openai package: pip install 'scratchpad-rag[http]'"
            ) from error
        if not model:
            raise ConfigError("the http backend needs the name that the server gives the model")
        self.model = model
        self.settings = settings
        self._notify = notify
        self._client_type = AsyncOpenAI
        self._key = _read_key(settings.api_key_env)

    def generate(self, prompts: Sequence[Rendered]) -> Iterator[Completion]:
        """Raises ConfigError for chat markers sent to a chat endpoint, else BackendError.

        Closing the iterator cancels the requests that are under way.
        """
        if self.settings.endpoint == "chat" and any(prompt.chat for prompt in prompts):
            raise ConfigError(
                "the server puts its own chat template around a prompt that has one already; "
                "use prompt_format plain, or endpoint completions"
            )
        if not prompts:
            return
        client = self._connect()
        slots = asyncio.Semaphore(self.settings.concurrency)
        waiting: deque[Future[_Answer]] = deque()
        with _loop_thread(client) as loop:
            for prompt in prompts:
                if len(waiting) == _LOOK_AHEAD * self.settings.concurrency:
                    yield self._complete(waiting.popleft().result())
                request = self._ask(client, prompt, slots)
                waiting.append(asyncio.run_coroutine_threadsafe(request, loop))
            while waiting:
                yield self._complete(waiting.popleft().result())

    def _connect(self) -> AsyncOpenAI:
        try:
            return self._client_type(
                api_key=self._key,
                base_url=self.settings.base_url,
                timeout=self.settings.timeout_seconds,
                max_retries=self.settings.max_retries,
            )
        except (ImportError, OSError, ValueError) as error:  # of proxies and certificates
            raise ConfigError(
                f"cannot connect to {self.settings.base_url} as the environment asks: "
                f"{self._words(error)}"
            ) from None

    async def _ask(
        self, client: AsyncOpenAI, prompt: Rendered, slots: asyncio.Semaphore
    ) -> _Answer:
        from openai import APIError

        async with slots:
            begin = time.perf_counter()
            try:
                body = await client.post(
                    _PATHS[self.settings.endpoint], cast_to=object, body=self._body(prompt)
                )
            except APIError as error:  # it carries the request, which holds the key
                raise self._explain(error) from None
            except (json.JSONDecodeError, UnicodeDecodeError):
                body = None  # not the JSON that its header promises
            return _Answer(body, time.perf_counter() - begin)

    def _body(self, prompt: Rendered) -> dict[str, Any]:
        settings = self.settings
        chat = settings.endpoint == "chat"
        return {
            "model": self.model,
            **({"messages": _messages(prompt)} if chat else {"prompt": prompt.prompt}),
            "max_tokens": settings.max_new_tokens,
            "temperature": 0,
        }

    def _complete(self, answer: _Answer) -> Completion:
        try:
            choice = answer.body["choices"][0]
            reason = choice["finish_reason"]
            chat = self.settings.endpoint == "chat"
            text = (choice["message"]["content"] if chat else choice["text"]) or ""
            if not isinstance(text, str):
                raise TypeError(text)
            usage = answer.body.get("usage") or {}
            prompt_tokens = usage.get("prompt_tokens") or 0
            details = usage.get("prompt_tokens_details") or {}
            cached = details.get("cached_tokens") or 0
            new_tokens = usage.get("completion_tokens") or 0
        except (AttributeError, KeyError, IndexError, TypeError):
            raise BackendError(
                f"{self.settings.url} answered with something that is no completion; "
                "check base_url, which often ends in /v1"
            ) from None
        if reason not in ("stop", "length"):
            raise BackendError(
                f"{self.settings.url} ended an answer with finish_reason {reason!r}, not stop or "
                "length; leave that prompt out or ask a server without filter and tools"
            )
        if not usage and self._notify:
            self._notify(f"{self.settings.url} counts no tokens; they are noted as 0")
            self._notify = None  # once is enough
        return Completion(
            text=text,
            token_ids=(),
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            forward_passes=0,
            wall_seconds=answer.wall_seconds,
            finish_reason=reason,
            prefilled_tokens=prompt_tokens - cached,
        )

    def _explain(self, error: APIError) -> BackendError:
        from openai import APIStatusError, APITimeoutError

        # The client numbers its tries in this header, from 0.
        tries = int(error.request.headers.get("x-stainless-retry-count", 0)) + 1
        if isinstance(error, APIStatusError):
            what, advice = self._explain_status(error)
        elif isinstance(error, APITimeoutError):
            what = f"gave no answer within {self.settings.timeout_seconds:g} s"
            advice = "raise timeout_seconds or lower concurrency"
        else:
            # httpx or httpx2, as the version of openai has it: only the name is common to both.
            unreachable = type(error.__cause__).__name__ == "ConnectError"
            what = "cannot be reached" if unreachable else "dropped the connection"
            what += f" ({self._words(error.__cause__)})"
            advice = "check that the server runs and that base_url is its address"
        count = "1 try" if tries == 1 else f"{tries} tries"
        return BackendError(f"{self.settings.url} {what} after {count}; {advice}")

    def _explain_status(self, error: APIStatusError) -> tuple[str, str]:
        """What happened, and what to do about it."""
        status, variable = error.status_code, self.settings.api_key_env
        if status in (401, 403):  # servers repeat parts of the key here
            if self._key == _NO_KEY:
                return f"wants a key ({status})", f"put it into the variable {variable}"
            return f"refused the key ({status})", f"check the variable {variable}"
        if status == 404:
            models = f"{self.settings.base_url.rstrip('/')}/models"
            return (
                f"knows no model {self.model!r} (404)",
                f"{models} lists its models; if that is missing too, base_url is wrong",
            )
        body = error.body
        words = body.get("message") or body.get("detail") if isinstance(body, dict) else body
        what = f"answered {status} ({self._words(words)})"
        if status == 429:
            return what, "lower concurrency or wait until the limit is lifted"
        if status >= 500:
            return what, "look into the server's log or try again later"
        return what, "change what it does not accept"

    def _words(self, given: object) -> str:
        """An error's or a server's own words in one line, without the key."""
        text = str(given or "") or type(given).__name__
        if self._key != _NO_KEY:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:_LONGEST_WORDS].rstrip(".")


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip() or _NO_KEY
    if not re.fullmatch("[!-~]+", key):
        raise ConfigError(f"the key in {variable} holds a space or a letter that no key has")
    return key


def _messages(prompt: Rendered) -> list[dict[str, str]]:
    """The system sentence as a turn of its own, and all that follows its separator."""
    systems = [span for span in prompt.spans if span.region is Region.SYSTEM]
    end = systems[-1].end if systems else 0
    system = "".join(prompt.text[span.start : span.end] for span in systems)
    user = prompt.text[end : prompt.prompt_end].removeprefix(SEPARATOR)
    opening = [{"role": "system", "content": system}] if system else []
    return [*opening, {"role": "user", "content": user}]


@contextmanager
def _loop_thread(client: AsyncOpenAI) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, since the caller may run one already (Jupyter).

    On leaving, what is under way is cancelled, the client closed and the thread gone.
    """
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(_serve(client, stop))

    thread = threading.Thread(target=run, name="scratchpad-rag-http", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _serve(client: AsyncOpenAI, stop: asyncio.Event) -> None:
    await stop.wait()
    requests = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    await client.close()
