"""QLoRA: adapters are trained on packed weights, which bitsandbytes also computes on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scratchpad_rag.config import ModelConfig, PeftConfig
from scratchpad_rag.errors import ConfigError
from scratchpad_rag.models.adapters import (
    can_merge,
    merge_for_good,
    merged_adapter,
    to_base_precision,
    to_training_precision,
)
from scratchpad_rag.models.checkpoints import read_adapter, save_adapter, save_checkpoint
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.models.restore import load_adapter, precision_note
from scratchpad_rag.models.start import begin_training, require_trainable
from tests.models.tiny import IDS, describe, logits, same, save_tiny_qwen, state

pytest.importorskip("bitsandbytes")
QV: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
KINDS: dict[str, dict[str, Any]] = {
    "plain": QV,
    "all-linear": {**QV, "target_modules": "all-linear"},
    "dora": {**QV, "use_dora": True},
    "head saved": {**QV, "modules_to_save": ["lm_head"]},
}


@pytest.fixture(scope="module")
def wide(byte_level_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On a CPU, bitsandbytes reads nf4 in blocks of 32 by 64 weights."""
    folder = tmp_path_factory.mktemp("wide") / "qwen"
    return save_tiny_qwen(folder, byte_level_tokenizer, tied=False, width=64)


def load(folder: Path, quantization: str | None, dtype: str = "float32") -> LoadedModel:
    config = ModelConfig(str(folder), torch_dtype=dtype, quantization=quantization)
    return load_model(replace(config, prompt_format="plain"))


def train_step(loaded: LoadedModel, steps: int = 3) -> list[float]:
    """The losses of a few steps of AdamW on one sequence."""
    trained = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.02)
    losses = []
    loaded.model.train()
    low = loaded.model.get_base_model().dtype is torch.bfloat16
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):  # as the trainer does
            loss = loaded.model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_trains_on_packed_weights_and_comes_back(
    wide: Path, tmp_path: Path, quantization: str, kind: str, dtype: str
) -> None:
    if kind == "dora" and quantization == "int8":
        pytest.skip("refused on a CPU: see test_what_packed_weights_cannot_do")
    config = PeftConfig(kwargs=KINDS[kind])
    base = load(wide, quantization, dtype)
    packed = base.model.model.layers[0].self_attn.q_proj.weight
    assert not packed.dtype.is_floating_point
    loaded = begin_training(base, config, tmp_path)
    to_training_precision(loaded)
    assert {p.dtype for p in loaded.model.parameters() if p.requires_grad} == {torch.float32}
    # Only what trains is made float32: the rest would lose what packing saved.
    held = loaded.model.get_base_model().model.embed_tokens.weight
    assert held.dtype is getattr(torch, dtype)
    before = state(loaded.model)
    losses = train_step(loaded)
    assert losses[-1] < losses[0]
    assert same(state(loaded.model), before)
    to_base_precision(loaded)
    wanted = logits(loaded)
    metadata = describe(loaded, training={"quantization": quantization})
    save_adapter(loaded, metadata, tmp_path / "folder")
    save_checkpoint(loaded, metadata, tmp_path / "one.pt")
    for path in (tmp_path / "folder", tmp_path / "one.pt"):
        adapter = read_adapter(path)
        again = load_adapter(load(wide, quantization, dtype), adapter, config)
        assert torch.equal(logits(again), wanted)
        assert precision_note(again, adapter) is None
        assert not can_merge(again, "default")
        assert merge_for_good(again) is again
        with merged_adapter(again, "default"):
            assert torch.equal(logits(again), wanted)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("tied", [True, False])
def test_packed_weights_have_the_fingerprint_of_the_weights_they_were_packed_from(
    tiny_mistral: Path, byte_level_tokenizer: Any, tmp_path: Path, quantization: str, tied: bool
) -> None:
    qwen = save_tiny_qwen(tmp_path / "qwen", byte_level_tokenizer, tied)
    hashes = [load(folder, None).base_hash for folder in (tiny_mistral, qwen)]
    assert [load(f, quantization).base_hash for f in (tiny_mistral, qwen)] == hashes
    assert load(tiny_mistral, quantization, "bfloat16").base_hash == hashes[0]
    # In several files, as large models are kept.
    sharded = load(qwen, None)
    sharded.model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    sharded.tokenizer.save_pretrained(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert load(tmp_path / "sharded", quantization).base_hash == hashes[1]


def test_a_qlora_adapter_reads_on_the_unpacked_base_with_a_note(wide: Path, tmp_path: Path) -> None:
    loaded = begin_training(load(wide, "nf4"), PeftConfig(kwargs=QV), tmp_path)
    train_step(loaded)
    wanted = logits(loaded)
    metadata = describe(loaded, training={"quantization": "nf4"})
    save_checkpoint(loaded, metadata, tmp_path / "one.pt")
    adapter = read_adapter(tmp_path / "one.pt")
    base = load(wide, None)
    untouched = logits(base)
    again = load_adapter(base, adapter, None)
    note = precision_note(again, adapter)
    assert note is not None
    assert note.endswith(
        "was trained on nf4 weights and reads with unquantized ones; answers may differ"
    )
    # Nearer to what was trained than the base is: packing costs less than the training gave.
    gap, change = (logits(again) - wanted).norm(), (untouched - wanted).norm()
    assert 0 < gap < change


def test_what_packed_weights_cannot_do(tiny_mistral: Path, tmp_path: Path) -> None:
    for quantization in ("nf4", "int8"):
        packed = load(tiny_mistral, quantization)
        with pytest.raises(ConfigError, match="full finetuning trains the weights themselves"):
            require_trainable(packed, PeftConfig("none"))
        for first in ("pissa", "olora"):
            config = PeftConfig(kwargs={**QV, "init_lora_weights": first})
            with pytest.raises(ConfigError, match="these are quantized; choose quantization null"):
                begin_training(packed, config, tmp_path)
        saved = PeftConfig(kwargs={**QV, "modules_to_save": ["o_proj"]})
        with pytest.raises(ConfigError, match="o_proj is quantized and cannot be") as caught:
            begin_training(packed, saved, tmp_path)
        assert "\n" not in str(caught.value)
    if not torch.cuda.is_available():  # there PEFT packs the weights once more, and wrongly
        with pytest.raises(ConfigError, match="on a CPU choose quantization nf4"):
            require_trainable(packed, PeftConfig(kwargs=KINDS["dora"]))
