"""The demo: in a pipe, on a pseudo-terminal, and what it refuses."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scratchpad_rag.app.screen import describe_quote
from scratchpad_rag.app.terminal import main, read_documents
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Passage, Quote

pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX's")

ESCAPE = "\x1b"
# A demo whose reader quotes the gold passage, one changed by a word and one that is nowhere. The
# open() makes the pseudo-terminal the one that Ctrl-C comes from.
FAKE = """
import os, sys, time
if os.isatty(0):
    os.open(os.ttyname(0), os.O_RDWR)
from scratchpad_rag.app import terminal
from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.prompts.template import Wording, format_passage, restated_question
from scratchpad_rag.reader import Answered
from scratchpad_rag.records import Completion, Method, Piece, Progress, ScratchpadForm

class Reader:
    method, form = Method.SCRATCHPAD, ScratchpadForm.PASSAGE

    def prompt(self, example):
        return render_prompt(example, Wording())

    def stream_example(self, example, max_new_tokens=None):
        assert "torch" not in sys.modules
        gold = example.passages[example.gold[0] if example.gold else 0]
        quotes = [gold, example.passages[-1], terminal.Passage("Atlantis", "Lost [b]for[/b] good.")]
        text = "\\n\\n".join(map(format_passage, quotes)).replace("stands", "stood")
        text += restated_question(example.question) + " 1895"
        reading = parse_completion(text, example, self.method)
        for start in range(0, len(text), 7):
            yield Progress(100, start, start)
            yield Piece(text[start : start + 7], None, 0, 0)
            if "sleep" in example.question and start > 40:
                time.sleep(60)
        yield Answered(reading, Completion(text, (), 100, max_new_tokens, 7, 0.5, "stop"))

terminal.open_reader = lambda *_: Reader()
sys.exit(terminal.main(sys.argv[1:]))
"""


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Eight questions with six ranked passages each; the first is the gold one."""
    path = tmp_path / "questions.jsonl"
    rows = []
    for number in range(8):
        gold = {"title": f"Bridge {number}", "text": "It was built in 1895.", "gold": True}
        others = [
            {
                "title": f"Town {number}.{rank}",
                "text": f"The town stands {rank} miles away, by a river.",
            }
            for rank in range(5)
        ]
        question = f"when was bridge {number} built"
        rows.append({"id": f"q{number}", "question": question, "answers": ["1895"]})
        rows[-1]["passages"] = [gold, *others]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def data_flags(questions: Path) -> list[str]:
    return ["--experiment_config", "examples", "--data_path", str(questions), "--total_docs", "4"]


class Terminal:
    """A program on a pseudo-terminal of 80 columns, and what it has written."""

    def __init__(self, *arguments: str) -> None:
        self.controller, worker = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", FAKE, *arguments],
            stdin=worker,
            stdout=worker,
            stderr=worker,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "40"},
        )
        os.close(worker)
        self.shown = ""

    def wait_for(self, text: str, seconds: float = 30) -> str:
        """What was written up to `text`, without it and without what came before the last call."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} did not come; shown: {self.shown!r}"
            if not self._read():
                raise AssertionError(f"{text!r} did not come; shown: {self.shown!r}")
        before, self.shown = self.shown.split(text, 1)
        return before

    def _read(self) -> bool:
        ready, _, _ = select.select([self.controller], [], [], 0.1)
        if not ready:
            return True
        try:
            piece = os.read(self.controller, 4096)
        except OSError:  # Linux says so when the other side is closed
            return False
        self.shown += piece.decode(errors="replace")
        return bool(piece)

    def type(self, text: str) -> None:
        os.write(self.controller, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, again after a while: one that comes while a prompt is set up can be lost."""
        for _ in range(10):
            self.type("\x03")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
                return

    def end(self) -> tuple[int, str]:
        """The exit code and the rest of what was written."""
        deadline = time.monotonic() + 60
        while self._read() and self.process.poll() is None:
            if time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"the program does not end; shown: {self.shown!r}")
        with contextlib.suppress(OSError):
            while select.select([self.controller], [], [], 0.1)[0] and self._read():
                pass
        return self.process.wait(30), self.shown

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.controller)


@pytest.fixture
def demo(questions: Path) -> Iterator[Terminal]:
    terminal = Terminal(*data_flags(questions))
    yield terminal
    terminal.close()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


class TestOnATerminal:
    def test_a_question_from_beginning_to_end(self, demo: Terminal) -> None:
        head = demo.wait_for("Documents to retrieve, at most 4 [4]: ")
        assert re.search(
            r"Question +When was bridge \d built|when was bridge \d built", plain(head)
        )
        demo.type("9\r")
        demo.wait_for("a whole number from 1 to 4, please")
        demo.wait_for("[4]: ")
        demo.type("3\r")
        demo.wait_for("Tokens to generate [512]: ")
        demo.type("\r")
        shown = demo.wait_for("(p prompt, q quit): ")
        assert ESCAPE in shown
        lines = [line.rstrip() for line in plain(shown).replace("\r", "\n").split("\n")]
        text = "\n".join(lines)
        assert "  Context:" in lines
        assert "p shows them" not in text or re.search(r"… \d+ lines; p shows them", text)
        assert re.search(r"Quote +\[[123]\] Bridge \d · word for word", text)
        assert re.search(r"Quote +\[[123]\] \S.* · not word for word", text)
        assert re.search(r"Quote +\[\?\] Atlantis · in none of the documents", text)
        assert "Lost [b]for[/b] good." in text
        assert re.search(r"Answer +1895", text)
        assert re.search(r"True answer +1895 +\(document [123]\)", text)
        assert "✓ right" in text
        assert "100 tokens read, 512 generated in 7 passes, 0.5 s" in text
        assert max(map(len, lines)) <= 80
        demo.type("p\r")
        whole = plain(demo.wait_for("(p prompt, q quit): "))
        assert whole.count("Document (Title:") == 3
        demo.type("\r")
        demo.wait_for("Documents to retrieve")
        demo.type("q\r")
        code, rest = demo.end()
        assert code == 0
        assert "Goodbye." in rest

    def test_an_own_question_is_asked_of_all_passages(self, demo: Terminal) -> None:
        demo.wait_for("Documents to retrieve, at most 4 [4]: ")
        demo.type("\r")
        demo.wait_for("[512]: ")
        demo.type("5\r")
        demo.wait_for("q quit): ")
        demo.type("???\r")
        assert "question to answer is empty" in plain(demo.wait_for("q quit): "))
        demo.type("which bridge was built\r")
        demo.wait_for("Documents to retrieve, at most 8 [4]: ")  # 2 validation questions, 4 each
        demo.type("2\r")
        demo.wait_for("[512]: ")
        demo.type("\r")
        shown = plain(demo.wait_for("q quit): "))
        assert "Which bridge was built?" in shown
        assert "True answer" not in shown
        # Shown as they come, taken away, and shown once more whole: each of them is one quote.
        assert sorted(set(re.findall(r"\[\d\] Bridge (\d)", shown))) == ["6", "7"]

    def test_end_of_file_leaves(self, demo: Terminal) -> None:
        demo.wait_for("Documents to retrieve")
        demo.type("\x04")
        code, rest = demo.end()
        assert code == 0
        assert "Goodbye." in rest
        assert "Traceback" not in rest

    def test_interrupt_at_a_question_leaves(self, demo: Terminal) -> None:
        demo.wait_for("Documents to retrieve")
        demo.interrupt()
        code, rest = demo.end()
        assert code == 0
        assert "Goodbye." in rest
        assert "Traceback" not in rest

    def test_interrupt_while_it_generates_ends_that_answer(self, questions: Path) -> None:
        terminal = Terminal(*data_flags(questions), "--question", "do towns sleep")
        terminal.wait_for("Documents to retrieve")
        terminal.type("\r")
        terminal.wait_for("Tokens to generate")
        terminal.type("\r")
        terminal.wait_for("Quote")
        terminal.wait_for("It was bu")  # it grows
        terminal.type("\x03")
        shown = terminal.wait_for("Enter for the next question")
        assert "stopped" in plain(shown)
        assert "True answer" not in plain(shown)
        terminal.type("who built the bridge\r")  # and the next one is answered
        terminal.wait_for("Documents to retrieve")
        terminal.type("\r")
        terminal.wait_for("Tokens to generate")
        terminal.type("\r")
        terminal.wait_for("in 7 passes")
        terminal.wait_for("Enter for the next question")
        terminal.interrupt()
        code, rest = terminal.end()
        terminal.close()
        assert code == 0
        assert "Goodbye." in rest
        assert "Traceback" not in rest

    def test_own_documents(self, tmp_path: Path, questions: Path) -> None:
        path = tmp_path / "own.txt"
        path.write_text("The mill\nstands here.\n\n\nThe \x1b[2J ferry runs.\n")
        terminal = Terminal("--documents", str(path))
        terminal.wait_for("Type a question (p prompt, q quit): ")
        terminal.type("\r")
        terminal.wait_for("Type a question (p prompt, q quit): ")
        terminal.type("does the ferry run\r")
        terminal.wait_for("Documents to retrieve, at most 2 [2]: ")
        terminal.type("1\r")
        terminal.wait_for("[512]: ")
        terminal.type("\r")
        shown = terminal.wait_for("Type a question")
        assert f"{ESCAPE}[2J ferry" not in shown
        assert "Document (Title: own 2) The \ufffd[2J ferry" in plain(shown)
        terminal.type("q\r")
        assert terminal.end()[0] == 0
        terminal.close()


def run_piped(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FAKE, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color"},
    )


class TestInAPipe:
    def test_one_question_is_answered_plainly(self, questions: Path) -> None:
        result = run_piped(*data_flags(questions), stdin="one\ntwo\n")
        assert result.returncode == 0
        assert result.stderr == ""
        assert ESCAPE not in result.stdout
        lines = result.stdout.splitlines()
        assert sum(line.startswith("Question: when") for line in lines) == 1
        assert sum(line.startswith("Document (Title:") for line in lines) == 4  # the whole prompt
        assert "Answer: 1895" in lines
        assert "True answer: 1895" in "\n".join(lines)
        assert "✓ right" in lines
        assert not any("Documents to retrieve" in line for line in lines)

    def test_the_same_seed_draws_the_same_question_and_place(self, questions: Path) -> None:
        def draw(seed: int) -> str:
            return run_piped(*data_flags(questions), "--seed", str(seed)).stdout

        assert draw(1) == draw(1)
        assert len({draw(seed) for seed in range(4)}) > 1

    def test_an_own_question_and_own_documents(self, tmp_path: Path) -> None:
        path = tmp_path / "own.jsonl"
        path.write_text(
            '{"title": "Mill", "text": "The mill stands here."}\n{"text": "A ferry."}\n'
        )
        result = run_piped("--documents", str(path), "--question", "where is the mill")
        assert result.returncode == 0
        assert "Quote: [1] Mill · not word for word" in result.stdout
        assert "Document (Title: own 2) A ferry." in result.stdout
        assert "True answer" not in result.stdout

    def test_without_unicode_nothing_breaks(self, questions: Path) -> None:
        result = subprocess.run(
            [sys.executable, "-c", FAKE, *data_flags(questions)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert result.returncode == 0
        assert b"? right" in result.stdout

    def test_with_a_real_model(
        self,
        tiny_mistral: Path,
        questions: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        model = tmp_path / "tiny.yaml"
        model.write_text(
            f"pretrained_config:\n  pretrained_model_name_or_path: {tiny_mistral}\n"
            "  torch_dtype: float32\n"
        )
        with open(os.devnull) as nothing:  # noqa: PTH123
            monkeypatch.setattr(sys, "stdin", nothing)
            flags = [*data_flags(questions), "--model_config", str(model), "--max_new_tokens", "4"]
            assert main(flags) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("Scratchpad-RAG  tiny · zero-shot, no checkpoint\n")
        assert re.search(r"tokens read, [1-4] generated in [1-4] passes", shown)
        assert "Quote" not in shown


class TestRefusals:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--documents", "absent.txt", "--question", "who"], "absent.txt: no such file"),
            (["--documents", "own.txt"], "--documents needs --question"),
            (["--documents", "own.txt", "--question", " ? "], "question to answer is empty"),
            (["--documents", "bad.json", "--question", "who"], "bad.json:1: malformed JSON"),
            (["--documents", "empty.txt", "--question", "who"], "empty.txt: the file is empty"),
            (["--checkpoint_path", "absent.pt"], "there is no checkpoint absent.pt"),
            (["--model_config", "smolm2"], "unknown model config 'smolm2'"),
            (["--experiment_config", "smaple_5_docs"], "did you mean 'sample_5_docs'"),
            (["--data_path", "absent.jsonl"], "there is no data file or folder absent.jsonl"),
            (["--total_docs", "0"], "total_docs is 0"),
            (["--max_new_tokens", "0"], "max_new_tokens is 0"),
            (["--quote", "sentence"], "so it needs --verbatim"),
            (["--verbatim"], "this reader (zero-shot) writes none"),
        ],
    )
    def test_one_line_and_exit_code_2(
        self,
        flags: list[str],
        message: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "own.txt").write_text("The mill.")
        (tmp_path / "bad.json").write_text('[{"text": "a"')
        (tmp_path / "empty.txt").write_text("\n \n")
        with open(os.devnull) as nothing:  # noqa: PTH123
            monkeypatch.setattr(sys, "stdin", nothing)
            assert main(flags) == 2
        output = capsys.readouterr()
        assert output.err.startswith("error: ")
        assert message in output.err
        assert output.err.count("\n") == 1
        assert output.out == ""

    def test_help_imports_no_torch(self) -> None:
        code = (
            "import sys\nfrom scratchpad_rag.app.terminal import main\n"
            "try:\n    main(['--help'])\n"
            "finally:\n    print('torch' in sys.modules or 'transformers' in sys.modules)"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.stdout.splitlines()[-1] == "False"
        assert "--checkpoint_path" in result.stdout


class TestReadDocuments:
    def test_plain_text_is_split_at_blank_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "own.md"
        path.write_bytes("\ufeffOne\r\nand a half.\r\n \r\n\r\nTwo: ä.\r\n".encode())
        assert read_documents(path) == [
            Passage("own 1", "One\nand a half."),
            Passage("own 2", "Two: ä."),
        ]

    def test_json(self, tmp_path: Path) -> None:
        expected = [Passage("A", "One."), Passage("own 2", "Two.")]
        rows = [{"title": "A", "text": "One."}, {"title": "", "text": "Two."}]
        lines = "\n".join(map(json.dumps, rows))
        (tmp_path / "own.json").write_text(json.dumps(rows, indent=1))
        (tmp_path / "own.jsonl").write_text(lines)
        (tmp_path / "own.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
        (tmp_path / "own").write_text(lines)
        for name in ("own.json", "own.jsonl", "own.jsonl.gz", "own"):
            assert read_documents(tmp_path / name) == expected

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("own.txt", b"\xff\xfe", "own.txt: not UTF-8"),
            ("own.jsonl", b'{"title": "A"}', "own.jsonl:1: field 'text' is missing"),
            ("own.jsonl", b'{"text": "A"}\n{"text": 5}', "own.jsonl:2: field 'text' must be a st"),
            ("own.json", b"[]", "own.json: the file is empty"),
        ],
    )
    def test_mistakes_name_file_and_line(
        self, tmp_path: Path, name: str, content: bytes, message: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=re.escape(message)):
            read_documents(tmp_path / name)

    def test_a_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="cannot be read"):
            read_documents(tmp_path)


@pytest.mark.parametrize(
    ("quote", "head", "colour"),
    [
        (Quote("A town.", "Marren", 0, 0, 7, verbatim=True), "[1] Marren · word for word", "green"),
        (Quote("My town", "", 0, 2, 7, verbatim=False), "[1] Marren · not word for word", "yellow"),
        (Quote("x", "", None, 0, 0, verbatim=False), "[?] in none of the documents", "red"),
    ],
)
def test_describe_quote(quote: Quote, head: str, colour: str) -> None:
    assert describe_quote(quote, [Passage("Marren", "A town.")]) == (head, colour)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--web", "--question", "who"], "--question is for the terminal"),
        (["--web", "--documents", "notes.txt"], "--documents is for the terminal"),
        (["--port", "7861"], "--port is for the page"),
    ],
)
def test_flags_of_the_other_face_are_refused(
    flags: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 2
    assert problem in capsys.readouterr().err
