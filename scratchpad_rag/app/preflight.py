"""`--preflight`: what a training would learn, hold and take, told before it is begun."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scratchpad_rag.app.cluster import open_driver_model
from scratchpad_rag.app.processes import require_one_process
from scratchpad_rag.app.training import Lesson, prepare_lesson, sample_format
from scratchpad_rag.config import RunConfig
from scratchpad_rag.data.curriculum import draw, plan_epoch
from scratchpad_rag.data.select import Selection, select_samples
from scratchpad_rag.errors import ConfigError, TrainingError
from scratchpad_rag.models.adapters import to_training_precision
from scratchpad_rag.models.load import LoadedModel, choose_dtype, engine_model
from scratchpad_rag.models.sharded import give_places
from scratchpad_rag.models.start import begin_training, require_trainable
from scratchpad_rag.reader import load_reader
from scratchpad_rag.records import Example, Method, Region
from scratchpad_rag.report.labels import count, duration
from scratchpad_rag.report.regions import ShownRegions, show_regions
from scratchpad_rag.tokens.encode import IGNORED, learned_spans
from scratchpad_rag.tokens.samples import EpochSamples
from scratchpad_rag.train.probe import Forecast, forecast
from scratchpad_rag.train.trainer import TrainJob

Notify = Callable[[str], None]
_COUNTED = 1_000  # samples whose tokens are counted by region
_FOLD = 240  # characters of a piece that are shown


@dataclass(frozen=True)
class RegionTokens:
    """Tokens of a region over the samples that were counted, and those of them that are learnt."""

    tokens: int
    learnt: int


@dataclass(frozen=True)
class Preflight:
    """What a training would be. `counted` of `samples` an epoch are counted by region.

    Bytes and seconds of the forecast are estimates from shapes and from a few steps.
    """

    sample: ShownRegions
    regions: dict[Region, RegionTokens]
    samples: int
    counted: int
    epochs: float
    estimated_bytes: float
    available_bytes: float
    forecast: Forecast


def preflight(config: RunConfig, checkpoint: Path | None, notify: Notify) -> Preflight:
    """Prepare a training as a run would, take a few steps of it, and forget them.

    Nothing is written but in a temporary folder that goes again. Raises what a training raises
    before it begins: samples that do not fit are refused, not cut.
    """
    require_one_process("a preflight")
    selection = select_samples(config.data, config.evaluate.eval_split, notify)
    method = config.train_method
    lesson = None
    if method is not None:
        lesson = prepare_lesson(engine_model(config.model), selection, method, config, notify)
    loaded = open_driver_model(config, notify)
    if checkpoint is not None:
        loaded, method = load_reader(loaded, checkpoint, config, notify=notify)
    if config.peft is None or method is None:
        raise ConfigError("a preflight is of a training: give --train_method and --peft_config")
    require_trainable(loaded, config.peft)
    if lesson is None:  # the checkpoint said the method
        lesson = prepare_lesson(loaded, selection, method, config, notify)
    counted = min(_COUNTED, len(lesson.samples))
    assert lesson.fit is not None
    return Preflight(
        sample=_first_sample(loaded, selection, method, config),
        regions=count_by_region(lesson.samples, counted),
        samples=len(lesson.samples),
        counted=counted,
        epochs=config.train.num_train_epochs,
        estimated_bytes=lesson.fit.estimate.total,
        available_bytes=lesson.fit.available,
        forecast=_probe(loaded, lesson, config, notify),
    )


def _first_sample(
    loaded: LoadedModel, selection: Selection, method: Method, config: RunConfig
) -> ShownRegions:
    """The first sample of the first epoch, with the characters that are learnt."""
    example: Example = selection.train[0]
    if selection.curriculum is not None:
        plan = plan_epoch(selection.train, selection.curriculum, 0)
        example = draw(example, selection.curriculum, plan[0])
    form = sample_format(loaded, method, config)
    abstain = selection.curriculum is not None and not example.gold
    rendered = form.render(example, abstain=abstain)
    encoded = form.encode(example, abstain=abstain)
    return show_regions(rendered, learned_spans(rendered, encoded, loaded.tokenizer), _FOLD)


def count_by_region(samples: EpochSamples, most: int) -> dict[Region, RegionTokens]:
    """Tokens by region over up to `most` samples of the first epoch, evenly chosen."""
    tokens: Counter[Region] = Counter()
    learnt: Counter[Region] = Counter()
    step = len(samples) / most if most else 1.0
    for number in range(most):
        sample = samples.sample(0, int(number * step))
        tokens.update(sample.regions)
        pairs = zip(sample.regions, sample.labels, strict=True)
        learnt.update(region for region, label in pairs if label != IGNORED)
    return {
        region: RegionTokens(tokens[region], learnt[region]) for region in Region if tokens[region]
    }


def _probe(loaded: LoadedModel, lesson: Lesson, config: RunConfig, notify: Notify) -> Forecast:
    assert config.peft is not None
    notify("a few steps are taken to tell how long the training will take")
    with tempfile.TemporaryDirectory(prefix="preflight-") as folder:
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.train.seed)
                loaded = begin_training(loaded, config.peft, Path(folder))
            to_training_precision(loaded)
            give_places(loaded.model)
            job = TrainJob(
                Path(folder) / "trainer",
                pad_token_id=loaded.stop_token_ids[0],
                low_precision=choose_dtype(config.model.torch_dtype) is torch.bfloat16,
            )
            return forecast(loaded.model, lesson.samples, lesson.settings, job)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                "out of memory in the first steps; show fewer documents (--total_docs), or set "
                "--gradient_checkpointing"
            ) from error


def show_preflight(told: Preflight, console: Console) -> None:
    """Print the sample with its label mask, the tokens by region, memory and time."""
    console.print(Text("The first sample. What is learnt is bold, behind a bar:", "bold"))
    console.print(told.sample.terminal(console.width), soft_wrap=True)
    console.print(_regions_table(told))
    for line in forecast_lines(told):
        console.print(line, soft_wrap=True, markup=False)


def _regions_table(told: Preflight) -> Table:
    of = count(told.samples, "sample")
    drawn = of if told.counted == told.samples else f"{told.counted:,} of {of}"
    table = Table(
        title=f"Tokens by region, {drawn} an epoch",
        title_justify="left",
        title_style="",
        box=SIMPLE_HEAD,
        header_style="bold",
    )
    table.add_column("Region")
    for heading in ("Tokens", "A sample", "Learnt"):
        table.add_column(heading, justify="right")
    rows = {region.value: numbers for region, numbers in told.regions.items()}
    rows["all"] = RegionTokens(
        sum(numbers.tokens for numbers in rows.values()),
        sum(numbers.learnt for numbers in rows.values()),
    )
    for name, numbers in rows.items():
        share = f"{numbers.learnt:,} ({numbers.learnt / numbers.tokens:.0%})"
        each = f"{numbers.tokens / told.counted:,.0f}"
        style = "bold" if name == "all" else ""
        table.add_row(name, f"{numbers.tokens:,}", each, share, style=style)
    return table


def forecast_lines(told: Preflight) -> list[str]:
    """Memory and time, with what they were told by."""
    ahead = told.forecast
    epochs = f"{told.epochs:g} epoch{'' if told.epochs == 1 else 's'}"
    return [
        f"Memory: about {told.estimated_bytes / 1e9:.1f} GB of {told.available_bytes / 1e9:.1f} "
        f"free, by the shapes; the steps taken, the longest sample among them, held "
        f"{ahead.peak_bytes / 1e9:.1f} GB at most.",
        f"Time: about {duration(ahead.seconds)} for {epochs}: {ahead.tokens:,} tokens in "
        f"{count(ahead.updates, 'update')} of {_batches(ahead.micro_batches)}, "
        f"{ahead.tokens_per_second:,.0f} tokens/s. An estimate from "
        f"{count(ahead.timed_steps, 'step')} of {ahead.timed_tokens / ahead.timed_steps:,.0f} "
        "tokens on this machine, without validations and the answering afterwards.",
    ]


def _batches(number: int) -> str:
    return f"{number:,} micro-batch{'' if number == 1 else 'es'}"
