"""A GGUF file read again by transformers and compared with the model that it was written from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from scratchpad_rag.errors import ModelError
from scratchpad_rag.models.adapters import quiet_about_transformers
from scratchpad_rag.models.gguf import GGUF_TYPES, packed, tensor_type
from scratchpad_rag.models.gguf_vocab import read_vocabulary
from scratchpad_rag.models.load import LoadedModel, loading_bars
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import Example, Passage
from scratchpad_rag.tokens.encode import encode_prompt

# Digits, runs of spaces and lines, other scripts, contractions: where tokenizers differ.
_TEXTS = (
    "In 1911  the\n\n1 of 2,000 wasn't  sold.\n\n\n  12",
    "Ærø, Łódź and 東京: naïve café’s “quotes” — €3.50 🙂\tend \n",
    "WE'LL see DON'T it's x=y+1; <b>bold</b> <|nothing|> [INST]",
)
# Root mean square difference of the logits, as a share of their spread, that rounding explains.
_ROUNDING = {"f32": 1e-3, "f16": 1e-2, "bf16": 5e-2, "q8_0": 2e-1}
_COMPUTED_IN_HALF = 5e-2


class Checked(NamedTuple):
    """How near a GGUF file is to its model: logits on a prompt, as a share of their spread."""

    logits_difference: float
    same_choices: float  # share of positions whose likeliest token is the same
    tokens: int

    def __str__(self) -> str:
        return (
            f"its logits differ by {self.logits_difference:.2g} of their spread; the likeliest "
            f"token is the same at {self.same_choices:.0%} of {self.tokens} places"
        )


def check_gguf(loaded: LoadedModel, path: Path, gguf_type: str) -> Checked:
    """Read a file again and compare token ids, weights and logits with the merged model.

    Weights have to be what rounding to the file's types makes of the model's, value for value.
    Raises ModelError where anything differs by more than the type's rounding.
    """
    with TemporaryDirectory(prefix="scratchpad-rag-gguf-") as alone:
        # Beside a tokenizer.json transformers reads that one, and nothing of the GGUF file's own.
        file = Path(alone) / path.name
        file.symlink_to(path.resolve())
        with _reading(path.name), quiet_about_transformers(), loading_bars(shown=False):
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=path.name)
            reread = _reread(loaded, file)
    _compare_tokens(loaded.tokenizer, tokenizer, loaded.wording, path.name)
    _compare_weights(loaded.model, reread, path.name, gguf_type)
    return _compare_logits(loaded, reread, path.name, gguf_type)


def _compare_tokens(ours: Any, theirs: Any, wording: Wording, name: str) -> None:
    if read_vocabulary(ours, len(ours)).model == "gpt2":
        # transformers takes names that it does not know, such as smollm, for gpt-2.
        theirs.backend_tokenizer.pre_tokenizer = ours.backend_tokenizer.pre_tokenizer
    special = "".join(str(token) for token in ours.all_special_tokens)
    for text in (*_TEXTS, render_prompt(_probe(), wording).text, special):
        if ours(text).input_ids != theirs(text).input_ids:
            raise ModelError(f"{name} was read again and tokenizes {text[:40]!r} otherwise")
    if (ours.chat_template or None) != (theirs.chat_template or None):
        raise ModelError(f"{name} was read again and has another chat template")


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{name} cannot be read again: {reason}") from error


def _reread(loaded: LoadedModel, path: Path) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        config=_reread_config(loaded.model.config, path),
        dtype=loaded.model.dtype,
        attn_implementation=loaded.model.config._attn_implementation,
        quantization_config=GgufConfig(dequantize=True),
    )
    return model.to(loaded.device).eval()


def _reread_config(ours: Any, path: Path) -> Any:
    """The file's own shape, but for what transformers leaves unread and llama.cpp reads."""
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    unread = ["attention_bias", "mlp_bias"]  # llama.cpp sees them by their tensors
    if ours.model_type.startswith("qwen"):
        unread.append("head_dim")
    if ours.rope_parameters.get("rope_type", "default") != "default":
        unread.append("rope_parameters")
    for key in unread:
        if hasattr(ours, key):
            setattr(config, key, getattr(ours, key))
    return config


def _compare_weights(model: Any, reread: Any, name: str, gguf_type: str) -> None:
    theirs = reread.state_dict()
    for key, weight in model.state_dict().items():
        kind = tensor_type(key, tuple(weight.shape), GGUF_TYPES[gguf_type])
        rounded = torch.from_numpy(gguf.dequantize(packed(weight, kind), kind))
        expected = rounded.reshape(weight.shape).to(weight.device, weight.dtype)
        if key not in theirs or not torch.equal(expected, theirs[key]):
            raise ModelError(f"{name} was read again and has other values in {key}")


@torch.inference_mode()
def _compare_logits(loaded: LoadedModel, reread: Any, name: str, gguf_type: str) -> Checked:
    ids = encode_prompt(render_prompt(_probe(), loaded.wording), loaded.tokenizer)
    batch = torch.tensor([ids], device=loaded.device)
    ours = loaded.model(batch).logits[0].float()  # (length, vocab)
    theirs = reread(batch).logits[0].float()
    spread = (ours - ours.mean(-1, keepdim=True)).square().mean().sqrt()
    difference = float((ours - theirs).square().mean().sqrt() / spread)
    allowed = _ROUNDING[gguf_type]
    if loaded.model.dtype in (torch.bfloat16, torch.float16):
        allowed = max(allowed, _COMPUTED_IN_HALF)
    if not difference <= allowed:  # also where it is not a number
        raise ModelError(
            f"{name} was read again and its logits differ by {difference:.2g} of their "
            f"spread, more than the {allowed:g} that rounding to {gguf_type} explains"
        )
    same = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    return Checked(difference, float(same), len(ids))


def _probe() -> Example:
    passages = tuple(Passage(f"Probe {n}", text) for n, text in enumerate(_TEXTS, start=1))
    return Example("probe", "what was sold in 1911", (), passages, ())
