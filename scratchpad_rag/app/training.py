"""Training a reader: its samples, whether they fit, the run itself, and what is kept of it."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from safetensors import SafetensorError

from scratchpad_rag.app.processes import (
    from_all,
    is_lost_process,
    is_main_process,
    process_count,
    process_number,
    processes_here,
)
from scratchpad_rag.app.runs import cannot_write, write_json
from scratchpad_rag.backends.base import load_backend
from scratchpad_rag.config import RunConfig, TrainConfig, generate_for
from scratchpad_rag.data.select import Selection
from scratchpad_rag.errors import ConfigError, DataError, TrainingError
from scratchpad_rag.evaluate.run import Arm, Trial, score_completion
from scratchpad_rag.models.adapters import has_adapter, to_base_precision, to_training_precision
from scratchpad_rag.models.checkpoints import AdapterMetadata, read_adapter, save_adapter
from scratchpad_rag.models.load import LoadedModel, choose_dtype
from scratchpad_rag.models.lora import changes_base, lora_config, lora_kwargs
from scratchpad_rag.models.restore import load_adapter
from scratchpad_rag.models.shape import model_shape
from scratchpad_rag.models.sharded import give_places, is_sharded
from scratchpad_rag.models.start import begin_training
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.reader import prompt_format
from scratchpad_rag.records import Encoded, Example, Method
from scratchpad_rag.report.training import write_loss_plot
from scratchpad_rag.tokens.encode import require_fitting
from scratchpad_rag.tokens.samples import DrawnSamples, EpochSamples, FixedSamples, SampleFormat
from scratchpad_rag.train.preflight import Fit, available_memory, fit_memory
from scratchpad_rag.train.trainer import TrainJob, TrainResult, Validate, train

Notify = Callable[[str], None]
_FINISHED = "training.json"


@dataclass(frozen=True)
class Lesson:
    """What a reader is trained on: the samples of every epoch, and questions to validate with."""

    samples: EpochSamples
    settings: TrainConfig  # with what was chosen so that it fits into memory
    questions: tuple[Example, ...] = ()
    fit: Fit | None = None  # what it will hold


def require_trackers(names: Sequence[str]) -> None:
    """Refuse, before any work, a tracker whose package is missing. Raises ConfigError."""
    for name in names:
        if not any(map(find_spec, (name, "tensorboardX") if name == "tensorboard" else (name,))):
            raise ConfigError(f"report_to {name} needs its package: pip install {name}")


def prepare_lesson(
    loaded: LoadedModel, selection: Selection, method: Method, config: RunConfig, notify: Notify
) -> Lesson:
    """Samples that fit the model and a training that fits the memory; needs no weights.

    Raises DataError, SampleTooLongError and TrainingError, each before any expensive work.
    """
    samples = training_samples(loaded, selection, method, config)
    fit = find_fit(samples, config, notify)
    return Lesson(samples, fit.config, tuple(selection.val), fit)


def train_reader(
    loaded: LoadedModel,
    lesson: Lesson,
    method: Method,
    config: RunConfig,
    folder: Path,
    notify: Notify,
    name: str = "default",
    earlier: Sequence[dict[str, Any]] = (),
) -> tuple[LoadedModel, TrainResult | None]:
    """Train into `folder/adapter` what the PEFT config says, or load what a finished training left
    there. `earlier` are the trainings that made what the model has on it.

    Raises ConfigError without a PEFT config.
    """
    if config.peft is None:
        raise ConfigError("training needs --peft_config, for example lora_r8_a16_qv")
    if is_trained(folder):
        notify(f"{folder} is trained already; going on with it (--overwrite trains anew)")
        return load_adapter(loaded, read_adapter(folder / "adapter"), None, name), None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)  # PEFT draws the first weights globally
            loaded = begin_training(loaded, config.peft, folder, name)
        to_training_precision(loaded)
        give_places(loaded.model)
        validate = _validation(loaded, lesson.questions, method, config, notify)
        job = TrainJob(
            folder / "trainer",
            pad_token_id=loaded.stop_token_ids[0],
            resume=True,
            identity=_identity(loaded, lesson.samples, method, config),
            low_precision=choose_dtype(config.model.torch_dtype) is torch.bfloat16,
            validate=validate,
            shared={"model": config.model_name, "method": method.value},
            on_note=notify,
        )
        result = train(loaded.model, lesson.samples, lesson.settings, job)
        to_base_precision(loaded)
        if not result.interrupted and is_main_process():
            metadata = describe_adapter(loaded, method, config, name, earlier)
            save_adapter(loaded, metadata, folder / "adapter")
            write_loss_plot(result.log, folder / "loss.svg")
            write_json(
                folder / _FINISHED,
                {**asdict(result), "platform": platform.processor() or platform.machine()},
            )
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, error) from error
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "out of memory; show fewer documents (--total_docs), lower --batch_size, or set "
            "--gradient_checkpointing"
        ) from error
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        raise TrainingError(
            "another process ended and training stopped; its last words stand above. The same "
            "command goes on from the last checkpoint"
        ) from error
    if result.interrupted:
        notify("stopped; a checkpoint is kept, and the same command goes on from it")
        raise KeyboardInterrupt
    return loaded, result


def is_trained(folder: Path) -> bool:
    """Whether a training ended in this folder."""
    return (folder / _FINISHED).is_file()


def fit_in_memory(samples: EpochSamples, config: RunConfig, notify: Notify) -> TrainConfig:
    """The training config with micro-batch and checkpointing chosen so that it fits, and said.

    Raises TrainingError.
    """
    return find_fit(samples, config, notify).config


def find_fit(samples: EpochSamples, config: RunConfig, notify: Notify) -> Fit:
    """The config that fits and what it will hold, said in a line.

    Needs no weights, so it can be asked before a model is loaded. Of several processes the one with
    the least memory decides. Raises TrainingError.
    """
    cuda = torch.cuda.is_available()
    available = available_memory(cuda=cuda) / (1 if cuda else processes_here())
    shape = model_shape(config.model, config.peft)
    lengths = samples.lengths(0)
    epochs = range(math.ceil(config.train.num_train_epochs))
    longest = max(max(samples.lengths(epoch)) for epoch in epochs)
    fit = fit_memory(
        shape,
        longest,
        config.train,
        cuda=cuda,
        total_docs=config.data.train_total_docs or config.data.total_docs,
        available=min(from_all(available)),
        shards=process_count() if is_sharded() else 1,
    )
    batch = "" if fit.config.batch_size == 1 else f", {fit.config.batch_size} samples at a time"
    checkpointing = ", with gradient checkpointing" if fit.config.gradient_checkpointing else ""
    notify(
        f"{len(lengths)} samples an epoch, {mean(lengths):.0f} tokens each, the longest {longest}; "
        f"{shape.trainable:,} of {shape.parameters:,} weights train; about "
        f"{fit.estimate.total / 1e9:.1f} GB of {fit.available / 1e9:.1f} free{batch}{checkpointing}"
    )
    return fit


def _identity(
    loaded: LoadedModel, samples: EpochSamples, method: Method, config: RunConfig
) -> dict[str, object]:
    """What a checkpoint is gone on with by, beside the settings of training."""
    first = samples.sample(0, 0)
    held = repr([list(samples.lengths(0)), first.input_ids, first.labels])
    return {
        "method": method.value,
        "base weights": loaded.base_hash[:16],
        "peft": asdict(config.peft) if config.peft else None,
        "training data": hashlib.sha256(held.encode()).hexdigest()[:16],
    }


def _validation(
    loaded: LoadedModel,
    questions: Sequence[Example],
    method: Method,
    config: RunConfig,
    notify: Notify,
) -> Validate | None:
    """Validation by answering: each of a few questions once, at the positions in turn.

    Of several processes each answers its share; all get the same scores.
    """
    if config.train.eval_steps is None or not questions:
        return None
    chosen = _one_each(questions, config.train.eval_questions)[process_number() :: process_count()]
    form = sample_format(loaded, method, config)
    prompts = [render_prompt(example, form.wording) for example in chosen]
    completions = (form.encode(example) for example in chosen)
    longest = max(len(sample) - sample.prompt_length for sample in completions)
    generate = generate_for(config.generate, method)
    # A reader that runs on, as it does before it has learnt to stop, is not waited for.
    room = min(generate.max_new_tokens or longest, longest + longest // 4 + 16)
    generate = replace(generate, max_new_tokens=room)

    def answer() -> dict[str, float]:
        backend = load_backend(loaded, generate, notify)
        arm = Arm(method.value, method, form.wording, backend)
        own = [
            score_completion(arm, Trial(example, example), completion)
            for example, completion in zip(chosen, backend.generate(prompts), strict=True)
        ]
        scores = [score for part in from_all(own) for score in part]
        right = mean(score.subspan_exact_match for score in scores)
        found = {"score": right, "subspan_exact_match": right}
        if method is Method.SCRATCHPAD:
            found["quote_recall"] = mean(score.quote_recall or 0.0 for score in scores)
            # Readers learn to quote before they learn to answer.
            found["score"] = right + found["quote_recall"] / 100
        return found

    return answer


def require_spreadable(config: RunConfig) -> None:
    """Refuse what cannot be done with a model that is spread over processes. Raises ConfigError."""
    if config.train.eval_steps is not None:
        raise ConfigError(
            "eval_steps: a model that is spread over processes does not answer while it trains; "
            "leave it out, and evaluate the checkpoint afterwards"
        )
    if config.model.quantization is not None:
        raise ConfigError(
            f"quantization {config.model.quantization}: packed weights are not spread over "
            "processes; choose quantization null, or train with DDP (torchrun)"
        )
    lora: Any = lora_config(config.peft.kwargs) if config.peft and config.peft.kwargs else None
    if lora is not None and changes_base(lora):
        raise ConfigError(
            f"init_lora_weights {lora.init_lora_weights} changes the base's weights, which are "
            "spread over processes; choose init_lora_weights true"
        )


def _one_each(questions: Sequence[Example], count: int) -> list[Example]:
    """Different questions first, evenly over what there is."""
    distinct = list({example.id: example for example in reversed(questions)}.values())[::-1]
    by_id: dict[str, list[Example]] = {}
    for example in questions:
        by_id.setdefault(example.id, []).append(example)
    return [
        by_id[example.id][number % len(by_id[example.id])]
        for number, example in enumerate(distinct[:count])
    ]


def encode_samples(
    loaded: LoadedModel, examples: Sequence[Example], method: Method, config: RunConfig
) -> list[Encoded]:
    """Examples as token ids and labels; refused, with numbers, where one does not fit."""
    if not examples:
        raise DataError("there are no questions to train on")
    form = sample_format(loaded, method, config)
    samples = [form.encode(example) for example in examples]
    require_fitting([len(sample) for sample in samples], loaded.context_length)
    return samples


def training_samples(
    loaded: LoadedModel, selection: Selection, method: Method, config: RunConfig
) -> EpochSamples:
    """The samples of every epoch. What does not fit is refused, with numbers, before training.

    Drawn samples of all epochs are counted now, which tokenizes each once.
    Raises DataError for questions that cannot be trained on, and SampleTooLongError.
    """
    if selection.curriculum is None:
        return FixedSamples(encode_samples(loaded, selection.train, method, config))
    if not selection.train:
        raise DataError("there are no questions to train on")
    form = sample_format(loaded, method, config)
    samples = DrawnSamples(selection.train, selection.curriculum, form)
    samples.sample(0, 0)  # a tokenizer that labels cannot be made with is refused now as well
    epochs = range(math.ceil(config.train.num_train_epochs))
    lengths = [length for epoch in epochs for length in samples.lengths(epoch)]
    require_fitting(lengths, loaded.context_length)
    return samples


def sample_format(loaded: LoadedModel, method: Method, config: RunConfig) -> SampleFormat:
    return SampleFormat(
        loaded.wording.writing(method, config.train.scratchpad_form),
        loaded.tokenizer,
        method,
        config.train.loss_region,
        loaded.stop_token_ids[0],
    )


def describe_adapter(
    loaded: LoadedModel,
    method: Method,
    config: RunConfig,
    name: str = "default",
    earlier: Sequence[dict[str, Any]] = (),
) -> AdapterMetadata:
    """The metadata that a checkpoint carries: of the data the file's name, not where it lies."""
    data = config.data
    lora = has_adapter(loaded)
    train = asdict(config.train)
    del train["scratchpad_form"]  # said beside the method
    return AdapterMetadata(
        method=method.value,
        model_name=config.model_name,
        base_hash=loaded.base_hash,
        lora=lora_kwargs(loaded.model, name) if lora else {},
        prompt_format=prompt_format(loaded),
        training={
            **{key: str(value) for key, value in train.items()},
            "data": Path(data.path).name if data.path else data.name,
            "total_docs": str(data.total_docs),
            "gold_at": str(list(data.gold_at)),
            "num_train_samples": str(data.num_train_samples),
            "train_total_docs": str(data.train_total_docs or data.total_docs),
            "train_positions": data.train_positions,
            "train_min_docs": str(data.train_min_docs),
            "no_gold_rate": str(data.no_gold_rate),
            "train_passages": data.train_passages,
            **({"quantization": config.model.quantization} if config.model.quantization else {}),
        },
        kind="lora" if lora else "full",
        scratchpad_form=sample_format(loaded, method, config).wording.form.value,
        earlier=tuple(earlier),
    )
