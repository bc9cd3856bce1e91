"""A stand-in for an OpenAI-compatible server: the embedded model, behind the same protocol.

    python docs/howto/stand_in.py --port 8000

It serves one model, `stand-in`, on this machine only, one request at a time, and is always greedy.
It is there to try commands on before they cost anything; use a real server for real work.
"""

from __future__ import annotations

import argparse
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from scratchpad_rag.config import load_model_config
from scratchpad_rag.models.load import LoadedModel, load_model

NAME = "stand-in"


class StandIn(ThreadingHTTPServer):
    """Answers chats with a model that is loaded here; only with the key, where there is one."""

    daemon_threads = True

    def __init__(self, port: int, loaded: LoadedModel, key: str | None = None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.loaded = loaded
        self.key = key
        self.alone = threading.Lock()

    def complete(self, messages: list[dict[str, str]], max_tokens: int) -> dict[str, Any]:
        """One completion, as OpenAI's protocol puts it."""
        loaded = self.loaded
        prompt = loaded.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        length = prompt["input_ids"].shape[1]
        with self.alone, torch.inference_mode():
            output = loaded.model.generate(
                **prompt, max_new_tokens=max_tokens, do_sample=False,
                eos_token_id=list(loaded.stop_token_ids), pad_token_id=loaded.stop_token_ids[0],
            )  # fmt: skip
        new = output[0, length:].tolist()
        ended = new[-1] in loaded.stop_token_ids
        text = loaded.tokenizer.decode(new, skip_special_tokens=True)
        usage = {"prompt_tokens": length, "completion_tokens": len(new)}
        choice = {
            "index": 0,
            "finish_reason": "stop" if ended else "length",
            "message": {"role": "assistant", "content": text},
        }
        return {"object": "chat.completion", "model": NAME, "choices": [choice], "usage": usage}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_GET(self) -> None:
        self._reply(200, {"object": "list", "data": [{"id": NAME, "object": "model"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            self._reply(401, {"error": {"message": "the key is not known"}})
        elif self.path != "/v1/chat/completions" or asked["model"] != NAME:
            self._reply(404, {"error": {"message": "there is no such model"}})
        else:
            self._reply(200, self.server.complete(asked["messages"], asked["max_tokens"]))

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Requests are not told one by one."""


def main() -> None:
    """Load the model and serve it until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--key", help="the key that requests have to bring; not given: none")
    parser.add_argument("--torch_dtype", default="auto", help="precision of the weights")
    flags = parser.parse_args()
    config = replace(load_model_config("smollm2_135m"), torch_dtype=flags.torch_dtype)
    server = StandIn(flags.port, load_model(config, print), flags.key)
    print(f"serving {NAME} at http://127.0.0.1:{server.server_port}/v1", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
