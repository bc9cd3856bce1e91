"""A fast tokenizer's vocabulary as llama.cpp reads it from a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gguf

from scratchpad_rag.errors import ModelError

_Kind = gguf.TokenType
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_MARKS_AND_SPACES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
)
# The pattern that cuts a text before merges -> llama.cpp's name of it (`src/llama-vocab.cpp`).
_PATTERNS = {
    _WORDS + r"|\p{N}{1,3}" + _MARKS_AND_SPACES: "llama-bpe",
    _WORDS + r"|\p{N}" + _MARKS_AND_SPACES: "qwen2",
    _CASED_WORDS + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}
# Under these names llama.cpp takes a word that is in the vocabulary whole, without merges.
_WHOLE_WORDS = ("llama-bpe", "tekken")


class Vocabulary(NamedTuple):
    """What `tokenizer.ggml.*` holds. `merges` are byte-level BPE's, `scores` SentencePiece's."""

    model: str  # gpt2 | llama
    pre: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str] | None
    scores: list[float] | None
    space_prefix: bool


def add_vocabulary(
    writer: gguf.GGUFWriter, tokenizer: Any, size: int, stop_token_ids: Sequence[int]
) -> None:
    """Write a tokenizer with `size` tokens. Raises ModelError for one that llama.cpp has not."""
    vocabulary = read_vocabulary(tokenizer, size)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    for token, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if token is not None:
            add(token)
    if stop_token_ids[0] != tokenizer.eos_token_id:
        writer.add_eot_token_id(stop_token_ids[0])
    bos, eos = added_around(tokenizer)
    writer.add_add_bos_token(bos)
    writer.add_add_eos_token(eos)
    writer.add_add_space_prefix(vocabulary.space_prefix)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def added_around(tokenizer: Any) -> tuple[bool, bool]:
    """Whether a text is opened by the beginning-of-sequence token and closed by the end's."""
    bare = tokenizer("a", add_special_tokens=False).input_ids
    ids = tokenizer("a").input_ids
    for bos in (False, True):
        for eos in (False, True):
            opening = [tokenizer.bos_token_id] if bos else []
            closing = [tokenizer.eos_token_id] if eos else []
            if ids == [*opening, *bare, *closing]:
                return bos, eos
    raise ModelError("no GGUF file is written: its tokenizer adds more than llama.cpp can")


def read_vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """The vocabulary of a fast tokenizer; ids that it leaves out are unused.

    Raises ModelError for one that is neither byte-level BPE nor SentencePiece's BPE.
    """
    if not tokenizer.is_fast:
        raise ModelError("no GGUF file is written: its tokenizer has no tokenizer.json")
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    if model["type"] != "BPE":
        raise ModelError(
            f"no GGUF file is written: llama.cpp's {model['type']} tokenizers are not those of "
            "the models known here, which are BPE"
        )
    texts = {index: text for text, index in tokenizer.get_vocab().items()}
    if max(texts) >= size:
        raise ModelError(
            f"no GGUF file is written: the tokenizer has token {max(texts)}, and the model's "
            f"embeddings end at {size - 1}"
        )
    tokens = [texts.get(index, f"[PAD{index}]") for index in range(size)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if model.get("byte_fallback"):
        return Vocabulary(
            model="llama",
            pre="default",
            tokens=tokens,
            kinds=_kinds(content, texts, size),
            merges=None,
            scores=_scores(merges, tokens),
            space_prefix=_has_space_prefix(content),
        )
    pre = pre_tokenizer_name(content)
    if bool(model.get("ignore_merges")) != (pre in _WHOLE_WORDS):
        raise ModelError(
            f"no GGUF file is written: llama.cpp's tokenizer {pre} differs from this one in "
            "whether a whole word may be a token"
        )
    return Vocabulary("gpt2", pre, tokens, _kinds(content, texts, size), merges, None, False)


def pre_tokenizer_name(content: Mapping[str, Any]) -> str:
    """llama.cpp's name for how a byte-level tokenizer cuts texts before merges.

    It is read off the tokenizer, not off the model's name: the same model's tokenizer comes with
    digits cut apart (`smollm`) or not (`gpt-2`). Raises ModelError where llama.cpp has none.
    """
    steps = _steps(content.get("pre_tokenizer"), "pretokenizers")
    kinds = [step["type"] for step in steps]
    last = steps[-1] if steps else {}
    if kinds[-1:] == ["ByteLevel"] and not last.get("add_prefix_space"):
        if kinds == ["ByteLevel"] and last.get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and last.get("use_regex", True):
            if steps[0]["individual_digits"]:
                return "smollm"
        elif kinds == ["Split", "ByteLevel"] and not last.get("use_regex", True):
            pattern = steps[0]["pattern"].get("Regex")
            if pattern in _PATTERNS and steps[0]["behavior"] == "Isolated":
                return _PATTERNS[pattern]
    raise ModelError(
        f"no GGUF file is written: llama.cpp has no tokenizer known here that cuts texts by "
        f"{' and '.join(kinds) or 'nothing'} as this one does"
    )


def _steps(part: Mapping[str, Any] | None, key: str) -> list[Any]:
    if part is None:
        return []
    return list(part[key]) if part["type"] == "Sequence" else [part]


def _has_space_prefix(content: Mapping[str, Any]) -> bool:
    """Whether a text gets a space before its first word."""
    for step in _steps(content.get("normalizer"), "normalizers"):
        if step["type"] == "Prepend":
            return True
    for step in _steps(content.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] == "Metaspace":
            return bool(step.get("prepend_scheme", "always") != "never")
    return False


def _kinds(content: Mapping[str, Any], texts: Mapping[int, str], size: int) -> list[int]:
    added = {token["id"]: token["special"] for token in content["added_tokens"]}
    sentencepiece = bool(content["model"].get("byte_fallback"))
    unknown = content["model"].get("unk_token") if sentencepiece else None

    def kind(index: int) -> _Kind:
        if index not in texts:
            return _Kind.UNUSED
        if texts[index] == unknown:
            return _Kind.UNKNOWN
        if index in added:
            return _Kind.CONTROL if added[index] else _Kind.USER_DEFINED
        text = texts[index]
        if sentencepiece and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return _Kind.BYTE
        return _Kind.NORMAL

    return [int(kind(index)) for index in range(size)]


def _scores(merges: Sequence[str], tokens: Sequence[str]) -> list[float]:
    """SentencePiece joins the pair of the highest score first; merges stand in that order.

    A piece that no merge makes is a character or is added, and its score is never asked for.
    """
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    return [-float(ranks[text]) if text in ranks else 0.0 for text in tokens]
