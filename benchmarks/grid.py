"""What a grid costs, side by side with its cells run one by one through transformers' `generate`.

    python benchmarks/grid.py --data_path nq.jsonl.gz --questions 4

Ours is what `scratchpad-rag sweep` does: one walk over all prompts of an adapter, what they share
computed once, quotes drafted. The peer answers every sample of every cell with plain greedy
`generate`, each from a prompt of its own; context-free methods have one sample a question for both.
Adapters are merged into the weights for both. Which of them comes first takes turns, so that a busy
machine slows both alike; a speed-up is the median of the questions' own. `scratchpad_verbatim` is
left out, since `generate` cannot be held to the context.

One JSON line a measurement: seconds and speed-up for the whole grid and by method, and how many of
the answers are the same (in bfloat16 near ties may fall otherwise).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from scratchpad_rag.app.grid import (
    Stage,
    answer_stage,
    list_stages,
    reading,
    with_adapters,
)
from scratchpad_rag.app.grid_cells import ask
from scratchpad_rag.app.grid_config import METHODS, Grid, GridFile, find_checkpoint, resolve
from scratchpad_rag.backends.native import decode_text
from scratchpad_rag.evaluate.score_file import read_scores, score_key
from scratchpad_rag.evaluate.together import Task
from scratchpad_rag.models.checkpoints import read_adapter
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.records import Method, Score
from scratchpad_rag.tokens.encode import encode_prompt


def main() -> None:
    """Time question by question, and print what came out."""
    flags = _parse()
    torch.set_num_threads(flags.threads)
    grid = _grid(flags)
    asked = ask("grid", grid.datasets["grid"], grid.seed)
    loaded = with_adapters(
        load_model(replace(grid.model, torch_dtype=flags.torch_dtype)),
        {Method(k): read_adapter(find_checkpoint(path)) for k, path in grid.checkpoints.items()},
        grid,
    )
    pairs = []
    for number, example in enumerate(asked.questions):
        stages = list_stages(grid, [replace(asked, questions=(example,))], loaded)
        if not number:  # the first passes of a process are slow
            _ours(stages, loaded, grid)
        turns = [_ours, _peer] if number % 2 else [_peer, _ours]
        results = {turn: turn(stages, loaded, grid) for turn in turns}
        pairs.append((results[_ours], results[_peer]))
    _report(flags, pairs, len(asked.cells))


Result = dict[str, tuple[float, dict[Any, str]]]  # by method: seconds, and answers by sample


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_path", default="data/qa_data/sample")
    parser.add_argument("--case", help="its name in the output")
    parser.add_argument("--model_config", default="smollm2_135m")
    parser.add_argument("--scratchpad", default="checkpoints/smollm2_135m/scratchpad_rag.pt")
    parser.add_argument("--sft", default="checkpoints/smollm2_135m/rag_sft.pt")
    parser.add_argument("--methods", nargs="+", default=[m for m in METHODS if "verbatim" not in m])
    parser.add_argument("--total_docs", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--gold_at", nargs="+", default=["first", "middle", "last"])
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--max_new_tokens", type=int, default=320)
    parser.add_argument("--torch_dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--target", type=float, default=6.0)
    parser.add_argument("--quick", action="store_true", help="one question at 3 and 5 documents")
    flags = parser.parse_args()
    if flags.quick:
        flags.questions, flags.total_docs, flags.gold_at = 1, [3, 5], ["first", "last"]
    return flags


def _grid(flags: argparse.Namespace) -> Grid:
    file = GridFile(
        model=flags.model_config,
        datasets={"grid": {"path": flags.data_path}},
        methods=tuple(flags.methods),
        checkpoints={"scratchpad": flags.scratchpad, "sft": flags.sft},
        total_docs=tuple(flags.total_docs),
        gold_at=tuple(flags.gold_at),
        no_gold=True,
        questions=flags.questions,
        max_new_tokens=flags.max_new_tokens,
    )
    return resolve(file, "benchmarks/grid.py")


def _ours(stages: Sequence[Stage], loaded: LoadedModel, grid: Grid) -> Result:
    """The stages of a sweep; a stage's seconds go to its methods by what their answers took."""
    found: Result = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage in stages:
            path = Path(folder) / f"{stage.name}.jsonl"
            begin = time.perf_counter()
            answer_stage(stage, loaded, grid, path, lambda _: None)
            seconds = time.perf_counter() - begin
            scores = read_scores(path)
            shares = _shares(scores)
            for name, share in shares.items():
                answers = {score_key(s): s.completion for s in scores if s.method == name}
                found[name] = (seconds * share, answers)
    return found


def _shares(scores: Sequence[Score]) -> dict[str, float]:
    """Each method's share of a stage; of an answer that several share the first takes it all."""
    taken: defaultdict[str, float] = defaultdict(float)
    seen = set()
    for score in scores:
        answer = (score.completion, score.prompt_tokens, score.wall_seconds)
        taken[score.method] += 0.0 if answer in seen else score.wall_seconds
        seen.add(answer)
    total = sum(taken.values())
    return {name: seconds / total for name, seconds in taken.items()}


def _peer(stages: Sequence[Stage], loaded: LoadedModel, grid: Grid) -> Result:
    found: Result = {}
    for stage in stages:
        with reading(loaded, stage.adapter, grid) as reader:
            for block in stage.blocks:
                for task in block:
                    seconds, text = _generate(reader, task)
                    spent, answers = found.get(task.way.name, (0.0, {}))
                    found[task.way.name] = (spent + seconds, {**answers, task.key: text})
    return found


def _generate(loaded: LoadedModel, task: Task) -> tuple[float, str]:
    """Plain greedy decoding of one prompt: no lookup, no cache of another."""
    request = task.request
    begin = time.perf_counter()
    ids = torch.tensor([encode_prompt(request.prompt, loaded.tokenizer)])
    config = GenerationConfig(
        max_new_tokens=request.options.max_new_tokens,
        do_sample=False,
        eos_token_id=list(loaded.stop_token_ids),
        pad_token_id=loaded.stop_token_ids[0],
    )
    with torch.inference_mode():
        output = loaded.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
    new = output[0, ids.shape[1] :].tolist()
    if new and new[-1] in loaded.stop_token_ids:
        new = new[:-1]
    text = task.trial.begun(task.way.wording) + decode_text(loaded.tokenizer, new)
    return time.perf_counter() - begin, text


def _report(flags: argparse.Namespace, pairs: Sequence[tuple[Result, Result]], cells: int) -> None:
    case = flags.case or Path(flags.data_path).name.split(".")[0]
    methods = list(pairs[0][1])
    for name in [*methods, None]:
        chosen = methods if name is None else [name]
        ours = [sum(one[m][0] for m in chosen) for one, _ in pairs]
        peer = [sum(other[m][0] for m in chosen) for _, other in pairs]
        speedup = statistics.median(p / o for o, p in zip(ours, peer, strict=True))
        answers = [
            one[m][1][key] == text
            for one, other in pairs
            for m in chosen
            for key, text in other[m][1].items()
        ]
        line = {
            "benchmark": "grid",
            "case": case if name is None else f"{case}, {name}",
            "metric": "speedup_vs_cells_one_by_one",
            "ours": round(statistics.median(ours), 3),
            "peer": round(statistics.median(peer), 3),
            "value": round(speedup, 2),
            "unit": "x",
            "runs": len(pairs),
            "cells": cells,
            "answers": len(answers),
            "same_answers": sum(answers),
        }
        if name is None:
            line |= {"target": f">={flags.target:g}", "holds": speedup >= flags.target}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
