"""A Modelfile, with which Ollama asks a GGUF file as the reader was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scratchpad_rag.errors import ModelError
from scratchpad_rag.prompts.template import SEPARATOR, Wording

# A prompt of 20 passages has 3,000 to 4,000 tokens; a longer context takes memory from the start.
_CONTEXT = 8192


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is read and written: tokens of prompt and answer together, and of the answer."""

    context_length: int
    max_new_tokens: int


def make_modelfile(
    gguf_name: str, wording: Wording, stops: Sequence[str], limits: Limits, bos: str | None
) -> str:
    """The Modelfile of the GGUF file `gguf_name`, which lies beside it.

    `stops` are the texts of the stop tokens. `bos` is the token that llama.cpp itself puts before
    every prompt, None if it puts none: the template must not write it a second time.
    """
    system = _quoted(wording.system, "the system sentence")
    template = _quoted(_template(wording, bos), "the chat template")
    lines = [
        "# ollama create NAME -f Modelfile; the prompt's layout is in README.md",
        f"FROM ./{gguf_name}",
        f"TEMPLATE {template}",
        f"SYSTEM {system}",
        "PARAMETER temperature 0",
        # Ollama's own 1.1 would turn the reader away from the words that it is to quote.
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_ctx {min(limits.context_length, _CONTEXT)}",
        f"PARAMETER num_predict {limits.max_new_tokens}",
    ]
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    return "\n".join(lines) + "\n"


def _template(wording: Wording, bos: str | None) -> str:
    """Ollama's template: `.System` is our sentence, `.Prompt` the rest of the prompt's layout."""
    markers = wording.chat
    if markers is None:
        return "{{ .System }}" + SEPARATOR + "{{ .Prompt }}"
    before = markers.before_system.removeprefix(bos) if bos else markers.before_system
    between = SEPARATOR if markers.between is None else markers.between
    return "".join(
        [
            _literal(before),
            "{{ .System }}",
            _literal(between),
            "{{ .Prompt }}",
            _literal(markers.before_completion),
        ]
    )


def _literal(text: str) -> str:
    """Text that a Go template writes as it is."""
    return text.replace("{{", '{{ "{{" }}')


def _quoted(text: str, what: str) -> str:
    if '"""' in text:
        raise ModelError(f"no Modelfile is written: {what} holds three quotation marks")
    return f'"""{text}"""'
