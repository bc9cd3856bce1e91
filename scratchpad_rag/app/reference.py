"""docs/flags.md: every flag and every config key with its default, taken from the code.

    python -m scratchpad_rag.app.reference > docs/flags.md

What a key means is the comment that stands beside it in config/stages.py, so each text lives once.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, NamedTuple

import typer

from scratchpad_rag import config
from scratchpad_rag.app import main as main_command
from scratchpad_rag.app import sweep, terminal
from scratchpad_rag.app.cli import app
from scratchpad_rag.app.flags import COMPARE_WITHOUT, RUN_FLAGS, SWEEP_WITHOUT, Flag
from scratchpad_rag.config import stages
from scratchpad_rag.records import EvalSplit, LossRegion

_SECTIONS = {"data": "DataConfig", "train": "TrainConfig", "generate": "GenerateConfig"} | {
    "evaluate": "EvaluateConfig",
    "model": "ModelConfig",
    "peft": "PeftConfig",
}
_PLACES = {
    "data": "In `configs/experiment/*.yaml` under `dataset.dataset_config`; `name` stands in "
    "`dataset` itself.",
    "train": "In `configs/experiment/*.yaml` under `train`.",
    "generate": "In `configs/experiment/*.yaml` under `generate`.",
    "evaluate": "In `configs/experiment/*.yaml` under `evaluate`.",
    "model": "In `configs/model/*.yaml` under `pretrained_config`.",
    "peft": "In `configs/peft/*.yaml`, at the top.",
}
_WORDS = {
    "tuple[int, ...]": "list of int",
    "dict[str, Any]": "mapping",
    "LossRegion": " \\| ".join(LossRegion),
    "EvalSplit": " \\| ".join(EvalSplit),
}
_NOT_SET = "-"
_INTRODUCTION = """\
# Flags and configs

Made by `python -m scratchpad_rag.app.reference > docs/flags.md`; a test holds that it is current.

A flag wins over the config file, the config file over the default. An unknown key or flag is an
error. `scratchpad-rag` takes its flags with dashes too (`--max-new-tokens`).
"""
_FOR_RUNS = """\
## Flags that every run takes

`main.py`, `evaluate_nq_lim.py` and `scratchpad-rag train`, `evaluate` and `compare` take these,
but for the few that a verb has no use for, named below. The default holds where neither the flag
nor the experiment's file gives a value.
"""
_CONFIGS = """\
## Configs

A config is named (`mistral_7b` is `configs/model/mistral_7b.yaml`, in the current folder or in the
package) or is the path of a YAML file. These come along:
"""
_THEIRS = """\
## Files written for the paper repo

They load as they are. These of their keys are translated or have no effect, which a warning says:
"""


class Option(NamedTuple):
    """A flag as a row of a table; the texts are Markdown."""

    flag: str
    text: str
    default: str


class Key(NamedTuple):
    """A key of a config dataclass as a row of a table."""

    name: str
    type: str
    default: str
    comment: str
    flag: str


def make_page() -> str:
    """The whole of docs/flags.md."""
    parts = [_INTRODUCTION, _FOR_RUNS, _run_flags_table(), _not_taken()]
    parts += [_command(name, options) for name, options in list_commands().items()]
    parts += [_CONFIGS, _names_table()]
    source = Path(stages.__file__).read_text(encoding="utf-8")
    for section, name in _SECTIONS.items():
        rows = list_keys(source, section)
        parts += [f"### {name}\n", f"{_summary(name)} {_PLACES[section]}\n"]
        parts += [_table(("key", "type", "default", "what it is", "flag"), rows)]
    parts += [_THEIRS, _table(("their key", "here"), _their_keys())]
    return "\n".join(parts)


def _not_taken() -> str:
    lines = [
        f"`{verb}` does not take {', '.join(f'`--{flag}`' for flag in without)}."
        for verb, without in (
            ("scratchpad-rag compare", COMPARE_WITHOUT),
            ("evaluate_nq_lim.py", SWEEP_WITHOUT),
        )
    ]
    return "\n\n".join(lines) + "\n"


def list_commands() -> dict[str, list[Option]]:
    """Every command with all its flags."""
    parsers = (main_command.make_parser(), sweep.make_parser(), terminal.make_parser())
    verbs = _verbs("scratchpad-rag", typer.main.get_command(app))
    return {parser.prog: list_options(parser) for parser in parsers} | {
        name: list_verb_options(verb) for name, verb in verbs
    }


def list_options(parser: argparse.ArgumentParser) -> list[Option]:
    """The flags of an argparse parser but `--help`; a `(default: ...)` in the help is moved."""
    return [
        _option("/".join(action.option_strings), action.help, action.default, action.required)
        for action in parser._actions
        if action.dest != "help"
    ]


def list_verb_options(command: Any) -> list[Option]:
    """The flags of a verb of `scratchpad-rag` but `--help`."""
    return [
        _option(
            "/".join([*parameter.opts, *parameter.secondary_opts]),
            parameter.help,
            parameter.default,
            parameter.required,
        )
        for parameter in command.params
    ]


def list_keys(source: str, section: str) -> list[Key]:
    """The keys of a section's dataclass with the comments beside them in its source.

    A key that stands over several lines has its comment on any of them; one without a comment
    is told by the help of its flag.
    """
    class_name = _SECTIONS[section]
    defaults = {field.name: field for field in fields(getattr(config, class_name))}
    comments = _comments(source)
    flags = {flag.key: flag for flag in RUN_FLAGS}
    keys = []
    for node in _class_body(source, class_name):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            comment = " ".join(_within(comments, node.lineno, node.end_lineno))
            flag = flags.get(f"{section}.{name}")
            keys.append(
                Key(
                    f"`{name}`",
                    _type_words(ast.unparse(node.annotation)),
                    _default_of(defaults[name]),
                    _escape(comment or (flag.help if flag else "")),
                    f"`--{flag.name}`" if flag else "",
                )
            )
    return keys


def _verbs(prefix: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield prefix, command
        return
    for name, verb in inner.items():
        yield from _verbs(f"{prefix} {name}", verb)


def _command(name: str, options: Sequence[Option]) -> str:
    """A section; the flags that every run takes are left out where all of them are taken."""
    shared = {f"`--{flag.name}`" for flag in RUN_FLAGS}
    is_run = shared <= {option.flag for option in options}
    rows = [option for option in options if not (is_run and option.flag in shared)]
    title = f"## `{name}`{', beside those' if is_run else ''}\n\n"
    return title + (_table(("flag", "what it does", "default"), rows) if rows else "No flags.\n")


def _option(flag: str, text: str | None, default: object, required: bool) -> Option:
    told = re.fullmatch(r"(.*) \(default: (.*)\)", text or "")
    words, told_default = (told[1], told[2]) if told else (text or "", _NOT_SET)
    known = default not in (None, "")
    shown = _spell_flag(default) if known else "required" if required else _escape(told_default)
    return Option(f"`{flag}`", _escape(words), shown)


def _run_flags_table() -> str:
    rows = [
        (
            f"`--{flag.name}`",
            _escape(flag.help),
            _spell_flag(_config_default(flag)),
            ", ".join(f"`{choice}`" for choice in flag.choices),
            f"`{flag.key}`" if flag.key else _NOT_SET,
        )
        for flag in RUN_FLAGS
    ]
    return _table(("flag", "what it does", "default", "choices", "config key"), rows)


def _config_default(flag: Flag) -> object:
    if flag.key is None:
        return None
    section, key = flag.key.split(".")
    return getattr(getattr(config, _SECTIONS[section])(), key)


def _names_table() -> str:
    kinds = ("experiment", "model", "peft")
    rows = [
        (f"`--{kind}_config`", ", ".join(f"`{name}`" for name in config.config_names(kind)))
        for kind in kinds
    ]
    return _table(("flag", "names"), rows)


def _their_keys() -> Iterator[tuple[str, str]]:
    for theirs, ours in config.THEIR_DATASET_KEYS.items():
        here = f"`{ours}`" if ours else "no effect: `--train_method` decides it"
        yield f"`dataset.dataset_config.{theirs}`", here
    for key in config.THEIR_EXPERIMENT_KEYS:
        yield f"`{key}`", "no effect: tokenizer and wording are the model's"


def _summary(class_name: str) -> str:
    return (getattr(config, class_name).__doc__ or "").splitlines()[0]


def _class_body(source: str, class_name: str) -> Sequence[ast.stmt]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return node.body
    raise LookupError(f"config/stages.py has no class {class_name}")


def _comments(source: str) -> dict[int, str]:
    """Line -> the text of the comment on it."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def _within(comments: dict[int, str], first: int, last: int | None) -> Iterator[str]:
    return (comments[line] for line in range(first, (last or first) + 1) if line in comments)


def _type_words(annotation: str) -> str:
    """A Python type as one writes YAML.

    >>> _type_words("str | None"), _type_words("tuple[int, ...]")
    ('str or null', 'list of int')
    """
    plain = annotation.removesuffix(" | None")
    words = _WORDS.get(plain, plain)
    return words if plain == annotation else f"{words} or null"


def _default_of(field: Field[Any]) -> str:
    factory = field.default_factory
    default = field.default if factory is MISSING else factory()
    return "required" if default == "" else f"`{_spell(default)}`"


def _spell(value: object) -> str:
    """A value as YAML has it: null, true, [0, 4], sample."""
    return str(value) if isinstance(value, str) else json.dumps(value, default=str).strip('"')


def _spell_flag(value: object) -> str:
    if value is False:
        return "off"
    if value is None or value == "":
        return _NOT_SET
    return "on" if value is True else f"`{_spell(value)}`"


def _escape(text: str) -> str:
    """Text for a table's cell; a star or an underscore beside one would begin emphasis.

    >>> print(_escape("a | b, of *_at_* files, num_docs"))
    a \\| b, of \\*\\_at\\_\\* files, num_docs
    """
    return re.sub(r"\*_|_\*|[|*]", lambda found: "".join(f"\\{c}" for c in found[0]), text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(make_page(), end="")
