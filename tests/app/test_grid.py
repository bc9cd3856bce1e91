"""A whole grid on a tiny model: the same answers as one by one, resumed, refused, and its cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from scratchpad_rag.app import cli
from scratchpad_rag.app import grid as grid_module
from scratchpad_rag.app.grid import GridJob, sweep
from scratchpad_rag.app.grid_config import METHODS, load_grid
from scratchpad_rag.app.main import main
from scratchpad_rag.backends.base import load_backend
from scratchpad_rag.config import GenerateConfig
from scratchpad_rag.evaluate.run import ScoreFile
from scratchpad_rag.evaluate.score_file import read_scores, score_key
from scratchpad_rag.evaluate.sources import read_sources
from scratchpad_rag.prompts.render import render_forced, render_prompt
from scratchpad_rag.reader import Reader
from scratchpad_rag.records import Example, Method, Rendered, Score
from tests.app.test_cli import Call, call  # noqa: F401  a fixture
from tests.test_bad_input import listing, write_data, write_model

GRID: dict[str, Any] = {
    "model": "tiny",
    "datasets": {
        "one": {"path": "one.jsonl"},
        "two": {"path": "two.jsonl", "passage_order": ["reversed"], "gold_at": ["last"]},
        "found": {"path": "one.jsonl", "passage_order": ["retrieved"], "total_docs": [2]},
    },
    "methods": list(METHODS),
    "checkpoints": {"scratchpad": "scratchpad/adapter", "sft": "sft/adapter"},
    "total_docs": [2, 3],
    "gold_at": ["first", "last"],
    "no_gold": True,
    "questions": 2,
    "max_new_tokens": 160,
    "answer_tokens": 6,
}
Answered = tuple[Path, list[Score]]


def question(number: int, gold: int = 1) -> dict[str, Any]:
    passages = [
        {"title": f"Bridge {number}", "text": f"Built in {1850 + number}."},
        {"title": "Town", "text": "It lies by the river."},
        {"title": "River", "text": "It is 90 miles long."},
        {"title": "Corvin", "text": f"Its keeper was Ida Holm for {number} years."},
    ]
    for order, passage in enumerate(passages[:gold], 1):
        passage["gold"] = order  # type: ignore[assignment]
    return {
        "id": f"q{number}",
        "question": f"when was bridge {number} built",
        "answers": [str(1850 + number)],
        "passages": passages,
        "split": "val" if number else "train",
    }


@pytest.fixture(scope="module")
def home(tiny_mistral: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a model in float64, where nothing depends on what is computed together, two
    adapters that differ from it and from each other, and two files of questions."""
    folder = tmp_path_factory.mktemp("grid")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_model(folder, "tiny", tiny_mistral, torch_dtype="float64")
        write_data(folder / "one.jsonl", [question(number) for number in range(4)])
        write_data(folder / "two.jsonl", [question(number, gold=2) for number in range(3)])
        for method in Method:
            code = main(
                [
                    *("--experiment_config", "examples", "--data_path", "one.jsonl"),
                    *("--model_config", "tiny", "--peft_config", "lora_r8_a16_qv"),
                    *("--train_method", method.value, "--total_docs", "2", "--gold_at", "0"),
                    *("--lr", "0.05", "--num_train_epochs", "3", "--run", method.value),
                    *("--max_new_tokens", "2", "--num_val_samples", "1"),
                ]
            )
            assert code == 0
        (folder / "grid.yaml").write_text(yaml.safe_dump(GRID, sort_keys=False), encoding="utf-8")
        yield folder


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


@pytest.fixture(scope="module")
def answered(home: Path) -> Answered:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        job = GridJob("grid.yaml", run=Path("run"))
        scores = sweep(load_grid("grid.yaml", {}), job, lambda _: None)
    return home / "run", scores


def test_every_cell_has_every_question(answered: Answered) -> None:
    _, scores = answered
    cells = {
        (s.method, s.dataset, s.passage_order, s.num_documents, s.gold_positions, s.example_id)
        for s in scores
    }
    assert len(cells) == len(scores)
    # one: 2 numbers x 2 places and 2 without gold; two: 2 x 1 and 1 without gold (of 2 others);
    # found: 1. All with two questions.
    cells_of_all = 2 * (6 + 3 + 1)
    with_gold = 2 * (4 + 2 + 1)
    once = 2 * 3
    counts = {name: sum(s.method == name for s in scores) for name in METHODS}
    assert counts == {
        "closed_book": once,
        "gold_only": once,
        "zero_shot": cells_of_all,
        "sft": cells_of_all,
        "scratchpad": cells_of_all,
        "scratchpad_verbatim": cells_of_all,
        "rerank_then_read": cells_of_all,
        "scratchpad_gold_forced": with_gold,
        # In `two` at 2 documents there is nothing but gold to quote.
        "scratchpad_wrong_forced": with_gold - 2,
    }
    for name in ("zero_shot", "scratchpad"):
        asked: dict[Any, set[str]] = {}
        for s in scores:
            if s.method == name:
                key = (s.dataset, s.passage_order, s.num_documents, s.gold_positions)
                asked.setdefault(key, set()).add(s.example_id)
        assert {tuple(sorted(ids)) for key, ids in asked.items() if key[0] == "one"} == {
            tuple(sorted(next(ids for key, ids in asked.items() if key[0] == "one")))
        }
    assert {s.gold_total for s in scores if s.dataset == "one"} == {1}
    assert {s.gold_total for s in scores if s.dataset == "two"} == {2}


def test_the_answers_are_those_of_plain_generate_one_by_one(answered: Answered) -> None:
    """transformers' own greedy decoding, no prompt lookup, a prompt of its own for every score."""
    folder, scores = answered
    passages = read_sources(folder / "passages.jsonl")
    readers = {
        None: Reader.load(model="tiny"),
        **{m: Reader.load(f"{m.value}/adapter", model="tiny") for m in Method},
    }
    plain = GenerateConfig(backend="transformers", prompt_lookup_num_tokens=0)
    different = set()
    for score in scores:
        way = METHODS[score.method]
        if way.verbatim:
            continue
        shown = tuple(passages[key] for key in score.shown)
        example = Example(score.example_id, score.question, (), shown, score.gold_positions)
        prompt = render_prompt(example, readers[None].loaded.wording)
        begun = ""
        if way.forces:
            quoted = tuple(quote.passage for quote in score.quotes if quote.passage is not None)
            forced = render_forced(example, readers[None].loaded.wording, quoted)
            begun, prompt = forced.text.removeprefix(prompt.text), forced
            assert set(quoted) & set(score.gold_positions) == (
                set(score.gold_positions) if way.forces == "gold" else set()
            )
            gold = len(score.gold_positions)
            assert len(quoted) == (gold if way.forces == "gold" else min(gold, len(shown) - gold))
        room = 160 if score.method == "scratchpad" else 6
        backend = load_backend(readers[way.method].loaded, replace(plain, max_new_tokens=room))
        [completion] = backend.generate([Rendered(prompt.text, prompt.prompt_end, prompt.spans)])
        assert score.completion == begun + completion.text
        different.add(score.completion)
    assert len(different) > 30  # adapters and prompts make a difference


def test_verbatim_is_what_the_decoder_alone_writes(answered: Answered) -> None:
    folder, scores = answered
    passages = read_sources(folder / "passages.jsonl")
    reader = Reader.load("scratchpad/adapter", model="tiny", verbatim=True, max_new_tokens=160)
    held = [score for score in scores if score.method == "scratchpad_verbatim"]
    for score in held:
        shown = [passages[key] for key in score.shown]
        assert reader.answer(score.question, shown).completion == score.completion
        assert score.abstained or score.verbatim_rate == 1.0
    assert any(score.quotes for score in held)


def test_what_prompts_share_is_computed_once(answered: Answered) -> None:
    _, scores = answered
    once = {(s.method, s.completion, s.prompt_tokens, s.wall_seconds): s for s in scores}
    for adapter, share in ((None, 0.8), (Method.SCRATCHPAD, 0.4)):
        own = [s for s in once.values() if METHODS[s.method].method is adapter]
        assert sum(s.prefilled_tokens for s in own) < share * sum(s.prompt_tokens for s in own)


@pytest.mark.parametrize("stop_after", [1, 17, 60])
def test_goes_on_where_it_was_stopped(
    here: Path, answered: Answered, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    whole = {score_key(score): score for score in answered[1]}
    grid, job = load_grid("grid.yaml", {}), GridJob("grid.yaml", run=Path(f"stopped-{stop_after}"))
    add, written = ScoreFile.add, 0

    def stopping(self: ScoreFile, score: Score, shown: Example) -> None:
        nonlocal written
        if written == stop_after:
            raise KeyboardInterrupt
        written += 1
        add(self, score, shown)

    told: list[str] = []
    monkeypatch.setattr(ScoreFile, "add", stopping)
    with pytest.raises(KeyboardInterrupt):
        sweep(grid, job, told.append)
    assert "The same command goes on from it" in told[-1]
    assert job.run is not None
    with (job.run / "scores.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"method": "zero_')
    monkeypatch.setattr(ScoreFile, "add", add)
    scores = sweep(grid, job, told.append)
    assert len(scores) == len(whole)
    assert {score_key(s): s.completion for s in scores} == {
        key: score.completion for key, score in whole.items()
    }
    before = (job.run / "scores.jsonl").read_bytes()
    sweep(grid, job, told.append)
    assert (job.run / "scores.jsonl").read_bytes() == before


def test_what_a_run_leaves(here: Path, answered: Answered) -> None:
    folder, scores = answered
    resolved = yaml.safe_load((folder / "grid.yaml").read_text(encoding="utf-8"))
    assert resolved["datasets"]["one"]["total_docs"] == [2, 3]
    assert resolved["methods"] == list(METHODS)
    cells = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["cells"]
    assert sum(cell["samples"] for cell in cells) == len(scores)
    assert not list(folder.glob("*.partial"))


def test_the_cost_told_beforehand_is_what_it_takes(
    here: Path,
    call: Call,  # noqa: F811
) -> None:
    before = listing(here)
    only = ("sweep", "grid.yaml", "--methods", "zero_shot", "--questions", "1")
    done = call(*only, "--dry_run")
    assert done.code == 0, done.err
    assert listing(here) == before
    row = next(line for line in done.out.splitlines() if "base model" in line)
    samples, prompts, tokens, prefilled = (
        int(part.replace(",", "")) for part in row.replace("│", " ").split()[2:6]
    )
    done = call(*only, "--run", "costs")
    assert done.code == 0, done.err
    scores = read_scores(here / "costs/scores.jsonl")
    once = {s.shown: s for s in scores}
    assert (samples, prompts) == (len(scores), len(once)) == (10, len(once))
    assert tokens == sum(s.prompt_tokens for s in once.values())
    # Questions of one wording are one block, so nothing else is shared; short prompts are answered
    # side by side, where a row may not hold what another one does.
    assert prefilled <= sum(s.prefilled_tokens for s in once.values()) < tokens
    assert "zero_shot" in done.out


def test_another_grid_is_refused_in_a_run_s_folder(
    here: Path,
    answered: Answered,
    call: Call,  # noqa: F811
) -> None:
    before = listing(here)
    done = call("sweep", "grid.yaml", "--run", "run", "--questions", "1")
    assert done.code == 2
    assert done.err.strip().splitlines()[-1].startswith("error: run holds another run (changed: ")
    assert "datasets.one.questions" in done.err
    assert listing(here) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["scratch"]}, "unknown method 'scratch'"),
        ({"checkpoints": {"sft": "sft/adapter"}}, "is read by the adapter of scratchpad"),
        ({"checkpoints": {"scratchpad": "no.pt", "sft": "sft/adapter"}}, "no checkpoint no.pt"),
        (
            {"checkpoints": {"scratchpad": "sft/adapter", "sft": "sft/adapter"}},
            "was trained as sft, and --train_method says scratchpad",
        ),
        ({"total_docs": [2, 5]}, "total_docs 5 is more than the 4 passages that were found"),
        ({"gold_at": [3]}, "gold_at 3 has no example with 2 documents"),
        ({"datasets": {"nq": {"path": "no.jsonl"}}}, "no.jsonl"),
        ({"backend": "nativ"}, "unknown backend 'nativ'"),
        ({"backend": "transformers"}, "--verbatim needs the native backend"),
        (
            {"backend": "http", "base_url": "http://localhost:1/v1", "methods": ["sft"]},
            "sft need an adapter",
        ),
        (
            {"backend": "vllm", "methods": ["zero_shot", "sft"]},
            "reads with one adapter and one length of answers at a time",
        ),
        ({"max_new_tokens": 30}, "--verbatim needs max_new_tokens"),
        ({"max_new_tokens": 20000}, "do not fit the model's context"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mistake_is_one_line(
    here: Path,
    call: Call,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    message: str,
) -> None:
    Path("bad.yaml").write_text(yaml.safe_dump({**GRID, **changes}), encoding="utf-8")
    before = listing(here)

    def no_answer(*_: object) -> None:
        raise AssertionError("an answer was asked for")

    monkeypatch.setattr(grid_module, "answer_stage", no_answer)
    done = call("sweep", "bad.yaml")
    assert done.code == 2
    assert [line for line in done.err.splitlines() if "error" in line] == [
        done.err.strip().splitlines()[-1]
    ]
    assert message in done.err
    assert "Traceback" not in done.err
    assert listing(here) == before


def test_the_verb_lists_its_flags() -> None:
    shown = CliRunner().invoke(cli.app, ["sweep", "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for flag in ("--run", "--overwrite", "--dry_run", "--questions", "--methods", "--total_docs"):
        assert flag in shown.stdout
