"""What was trained reads the same after a round trip through its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from scratchpad_rag.config import ModelConfig, PeftConfig
from scratchpad_rag.errors import CheckpointError
from scratchpad_rag.models.adapters import (
    can_merge,
    merge_for_good,
    merged_adapter,
    use_adapter,
)
from scratchpad_rag.models.checkpoints import read_adapter, save_adapter, save_checkpoint
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.models.restore import load_adapter
from scratchpad_rag.models.start import begin_training
from tests.models.tiny import describe, fresh, logits, same, save_tiny_qwen, shake, state

QV = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
KINDS: dict[str, dict[str, Any]] = {
    "plain": QV,
    "all-linear": {**QV, "target_modules": "all-linear"},
    "rslora": {**QV, "use_rslora": True},
    "dora": {**QV, "use_dora": True},
    "head": {**QV, "target_modules": ["q_proj", "lm_head"]},
    "embeddings": {**QV, "target_modules": ["q_proj", "embed_tokens"]},
    "dora on embeddings": {**QV, "target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "head saved": {**QV, "modules_to_save": ["lm_head"]},
    "embeddings saved": {**QV, "modules_to_save": ["embed_tokens"]},
    "both saved": {**QV, "modules_to_save": ["embed_tokens", "lm_head"]},
    "norms saved": {**QV, "modules_to_save": ["norm"]},
    "tied": {**QV, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "tokens": {**QV, "trainable_token_indices": [3, 7]},
    "lora biases": {**QV, "bias": "lora_only"},
    "all biases": {**QV, "bias": "all"},
    "biases of B": {**QV, "lora_bias": True},
    "patterns": {
        **QV,
        "rank_pattern": {"layers.1.self_attn.v_proj": 2},
        "alpha_pattern": {"q_proj": 3},
    },
    "rslora patterns": {**QV, "use_rslora": True, "rank_pattern": {"v_proj": 2}},
    "one layer": {**QV, "layers_to_transform": [1]},
    "regex": {**QV, "target_modules": r".*\.1\..*(q|k)_proj"},
    "excluded": {**QV, "exclude_modules": ["layers.0.self_attn.q_proj"]},
    "gaussian": {**QV, "init_lora_weights": "gaussian"},
    "orthogonal": {**QV, "init_lora_weights": "orthogonal"},
    "mica": {**QV, "init_lora_weights": "mica"},
}


@pytest.fixture(scope="module", params=["mistral", "qwen"])
def base(
    request: pytest.FixtureRequest,
    tiny_mistral: Path,
    byte_level_tokenizer: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> LoadedModel:
    """Mistral has no biases and its embeddings are apart; Qwen has, and they are tied."""
    folder = tiny_mistral
    if request.param == "qwen":
        folder = save_tiny_qwen(tmp_path_factory.mktemp("qwen") / "q", byte_level_tokenizer)
    return load_model(ModelConfig(str(folder), torch_dtype="float32", prompt_format="plain"))


def train_like(base: LoadedModel, kwargs: dict[str, Any], folder: Path) -> LoadedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        loaded = begin_training(fresh(base), PeftConfig(kwargs=kwargs), folder)
    shake(loaded)
    return loaded


@pytest.mark.parametrize("kind", KINDS)
def test_files_give_the_same_logits(base: LoadedModel, tmp_path: Path, kind: str) -> None:
    trained = train_like(base, KINDS[kind], tmp_path / "run")
    wanted, untouched = logits(trained), logits(base)
    assert not torch.allclose(wanted, untouched, atol=1e-2)
    metadata = describe(trained)
    save_adapter(trained, metadata, tmp_path / "folder")
    save_checkpoint(trained, metadata, tmp_path / "one.pt")
    for path in (tmp_path / "folder", tmp_path / "one.pt"):
        loaded = fresh(base)
        before = state(loaded.model)
        again = load_adapter(loaded, read_adapter(path), PeftConfig(kwargs=KINDS[kind]))
        with use_adapter(again, "default"):
            assert torch.equal(logits(again), wanted)
        with use_adapter(again, None):
            assert torch.equal(logits(again), untouched)
        with merged_adapter(again, "default"):
            assert torch.allclose(logits(again), wanted, atol=1e-4)
        assert same(state(again.model), before)
        for_good = merge_for_good(again)
        assert torch.allclose(logits(for_good), wanted, atol=1e-4)
        assert isinstance(for_good.model, PeftModel) != can_merge(again, "default")
    one, other = (read_adapter(tmp_path / name).weights for name in ("folder", "one.pt"))
    assert same(one, other)


def test_what_peft_reads_from_the_folder(base: LoadedModel, tmp_path: Path) -> None:
    """Other programs load the folder with PEFT alone."""
    for kind in ("dora", "both saved", "patterns", "all biases", "head"):
        trained = train_like(base, KINDS[kind], tmp_path / kind)
        save_adapter(trained, describe(trained), tmp_path / kind)
        theirs = PeftModel.from_pretrained(fresh(base).model, str(tmp_path / kind))
        assert torch.equal(logits(base.with_model(theirs)), logits(trained)), kind


def test_two_checkpoints_that_change_the_base_do_not_mix(base: LoadedModel, tmp_path: Path) -> None:
    """As compare has them: biases, saved modules and a whole model on one base."""
    kinds = {key: KINDS[key] for key in ("lora biases", "all biases", "both saved", "dora")}
    loaded, wanted = fresh(base), {None: logits(base)}
    for number, (kind, kwargs) in enumerate(kinds.items()):
        trained = begin_training(fresh(base), PeftConfig(kwargs=kwargs), tmp_path)
        shake(trained, seed=number)
        wanted[kind] = logits(trained)
        save_checkpoint(trained, describe(trained), tmp_path / f"{number}.pt")
        loaded = load_adapter(loaded, read_adapter(tmp_path / f"{number}.pt"), None, kind)
    whole = begin_training(fresh(base), PeftConfig("none"), tmp_path)
    shake(whole, seed=9, scale=0.05)
    wanted["whole"] = logits(whole)
    save_adapter(whole, describe(whole), tmp_path / "whole")
    loaded = load_adapter(loaded, read_adapter(tmp_path / "whole"), None, "whole")
    for name in (None, *kinds, "whole", None, "dora", "lora biases"):
        with use_adapter(loaded, name):
            assert torch.equal(logits(loaded), wanted[name]), name
        with merged_adapter(loaded, name):
            assert torch.allclose(logits(loaded), wanted[name], atol=1e-4), name
    with pytest.raises(KeyError, match="no adapter 'other'"), use_adapter(loaded, "other"):
        pass


@pytest.mark.parametrize("kind", ["lora biases", "both saved", "dora"])
def test_training_goes_on_from_a_checkpoint(base: LoadedModel, tmp_path: Path, kind: str) -> None:
    trained = train_like(base, KINDS[kind], tmp_path)
    names = {name for name, value in trained.model.named_parameters() if value.requires_grad}
    save_checkpoint(trained, describe(trained), tmp_path / "first.pt")
    config = PeftConfig(kwargs=KINDS[kind])
    loaded = load_adapter(fresh(base), read_adapter(tmp_path / "first.pt"), config)
    going_on = begin_training(loaded, config, tmp_path)
    assert {n for n, v in going_on.model.named_parameters() if v.requires_grad} == names
    assert torch.equal(logits(going_on), logits(trained))
    shake(going_on, seed=11)
    save_checkpoint(going_on, describe(going_on), tmp_path / "second.pt")
    again = merge_for_good(load_adapter(fresh(base), read_adapter(tmp_path / "second.pt"), config))
    assert torch.allclose(logits(again), logits(going_on), atol=1e-4)
    assert not torch.allclose(logits(again), logits(trained), atol=1e-2)


@pytest.mark.parametrize("kind", ["dora", "both saved", "embeddings"])
def test_a_bare_state_dict_of_a_whole_peft_model(
    base: LoadedModel, tmp_path: Path, kind: str
) -> None:
    """As `torch.save(model.state_dict())` makes it: the base's weights are in it too."""
    trained = train_like(base, KINDS[kind], tmp_path)
    torch.save(trained.model.state_dict(), tmp_path / "bare.pt")
    adapter = read_adapter(tmp_path / "bare.pt")
    assert adapter.metadata is None
    again = load_adapter(fresh(base), adapter, PeftConfig(kwargs=KINDS[kind]))
    assert torch.equal(logits(again), logits(trained))
    with pytest.raises(CheckpointError, match="another base model or target"):
        load_adapter(fresh(base), adapter, PeftConfig(kwargs=KINDS["one layer"]))


def test_a_checkpoint_without_its_extra_tensors_is_refused(
    base: LoadedModel, tmp_path: Path
) -> None:
    trained = train_like(base, KINDS["both saved"], tmp_path)
    save_checkpoint(trained, describe(trained), tmp_path / "a.pt")
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    del content["model_state_dict"]["base_model.model.lm_head.weight"]
    torch.save(content, tmp_path / "cut.pt")
    with pytest.raises(CheckpointError, match=r"misses base_model\.model\.lm_head\.weight"):
        load_adapter(fresh(base), read_adapter(tmp_path / "cut.pt"), None)


# --- precision


def test_what_trained_goes_to_float32_and_back(tiny_mistral: Path, tmp_path: Path) -> None:
    from scratchpad_rag.models.adapters import to_base_precision, to_training_precision

    config = ModelConfig(str(tiny_mistral), torch_dtype="bfloat16", prompt_format="plain")
    for peft in (PeftConfig(kwargs=KINDS["both saved"]), PeftConfig("none")):
        loaded = begin_training(load_model(config), peft, tmp_path)
        to_training_precision(loaded)
        kinds = {value.dtype for value in loaded.model.parameters() if value.requires_grad}
        assert kinds == {torch.float32}
        to_base_precision(loaded)
        assert {value.dtype for value in loaded.model.parameters()} == {torch.bfloat16}
        # The rotary frequencies are no weights: rounded, they would turn far tokens wrongly.
        assert (
            loaded.model.get_buffer(
                next(n for n, _ in loaded.model.named_buffers() if n.endswith("inv_freq"))
            ).dtype
            is torch.float32
        )


# --- whole models


@pytest.fixture
def whole(base: LoadedModel, tmp_path: Path) -> LoadedModel:
    loaded = begin_training(fresh(base), PeftConfig("none"), tmp_path)
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    shake(loaded, scale=0.05)
    return loaded


def test_a_finetuned_model_comes_back_whole(
    base: LoadedModel, whole: LoadedModel, tmp_path: Path
) -> None:
    wanted, untouched = logits(whole), logits(base)
    assert not torch.allclose(wanted, untouched, atol=1e-2)
    metadata = describe(whole)
    save_adapter(whole, metadata, tmp_path / "folder")
    save_checkpoint(whole, metadata, tmp_path / "one.pt")
    tied = base.model.config.tie_word_embeddings
    held = torch.load(tmp_path / "one.pt", weights_only=True)["model_state_dict"]
    assert ("lm_head.weight" in held) != tied
    sizes = sum(value.numel() for value in held.values())
    assert sizes == sum(value.numel() for value in base.model.parameters())
    for path in (tmp_path / "folder", tmp_path / "one.pt"):
        adapter = read_adapter(path)
        assert adapter.metadata == metadata
        assert adapter.is_full
        again = load_adapter(fresh(base), adapter, PeftConfig("none"))
        before = state(again.model)
        for read in (use_adapter, merged_adapter):
            with read(again, "default"):
                assert torch.equal(logits(again), wanted)
            with read(again, None):
                assert torch.equal(logits(again), untouched)
            assert same(state(again.model), before)
        assert torch.equal(logits(merge_for_good(again)), wanted)
    # The folder is a model of its own too, whose fingerprint is another.
    alone = load_model(ModelConfig(str(tmp_path / "folder"), torch_dtype="float32"))
    assert torch.equal(logits(alone), wanted)
    assert alone.base_hash != base.base_hash


def test_a_finetuned_model_is_refused_where_it_does_not_belong(
    base: LoadedModel, whole: LoadedModel, tmp_path: Path
) -> None:
    save_adapter(whole, describe(whole), tmp_path / "folder")
    save_checkpoint(whole, describe(whole), tmp_path / "one.pt")
    other = replace(base, base_hash="0" * 64)
    with pytest.raises(CheckpointError, match="has other weights"):
        load_adapter(other, read_adapter(tmp_path / "one.pt"), None)
    for name in ("folder", "one.pt"):
        adapter = read_adapter(tmp_path / name)
        with pytest.raises(CheckpointError, match="trained with all weights, and --peft_config"):
            load_adapter(fresh(base), adapter, PeftConfig(kwargs=QV))
        packed = replace(base, config=replace(base.config, quantization="nf4"))
        with pytest.raises(CheckpointError, match="choose quantization null"):
            load_adapter(packed, adapter, None)
    content = torch.load(tmp_path / "one.pt", weights_only=True)
    del content["model_state_dict"]["model.norm.weight"]
    torch.save(content, tmp_path / "cut.pt")
    with pytest.raises(CheckpointError, match=r"misses model\.norm\.weight"):
        load_adapter(fresh(base), read_adapter(tmp_path / "cut.pt"), None)
    weights = tmp_path / "folder/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        read_adapter(tmp_path / "folder")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        read_adapter(tmp_path / "folder")


def test_a_lora_checkpoint_is_no_whole_model(base: LoadedModel, tmp_path: Path) -> None:
    trained = train_like(base, QV, tmp_path)
    save_checkpoint(trained, describe(trained), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="as a LoRA adapter, and --peft_config says method"):
        load_adapter(fresh(base), read_adapter(tmp_path / "a.pt"), PeftConfig("none"))
