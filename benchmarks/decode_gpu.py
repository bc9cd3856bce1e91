"""Copying at the size of a 7B model: random weights, real passages, forced continuations.

    python benchmarks/decode_gpu.py --write_prompts prompts.json --data_path data/qa_data/sample
    python benchmarks/decode_gpu.py --prompts prompts.json

A model with random weights copies nothing, so its choice is overruled: behind every token of a
completion the next one of a real scratchpad wins. All that a trained model would compute is
computed, and drafts are accepted as they would be. `generate` is forced alike. One JSON line a
measurement: tokens a second, passes, and the prefill's share of the matrix-product ceiling that
is measured beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, MistralConfig, MistralForCausalLM

from scratchpad_rag.decode.decoder import DecodeConfig, Decoded, Decoder
from scratchpad_rag.tokens.layout import Layout, PassageTokens

STOP = 2
FORCED = 1e4


def main() -> None:
    """Write the prompts where a tokenizer is at hand, or measure where a GPU is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write_prompts", type=Path)
    parser.add_argument("--data_path", default="data/qa_data/sample")
    parser.add_argument("--total_docs", type=int, default=20)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    flags = parser.parse_args()
    if flags.write_prompts:
        write_prompts(flags)
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    items = json.loads(flags.prompts.read_text())
    layouts = [_layout(item["layout"]) for item in items]
    truths = [[*item["completion"], STOP] for item in items]
    model = make_model(flags.layers, flags.hidden, device)
    ceiling = matmul_ceiling(model.config.hidden_size, device)
    _line("ceiling", "matmul_tflops", ceiling, "TFLOP/s")
    prefill(model, layouts, ceiling, device)
    for rows in flags.rows:
        measure(model, layouts, truths, rows, device)


def write_prompts(flags: argparse.Namespace) -> None:
    """Prompts and true scratchpads of the data as tokens, with their layouts."""
    from scratchpad_rag.config import DataConfig, load_model_config
    from scratchpad_rag.data.select import select_samples
    from scratchpad_rag.models.load import engine_model
    from scratchpad_rag.prompts.render import render_prompt, render_sample
    from scratchpad_rag.records import EvalSplit, LossRegion, Method
    from scratchpad_rag.tokens.encode import encode_sample
    from scratchpad_rag.tokens.layout import encode_layout

    loaded = engine_model(load_model_config("smollm2_135m"))
    docs = flags.total_docs
    config = DataConfig(
        name="examples",
        path=flags.data_path,
        total_docs=docs,
        gold_at=tuple(range(docs)),
        num_train_samples=1,
        num_val_samples=flags.count,
        val_order="question",
    )
    items = []
    for example in select_samples(config, EvalSplit.ALL, print).val:
        sample = render_sample(example, loaded.wording, Method.SCRATCHPAD)
        encoded = encode_sample(sample, loaded.tokenizer, LossRegion.COMPLETION, STOP)
        layout = encode_layout(render_prompt(example, loaded.wording), loaded.tokenizer)
        completion = list(encoded.input_ids[encoded.prompt_length : -1])
        items.append({"layout": dataclasses.asdict(layout), "completion": completion})
    flags.write_prompts.write_text(json.dumps(items))


def _layout(fields: dict[str, Any]) -> Layout:
    passages = tuple(PassageTokens(*passage) for passage in fields["passages"])
    return Layout(
        tuple(fields["ids"]),
        passages,
        tuple(fields["question"]),
        tuple(fields["opening"]),
        tuple(fields["separator"]),
    )


def make_model(layers: int, hidden: int, device: torch.device) -> Any:
    """Mistral-7B's shape with random weights; the vocabulary is that of the prompts' tokenizer."""
    config = MistralConfig(
        vocab_size=49152,
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=hidden * 7 // 2,
        head_dim=128 if hidden >= 4096 else 16,
        sliding_window=None,
        max_position_embeddings=32768,
        attn_implementation="sdpa",
    )
    torch.set_default_dtype(torch.bfloat16)
    with device:
        model = MistralForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval()


class Forced:
    """The model, whose choice behind each position is overruled by the completions' tokens."""

    def __init__(self, model: Any, layouts: Sequence[Layout], truths: Sequence[list[int]]) -> None:
        self.model, self.config, self.dtype = model, model.config, model.dtype
        # What comes next is found by the position alone within one prompt's turn.
        self.truths = {layout.ids: truth for layout, truth in zip(layouts, truths, strict=True)}
        self.decoder: Decoder | None = None

    def parameters(self) -> Any:
        return self.model.parameters()

    def __call__(self, **inputs: Any) -> Any:
        output = self.model(**inputs)
        assert self.decoder is not None
        positions = inputs["position_ids"].cpu()
        kept = inputs["logits_to_keep"].cpu().tolist()
        cache = self.decoder.cache
        assert cache is not None
        taken = slice(*cache.taken) if cache.row is None else slice(cache.row, cache.row + 1)
        rows = self.decoder.rows[taken]
        for place, row in enumerate(rows):
            if row.drafter is None:
                continue
            prompt = row.drafter.grammar.layout.ids
            truth = self.truths[prompt]
            for k, column in enumerate(kept):
                following = int(positions[place, column]) + 1 - len(prompt)
                if 0 <= following < len(truth):
                    output.logits[place, k, truth[following]] += FORCED
        return output


class ForcedProcessor(LogitsProcessor):
    """The same for `generate`: row r writes its own completion."""

    def __init__(self, truths: Sequence[list[int]], width: int) -> None:
        self.truths, self.width = truths, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        written = input_ids.shape[1] - self.width
        for row, truth in enumerate(self.truths):
            scores[row, truth[min(written, len(truth) - 1)]] += FORCED
        return scores


def measure(
    model: Any,
    layouts: Sequence[Layout],
    truths: Sequence[list[int]],
    rows: int,
    device: torch.device,
) -> None:
    """Ours and `generate` on the same prompts, `rows` at a time."""
    room = max(map(len, truths)) + 1
    batch = layouts[: max(8, 2 * rows)], truths[: max(8, 2 * rows)]
    forced = Forced(model, *batch)
    decoder = Decoder(forced, DecodeConfig(room, (STOP,), rows=rows, share=False))
    forced.decoder = decoder
    list(decoder.decode(batch[0][:2]))  # warm up
    found: list[Decoded] = []
    seconds = _timed(device, lambda: found.extend(decoder.decode(batch[0])))
    assert [list(d.token_ids) for d in found] == [truth[:-1] for truth in batch[1]]
    tokens = sum(d.new_tokens for d in found)
    case = f"mistral-7b-{rows}-rows"
    _line(case, "ours_tokens_per_second", tokens / seconds, "tokens/s", runs=len(found))
    passes = statistics.mean(d.forward_passes for d in found)
    _line(
        case, "ours_passes", passes, "passes", tokens_per_pass=round(tokens / len(found) / passes)
    )
    theirs = 0.0
    for start in range(0, len(batch[0]), rows):
        part = slice(start, start + rows)
        theirs += _timed(device, lambda part=part: generate(model, batch[0][part], batch[1][part]))
    _line(case, "generate_tokens_per_second", tokens / theirs, "tokens/s", runs=len(found))
    _line(case, "speedup_vs_generate", theirs / seconds, "x", target=">=5")


def generate(model: Any, layouts: Sequence[Layout], truths: Sequence[list[int]]) -> None:
    """transformers' greedy decoding of a batch, padded on the left."""
    width = max(len(layout.ids) for layout in layouts)
    ids = torch.zeros(len(layouts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, layout in enumerate(layouts):
        ids[row, width - len(layout.ids) :] = torch.tensor(layout.ids)
        mask[row, width - len(layout.ids) :] = 1
    config = GenerationConfig(
        max_new_tokens=max(map(len, truths)),
        do_sample=False,
        eos_token_id=[STOP],
        pad_token_id=STOP,
    )
    with torch.inference_mode():
        model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            logits_processor=[ForcedProcessor(truths, width)],
        )


def prefill(model: Any, layouts: Sequence[Layout], ceiling: float, device: torch.device) -> None:
    """Seconds to a first token against a bare forward, and TFLOP/s against the ceiling."""
    decoder = Decoder(model, DecodeConfig(1, (STOP,), share=False))
    ours, bare, rates = [], [], []
    weights = sum(p.numel() for p in model.parameters()) - 2 * model.config.vocab_size * (
        model.config.hidden_size
    )
    for layout in layouts[:8]:
        ids = torch.tensor([layout.ids], device=device)
        for _ in range(2):  # the second is kept
            a = _timed(device, lambda layout=layout: list(decoder.decode([layout])))
            b = _timed(device, lambda ids=ids: _forward(model, ids))
        ours.append(a)
        bare.append(b)
        attended = 2 * len(layout.ids) ** 2 * model.config.hidden_size
        flops = 2 * weights * len(layout.ids) + attended * model.config.num_hidden_layers
        rates.append(flops / a / 1e12)
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    _line("prefill", "prefill_over_bare_forward", ratio, "x", target="<=1")
    rate = statistics.median(rates)
    share = round(rate / ceiling, 3)
    _line("prefill", "prefill_tflops", rate, "TFLOP/s", share_of_ceiling=share)


def _forward(model: Any, ids: torch.Tensor) -> None:
    with torch.inference_mode():
        model(input_ids=ids, use_cache=False, logits_to_keep=1)


def matmul_ceiling(hidden: int, device: torch.device) -> float:
    """TFLOP/s of a large bf16 matrix product."""
    size = 8192 if device.type == "cuda" else 1024
    one = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        one @ one
    seconds = _timed(device, lambda: [one @ one for _ in range(10)]) / 10
    return 2 * size**3 / seconds / 1e12


def _timed(device: torch.device, work: Callable[[], Any]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _line(case: str, metric: str, value: float, unit: str, **more: Any) -> None:
    line = {"benchmark": "decode_gpu", "case": case, "metric": metric, "value": round(value, 3)}
    print(json.dumps({**line, "unit": unit, **more}), flush=True)


if __name__ == "__main__":
    main()
