"""The page's server as a program: what it says, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the page needs Gradio (pip install gradio)")

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a POSIX signal")
def test_it_says_where_it_is_and_ends_quietly_with_ctrl_c() -> None:
    command = [sys.executable, "demo.py", "--web", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        starting, opened = program.stderr.readline(), program.stderr.readline()
        address = starting.split()[-1]
        assert starting == f"Starting the page at {address}\n"
        assert opened == f"Open {address} in a browser; Ctrl-C ends it\n"
        with urllib.request.urlopen(address + "/", timeout=30) as answer:
            text = answer.read().decode()
            assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "Scratchpad-RAG" in text
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=30)
    assert program.returncode == 0
    assert said == "\n"
