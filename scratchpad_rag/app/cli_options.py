"""Options that several verbs take, and those of a run out of their one table."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from scratchpad_rag.app.flags import DEMO_FLAGS, PAGE_FLAGS, RUN_FLAGS, Flag

# Options are spelled with underscores, as in the paper repo's commands; dashes are accepted.
CONTEXT = {
    "token_normalize_func": lambda name: name.replace("-", "_"),
    "help_option_names": ["--help", "-h"],
}


def run_options(
    function: Callable[..., None], without: tuple[str, ...] = ()
) -> Callable[..., None]:
    """Give a verb the flags that all runs share, but those that it has no use for.

    They come from their one table; the verb takes them as keyword arguments beside its own.
    """
    own = [
        parameter
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    shared = [_parameter(flag.name, _option_type(flag), flag.help) for flag in RUN_FLAGS]
    configs = [
        _parameter("experiment_config", str, "a name in configs/experiment, or a YAML file", ...),
        _parameter("model_config", str, "a name in configs/model, or a YAML file", "smollm2_135m"),
        _parameter("peft_config", str | None, "a name in configs/peft, or a YAML file"),
    ]
    names = {parameter.name for parameter in own} | set(without)
    chosen = [p for p in (*configs, *shared) if p.name not in names]

    return _with_options(function, [*own, *chosen])


def _with_options(
    function: Callable[..., None], options: list[inspect.Parameter]
) -> Callable[..., None]:
    def verb(**flags: Any) -> None:
        function(**{key: getattr(value, "value", value) for key, value in flags.items()})

    verb.__name__ = function.__name__
    verb.__doc__ = function.__doc__
    verb.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    verb.__annotations__ = {option.name: option.annotation for option in options}
    return verb


def demo_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the flags of the demo beside its own, as keyword arguments."""
    own = [
        parameter
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    shared = [
        _parameter(flag.name, _option_type(flag), flag.help) for flag in (*PAGE_FLAGS, *DEMO_FLAGS)
    ]
    return _with_options(function, [*own, *shared])


def _option_type(flag: Flag) -> Any:
    if not flag.choices:
        return flag.type | None
    make: Any = StrEnum  # called with a name that is not a literal, which mypy cannot follow
    return make(flag.name, {choice: str(choice) for choice in flag.choices}) | None


def _parameter(name: str, kind: Any, text: str, default: Any = None) -> inspect.Parameter:
    required = default is ...
    option = typer.Option(f"--{name}", help=text, show_default=not required and default is not None)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=Annotated[kind, option],
    )


Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint_path", help="a .pt file or an adapter folder")
]
Run = Annotated[Path | None, typer.Option("--run", help="the run's folder")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="begin anew; replace files")]
Notes = Annotated[Path | None, typer.Option("--notes", help="Markdown text to show on the page")]
Title = Annotated[str, typer.Option("--title", help="of the page")]
