"""What training a reader costs, side by side with TRL's SFTTrainer.

    python benchmarks/train.py speed --trl TRL/bin/python --data_path nq.jsonl.gz --region sample

Both trainers run in processes of their own and take steps in turn, each on the same sample, so that
a busy machine slows them alike; the other waits. Same samples in the same order, model, LoRA,
learning rate, precision and loss region. One JSON line a measurement:

    speed     tokens a second, peak resident memory and loss against TRL
    search    TRL's settings in turn: bf16 weights or autocast, checkpointing, batch 1 to 4
    documents seconds and memory of a sample of ours as more documents are shown
    memory    our estimate before anything is loaded against the measured peak
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scratchpad_rag.config import (
    DataConfig,
    ModelConfig,
    PeftConfig,
    TrainConfig,
    load_model_config,
    load_peft_config,
)
from scratchpad_rag.records import Encoded, EvalSplit, LossRegion, Method, Region

HERE = Path(__file__).parent
WARM_UP = 1


@dataclass(frozen=True)
class Step:
    """One optimizer step of one trainer."""

    seconds: float
    loss: float
    peak_bytes: int


def main() -> None:
    """Run the suite that is named; print one JSON line a measurement."""
    flags = _parse()
    suites = {
        "speed": speed,
        "search": search,
        "documents": documents,
        "memory": memory,
        "worker": worker,
    }
    suites[flags.suite](flags)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=("speed", "search", "documents", "memory", "worker"))
    parser.add_argument("--data_path", default="data/qa_data/sample")
    parser.add_argument("--model_config", default="smollm2_135m")
    parser.add_argument("--peft_config", default="lora_r8_a16_qv")
    parser.add_argument("--region", default="sample", choices=tuple(LossRegion))
    parser.add_argument("--total_docs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=8, help="counted, after one that is not")
    parser.add_argument("--samples_a_step", type=int, default=1)
    parser.add_argument("--trl", help="the python of an environment with TRL")
    parser.add_argument("--trl_flags", default="", help="for example: --checkpointing")
    parser.add_argument("--torch_dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpointing", action="store_true", help="ours, for memory")
    parser.add_argument("--plot", type=Path, help="documents: where to draw it")
    parser.add_argument("--job", type=Path, help="worker: what to train on")
    parser.add_argument("--quick", action="store_true", help="two steps")
    flags = parser.parse_args()
    if flags.quick:
        flags.steps = 2
    return flags


# side by side --------------------------------------------------------------------------------


def speed(flags: argparse.Namespace) -> None:
    """Ours and TRL in lockstep."""
    with _job(flags) as job:
        tokens = _tokens_a_step(job)
        ours, theirs = _lockstep(flags, job)
    pairs = list(zip(tokens, ours, theirs, strict=True))[WARM_UP:]
    rates = [
        statistics.median(n / step.seconds for n, step in zip(tokens[1:], run[1:], strict=True))
        for run in (ours, theirs)
    ]
    ratio = statistics.median(t.seconds / o.seconds for _, o, t in pairs)
    aim = 2.5 if flags.region == "completion" else 2.0
    _line(
        flags,
        "tokens_per_second",
        rates[0],
        "tokens/s",
        peer=rates[1],
        speedup=round(ratio, 2),
        target=f">={aim}",
        holds=ratio >= aim,
        runs=len(pairs),
    )
    peaks = [max(step.peak_bytes for step in run) / 1e9 for run in (ours, theirs)]
    share = peaks[0] / peaks[1]
    _line(
        flags,
        "peak_memory",
        peaks[0],
        "GB",
        peer=peaks[1],
        share=round(share, 2),
        target="<=0.5",
        holds=share <= 0.5,
    )
    gaps = [abs(o.loss - t.loss) for _, o, t in pairs]
    _line(
        flags,
        "loss",
        statistics.mean(o.loss for _, o, _ in pairs),
        "nats",
        peer=statistics.mean(t.loss for _, _, t in pairs),
        mean_gap=statistics.mean(gaps),
        largest_gap=max(gaps),
    )


def search(flags: argparse.Namespace) -> None:
    """TRL's best setting, by tokens a second over a few steps of four samples."""
    flags.samples_a_step, flags.steps = 4, min(flags.steps, 2)
    with _job(flags) as job:
        tokens = _tokens_a_step(job)
        for weights in ("", "--autocast"):
            for checkpointing in ("", "--checkpointing"):
                for batch in (1, 2, 4):
                    setting = f"{weights} {checkpointing} --batch_size {batch}".split()
                    try:
                        steps = list(_steps(_trl(flags, job, setting), len(tokens)))[WARM_UP:]
                    except RuntimeError as error:
                        _line(
                            flags, "trl", 0.0, "tokens/s", setting=setting, failed=str(error)[-200:]
                        )
                        continue
                    rate = sum(tokens[WARM_UP:]) / sum(step.seconds for step in steps)
                    _line(
                        flags,
                        "trl",
                        rate,
                        "tokens/s",
                        setting=" ".join(setting),
                        peak_gigabytes=max(step.peak_bytes for step in steps) / 1e9,
                    )


def _lockstep(flags: argparse.Namespace, job: Path) -> tuple[list[Step], list[Step]]:
    count = len(_tokens_a_step(job))
    ours = _steps(_ours(flags, job), count)
    theirs = _steps(_trl(flags, job, flags.trl_flags.split()), count)
    pairs = list(zip(ours, theirs, strict=True))  # one step here, one there
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _ours(flags: argparse.Namespace, job: Path) -> list[str]:
    return [
        sys.executable,
        str(HERE / "train.py"),
        "worker",
        "--job",
        str(job),
        "--threads",
        str(flags.threads),
        "--torch_dtype",
        flags.torch_dtype,
        "--model_config",
        flags.model_config,
        "--peft_config",
        flags.peft_config,
        *(["--checkpointing"] if flags.checkpointing else []),
    ]


def _trl(flags: argparse.Namespace, job: Path, setting: list[str]) -> list[str]:
    if flags.trl is None:
        raise SystemExit("error: --trl names the python of an environment with TRL")
    return [
        flags.trl,
        str(HERE / "peers/trl_sft.py"),
        "--job",
        str(job),
        "--threads",
        str(flags.threads),
        *setting,
    ]


def _steps(command: list[str], count: int) -> Iterator[Step]:
    """One step for each that is asked for; the trainer waits in between."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None

        def answer(wanted: str) -> dict[str, Any]:
            for line in process.stdout or ():
                if line.startswith("{") and wanted in line[:20]:
                    found: dict[str, Any] = json.loads(line)
                    return found
            errors.seek(0)
            raise RuntimeError(errors.read()[-2000:])

        answer('"ready"')
        for _ in range(count):
            process.stdin.write("step\n")
            process.stdin.flush()
            found = answer('"seconds"')
            yield Step(found["seconds"], found["loss"], found["peak_bytes"])
        process.stdin.close()


@contextmanager
def _job(flags: argparse.Namespace) -> Iterator[Path]:
    """A folder with the base model and the samples in the order in which ours visits them."""
    from scratchpad_rag.models.load import load_model
    from scratchpad_rag.train.plan import PlanShape, plan_epoch

    steps = flags.steps + WARM_UP
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_model(
            replace(load_model_config(flags.model_config), torch_dtype=flags.torch_dtype)
        )
        loaded.model.save_pretrained(f"{folder}/model")
        loaded.tokenizer.save_pretrained(f"{folder}/model")
        samples = _samples(flags, loaded, steps * flags.samples_a_step)
        shape = PlanShape(1, packed=False, seed=0, epochs=1.0)
        order = [batch[0] for batch in plan_epoch([len(s) for s in samples], shape, 0)]
        rows = [
            {
                "input_ids": samples[index].input_ids,
                "scored": [int(label != -100) for label in samples[index].labels],
            }
            for index in order
        ]
        lora = load_peft_config(flags.peft_config).kwargs
        content = {
            "model": f"{folder}/model",
            "samples": rows,
            "loss_region": flags.region,
            "samples_a_step": flags.samples_a_step,
            "steps": steps,
            "lr": 1e-4,
            "lora": {key: value for key, value in lora.items() if key != "task_type"},
        }
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(content), "utf-8")
        yield path


def _samples(flags: argparse.Namespace, loaded: Any, count: int) -> list[Encoded]:
    from scratchpad_rag.data.select import select_samples
    from scratchpad_rag.prompts.render import render_sample
    from scratchpad_rag.tokens.encode import encode_sample

    docs = flags.total_docs
    data = DataConfig(
        name="examples",
        path=flags.data_path,
        total_docs=docs,
        gold_at=tuple(sorted({0, docs // 4, docs // 2, 3 * docs // 4, docs - 1})),
        num_train_samples=count,
        num_val_samples=1,
    )
    chosen = select_samples(data, EvalSplit.ALL, lambda _: None).train
    region, end = LossRegion(flags.region), loaded.stop_token_ids[0]
    return [
        encode_sample(
            render_sample(example, loaded.wording, Method.SCRATCHPAD), loaded.tokenizer, region, end
        )
        for example in chosen
    ]


def _tokens_a_step(job: Path) -> list[int]:
    content = json.loads(job.read_text("utf-8"))
    lengths = [len(row["input_ids"]) for row in content["samples"]]
    size = content["samples_a_step"]
    return [sum(lengths[begin : begin + size]) for begin in range(0, len(lengths), size)]


# one trainer in its process ------------------------------------------------------------------


def worker(flags: argparse.Namespace) -> None:
    """Ours, taking a step for each line of standard input."""
    import torch

    sys.path.insert(0, str(HERE / "peers"))
    from lockstep import serve_steps

    from scratchpad_rag.models.adapters import add_lora, to_training_precision
    from scratchpad_rag.models.load import load_model
    from scratchpad_rag.train.trainer import TrainJob, train

    torch.set_num_threads(flags.threads)
    content = json.loads(flags.job.read_text("utf-8"))
    model = ModelConfig(content["model"], torch_dtype=flags.torch_dtype)
    torch.manual_seed(0)
    loaded = add_lora(load_model(model), PeftConfig(kwargs=content["lora"]))
    to_training_precision(loaded)
    samples = [_encoded(row) for row in content["samples"]]
    config = TrainConfig(
        num_train_epochs=1,
        lr=content["lr"],
        weight_decay=0.0,
        gradient_accumulation_steps=content["samples_a_step"],
        gradient_checkpointing=flags.checkpointing,
        loss_region=LossRegion(content["loss_region"]),
        logging_steps=1,
        save_steps=10**6,
    )
    job = TrainJob(
        flags.job.parent / "ours",
        pad_token_id=loaded.stop_token_ids[0],
        low_precision=flags.torch_dtype == "bfloat16",
        callbacks=(serve_steps(),),
    )
    # The plan draws its own order; the samples come in the order that it will draw.
    train(loaded.model, _in_planned_order(samples), config, job)


def _in_planned_order(samples: list[Encoded]) -> Any:
    from scratchpad_rag.tokens.samples import FixedSamples
    from scratchpad_rag.train.plan import PlanShape, plan_epoch

    shape = PlanShape(1, packed=False, seed=0, epochs=1.0)
    order = [batch[0] for batch in plan_epoch([0] * len(samples), shape, 0)]
    placed = dict(zip(order, samples, strict=True))
    return FixedSamples([placed[index] for index in range(len(samples))])


def _encoded(row: dict[str, Any]) -> Encoded:
    ids = tuple(row["input_ids"])
    labels = tuple(i if s else -100 for i, s in zip(ids, row["scored"], strict=True))
    return Encoded(ids, labels, (Region.CONTEXT,) * len(ids), prompt_length=1)


# ours alone ----------------------------------------------------------------------------------


def documents(flags: argparse.Namespace) -> None:
    """Seconds and peak memory a sample over 2, 5, 10, 20 and 40 documents, and a plot of them."""
    points = []
    for shown in (2, 5, 10, 20, 40):
        flags.total_docs = shown
        with _job(flags) as job:
            tokens = _tokens_a_step(job)
            steps = list(_steps(_ours(flags, job), len(tokens)))
        seconds = statistics.median(step.seconds for step in steps[WARM_UP:])
        length = statistics.mean(tokens[WARM_UP:])
        peak = max(step.peak_bytes for step in steps) / 1e9
        rate = statistics.median(
            n / s.seconds for n, s in list(zip(tokens, steps, strict=True))[1:]
        )
        points.append((shown, length, seconds, peak, rate))
        _line(
            flags,
            "seconds_a_sample",
            seconds,
            "s",
            tokens=round(length),
            peak_gigabytes=peak,
            tokens_per_second=round(rate),
            runs=len(steps) - WARM_UP,
        )
    if flags.plot:
        _draw(points, flags.plot)


def _draw(points: list[tuple[int, float, float, float, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    from scratchpad_rag.report.plots import BLUE, RULE, SURFACE, VERMILLION, drawing_style

    shown = [point[0] for point in points]
    with drawing_style():
        figure = Figure(figsize=(7.2, 2.9), facecolor=SURFACE, layout="constrained")
        sides = figure.subplots(1, 2)
        for axes, column, colour, name in zip(
            sides, (2, 3), (VERMILLION, BLUE), ("Seconds a sample", "Peak memory (GB)"), strict=True
        ):
            values = [point[column] for point in points]
            axes.plot(shown, values, color=colour, marker="o", linewidth=1.4)
            for x, y in zip(shown, values, strict=True):
                axes.annotate(
                    f"{y:.1f}",
                    (x, y),
                    xytext=(0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7.5,
                )
            axes.set_facecolor(SURFACE)
            axes.grid(axis="y", color=RULE, linewidth=0.6)
            axes.set_ylim(0, max(values) * 1.18)
            axes.set_xlim(0, max(shown) * 1.06)
            axes.set_xticks(shown)
            axes.set_xlabel("Documents shown")
            axes.set_title(name, loc="left", fontsize=9)
        figure.savefig(path, format="svg" if path.suffix == ".svg" else "png", dpi=160)


def memory(flags: argparse.Namespace) -> None:
    """The estimate from shapes against the peak of a process that trains."""
    from scratchpad_rag.models.shape import model_shape
    from scratchpad_rag.train.preflight import estimate_memory

    model = replace(load_model_config(flags.model_config), torch_dtype=flags.torch_dtype)
    shape = model_shape(model, load_peft_config(flags.peft_config))
    config = TrainConfig(gradient_checkpointing=flags.checkpointing)
    with _job(flags) as job:
        tokens = _tokens_a_step(job)
        steps = list(_steps(_ours(flags, job), len(tokens)))
    estimate = estimate_memory(shape, max(tokens), config)
    peak = max(step.peak_bytes for step in steps) / 1e9
    gap = estimate.total / 1e9 / peak - 1
    _line(
        flags,
        "estimated_memory",
        estimate.total / 1e9,
        "GB",
        measured=peak,
        gap=round(gap, 3),
        target="within 0.15",
        holds=abs(gap) <= 0.15,
        longest=max(tokens),
        peft=flags.peft_config,
        checkpointing=flags.checkpointing,
        dtype=flags.torch_dtype,
    )


def _line(flags: argparse.Namespace, metric: str, value: float, unit: str, **more: Any) -> None:
    line = {
        "benchmark": "train",
        "case": f"{flags.model_config}-{flags.total_docs}-docs-{flags.region}",
        "metric": metric,
        "ours": round(value, 3),
        "unit": unit,
    }
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in more.items()}
    print(json.dumps({**line, **rounded}), flush=True)


if __name__ == "__main__":
    main()
