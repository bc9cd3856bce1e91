"""The flags of the paper repo's commands, in one table, and their way into a RunConfig."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scratchpad_rag.app.processes import let_main_speak_first
from scratchpad_rag.config import PASSAGE_ORDERS, SUPPORT_ORDERS, RunConfig, load_config
from scratchpad_rag.errors import ConfigError, UserError
from scratchpad_rag.records import EvalSplit, LossRegion, Method, ScratchpadForm


@dataclass(frozen=True)
class Flag:
    """A flag, the key of the config that it overrides (`section.key`), and its help."""

    name: str
    key: str | None
    type: type
    help: str
    choices: tuple[str, ...] = ()

    @property
    def is_switch(self) -> bool:
        return self.type is bool


RUN_FLAGS = (
    Flag("train_method", None, str, "what the completion holds", tuple(Method)),
    Flag("eval_split", "evaluate.eval_split", str, "passages shown", tuple(EvalSplit)),
    Flag("num_train_samples", "data.num_train_samples", int, "samples to train on"),
    Flag("num_val_samples", "data.num_val_samples", int, "samples to evaluate on"),
    Flag("total_docs", "data.total_docs", int, "documents shown"),
    Flag("gold_at", "data.gold_at", str, "positions of the gold passage, from 0: 0,4,9"),
    Flag(
        "passage_order",
        "data.passage_order",
        str,
        "of the distractors; given: nothing is moved; retrieved: as found, gold or not",
        PASSAGE_ORDERS,
    ),
    Flag(
        "support_order",
        "data.support_order",
        str,
        "of several gold passages in a scratchpad: that of the reasoning, or as they stand",
        SUPPORT_ORDERS,
    ),
    Flag(
        "val_order",
        "data.val_order",
        str,
        "position: each validation question at every position; question: each once",
        ("position", "question"),
    ),
    Flag(
        "train_positions",
        "data.train_positions",
        str,
        "uniform: the gold passage of a sample stands elsewhere every epoch",
        ("fixed", "uniform"),
    ),
    Flag("train_min_docs", "data.train_min_docs", int, "with uniform: fewest documents shown"),
    Flag("no_gold_rate", "data.no_gold_rate", float, "with uniform: share of samples without gold"),
    Flag(
        "train_passages",
        "data.train_passages",
        str,
        "with uniform: of each passage shown, all or the sentences that would support an answer",
        ("whole", "sentences"),
    ),
    Flag("data_dir", "data.data_dir", str, "folder of the *_total_documents_gold_at_* files"),
    Flag("data_path", "data.path", str, "own questions with ranked passages"),
    Flag("num_train_epochs", "train.num_train_epochs", float, "passes over the samples"),
    Flag("lr", "train.lr", float, "learning rate"),
    Flag("weight_decay", "train.weight_decay", float, "AdamW's weight decay"),
    Flag(
        "scheduler", "train.scheduler", str, "none is a constant rate", ("none", "linear", "cosine")
    ),
    Flag("warmup_ratio", "train.warmup_ratio", float, "share of the steps to warm up in"),
    Flag("batch_size", "train.batch_size", int, "samples a device and step"),
    Flag(
        "gradient_accumulation_steps", "train.gradient_accumulation_steps", int, "steps an update"
    ),
    Flag("packing", "train.packing", bool, "samples share rows, without padding"),
    Flag(
        "gradient_checkpointing",
        "train.gradient_checkpointing",
        bool,
        "compute activations again on the way back: slower, a fraction of the memory",
    ),
    Flag("save_steps", "train.save_steps", int, "updates between two checkpoints"),
    Flag("eval_steps", "train.eval_steps", int, "updates between two validations by answering"),
    Flag("eval_questions", "train.eval_questions", int, "questions a validation answers"),
    Flag(
        "early_stopping_patience",
        "train.early_stopping_patience",
        int,
        "validations without a better one before training ends",
    ),
    Flag("report_to", "train.report_to", str, "trackers: tensorboard, trackio, wandb"),
    Flag("loss_region", "train.loss_region", str, "tokens to learn", tuple(LossRegion)),
    Flag(
        "choice_weight", "train.choice_weight", float, "loss of tokens that choose, times so much"
    ),
    Flag(
        "answer_weight", "train.answer_weight", float, "loss of the answer's tokens, times so much"
    ),
    Flag(
        "scratchpad_form",
        "train.scratchpad_form",
        str,
        "what a scratchpad holds of a passage (default: the checkpoint's own, else passage)",
        tuple(ScratchpadForm),
    ),
    Flag("max_new_tokens", "generate.max_new_tokens", int, "longest completion"),
    Flag("backend", "generate.backend", str, "native, transformers, vllm or http"),
    Flag("verbatim", "generate.verbatim", bool, "hold scratchpads to passages of the context"),
    Flag(
        "quote",
        "generate.quote",
        str,
        "what --verbatim quotes are made of",
        ("passage", "sentence"),
    ),
    Flag("eval_batch_size", "generate.batch_size", int, "prompts generated at a time"),
    Flag(
        "prompt_lookup_num_tokens",
        "generate.prompt_lookup_num_tokens",
        int,
        "with --backend transformers: tokens drafted at a time; 0: none",
    ),
    Flag("base_url", "generate.base_url", str, "with --backend http: the server's address"),
    Flag("concurrency", "generate.concurrency", int, "with --backend http: requests at a time"),
    Flag(
        "executor",
        "evaluate.executor",
        str,
        "where answers are computed: in this process, or by workers of a Ray cluster",
        ("local", "ray"),
    ),
    Flag("num_actors", "evaluate.num_actors", int, "with --executor ray: workers"),
    Flag("ray_address", "evaluate.ray_address", str, "with --executor ray: the cluster's address"),
    Flag("seed", "data.seed", int, "of the split, the draw, the weights"),
    Flag("last_answer_only", "evaluate.last_answer_only", bool, "score what follows Answer:"),
    Flag("print_outputs", "evaluate.print_outputs", bool, "print every sample"),
)


def _run_flag(name: str, text: str | None = None) -> Flag:
    """A flag of runs, with another help where the demo has more to say of it."""
    flag = next(flag for flag in RUN_FLAGS if flag.name == name)
    return flag if text is None else replace(flag, help=text)


DEFAULT_EXPERIMENT = "sample_20_docs"  # of the demo
# Of the demo: in the terminal (demo.py) and as a page (demo.py --web, scratchpad-rag demo).
DEMO_FLAGS = (
    Flag(
        "experiment_config",
        None,
        str,
        "a name in configs/experiment, or a YAML file (default: sample_20_docs)",
    ),
    Flag(
        "model_config",
        None,
        str,
        "a name in configs/model, or a file (default: the checkpoint's, or smollm2_135m)",
    ),
    Flag(
        "checkpoint_path",
        None,
        str,
        "a .pt file or an adapter folder (default: zero-shot; the page: its own)",
    ),
    Flag(
        "peft_config",
        None,
        str,
        "only for a bare state dict: a name in configs/peft, or a file",
    ),
    Flag("train_method", None, str, "only for a bare state dict: sft or scratchpad"),
    Flag(
        "scratchpad_form",
        "train.scratchpad_form",
        str,
        "only for a bare state dict: what its scratchpads hold of a passage",
        tuple(ScratchpadForm),
    ),
    Flag("question", None, str, "your own question (default: the validation questions)"),
    Flag(
        "documents",
        None,
        str,
        "your own documents: JSON (lines) of title and text, or plain text",
    ),
    _run_flag("data_dir"),
    _run_flag("data_path"),
    _run_flag("total_docs", "documents shown (default: the experiment's)"),
    _run_flag("max_new_tokens", "longest completion (default: 128, with a scratchpad 512)"),
    _run_flag("seed", "of the split, the order of questions and the gold positions"),
    _run_flag("verbatim"),
    _run_flag("quote", "what --verbatim quotes are made of (default: passage)"),
)
PAGE_FLAGS = (
    Flag("port", None, int, "of the page on this machine (default: 7860)"),
    Flag("open", None, bool, "open the page in a browser"),
)


# Flags that a verb has no use for and so does not take.
COMPARE_WITHOUT = (
    "train_method",
    "eval_split",
    "last_answer_only",
    "print_outputs",
    "executor",
    "num_actors",
    "ray_address",
)
SWEEP_WITHOUT = (
    "eval_split",
    "passage_order",
    "num_train_samples",
    "num_val_samples",
    "gold_at",
    "val_order",
    "train_positions",
    "train_min_docs",
    "no_gold_rate",
    "train_passages",
    "num_train_epochs",
    "lr",
    "weight_decay",
    "scheduler",
    "warmup_ratio",
    "batch_size",
    "gradient_accumulation_steps",
    "packing",
    "gradient_checkpointing",
    "save_steps",
    "eval_steps",
    "eval_questions",
    "early_stopping_patience",
    "report_to",
    "loss_region",
    "choice_weight",
    "answer_weight",
)
# An export of questions takes what says which they are, and what their answers are to hold.
_LM_EVAL_WITH = (
    "train_method",
    "scratchpad_form",
    "eval_split",
    "num_val_samples",
    "total_docs",
    "gold_at",
    "passage_order",
    "val_order",
    "data_dir",
    "data_path",
    "max_new_tokens",
    "seed",
)
LM_EVAL_WITHOUT = (
    "model_config",
    "peft_config",
    *(flag.name for flag in RUN_FLAGS if flag.name not in _LM_EVAL_WITH),
)


def add_run_flags(
    parser: argparse.ArgumentParser,
    experiment: str | None = None,
    without: tuple[str, ...] = (),
) -> None:
    """Flags that choose configs and override their keys. Not given means: the config's."""
    parser.add_argument(
        "--experiment_config",
        required=experiment is None,
        default=experiment,
        help="a name in configs/experiment, or a YAML file",
    )
    parser.add_argument("--model_config", required=True, help="a name in configs/model, or a file")
    parser.add_argument("--peft_config", help="a name in configs/peft, or a YAML file")
    for flag in RUN_FLAGS:
        if flag.name in without:
            continue
        add_flag(parser, flag, nargs="+" if flag.name == "gold_at" else None)


def add_flag(parser: argparse.ArgumentParser, flag: Flag, nargs: str | None = None) -> None:
    """A flag as an option of a parser; None where it is not given."""
    if flag.is_switch:
        parser.add_argument(f"--{flag.name}", action="store_true", default=None, help=flag.help)
        return
    parser.add_argument(
        f"--{flag.name}",
        type=flag.type,
        choices=flag.choices or None,
        nargs=nargs,
        help=flag.help,
    )


def config_from(flags: Mapping[str, Any]) -> RunConfig:
    """Flags over files over defaults; warnings go to standard error."""
    overrides: dict[str, dict[str, Any]] = {}
    for flag in RUN_FLAGS:
        value = flags.get(flag.name)
        if flag.key is not None and value is not None:
            section, key = flag.key.split(".")
            overrides.setdefault(section, {})[key] = value
    data = overrides.setdefault("data", {})
    if "gold_at" in data:
        data["gold_at"] = parse_positions(data["gold_at"])
    trackers = overrides.get("train", {}).get("report_to")
    if trackers is not None:
        overrides["train"]["report_to"] = trackers.replace(",", " ").split()
    if "path" in data:
        data["name"] = "examples"
    if "seed" in data:
        overrides.setdefault("train", {})["seed"] = data["seed"]
    config, warnings = load_config(
        flags["experiment_config"],
        flags["model_config"],
        flags.get("peft_config"),
        overrides,
        parse_method(flags.get("train_method")),
    )
    for warning in warnings:
        say(f"warning: {warning}")
    return config


def parse_method(name: str | None) -> Method | None:
    """A method by name; ConfigError naming the choices."""
    if name is None:
        return None
    if name not in tuple(Method):
        raise ConfigError(f"unknown train_method {name!r}; choose from {', '.join(Method)}")
    return Method(name)


def parse_form(name: str | None) -> ScratchpadForm | None:
    """A form of scratchpads by name; ConfigError naming the choices."""
    if name is None:
        return None
    if name not in tuple(ScratchpadForm):
        raise ConfigError(
            f"unknown scratchpad_form {name!r}; choose from {', '.join(ScratchpadForm)}"
        )
    return ScratchpadForm(name)


def parse_positions(value: str | list[str]) -> list[int]:
    """Positions or counts, with commas or spaces between them.

    >>> parse_positions("0,4,9"), parse_positions(["0", "4"])
    ([0, 4, 9], [0, 4])
    """
    text = value if isinstance(value, str) else ",".join(value)
    try:
        return [int(number) for number in text.replace(",", " ").split()]
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a list of whole numbers such as 0,4,9") from error


def say(line: str) -> None:
    """One line to the user, on standard error, so that standard output stays clean."""
    print(line, file=sys.stderr, flush=True)


def existing_checkpoint(path: str | Path | None) -> Path | None:
    """The checkpoint that a flag names; missing ones are refused before a model is loaded."""
    if path is None:
        return None
    if not Path(path).exists():
        raise UserError(f"there is no checkpoint {path}")
    return Path(path)


def run_command(command: Callable[[], None]) -> int:
    """Run a command line: one line and exit code 2 for what a user can put right."""
    try:
        command()
    except UserError as error:
        let_main_speak_first()
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return 0
