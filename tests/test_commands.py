"""The public commands, as users have them in scripts: real training, real files, real scores.

Each line is run once, as it is written, in a folder like the checkout in which `mistral_7b` is a
tiny model. The tests then look at what each run printed and left behind.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# The first test waits for all the runs, which takes long where the cores are busy.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parent.parent
QUESTIONS = 5  # of which 4 are for training and 1 for validation, each at 5 gold positions
POSITIONS = (0, 4, 9, 14, 19)

TRAIN_SFT = """python main.py --experiment_config nq_lim_20_docs --model_config mistral_7b --peft_config lora_r8_a16_qv --train_method sft --num_train_samples 1000 --num_val_samples 1000 --last_answer_only --max_new_tokens 512 --print_outputs"""  # noqa: E501
TRAIN_SCRATCHPAD = """python main.py --experiment_config nq_lim_20_docs --model_config mistral_7b --peft_config lora_r8_a16_qv --train_method scratchpad --num_train_samples 1000 --num_val_samples 1000 --last_answer_only --max_new_tokens 512 --print_outputs"""  # noqa: E501
TRAIN_SFT_FULL = """python main.py --experiment_config nq_lim_20_docs --model_config mistral_7b --peft_config lora_r8_a16_qv --eval_split val_anc --train_method sft --print_outputs --num_train_epochs 3 --lr 1e-4 --weight_decay 0.01 --scheduler none --num_train_samples 1000 --num_val_samples 1000 --last_answer_only --max_new_tokens 128"""  # noqa: E501
TRAIN_SCRATCHPAD_FULL = """python main.py --experiment_config nq_lim_20_docs --model_config mistral_7b --peft_config lora_r8_a16_qv --eval_split val_anc --train_method scratchpad --print_outputs --num_train_epochs 3 --lr 1e-4 --weight_decay 0.01 --scheduler none --num_train_samples 1000 --num_val_samples 1000 --last_answer_only --max_new_tokens 512"""  # noqa: E501
TRAIN_GOLD_ONLY = """python main.py --experiment_config nq_lim_20_docs --model_config mistral_7b --peft_config lora_r8_a16_qv --eval_split val_pos --train_method sft --print_outputs --num_train_epochs 3 --lr 1e-4 --weight_decay 0.01 --scheduler none --num_train_samples 1000 --num_val_samples 1000 --last_answer_only --max_new_tokens 128"""  # noqa: E501
ZERO_SHOT = """python main.py --experiment_config nq_lim_20_docs --model_config mistral_7b --eval_split val_anc --print_outputs --num_train_samples 1000 --num_val_samples 1000 --eval_only --max_new_tokens 128"""  # noqa: E501
GOLD_ONLY = """python main.py --experiment_config nq_lim_20_docs --model_config mistral_7b --eval_split val_pos --print_outputs --num_train_samples 1000 --num_val_samples 1000 --eval_only --max_new_tokens 128"""  # noqa: E501
CLOSED_BOOK = """python main.py --experiment_config nq_lim_20_docs --model_config mistral_7b --eval_split val_closed_book --train_method sft --print_outputs --num_train_samples 1000 --num_val_samples 1000 --eval_only --max_new_tokens 128"""  # noqa: E501
CHECKPOINT = """python main.py --experiment_config nq_lim_20_docs --model_config mistral_7b --peft_config lora_r8_a16_qv --eval_split val_anc --train_method scratchpad --print_outputs --num_train_samples 1000 --num_val_samples 1000 --last_answer_only --eval_only --max_new_tokens 512 --load_checkpoint --checkpoint_path './checkpoints/mistral_7b/scratchpad_rag.pt'"""  # noqa: E501
CHECKPOINT_FULL = """python main.py --experiment_config nq_lim_20_docs --model_config mistral_7b --peft_config lora_r8_a16_qv --eval_split val_anc --train_method scratchpad --print_outputs --num_train_epochs 3 --lr 1e-4 --weight_decay 0.01 --scheduler none --num_train_samples 1000 --num_val_samples 1000 --last_answer_only --eval_only --max_new_tokens 512 --load_checkpoint --checkpoint_path './checkpoints/mistral_7b/sample_finetuned_mistral_20docs.pt'"""  # noqa: E501
SWEEP = """python evaluate_nq_lim.py --model_config mistral_7b --eval_start 0 --eval_end 1000"""
SWEEP_SFT = """python evaluate_nq_lim.py --model_config mistral_7b --peft_config lora_r8_a16_qv --eval_start 0 --eval_end 1000 --max_new_tokens 128 --last_answer_only --load_checkpoint --checkpoint_path './checkpoints/mistral_7b/rag_sft.pt'"""  # noqa: E501
SWEEP_SCRATCHPAD = """python evaluate_nq_lim.py --model_config mistral_7b --peft_config lora_r8_a16_qv --eval_start 0 --eval_end 1000 --max_new_tokens 512 --last_answer_only --load_checkpoint --checkpoint_path './checkpoints/mistral_7b/scratchpad_rag.pt'"""  # noqa: E501
DEMO = """python demo.py --experiment_config nq_lim_20_docs --model_config mistral_7b"""
DEMO_SFT = """python demo.py --experiment_config nq_lim_20_docs --model_config mistral_7b --checkpoint_path ./checkpoints/mistral_7b/rag_sft.pt"""  # noqa: E501
DEMO_SCRATCHPAD = """python demo.py --experiment_config nq_lim_20_docs --model_config mistral_7b --checkpoint_path ./checkpoints/mistral_7b/scratchpad_rag.pt"""  # noqa: E501

TRAINING = (TRAIN_SFT, TRAIN_SCRATCHPAD, TRAIN_SFT_FULL, TRAIN_SCRATCHPAD_FULL, TRAIN_GOLD_ONLY)
EVALUATION = (ZERO_SHOT, GOLD_ONLY, CLOSED_BOOK, CHECKPOINT, CHECKPOINT_FULL)
SWEEPS = (SWEEP, SWEEP_SFT, SWEEP_SCRATCHPAD)
DEMOS = (DEMO, DEMO_SFT, DEMO_SCRATCHPAD)


@dataclass(frozen=True)
class Ran:
    """One command that was run: its exit code, what it printed, and where."""

    code: int
    out: str
    err: str
    home: Path
    checkpoints: dict[str, int]  # names and times of the checkpoints when it had ended

    @property
    def folder(self) -> Path:
        match = re.search(r"^run folder: (.+)$", self.err, re.MULTILINE)
        assert match, self.err
        return self.home / match[1]

    @property
    def scores(self) -> list[dict[str, Any]]:
        lines = (self.folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def prompts(self) -> list[str]:
        """The prompts that --print_outputs printed."""
        return re.findall(r"^--- prompt\n(.*?)^--- output$", self.out, re.DOTALL | re.MULTILINE)


def write_questions(folder: Path) -> None:
    """Files of the shape that Lost in the Middle has, one a gold position."""
    folder.mkdir(parents=True)
    for position in POSITIONS:
        name = f"nq-open-20_total_documents_gold_at_{position}.jsonl.gz"
        with gzip.open(folder / name, "wt", encoding="utf-8") as file:
            for number in range(QUESTIONS):
                file.write(json.dumps(question(number, position)) + "\n")


def question(number: int, position: int) -> dict[str, Any]:
    year = str(1850 + number)
    gold = {
        "id": f"g{number}",
        "title": f"Bridge {number}",
        "text": f"The bridge was built in {year}.",
        "hasanswer": True,
        "isgold": True,
        "original_retrieval_index": None,
        "score": None,
    }
    others = [
        {
            "id": str(index),
            "title": f"Town {index}",
            "text": "The town lies by the river.",
            "score": f"{1.5 - index / 50}",
            "hasanswer": False,
            "isgold": False,
            "original_retrieval_index": index,
        }
        for index in range(19)
    ]
    return {
        "question": f"when was bridge {number} built",
        "answers": [year, f"in {year}"],
        "ctxs": [*others[:position], gold, *others[position:]],
        "nq_annotated_gold": {
            "title": gold["title"],
            "long_answer": gold["text"],
            "chunked_long_answer": gold["text"],
            "short_answers": [year],
        },
    }


def run(line: str, home: Path) -> Ran:
    program, *arguments = shlex.split(line)
    assert program == "python"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    made = (home / "checkpoints").glob("*/*.pt")
    times = {path.name: path.stat().st_mtime_ns for path in made}
    return Ran(done.returncode, done.stdout, done.stderr, home, times)


@pytest.fixture(scope="module")
def home(tiny_mistral: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the checkout; only the weights behind mistral_7b are others."""
    home = tmp_path_factory.mktemp("home")
    for script in ("main.py", "demo.py", "evaluate_nq_lim.py"):
        shutil.copy(ROOT / script, home)
    shutil.copytree(ROOT / "configs", home / "configs")
    config = home / "configs/model/mistral_7b.yaml"
    text = config.read_text(encoding="utf-8")
    assert "mistralai/Mistral-7B-v0.1" in text
    config.write_text(text.replace("mistralai/Mistral-7B-v0.1", str(tiny_mistral)), "utf-8")
    write_questions(home / "data/qa_data")
    return home


@pytest.fixture(scope="module")
def ran(home: Path) -> dict[str, Ran]:
    """Every command, run once: what trains first, then what reads its checkpoints, two at a time.

    The second training for a method shares a folder or a checkpoint with the first, so those
    for one method run one after the other.
    """

    def in_turn(lines: tuple[str, ...]) -> dict[str, Ran]:
        return {line: run(line, home) for line in lines}

    results: dict[str, Ran] = {}
    with ThreadPoolExecutor(2) as pool:
        sft = (TRAIN_SFT, TRAIN_SFT_FULL, TRAIN_GOLD_ONLY)
        scratchpad = (TRAIN_SCRATCHPAD, TRAIN_SCRATCHPAD_FULL, ZERO_SHOT, GOLD_ONLY)
        for done in pool.map(in_turn, (sft, scratchpad)):
            results |= done
        trained = home / "checkpoints/mistral_7b/scratchpad_rag.pt"
        if trained.is_file():
            shutil.copy(trained, trained.with_name("sample_finetuned_mistral_20docs.pt"))
        rest = [line for line in (*EVALUATION, *SWEEPS, *DEMOS) if line not in results]
        for done in pool.map(in_turn, [(line,) for line in rest]):
            results |= done
    return results


def names(lines: tuple[str, ...]) -> list[str]:
    known = globals()
    return [next(name for name, value in known.items() if value == line) for line in lines]


EVERYTHING = (*TRAINING, *EVALUATION, *SWEEPS, *DEMOS)


@pytest.mark.parametrize("line", EVERYTHING, ids=names(EVERYTHING))
def test_the_command_ends_well(ran: dict[str, Ran], line: str) -> None:
    done = ran[line]
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert "error:" not in done.err


def expected_documents(line: str) -> int:
    if "val_closed_book" in line:
        return 0
    return 1 if "val_pos" in line else 20


@pytest.mark.parametrize("line", TRAINING + EVALUATION, ids=names(TRAINING + EVALUATION))
def test_scores_and_summary_are_written(ran: dict[str, Ran], line: str) -> None:
    scores = ran[line].scores
    documents = expected_documents(line)
    by_position = documents == 20
    assert len(scores) == (len(POSITIONS) if by_position else 1)
    positions = [score["gold_positions"] for score in scores]
    if by_position:
        assert sorted(positions) == [[position] for position in POSITIONS]
    else:
        assert positions == [[0] if documents else []]
    for score in scores:
        assert score["num_documents"] == documents
        assert score["method"] == expected_method(line)
        assert re.fullmatch(r"when was bridge \d built", score["question"])
        (number,) = re.findall(r"\d", score["question"])
        assert score["answers"] == [f"185{number}", f"in 185{number}"]
        limit = int(re.search(r"--max_new_tokens (\d+)", line)[1])  # type: ignore[index]
        assert 1 <= score["new_tokens"] <= limit
        assert 1 <= score["forward_passes"] <= score["new_tokens"]
        assert score["prompt_tokens"] > 30 + 20 * documents
        # The scores, found again by a plain look at the text.
        found = any(answer in score["completion"] for answer in score["answers"])
        assert score["completion_subspan_exact_match"] == found
    summary = json.loads((ran[line].folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["samples"] == len(scores)
    assert summary["questions"] == 1
    mean = sum(score["subspan_exact_match"] for score in scores) / len(scores)
    assert summary["subspan_exact_match"]["estimate"] == pytest.approx(mean)
    assert len(summary["by_position"]) == (5 if by_position else 0)
    assert (ran[line].folder / "config.yaml").is_file()


def expected_method(line: str) -> str:
    if "--eval_only" in line and "--checkpoint_path" not in line:
        return {20: "zero_shot", 1: "gold_only", 0: "closed_book"}[expected_documents(line)]
    return "scratchpad" if "--train_method scratchpad" in line else "sft"


# The second of two commands that ask for the same work finds it done and prints no sample.
PRINTING = tuple(line for line in TRAINING + EVALUATION if line != TRAIN_SCRATCHPAD_FULL)


@pytest.mark.parametrize("line", PRINTING, ids=names(PRINTING))
def test_the_prompts_hold_the_passages_of_their_split(ran: dict[str, Ran], line: str) -> None:
    done = ran[line]
    assert len(done.prompts) == len(done.scores)
    for prompt, score in zip(done.prompts, done.scores, strict=True):
        shown = re.findall(r"^Document \(Title: (\w+ \d+)\) (.*)$", prompt, re.MULTILINE)
        assert len(shown) == expected_documents(line)
        (number,) = re.findall(r"\d", score["question"])
        gold = (f"Bridge {number}", f"The bridge was built in 185{number}.")
        assert [index for index, passage in enumerate(shown) if passage == gold] == (
            score["gold_positions"]
        )
        assert prompt.startswith("Write a high-quality answer for the given question")
        asked = f"Question: When was bridge {number} built?\n\n"
        assert prompt.count(asked) == (2 if shown else 1)
        assert ("Context:\n" in prompt) == bool(shown)
        assert prompt.rstrip("\n").endswith(f"{asked}Answer:")
    for part in ("--- output\n", "--- answer: ", "--- truth: 185", "--- score: "):
        assert done.out.count(part) == len(done.scores)
    scored = "(answer)" if "--last_answer_only" in line else "(whole completion)"
    assert done.out.count(scored) == len(done.scores)


@pytest.mark.parametrize("line", TRAINING + EVALUATION, ids=names(TRAINING + EVALUATION))
def test_fewer_samples_than_asked_for_are_said(ran: dict[str, Ran], line: str) -> None:
    each = len(POSITIONS) if expected_documents(line) == 20 else 1
    err = ran[line].err
    assert f"1000 training samples were asked for and there are {4 * each}" in err
    assert f"1000 validation samples were asked for and there are {1 * each}" in err


@pytest.mark.parametrize("line", TRAINING, ids=names(TRAINING))
def test_training_leaves_an_adapter_and_its_losses(ran: dict[str, Ran], line: str) -> None:
    folder = ran[line].folder
    assert (folder / "adapter/adapter_model.safetensors").is_file()
    told = json.loads((folder / "adapter/scratchpad_rag.json").read_text(encoding="utf-8"))
    assert told["method"] == expected_method(line)
    assert told["model_name"] == "mistral_7b"
    assert told["lora"]["r"] == 8
    assert told["lora"]["lora_alpha"] == 16
    assert sorted(told["lora"]["target_modules"]) == ["q_proj", "v_proj"]
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    samples = 20 if expected_documents(line) == 20 else 4
    # Three epochs in a row, eight samples a step; the last step of all has the rest.
    assert record["steps"] == -(-3 * samples // 8)
    assert record["tokens"] > 3 * samples * 50
    assert not record["interrupted"]


def test_the_checkpoints_hold_trained_weights(ran: dict[str, Ran]) -> None:
    import torch

    home = ran[TRAIN_SFT].home
    for name, method in (("rag_sft.pt", "sft"), ("scratchpad_rag.pt", "scratchpad")):
        path = home / "checkpoints/mistral_7b" / name
        content = torch.load(path, map_location="cpu", weights_only=True)
        assert content["metadata"]["method"] == method
        weights = content["model_state_dict"]
        # Two layers, two modules, A and B each.
        assert len(weights) == 8
        for key, value in weights.items():
            assert 8 in value.shape, key
            # B begins at zero: it has been trained.
            assert value.abs().max() > 0, key


def test_a_checkpoint_that_exists_is_kept(ran: dict[str, Ran]) -> None:
    first, again = ran[TRAIN_SFT], ran[TRAIN_SFT_FULL]
    assert again.checkpoints["rag_sft.pt"] == first.checkpoints["rag_sft.pt"]
    assert "rag_sft.pt exists and is kept" in again.err
    assert (again.folder / "rag_sft.pt").is_file()
    assert not list(first.home.rglob("*.partial"))


def test_the_same_work_is_not_done_twice(ran: dict[str, Ran]) -> None:
    first, again = ran[TRAIN_SCRATCHPAD], ran[TRAIN_SCRATCHPAD_FULL]
    assert again.folder == first.folder
    assert "is trained already" in again.err
    assert "5 of 5 samples are scored already" in again.err


def test_a_checkpoint_reads_as_the_run_that_made_it(ran: dict[str, Ran]) -> None:
    made = [score["completion"] for score in ran[TRAIN_SCRATCHPAD].scores]
    for line in (CHECKPOINT, CHECKPOINT_FULL):
        assert [score["completion"] for score in ran[line].scores] == made


def test_quotes_are_scored_for_scratchpads_only(ran: dict[str, Ran]) -> None:
    for line in (CHECKPOINT, TRAIN_SCRATCHPAD):
        assert all(score["quote_recall"] is not None for score in ran[line].scores)
    for line in (TRAIN_SFT, ZERO_SHOT):
        assert all(score["quote_recall"] is None for score in ran[line].scores)


@pytest.mark.parametrize("line", SWEEPS, ids=names(SWEEPS))
def test_the_sweep_shows_more_and_more_documents(ran: dict[str, Ran], line: str) -> None:
    done = ran[line]
    counts = [score["num_documents"] for score in done.scores]
    assert counts == sorted(counts)
    assert len(set(counts)) >= 4
    assert counts[0] == 1
    assert counts[-1] == 20
    assert len({score["question"] for score in done.scores}) == 1
    method = "zero_shot" if line == SWEEP else "sft" if line == SWEEP_SFT else "scratchpad"
    assert {score["method"] for score in done.scores} == {method}
    for score in done.scores:
        assert len(score["gold_positions"]) == 1
        assert score["gold_positions"][0] < score["num_documents"]
    tokens = [score["prompt_tokens"] for score in done.scores]
    assert tokens == sorted(tokens)
    # What a prompt begins with alike is computed for the first number of documents alone.
    prefilled = [score["prefilled_tokens"] for score in done.scores]
    assert prefilled[0] == tokens[0]
    assert sum(prefilled) < 0.8 * sum(tokens)
    assert (done.folder / "document_curve.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((done.folder / "summary.json").read_text(encoding="utf-8"))
    assert set(summary) == {str(count) for count in counts}


@pytest.mark.parametrize("line", DEMOS, ids=names(DEMOS))
def test_the_demo_shows_question_prompt_answer_and_truth(ran: dict[str, Ran], line: str) -> None:
    out = ran[line].out
    (number,) = re.findall(r"when was bridge (\d) built", out)[:1]
    assert f"Question: When was bridge {number} built?" in out
    assert f"185{number}" in out
    flat = " ".join(out.split())
    assert flat.count("Document (Title: Town") == 19
    assert f"Document (Title: Bridge {number}) The bridge was built in 185{number}." in flat
    assert re.search(r"answer", out, re.IGNORECASE)


def test_the_lines_are_those_of_the_paper_repo() -> None:
    """16 lines, none with a flag that is not in the table of flags."""
    assert len(EVERYTHING) == len(set(EVERYTHING)) == 16
    for line in EVERYTHING:
        assert line.startswith("python ")
        assert "\n" not in line
