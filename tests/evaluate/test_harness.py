"""The task folder for lm-evaluation-harness: its files, and that its scores are ours."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchpad_rag.errors import ConfigError, DataError
from scratchpad_rag.evaluate.harness import HarnessConfig, task_files
from scratchpad_rag.evaluate.run import Arm, Trial, score_completion
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.prompts.template import NO_SUPPORT, UNANSWERABLE, Wording, format_passage
from scratchpad_rag.records import Completion, Example, Method, Passage, ScratchpadForm

steady = settings(deadline=None, derandomize=True)
MakeExample = Callable[..., Example]
PLAIN = HarnessConfig("sample_5 docs", None, 128)
QUOTING = HarnessConfig("sample", Method.SCRATCHPAD, 512)


class _Loader(yaml.SafeLoader):
    """YAML as the harness reads it: `!function utils.name` names a function beside the file."""


_Loader.add_constructor("!function", lambda loader, node: f"function {node.value}")


def read_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


@pytest.fixture
def cells(make_example: MakeExample) -> dict[str, list[Example]]:
    return {
        f"5 shown gold at {at}": [make_example(gold=(at,), number=n) for n in range(3)]
        for at in (0, 4)
    }


def test_a_task_a_cell_and_a_group(cells: dict[str, list[Example]]) -> None:
    files = task_files(cells, PLAIN)
    tasks = ["sample_5_docs_5_shown_gold_at_0", "sample_5_docs_5_shown_gold_at_4"]
    assert sorted(files) == sorted(
        [f"{task}.{kind}" for task in tasks for kind in ("jsonl", "yaml")]
        + ["README.md", "sample_5_docs.yaml", "utils.py"]
    )
    assert read_yaml(files[f"{tasks[1]}.yaml"]) == {
        "task": tasks[1],
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{tasks[1]}.jsonl"}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "{{answers[0]}}",
        "num_fewshot": 0,
        "generation_kwargs": {"until": [], "max_gen_toks": 128, "do_sample": False},
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True}
            for name in ("subspan_exact_match", "exact_match")
        ],
        "metadata": {"version": 1.0},
        "process_results": "function utils.score_answer",
    }
    group = read_yaml(files["sample_5_docs.yaml"])
    assert (group["group"], group["task"]) == ("sample_5_docs", tasks)
    assert "--tasks sample_5_docs --include_path .\n" in files["README.md"]
    assert "--apply_chat_template" not in files["README.md"].split("```")[1]


def test_prompts_are_ours_letter_for_letter(cells: dict[str, list[Example]]) -> None:
    files = task_files(cells, PLAIN)
    lines = files["sample_5_docs_5_shown_gold_at_4.jsonl"].splitlines()
    for line, example in zip(lines, cells["5 shown gold at 4"], strict=True):
        row = json.loads(line)
        assert row["prompt"] == render_prompt(example, Wording()).prompt
        assert (row["answers"], row["gold_positions"]) == ([example.answers[0]], [4])
        assert (row["id"], row["num_documents"]) == (example.id, 5)
    # In a chat the system sentence is a turn of its own, and the two together are the prompt.
    chat = task_files(cells, HarnessConfig("s", None, 128, "chat"))
    row = json.loads(chat["s_5_shown_gold_at_4.jsonl"].splitlines()[0])
    whole = render_prompt(cells["5 shown gold at 4"][0], Wording()).prompt
    assert row["system"] + "\n\n" + row["prompt"] == whole
    assert row["prompt"].startswith("Question: ")
    assert read_yaml(chat["s_5_shown_gold_at_4.yaml"])["description"] == "{{system}}"
    assert "pretrained=MODEL,add_bos_token=False --tasks s " in chat["README.md"]
    assert "--apply_chat_template\n" in chat["README.md"]


def test_scratchpads_have_room_and_a_scorer_of_their_own(cells: dict[str, list[Example]]) -> None:
    one = {"gold at 0": cells["5 shown gold at 0"]}
    files = task_files(one, QUOTING)
    assert sorted(files) == [
        "README.md",
        "sample_gold_at_0.jsonl",
        "sample_gold_at_0.yaml",
        "utils.py",
    ]
    task = read_yaml(files["sample_gold_at_0.yaml"])
    assert task["process_results"] == "function utils.score_scratchpad"
    assert task["generation_kwargs"]["max_gen_toks"] == 512
    assert "--tasks sample_gold_at_0 --include_path ." in files["README.md"]


def test_numbered_passages_are_exported_with_their_numbers(
    cells: dict[str, list[Example]],
) -> None:
    numbered = replace(QUOTING, form=ScratchpadForm.INDEX)
    files = task_files({"gold at 0": cells["5 shown gold at 0"]}, numbered)
    row = json.loads(files["sample_gold_at_0.jsonl"].splitlines()[0])
    assert [text[:13] for text in row["passages"]] == [f"Document [{n}](" for n in range(1, 6)]
    assert all(text in row["prompt"] for text in row["passages"])
    plain = replace(numbered, method=None)  # which writes no scratchpad
    row = json.loads(task_files(cells, plain)["sample_5_shown_gold_at_0.jsonl"].splitlines()[0])
    assert row["passages"][0].startswith("Document (Title: ")


def test_what_cannot_be_exported_is_said(
    cells: dict[str, list[Example]], make_example: MakeExample
) -> None:
    with pytest.raises(DataError, match="no questions to export"):
        task_files({"a": []}, PLAIN)
    with pytest.raises(ConfigError, match="'html'; choose from plain, chat"):
        task_files(cells, HarnessConfig("s", None, 128, "html"))
    with pytest.raises(DataError, match="shows no passages"):
        task_files({"a": [make_example(documents=0, gold=())]}, QUOTING)
    with pytest.raises(ConfigError, match="two tasks would be called alike"):
        task_files({"a b": cells["5 shown gold at 0"], "a-b": []}, PLAIN)


# --- the scorer


@pytest.fixture(scope="module")
def utils(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """`utils.py` as it lies in a folder, imported as the harness does."""
    example = Example("q", "who", ("she",), (Passage("A", "b"),), (0,))
    path = tmp_path_factory.mktemp("tasks") / "utils.py"
    path.write_text(task_files({"a": [example]}, PLAIN)["utils.py"], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("exported_utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PASSAGES = (
    Passage("Marren", "The town of Ida Holm. Answer: not here"),
    Passage("Ard", "It says:\n\nQuestion: Who built it?\n\nAnswer: nobody"),
    Passage("Marren", "The town of Ida Holm."),
)
EXAMPLE = Example("q", "who built it", ("Ida Holm", "the era"), PASSAGES, (0,))
ASKED = "\n\nQuestion: Who built it?\n\nAnswer:"


def row_of(example: Example, config: HarnessConfig) -> dict[str, Any]:
    files = task_files({"a": [example]}, config)
    [line] = next(text for name, text in files.items() if name.endswith("jsonl")).splitlines()
    return dict(json.loads(line))


def ours(completion: str, method: Method | None) -> dict[str, float]:
    arm = Arm("arm", method, Wording(), None)  # type: ignore[arg-type]  it generates nothing
    found = Completion(completion, (), 0, 0, 0, 0.0, "stop")
    score = score_completion(arm, Trial(EXAMPLE, EXAMPLE), found)
    return {
        "subspan_exact_match": score.subspan_exact_match,
        "exact_match": score.exact_match,
    }


def test_scores_by_hand(utils: ModuleType) -> None:
    row = row_of(EXAMPLE, PLAIN)
    right, part, wrong = {(1.0, 1.0)}, {(1.0, 0.0)}, {(0.0, 0.0)}
    for completion, expected in (
        (" Ida Holm\n\nQuestion: And then?", right),
        ("\n\nIt was Ida Holm.", part),
        (" Ida\nIda Holm", wrong),
        (" unanswerable", wrong),
        ("", wrong),
    ):
        assert {tuple(utils.score_answer(row, [completion]).values())} == expected
    row = row_of(EXAMPLE, QUOTING)
    first = " " + format_passage(PASSAGES[0])
    for completion, expected in (
        (f"{first}{ASKED} Ida Holm", right),
        (f"{first}\n\n{format_passage(PASSAGES[1])}{ASKED} Ida Holm", right),
        (f" {format_passage(PASSAGES[1])}{ASKED} he", wrong),
        (f" {NO_SUPPORT}{ASKED} {UNANSWERABLE}", wrong),
        (f"{first}\nAnswer: by Ida Holm", part),
        (first, wrong),  # a quote is no answer
    ):
        assert {tuple(utils.score_scratchpad(row, [completion]).values())} == expected


BITS = [
    *(format_passage(passage) for passage in PASSAGES),
    ASKED,
    "\n\n",
    "\n",
    " ",
    "Answer:",
    "Question: Who built it?",
    NO_SUPPORT,
    UNANSWERABLE,
    "Ida Holm",
    "the era",
    "Document (Title: Ard) It",
]
completions = st.lists(st.sampled_from(BITS) | st.text(max_size=8), max_size=6).map("".join)


@settings(parent=steady, max_examples=300)
@given(completion=completions)
def test_scores_are_ours(utils: ModuleType, completion: str) -> None:
    answered = utils.score_answer(row_of(EXAMPLE, PLAIN), [completion])
    assert answered == ours(completion, None)
    quoted = utils.score_scratchpad(row_of(EXAMPLE, QUOTING), [completion])
    assert quoted == ours(completion, Method.SCRATCHPAD)


# --- with the harness itself


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Path]:
    """The tasks name their data relative to their folder."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


@pytest.mark.slow
@pytest.mark.parametrize("prompt_format", ["plain", "chat"])
def test_the_harness_asks_and_scores_as_we_do(
    request: pytest.FixtureRequest,
    inside: Path,
    cells: dict[str, list[Example]],
    prompt_format: str,
) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    from scratchpad_rag.backends.base import load_backend
    from scratchpad_rag.config import GenerateConfig, ModelConfig
    from scratchpad_rag.models.load import load_model

    name = "tiny_mistral" if prompt_format == "plain" else "tiny_chat_mistral"
    folder = str(request.getfixturevalue(name))
    config = HarnessConfig("ours", None, 12, prompt_format)
    for file, text in task_files(cells, config).items():
        (inside / file).write_text(text, encoding="utf-8")
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={
            "pretrained": folder,
            "dtype": "float64",
            "device": "cpu",
            # As the README says: what a template does not write is not there.
            **({"add_bos_token": False} if prompt_format == "chat" else {}),
        },
        tasks=["ours"],
        task_manager=TaskManager(include_path=".", include_defaults=False),
        apply_chat_template=prompt_format == "chat",
        log_samples=True,
        bootstrap_iters=0,
    )
    loaded = load_model(ModelConfig(folder, torch_dtype="float64"))
    backend = load_backend(loaded, GenerateConfig(max_new_tokens=12))
    examples = [example for group in cells.values() for example in group]
    prompts = [render_prompt(example, loaded.wording) for example in examples]
    rows = [row for task in found["samples"].values() for row in task]
    asked = {row["arguments"][0][0]: row for row in rows}
    assert set(asked) == {prompt.prompt for prompt in prompts}
    for prompt, completion in zip(prompts, backend.generate(prompts), strict=True):
        assert asked[prompt.prompt]["resps"][0][0] == completion.text
