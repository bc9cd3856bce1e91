"""What an answer with its quotes costs, side by side with transformers' `generate`.

    python benchmarks/decode.py speed --data_path nq.jsonl.gz --total_docs 20 --case nq-20-docs \
        --checkpoint_path checkpoints/smollm2_135m/scratchpad_rag.pt

Each prompt is answered by all in turn, so that a busy machine slows them alike; times are medians
over the prompts, and speed-ups medians of the prompts' own. The adapter is merged into the
weights for all. One JSON line a measurement:

    speed    seconds and passes against plain greedy decoding, prompt lookup and a bare forward
    sharing  tokens prefilled of a grid over gold positions and of a sweep over document counts
    index    milliseconds to index a prompt for drafting
    memory   resident memory over many prompts
    rows     seconds an answer with 1, 2, 4, ... prompts at a time

`--peer NAME=PYTHON=MODEL` has benchmarks/peers/NAME.py answer the same prompts in an environment
of its own, with the merged weights in the form that it reads (benchmarks/peers/merge.py).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from scratchpad_rag.config import DataConfig, load_model_config
from scratchpad_rag.data.place import place
from scratchpad_rag.data.select import select_samples
from scratchpad_rag.decode.decoder import DecodeConfig, Decoded, Decoder
from scratchpad_rag.decode.draft import Drafter, Habits
from scratchpad_rag.reader import Reader
from scratchpad_rag.records import EvalSplit, Example
from scratchpad_rag.tokens.layout import Layout, encode_layout

LOOKUPS = (10, 32, 64)


@dataclass(frozen=True)
class Subject:
    """The model with its adapter merged, the questions, and their prompts as tokens."""

    reader: Reader
    examples: list[Example]
    layouts: list[Layout]
    case: str
    max_new_tokens: int

    @property
    def model(self) -> Any:
        return self.reader.loaded.model

    def decoder(self, **options: Any) -> Decoder:
        stops = self.reader.loaded.stop_token_ids
        room = options.pop("max_new_tokens", self.max_new_tokens)
        return Decoder(self.model, DecodeConfig(room, stops, **options))


def main() -> None:
    """Run the suite that is named; print one JSON line a measurement."""
    flags = _parse()
    torch.set_num_threads(flags.threads)
    subject = _open(flags)
    suites: dict[str, Callable[[Subject, argparse.Namespace], None]] = {
        "speed": speed,
        "sharing": sharing,
        "index": index,
        "memory": memory,
        "rows": rows,
    }
    suites[flags.suite](subject, flags)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=("speed", "sharing", "index", "memory", "rows"))
    parser.add_argument("--data_path", default="data/qa_data/sample")
    parser.add_argument("--checkpoint_path", default="checkpoints/smollm2_135m/scratchpad_rag.pt")
    parser.add_argument("--case", default="sample-10-docs", help="its name in the output")
    parser.add_argument("--total_docs", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--max_new_tokens", type=int, default=320)
    parser.add_argument("--torch_dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--lookups", type=int, nargs="+", default=LOOKUPS)
    parser.add_argument("--peer_lookups", type=int, nargs="+", default=LOOKUPS[:2])
    parser.add_argument("--peer", action="append", default=[], help="NAME=PYTHON=MODEL")
    parser.add_argument("--quick", action="store_true", help="three prompts, one lookup setting")
    flags = parser.parse_args()
    if flags.quick:
        flags.prompts = min(flags.prompts, 3)
    return flags


def _open(flags: argparse.Namespace) -> Subject:
    model = replace(load_model_config("smollm2_135m"), torch_dtype=flags.torch_dtype)
    reader = Reader.load(flags.checkpoint_path, model)
    docs = flags.total_docs
    config = DataConfig(
        name="examples",
        path=flags.data_path,
        total_docs=docs,
        gold_at=tuple(sorted({0, docs // 4, docs // 2, 3 * docs // 4, max(0, docs - 2)})),
        num_train_samples=1,
        num_val_samples=flags.prompts,
        val_order="question",
    )
    examples = select_samples(config, EvalSplit.ALL, lambda _: None).val[: flags.prompts]
    layouts = [_layout(reader, example) for example in examples]
    return Subject(reader, examples, layouts, flags.case, flags.max_new_tokens)


def _layout(reader: Reader, example: Example) -> Layout:
    return encode_layout(reader.prompt(example), reader.loaded.tokenizer)


# speed ---------------------------------------------------------------------------------------


@dataclass
class Answer:
    """One reader's answer to one prompt."""

    seconds: float
    tokens: list[int]
    passes: int = 0


def speed(subject: Subject, flags: argparse.Namespace) -> None:
    """Ours, ours verbatim, and transformers' `generate`, on every prompt in turn."""
    lookups = LOOKUPS[:1] if flags.quick else flags.lookups
    # Sharing is off: each prompt is read from its first token, as the peers read it.
    ours = subject.decoder(share=False)
    verbatim = subject.decoder(share=False, verbatim=True)
    prefill = subject.decoder(share=False, max_new_tokens=1)
    readers: dict[str, Callable[[Layout], Answer]] = {
        "ours": lambda layout: _decode(ours, layout),
        "ours_verbatim": lambda layout: _decode(verbatim, layout),
        "prefill": lambda layout: _decode(prefill, layout),
        "bare_forward": lambda layout: _forward(subject, layout),
        "generate_first_token": lambda layout: _generate(subject, layout, None, room=1),
        "generate": lambda layout: _generate(subject, layout, None),
        **{f"lookup_{n}": (lambda layout, n=n: _generate(subject, layout, n)) for n in lookups},
    }
    answers: dict[str, list[Answer]] = {name: [] for name in readers}
    for name in readers:  # warm up
        readers[name](Layout(subject.layouts[0].ids[-64:]))
    for number, layout in enumerate(subject.layouts):
        for name, read in readers.items():
            answers[name].append(read(layout))
        print(
            f"{number + 1}/{len(subject.layouts)} "
            + " ".join(f"{name} {found[-1].seconds:.2f}" for name, found in answers.items()),
            file=sys.stderr,
        )
    _report_speed(subject, answers)
    for peer in flags.peer:
        _report_peer(subject, flags, peer, answers)


def _decode(decoder: Decoder, layout: Layout) -> Answer:
    begin = time.perf_counter()
    [decoded] = list(decoder.decode([layout]))
    return Answer(time.perf_counter() - begin, list(decoded.token_ids), decoded.forward_passes)


def _forward(subject: Subject, layout: Layout) -> Answer:
    ids = torch.tensor([layout.ids])
    begin = time.perf_counter()
    with torch.inference_mode():
        subject.model(input_ids=ids, use_cache=False, logits_to_keep=1)
    return Answer(time.perf_counter() - begin, [], 1)


def _generate(
    subject: Subject, layout: Layout, lookup: int | None, room: int | None = None
) -> Answer:
    stops = list(subject.reader.loaded.stop_token_ids)
    ids = torch.tensor([layout.ids])
    config = GenerationConfig(
        max_new_tokens=room or subject.max_new_tokens,
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=stops[0],
        prompt_lookup_num_tokens=lookup,
        max_matching_ngram_size=12 if lookup else None,
    )
    passes = [0]

    def count(*_: Any) -> None:
        passes[0] += 1

    handle = subject.model.register_forward_pre_hook(count)
    begin = time.perf_counter()
    with torch.inference_mode():
        output = subject.model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
    seconds = time.perf_counter() - begin
    handle.remove()
    tokens = [token for token in output[0, len(layout.ids) :].tolist() if token not in stops]
    return Answer(seconds, tokens, passes[0])


def _report_speed(subject: Subject, answers: dict[str, list[Answer]]) -> None:
    median = {name: statistics.median(a.seconds for a in found) for name, found in answers.items()}
    tokens = statistics.median(len(a.tokens) for a in answers["ours"])
    for name in ("ours", "ours_verbatim"):
        passes = statistics.mean(a.passes for a in answers[name])
        written = statistics.mean(len(a.tokens) for a in answers[name])
        _line(subject, f"{name}_passes", passes, "passes", target="<=8", holds=passes <= 8)
        per_pass = written / passes
        _line(subject, f"{name}_tokens_per_pass", per_pass, "tokens", ">=20", per_pass >= 20)
    for name, seconds in median.items():
        passes = round(statistics.mean(a.passes for a in answers[name]), 2)
        size = _prompt_tokens(subject)
        _line(subject, f"{name}_seconds", seconds, "s", passes=passes, prompt_tokens=size)
    _line(subject, "completion_tokens", tokens, "tokens")
    for name in ("ours", "ours_verbatim"):
        over = _ratio(answers[name], answers["prefill"])
        _line(subject, f"{name}_over_first_token", over, "x", "<=1.25", over <= 1.25)
        faster = _ratio(answers["generate"], answers[name])
        _line(subject, f"{name}_speedup_vs_generate", faster, "x", ">=5", faster >= 5)
        best = min((n for n in answers if n.startswith("lookup")), key=lambda n: median[n])
        faster = _ratio(answers[best], answers[name])
        _line(subject, f"{name}_speedup_vs_lookup", faster, "x", ">=1.7", faster >= 1.7, peer=best)
        # Each without its own prefill, of which ours is the faster where attention is in blocks.
        rest = [
            (peer.seconds - peer_first.seconds) / max(1e-9, our.seconds - first.seconds)
            for peer, peer_first, our, first in zip(
                answers[best],
                answers["generate_first_token"],
                answers[name],
                answers["prefill"],
                strict=True,
            )
        ]
        without = statistics.median(rest)
        _line(
            subject,
            f"{name}_speedup_vs_lookup_without_prefill",
            without,
            "x",
            ">=3",
            without >= 3,
            peer=best,
        )
    prefill = _ratio(answers["prefill"], answers["bare_forward"])
    _line(subject, "prefill_over_bare_forward", prefill, "x", "<=1", prefill <= 1.02)
    _report_differences(subject, answers)


def _report_differences(subject: Subject, answers: dict[str, list[Answer]]) -> None:
    """Where ours writes another token than `generate`, how far apart the two logits were."""
    gaps = []
    for layout, ours, theirs in zip(
        subject.layouts, answers["ours"], answers["generate"], strict=True
    ):
        if ours.tokens != theirs.tokens:
            gaps.append(_gap(subject, layout, ours.tokens, theirs.tokens))
    same = 1 - len(gaps) / len(subject.layouts)
    _line(subject, "same_tokens_as_generate", same, "share", gaps=[round(g, 4) for g in gaps])


def _gap(subject: Subject, layout: Layout, ours: list[int], theirs: list[int]) -> float:
    pairs = zip([*ours, -1], [*theirs, -1], strict=False)
    shared = next(k for k, (a, b) in enumerate(pairs) if a != b)
    stop = subject.reader.loaded.stop_token_ids[0]
    one = ours[shared] if shared < len(ours) else stop
    other = theirs[shared] if shared < len(theirs) else stop
    with torch.inference_mode():
        ids = torch.tensor([[*layout.ids, *ours[:shared]]])
        logits = subject.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1]
    return abs(float(logits[one]) - float(logits[other]))


def _ratio(slow: Sequence[Answer], fast: Sequence[Answer]) -> float:
    return statistics.median(a.seconds / b.seconds for a, b in zip(slow, fast, strict=True))


def _report_peer(
    subject: Subject, flags: argparse.Namespace, peer: str, answers: dict[str, list[Answer]]
) -> None:
    """Have a peer answer the same prompts with the same merged weights."""
    name, python, model = peer.split("=", 2)
    script = Path(__file__).parent / "peers" / f"{name}.py"
    stops = list(subject.reader.loaded.stop_token_ids)
    rows = [
        {"ids": layout.ids, "max_new_tokens": subject.max_new_tokens, "stops": stops}
        for layout in subject.layouts
    ]
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.json"
        prompts.write_text(json.dumps(rows))
        for number in (0, *flags.peer_lookups):
            setting = "lookup" if number else "plain"
            command = [python, str(script), "--model", model, "--prompts", str(prompts)]
            command += ["--setting", setting, "--num_tokens", str(number)]
            command += ["--threads", str(flags.threads)]
            output = subprocess.run(command, capture_output=True, text=True, check=False)
            if output.returncode:
                print(output.stderr[-600:], file=sys.stderr)
                continue
            found = [json.loads(line) for line in output.stdout.splitlines() if line[:1] == "{"]
            theirs = [Answer(entry["seconds"], entry["token_ids"]) for entry in found]
            label = f"{name}_{setting}" + (f"_{number}" if number else "")
            same = statistics.mean(
                a.tokens == b.tokens for a, b in zip(theirs, answers["generate"], strict=True)
            )
            seconds = statistics.median(a.seconds for a in theirs)
            first = statistics.median(entry["first_token_seconds"] or 0.0 for entry in found)
            _line(
                subject,
                f"{label}_seconds",
                seconds,
                "s",
                first_token_seconds=round(first, 4),
                same_tokens_as_generate=round(same, 3),
            )
            _line(subject, f"ours_speedup_vs_{label}", _ratio(theirs, answers["ours"]), "x")


# sharing -------------------------------------------------------------------------------------


def sharing(subject: Subject, flags: argparse.Namespace) -> None:
    """Tokens prefilled of a position grid and of a document sweep, and whether answers change."""
    docs = flags.total_docs
    positions = [p for p in (0, 4, 9, 14, 19) if p < docs]
    counts = [c for c in (1, 2, 3, 5, 10, 20) if c <= docs]
    full = [_whole(subject, example) for example in subject.examples]
    grid = [_layout(subject.reader, place(e, docs, p)) for e in full for p in positions]
    # The first passages of one ranking, as a retriever would hand over more and more of them.
    sweep = [
        _layout(subject.reader, replace(e, passages=e.passages[:c], gold=()))
        for e in subject.examples
        for c in counts
    ]
    for name, layouts, target in (("position_grid", grid, 0.75), ("document_sweep", sweep, 0.5)):
        shared = list(subject.decoder().decode(layouts))
        share = _prefilled(shared) / sum(d.prompt_tokens for d in shared)
        _line(subject, f"{name}_prefilled", share, "share", f"<={target}", share <= target)
        apart = list(subject.decoder(share=False).decode(layouts))
        differing = [
            (number, one, other)
            for number, (one, other) in enumerate(zip(shared, apart, strict=True))
            if one.token_ids != other.token_ids
        ]
        gaps = [
            round(_gap(subject, layouts[n], list(one.token_ids), list(other.token_ids)), 4)
            for n, one, other in differing
        ]
        same = 1 - len(differing) / len(shared)
        _line(subject, f"{name}_same_answers", same, "share", prompts=len(shared), gaps=gaps)
        seconds = [sum(d.wall_seconds for d in found) for found in (shared, apart)]
        _line(subject, f"{name}_speedup", seconds[1] / seconds[0], "x")


def _whole(subject: Subject, example: Example) -> Example:
    """The example with its gold passage first, from where `place` puts it anywhere."""
    order = [*example.gold, *(i for i in range(len(example.passages)) if i not in example.gold)]
    return replace(
        example,
        passages=tuple(example.passages[i] for i in order),
        gold=tuple(range(len(example.gold))),
    )


def _prefilled(found: Sequence[Decoded]) -> int:
    return sum(decoded.prefilled_tokens for decoded in found)


# index, memory, rows -------------------------------------------------------------------------


def index(subject: Subject, flags: argparse.Namespace) -> None:
    """Milliseconds to build what drafting looks things up in, tokens given."""
    habits = Habits(24.0)
    times = []
    for layout in subject.layouts * 5:
        begin = time.perf_counter()
        Drafter(layout, habits)
        times.append((time.perf_counter() - begin) * 1e3)
    value = statistics.median(times)
    tokens = _prompt_tokens(subject)
    _line(subject, "index_milliseconds", value, "ms", "<5", value < 5, prompt_tokens=tokens)


def memory(subject: Subject, flags: argparse.Namespace) -> None:
    """Resident memory after the first tenth of the prompts and after all of them.

    Whole answers over one to three documents each, so that a thousand take minutes.
    """
    decoder = subject.decoder()
    count = 50 if flags.quick else 1000
    held = []
    for number in range(count):
        example = subject.examples[number % len(subject.examples)]
        shown = 1 + number % 3
        begin = number // len(subject.examples) % (len(example.passages) - 3)
        passages = example.passages[begin : begin + shown]
        list(
            decoder.decode([_layout(subject.reader, replace(example, passages=passages, gold=()))])
        )
        if number + 1 in (count // 10, count):
            held.append(_resident_mebibytes())
    growth = held[1] - held[0]
    _line(subject, "memory_growth", growth, "MiB", "<=50", growth <= 50, prompts=count, after=held)


def _resident_mebibytes() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


def rows(subject: Subject, flags: argparse.Namespace) -> None:
    """Seconds an answer with so many prompts at a time."""
    for count in (1, 2, 4, 8):
        decoder = subject.decoder(share=False, rows=count)
        list(decoder.decode(subject.layouts[:1]))
        begin = time.perf_counter()
        found = list(decoder.decode(subject.layouts))
        seconds = (time.perf_counter() - begin) / len(found)
        _line(subject, f"seconds_with_{count}_rows", seconds, "s", tokens=_mean_prompt(subject))


def _prompt_tokens(subject: Subject) -> int:
    return round(statistics.median(len(layout.ids) for layout in subject.layouts))


def _mean_prompt(subject: Subject) -> int:
    return round(statistics.mean(len(layout.ids) for layout in subject.layouts))


def _line(
    subject: Subject,
    metric: str,
    value: float,
    unit: str,
    target: str | None = None,
    holds: bool | None = None,
    **more: Any,
) -> None:
    line: dict[str, Any] = {"benchmark": "decode", "case": subject.case, "metric": metric}
    line |= {"value": round(value, 4), "unit": unit, "runs": len(subject.layouts)}
    if target is not None:
        line |= {"target": target, "holds": holds}
    print(json.dumps({**line, **more}), flush=True)


if __name__ == "__main__":
    main()
