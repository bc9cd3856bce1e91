"""Examples -> a task folder for lm-evaluation-harness, so that others ask the same questions with
their own tool. Prompts stand in its data letter for letter as readers are shown them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scratchpad_rag.errors import ConfigError, DataError
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.prompts.template import (
    SEPARATOR,
    SYSTEM_SENTENCE,
    Wording,
    format_passage,
    restated_question,
    shown_number,
)
from scratchpad_rag.records import Example, Method, ScratchpadForm

PROMPT_FORMATS = ("plain", "chat")
_SCORING = "harness_scoring.py"
_METRICS = ("subspan_exact_match", "exact_match")
_VERSION = 1.0


@dataclass(frozen=True)
class HarnessConfig:
    """What the tasks ask for. `method` is what completions hold (scratchpad: quotes first)."""

    name: str
    method: Method | None
    max_new_tokens: int
    prompt_format: str = "plain"
    form: ScratchpadForm = ScratchpadForm.PASSAGE

    @property
    def wording(self) -> Wording:
        return Wording().writing(self.method, self.form)

    @property
    def scorer(self) -> str:
        return "score_scratchpad" if self.method is Method.SCRATCHPAD else "score_answer"


def task_files(cells: Mapping[str, Sequence[Example]], config: HarnessConfig) -> dict[str, str]:
    """The folder's files by name: of each cell (by a word for its name) a task with its questions,
    a group of all, `utils.py` that scores, and a README with the command.

    Raises ConfigError for an unknown prompt format, DataError where there are no questions or a
    scratchpad is asked of a prompt without passages.
    """
    if config.prompt_format not in PROMPT_FORMATS:
        raise ConfigError(
            f"unknown prompt_format {config.prompt_format!r}; choose from "
            + ", ".join(PROMPT_FORMATS)
        )
    if not any(cells.values()):
        raise DataError("there are no questions to export")
    files: dict[str, str] = {}
    tasks = {word: _task_name(config.name, word) for word in cells}
    if len(set(tasks.values())) < len(tasks):
        raise ConfigError(f"two tasks would be called alike: {', '.join(sorted(tasks))}")
    for word, examples in cells.items():
        task = tasks[word]
        rows = [_row(example, config) for example in examples]
        files[f"{task}.jsonl"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files[f"{task}.yaml"] = _task_yaml(task, config)
    if len(tasks) > 1:
        files[f"{_task_name(config.name)}.yaml"] = _group_yaml(list(tasks.values()), config)
    files["utils.py"] = Path(__file__).with_name(_SCORING).read_text(encoding="utf-8")
    files["README.md"] = _readme(list(tasks.values()), config)
    return files


def _task_name(*parts: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", "_".join(parts)).strip("_").lower()


def _row(example: Example, config: HarnessConfig) -> dict[str, Any]:
    if config.method is Method.SCRATCHPAD and not example.passages:
        raise DataError(
            f"question {example.id!r} shows no passages, and a scratchpad reader quotes before it "
            "answers"
        )
    form = config.wording.form
    prompt = render_prompt(example, config.wording).prompt
    if config.prompt_format == "chat":  # the system sentence is a turn of its own
        prompt = prompt.removeprefix(SYSTEM_SENTENCE + SEPARATOR)
    return {
        "id": example.id,
        "question": example.question,
        "answers": list(example.answers),
        "prompt": prompt,
        "system": SYSTEM_SENTENCE,
        "passages": [
            format_passage(passage, shown_number(index, form))
            for index, passage in enumerate(example.passages)
        ],
        "restated": restated_question(example.question),
        "gold_positions": list(example.gold),
        "num_documents": len(example.passages),
    }


def _task_yaml(task: str, config: HarnessConfig) -> str:
    fields: dict[str, Any] = {
        "task": task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{task}.jsonl"}},
        "test_split": "test",
        "output_type": "generate_until",
        **({"description": "{{system}}"} if config.prompt_format == "chat" else {}),
        "doc_to_text": "prompt",  # the column, which no template touches
        "doc_to_target": "{{answers[0]}}",
        "num_fewshot": 0,
        "generation_kwargs": {
            "until": [],  # the end of sequence: the scorer cuts the answer out
            "max_gen_toks": config.max_new_tokens,
            "do_sample": False,
        },
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in _METRICS
        ],
        "metadata": {"version": _VERSION},
    }
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return text + f"process_results: !function utils.{config.scorer}\n"


def _group_yaml(tasks: Sequence[str], config: HarnessConfig) -> str:
    fields = {
        "group": _task_name(config.name),
        "task": list(tasks),
        "aggregate_metric_list": [
            {"metric": metric, "aggregation": "mean", "weight_by_size": True} for metric in _METRICS
        ],
        "metadata": {"version": _VERSION},
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _readme(tasks: Sequence[str], config: HarnessConfig) -> str:
    asked = _task_name(config.name) if len(tasks) > 1 else tasks[0]
    chat = config.prompt_format == "chat"
    options = " --apply_chat_template" if chat else ""
    model = "MODEL,add_bos_token=False" if chat else "MODEL"
    listed = "\n".join(f"- `{task}`" for task in tasks)
    answer = (
        "quotes of passages, the question again, and the answer behind `Answer:`"
        if config.method is Method.SCRATCHPAD
        else "the answer, whose first line is scored"
    )
    note = (
        "The data hold the user's turn; the task's description is the system turn. They belong in "
        "a chat template, which `--apply_chat_template` applies; it writes all special tokens, so "
        "no other one goes before (`add_bos_token=False`)."
        if chat
        else "Prompts are plain text. With `--apply_chat_template` the whole prompt would become "
        "the user's turn, which is not how a chat model's reader was trained."
    )
    return f"""# {config.name}

Tasks for [lm-evaluation-harness](https://github.com/EleutherAI/lm-evaluation-harness), exported by
scratchpad-rag:

{listed}

Run them from inside this folder, since their data are named relative to it:

```bash
lm_eval --model hf --model_args pretrained={model} --tasks {asked} --include_path .{options}
```

A completion holds {answer}. Scores: `subspan_exact_match` (an answer stands in the final answer)
and `exact_match`, both after SQuAD's normalisation, by `utils.py`.

{note}
"""
