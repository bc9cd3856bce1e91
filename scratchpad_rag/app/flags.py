"""The flags of the paper repo's commands, and their way into a RunConfig."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scratchpad_rag.config import RunConfig, load_config
from scratchpad_rag.errors import UserError
from scratchpad_rag.records import EvalSplit, LossRegion, Method

# flag -> (section of the config, key, type)
_FLAGS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "num_train_samples": ("data", "num_train_samples", int),
    "num_val_samples": ("data", "num_val_samples", int),
    "total_docs": ("data", "total_docs", int),
    "data_dir": ("data", "data_dir", str),
    "data_path": ("data", "path", str),
    "num_train_epochs": ("train", "num_train_epochs", float),
    "lr": ("train", "lr", float),
    "weight_decay": ("train", "weight_decay", float),
    "scheduler": ("train", "scheduler", str),
    "warmup_ratio": ("train", "warmup_ratio", float),
    "batch_size": ("train", "batch_size", int),
    "gradient_accumulation_steps": ("train", "gradient_accumulation_steps", int),
    "max_new_tokens": ("generate", "max_new_tokens", int),
    "backend": ("generate", "backend", str),
    "eval_batch_size": ("generate", "batch_size", int),
    "prompt_lookup_num_tokens": ("generate", "prompt_lookup_num_tokens", int),
}
_HELP = {
    "data_dir": "folder of the *_total_documents_gold_at_*.jsonl.gz files",
    "data_path": "own questions with ranked passages, in any format that is read",
    "scheduler": "none (a constant rate), linear or cosine",
    "prompt_lookup_num_tokens": "tokens drafted from the prompt at a time; 0: none",
}


def add_run_flags(parser: argparse.ArgumentParser, experiment: str | None = None) -> None:
    """Flags that choose configs and override their keys. Not given means: the config's."""
    required = experiment is None
    parser.add_argument("--experiment_config", required=required, default=experiment)
    parser.add_argument("--model_config", required=True)
    parser.add_argument("--peft_config")
    parser.add_argument("--train_method", choices=[m.value for m in Method])
    parser.add_argument("--eval_split", choices=[s.value for s in EvalSplit])
    parser.add_argument("--loss_region", choices=[r.value for r in LossRegion])
    parser.add_argument("--gold_at", type=int, nargs="+", help="positions of the gold passage")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--last_answer_only", action="store_true", default=None)
    parser.add_argument("--print_outputs", action="store_true", default=None)
    for flag, (_, _, kind) in _FLAGS.items():
        parser.add_argument(f"--{flag}", type=kind, help=_HELP.get(flag))


def config_from(flags: argparse.Namespace) -> RunConfig:
    """Flags over files over defaults; warnings go to standard error."""
    overrides: dict[str, dict[str, Any]] = {"data": {}, "train": {}, "generate": {}, "evaluate": {}}
    for flag, (section, key, _) in _FLAGS.items():
        overrides[section][key] = getattr(flags, flag)
    overrides["data"]["gold_at"] = flags.gold_at
    overrides["data"]["seed"] = overrides["train"]["seed"] = flags.seed
    overrides["train"]["loss_region"] = flags.loss_region
    overrides["evaluate"]["eval_split"] = flags.eval_split
    overrides["evaluate"]["last_answer_only"] = flags.last_answer_only
    overrides["evaluate"]["print_outputs"] = flags.print_outputs
    if flags.data_path is not None:
        overrides["data"]["name"] = "examples"
    method = Method(flags.train_method) if flags.train_method else None
    config, warnings = load_config(
        flags.experiment_config, flags.model_config, flags.peft_config, overrides, method
    )
    for warning in warnings:
        say(f"warning: {warning}")
    return config


def say(line: str) -> None:
    """One line to the user, on standard error, so that standard output stays clean."""
    print(line, file=sys.stderr, flush=True)


def existing_checkpoint(path: str | None) -> Path | None:
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
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return 0
