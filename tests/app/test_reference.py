"""The page of flags and configs is current, whole, and says what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scratchpad_rag import config
from scratchpad_rag.app import main, sweep, terminal
from scratchpad_rag.app.cli import app
from scratchpad_rag.app.flags import COMPARE_WITHOUT, SWEEP_WITHOUT
from scratchpad_rag.app.reference import list_keys, list_options, make_page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/flags.md"
VERBS = ("train", "evaluate", "compare", "data sample", "data build", "data download")
CLASSES = (
    config.DataConfig,
    config.ModelConfig,
    config.PeftConfig,
    config.TrainConfig,
    config.GenerateConfig,
    config.EvaluateConfig,
)


def section(title: str, page: str) -> str:
    """The text from the heading that holds `title` to the next heading."""
    (found,) = re.findall(
        rf"^##+ [^\n]*{re.escape(title)}[^\n]*\n(.*?)(?=^##|\Z)", page, re.M | re.S
    )
    return str(found)


def rows(table: str) -> dict[str, list[str]]:
    """First cell -> the other cells, of every row of a Markdown table."""
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in cells}


def test_the_page_is_current() -> None:
    again = "make it again: python -m scratchpad_rag.app.reference > docs/flags.md"
    assert PAGE.is_file(), f"there is no docs/flags.md; {again}"
    assert PAGE.read_text(encoding="utf-8") == make_page(), f"docs/flags.md is stale; {again}"


def test_the_module_prints_the_page_and_loads_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "scratchpad_rag.app.reference"],
        capture_output=True,
        encoding="utf-8",
        cwd=ROOT,
        check=True,
    )
    assert done.stdout == make_page()
    assert not re.search(r"\|\s+(torch|transformers)$", done.stderr, re.MULTILINE)


def flags_in(help_text: str) -> set[str]:
    return set(re.findall(r"--\w+", help_text)) - {"--help"}


@pytest.mark.parametrize("command", [main, sweep, terminal])
def test_every_flag_of_a_script_has_a_row(command: object) -> None:
    parser = command.make_parser()  # type: ignore[attr-defined]
    page = make_page()
    told = rows(section(f"`{parser.prog}`", page))
    if command is not terminal:
        told |= rows(section("Flags that every run takes", page))
    if command is sweep:
        assert "`evaluate_nq_lim.py` does not take `--eval_split`" in page
        told = {name: row for name, row in told.items() if name[2:] not in SWEEP_WITHOUT}
    usage = parser.format_usage()
    assert flags_in(usage) == set(told)
    assert len(told) > 10


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_of_a_verb_has_a_row(verb: str) -> None:
    shown = CliRunner().invoke(app, [*verb.split(), "--help"], env={"COLUMNS": "300"}).stdout
    page = make_page()
    told = {
        flag for row in rows(section(f"`scratchpad-rag {verb}`", page)) for flag in row.split("/")
    }
    if not verb.startswith("data"):
        told |= set(rows(section("Flags that every run takes", page)))
    if verb == "compare":
        assert "`scratchpad-rag compare` does not take `--train_method`" in page
        told -= {f"--{name}" for name in COMPARE_WITHOUT}
    # Options stand at the head of their lines; words of the help may name flags too.
    listed = re.findall(r"^\s+(--\w+(?:\s*/\s*--\w+)?)", shown, re.MULTILINE)
    arguments = {name for name in told if not name.startswith("--")}
    assert all(
        re.search(rf"^\s+{name} <", shown, re.MULTILINE | re.IGNORECASE) for name in arguments
    )
    assert flags_in(" ".join(listed)) == told - arguments
    assert told


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_key_of_a_config_has_a_row(kind: type) -> None:
    told = rows(section(kind.__name__, make_page()))
    assert list(told) == [field.name for field in fields(kind)]


def test_rows_say_what_the_code_says() -> None:
    page = make_page()
    run = rows(section("Flags that every run takes", page))
    assert run["--lr"] == ["learning rate", "`0.0001`", "", "`train.lr`"]
    assert run["--scheduler"][1:3] == ["`none`", "`none`, `linear`, `cosine`"]
    assert run["--gold_at"][1] == "`[0, 4, 9, 14, 19]`"
    assert run["--last_answer_only"][1] == "off"
    assert rows(section("`evaluate_nq_lim.py`", page))["--docs"][1] == "`1,2,5,10,20`"
    assert rows(section("`main.py`", page))["--model_config"][1] == "required"
    assert rows(section("`main.py`", page))["--run"] == ["the run's folder", "named by its config"]
    assert rows(section("`scratchpad-rag train`", page))["--model_config"][1] == "`smollm2_135m`"
    assert rows(section("`scratchpad-rag compare`", page))["--shipped/--no_shipped"][1] == "on"
    model = rows(section("ModelConfig", page))
    assert model["pretrained_model_name_or_path"][:2] == ["str", "required"]
    assert model["quantization"][:2] == ["str or null", "`null`"]
    assert model["quantization"][2] == "int8 \\| nf4 (both need bitsandbytes)"
    # The comment stands on a line of its own between the parentheses of the default.
    assert rows(section("DataConfig", page))["train_total_docs"][2].startswith("where fewer")
    theirs = rows(section("Files written for the paper repo", page))
    assert theirs["dataset.dataset_config.cache_dir"] == ["`data_dir`"]
    assert theirs["preprocess_config"][0].startswith("no effect")


def test_a_comment_is_read_from_beside_its_key_alone() -> None:
    source = (
        "# above\n"
        "class PeftConfig:\n"
        "    # above the key\n"
        '    method: str = "#no comment"  # the #1 | choice\n'
        "    kwargs: dict[str, Any] = (\n"
        "        None  # within\n"
        "    )\n"
        "    # below\n"
    )
    told = {key.name: key.comment for key in list_keys(source, "peft")}
    assert told == {"`method`": "the #1 \\| choice", "`kwargs`": "within"}


def test_the_scripts_keep_their_flags() -> None:
    """Scripts of the paper repo's users name these."""
    named = {option.flag.strip("`") for option in list_options(main.make_parser())}
    assert named >= {"--eval_only", "--load_checkpoint", "--checkpoint_path", "--print_outputs"}
    parsed = sweep.make_parser().parse_args(["--model_config", "m", "--eval_end", "7"])
    assert (parsed.eval_start, parsed.eval_end, parsed.experiment_config) == (
        0,
        7,
        "nq_lim_20_docs",
    )
