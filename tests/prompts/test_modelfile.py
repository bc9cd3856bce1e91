from __future__ import annotations

from typing import Any

import pytest

from scratchpad_rag.errors import ModelError
from scratchpad_rag.prompts.modelfile import Limits, make_modelfile
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.prompts.template import ChatMarkers, Wording, read_chat_markers

LIMITS = Limits(context_length=4096, max_new_tokens=512)


def template(text: str) -> str:
    return text.split('TEMPLATE """')[1].split('"""')[0]


def filled(text: str, example: Any, wording: Wording) -> str:
    """The template as Ollama fills it, with what the card says is asked."""
    rest = render_prompt(example, Wording()).text.removeprefix(f"{wording.system}\n\n")
    return template(text).replace("{{ .System }}", wording.system).replace("{{ .Prompt }}", rest)


def test_a_plain_prompt_is_rebuilt(make_example: Any) -> None:
    example = make_example()
    text = make_modelfile("m.gguf", Wording(), ["</s>"], LIMITS, bos="<s>")
    assert filled(text, example, Wording()) == render_prompt(example, Wording()).text


def test_a_chat_prompt_is_rebuilt(chat_tokenizer: Any, make_example: Any) -> None:
    example, wording = make_example(), Wording(chat=read_chat_markers(chat_tokenizer))
    text = make_modelfile("m.gguf", wording, ["<|im_end|>"], LIMITS, bos="<s>")
    assert filled(text, example, wording) == render_prompt(example, wording).text


def test_without_a_system_turn_the_sentence_opens_the_user_s(make_example: Any) -> None:
    wording = Wording(chat=ChatMarkers("<s>[INST] ", None, " [/INST]", "</s>"))
    example = make_example()
    text = make_modelfile("m.gguf", wording, ["</s>"], LIMITS, bos=None)
    assert filled(text, example, wording) == render_prompt(example, wording).text
    # llama.cpp opens the prompt itself, so the template must not.
    text = make_modelfile("m.gguf", wording, ["</s>"], LIMITS, bos="<s>")
    assert template(text).startswith("[INST] {{ .System }}\n\n{{ .Prompt }} [/INST]")


def test_the_whole_file() -> None:
    wording = Wording("Answer.", ChatMarkers("<s>", "<u>{{x}}", "<a>", "</a>"))
    assert make_modelfile("m.gguf", wording, ["</a>", "</s>"], Limits(99_999, 7), None) == (
        "# ollama create NAME -f Modelfile; the prompt's layout is in README.md\n"
        "FROM ./m.gguf\n"
        'TEMPLATE """<s>{{ .System }}<u>{{ "{{" }}x}}{{ .Prompt }}<a>"""\n'
        'SYSTEM """Answer."""\n'
        "PARAMETER temperature 0\n"
        "PARAMETER repeat_penalty 1\n"
        "PARAMETER num_ctx 8192\n"
        "PARAMETER num_predict 7\n"
        'PARAMETER stop "</a>"\n'
        'PARAMETER stop "</s>"\n'
    )


def test_a_short_context_is_kept() -> None:
    assert "num_ctx 4096" in make_modelfile("m.gguf", Wording(), ["</s>"], LIMITS, None)


def test_what_no_modelfile_holds_is_refused() -> None:
    with pytest.raises(ModelError, match="three quotation marks"):
        make_modelfile("m.gguf", Wording('Say """.'), ["</s>"], LIMITS, None)
