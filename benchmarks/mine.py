"""What retrieval costs by the size of the pool: indexing, ranking, mining, memory.

    python benchmarks/mine.py --questions nq-open-oracle.jsonl.gz \
        --passages wikipedia_passages.jsonl.gz --plot docs/images/mining

Sizes above that of the pool are made up: the real passages, then passages of sentences drawn from
all of them (seeded), as long as real ones and on to the end of a sentence. They hold no new words.
Every size is a process of its own, since the peak memory of a process never falls. Seconds are
processor seconds on one core, so that other work on the machine does not count; `--command` times
the whole of `data build` by the clock. For dense retrieval `--dense_passages` are embedded, and the
search goes over vectors drawn at random, whose values make no difference to its cost. Prints a JSON
line a measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scratchpad_rag.data.readers import read_examples, read_passages
from scratchpad_rag.data.retrieve.bm25 import BM25Retriever
from scratchpad_rag.data.retrieve.mine import MiningRules, mine
from scratchpad_rag.data.retrieve.near import Pool
from scratchpad_rag.records import Passage

SIZES = (10_000, 58_566, 100_000, 300_000, 1_000_000)
QUICK_SIZES = (2_000, 10_000)
DENSE_SIZE = 384  # numbers a vector, of all-MiniLM-L6-v2
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")


def main() -> None:
    """Measure every size in a process of its own, then the whole command; draw if asked to."""
    flags = parse_flags()
    if flags.lines:
        text = flags.lines.read_text(encoding="utf-8")
        draw([json.loads(line) for line in text.splitlines()], flags.plot)
        return
    if flags.size is not None:
        measure_bm25(flags) if flags.only == "bm25" else measure_dense_search(flags)
        return
    if flags.only == "embed":
        measure_embedding(flags)
        return
    lines: list[dict[str, Any]] = []
    for size in QUICK_SIZES if flags.quick else SIZES:
        lines += measured_apart(["--size", str(size), "--only", "bm25"])
        if flags.dense_passages:
            lines += measured_apart(["--size", str(size), "--only", "dense"])
    if flags.dense_passages:
        lines += measured_apart(["--only", "embed"])
    if flags.command:
        time_command(flags)
    if flags.plot:
        draw(lines, flags.plot)


def parse_flags() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--passages", type=Path, required=True)
    parser.add_argument("--num_questions", type=int, default=1000)
    parser.add_argument("--num_distractors", type=int, default=19)
    parser.add_argument("--dense_passages", type=int, default=0, help="to embed; 0: no dense")
    parser.add_argument("--command", action="store_true", help="time `data build` too")
    parser.add_argument("--plot", type=Path, help="files to write, without their ending")
    parser.add_argument("--lines", type=Path, help="measured before: draw them, measure nothing")
    parser.add_argument("--quick", action="store_true", help="small pools only")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=("bm25", "dense", "embed"), help=argparse.SUPPRESS)
    return parser.parse_args()


def measured_apart(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The lines that this script prints in a process of its own, printed here as well."""
    command = [sys.executable, *sys.argv, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def measure_bm25(flags: argparse.Namespace) -> None:
    """Indexing, ranking and mining with BM25 over a pool of `flags.size` passages."""
    questions = read_examples(flags.questions)[: flags.num_questions]
    pool = enlarge(read_passages(flags.passages), flags.size)
    case = f"bm25-{flags.size}"
    before = peak_gigabytes()
    seconds, retriever = clocked(lambda: BM25Retriever(pool))
    report(case, "index_seconds", seconds, "s")
    thousands = len(questions) / 1000
    seconds, _ = clocked(lambda: retriever.rank(questions, 100))
    report(case, "rank_seconds_per_1000_questions", seconds / thousands, "s")
    rules = MiningRules(flags.num_distractors)
    seconds, _ = clocked(lambda: mine(questions, Pool(pool), retriever, rules))
    report(case, "mine_seconds_per_1000_questions", seconds / thousands, "s")
    report(case, "peak_memory", peak_gigabytes(), "GB")
    report(case, "memory_of_the_passages", before, "GB")


def measure_dense_search(flags: argparse.Namespace) -> None:
    """Exact search over drawn vectors in files, as an embedded pool's are."""
    from scratchpad_rag.data.retrieve.dense import BLOCK, search

    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for start in range(0, flags.size, BLOCK):
            files.append(Path(folder) / f"{start}.npy")
            np.save(files[-1], drawn_vectors(min(BLOCK, flags.size - start), generator))
        queries = drawn_vectors(flags.num_questions, generator)
        seconds, _ = clocked(lambda: search(files, queries, 100))
    case = f"dense-{flags.size}"
    per_thousand = seconds / (flags.num_questions / 1000)
    report(case, "rank_seconds_per_1000_questions", per_thousand, "s")
    report(case, "peak_memory", peak_gigabytes(), "GB")


def measure_embedding(flags: argparse.Namespace) -> None:
    """The packaged model over some passages of the pool and some questions."""
    import torch

    from scratchpad_rag.data.retrieve.dense import DenseRetriever

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    questions = read_examples(flags.questions)[:200]
    passages = read_passages(flags.passages)[: flags.dense_passages]
    case = f"embed-{len(passages)}"
    with tempfile.TemporaryDirectory() as folder:
        DenseRetriever(passages[:1], cache=Path(folder))  # imports and loads
        seconds, retriever = clocked(lambda: DenseRetriever(passages, cache=Path(folder)))
        report(case, "embed_seconds_per_1000_passages", seconds / len(passages) * 1000, "s")
        seconds, _ = clocked(lambda: retriever.rank(questions, 100))
        report(case, "rank_seconds_per_1000_questions", seconds / len(questions) * 1000, "s")
    report(case, "peak_memory", peak_gigabytes(), "GB")


def time_command(flags: argparse.Namespace) -> None:
    """`scratchpad-rag data build` over all questions and the pool as it is, by the clock."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["data", "build", "--questions", str(flags.questions)]
        arguments += ["--passages", str(flags.passages), "--out", f"{folder}/built.jsonl.gz"]
        arguments += ["--num_distractors", str(flags.num_distractors)]
        program = "from scratchpad_rag.app.cli import main; main()"
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", program, *arguments], check=True, stderr=subprocess.DEVNULL
        )
        seconds = time.perf_counter() - begin
    line = {"target": "<=10", "holds": seconds <= 10}
    report("data-build-bm25", "command_seconds", seconds, "s", **line)


def enlarge(passages: list[Passage], size: int) -> list[Passage]:
    """The first `size` passages, and where there are fewer as many more of their sentences."""
    if size <= len(passages):
        return passages[:size]
    generator = random.Random(0)
    sentences = [s for passage in passages for s in _SENTENCE_END.split(passage.text)]
    lengths = [len(passage.text) for passage in passages]
    made = []
    for _ in range(size - len(passages)):
        wanted, text = generator.choice(lengths), generator.choice(sentences)
        while len(text) < wanted:
            text += " " + generator.choice(sentences)
        made.append(Passage(generator.choice(passages).title, text))
    return passages + made


def drawn_vectors(count: int, generator: np.random.Generator) -> Any:
    """Unit vectors, float32 of shape (count, 384)."""
    vectors = generator.standard_normal((count, DENSE_SIZE), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and what it returned."""
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def peak_gigabytes() -> float:
    """The most memory that this process has had, in 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def report(case: str, metric: str, value: float, unit: str, **more: Any) -> None:
    """One measurement as a JSON line."""
    line = {"benchmark": "mine", "case": case, "metric": metric, "value": round(value, 3)}
    line |= {"unit": unit, "runs": 1, "cores": len(os.sched_getaffinity(0)), **more}
    print(json.dumps(line), flush=True)


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Seconds and memory against the number of passages, both scales logarithmic: SVG and PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    from scratchpad_rag.report.plots import BLUE, GREEN, INK, RULE, VERMILLION, drawing_style

    def series(kind: str, metric: str) -> tuple[list[int], list[float]]:
        found = [line for line in lines if line["metric"] == metric]
        found = [line for line in found if line["case"].startswith(f"{kind}-")]
        return [int(line["case"].rpartition("-")[2]) for line in found], [
            line["value"] for line in found
        ]

    drawn = (
        ("bm25", "index_seconds", "BM25: index", VERMILLION, "o", "-", 0),
        ("bm25", "mine_seconds_per_1000_questions", "BM25: mine", BLUE, "s", "--", 0),
        ("dense", "rank_seconds_per_1000_questions", "dense: rank", GREEN, "^", ":", 0),
        ("bm25", "peak_memory", "BM25, in memory", VERMILLION, "o", "-", 1),
        ("dense", "peak_memory", "dense, in files", GREEN, "^", ":", 1),
    )
    units = ("Processor seconds, 1,000 questions", "Peak memory (GB)")
    with drawing_style():
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        panels = figure.subplots(1, 2)
        for kind, metric, label, colour, marker, dashes, panel in drawn:
            sizes, values = series(kind, metric)
            if sizes:
                look = {"color": colour, "marker": marker, "linestyle": dashes, "markersize": 5}
                panels[panel].plot(sizes, values, label=label, **look)
        for axes, unit in zip(panels, units, strict=True):
            for axis, name in ((axes.xaxis, "Passages in the pool"), (axes.yaxis, unit)):
                axis.axes.set(**{f"{axis.axis_name}scale": "log"})
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
                axis.set_minor_formatter(NullFormatter())
                axis.set_label_text(name, color=INK)
            axes.grid(color=RULE, linewidth=0.6)
            axes.legend(frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        for ending in ("svg", "png"):
            metadata = {"Date": None} if ending == "svg" else None
            figure.savefig(path.with_suffix(f".{ending}"), dpi=160, metadata=metadata)


if __name__ == "__main__":
    main()
