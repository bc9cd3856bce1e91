"""PiSSA and OLoRA come back as plain LoRA for the base as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from scratchpad_rag.config import ModelConfig, PeftConfig
from scratchpad_rag.errors import ConfigError, TrainingError
from scratchpad_rag.models.adapters import (
    merge_for_good,
    merged_adapter,
    to_base_precision,
    to_training_precision,
)
from scratchpad_rag.models.checkpoints import (
    read_adapter,
    save_adapter,
    save_checkpoint,
    trained_weights,
)
from scratchpad_rag.models.conversion import INITIAL_FILE, as_plain_lora
from scratchpad_rag.models.fingerprint import weights_hash
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.models.restore import load_adapter
from scratchpad_rag.models.start import begin_training
from tests.models.tiny import describe, fresh, logits, same, save_tiny_qwen, shake, state

QV: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]}
KINDS: dict[str, dict[str, Any]] = {
    "pissa": QV,
    "rslora": {**QV, "use_rslora": True},
    "patterns": {**QV, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"q_proj": 3}},
    "head saved": {**QV, "modules_to_save": ["lm_head"]},
    "embeddings": {**QV, "target_modules": ["q_proj", "embed_tokens"]},
    "wide": {**QV, "r": 16, "target_modules": ["k_proj", "down_proj"]},  # k_proj is 16 by 32
}


@pytest.fixture(scope="module")
def base(tiny_mistral: Path) -> LoadedModel:
    return load_model(ModelConfig(str(tiny_mistral), torch_dtype="float32"))


def begin(base: LoadedModel, kwargs: dict[str, Any], first: str, folder: Path) -> LoadedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = PeftConfig(kwargs={**kwargs, "init_lora_weights": first})
        return begin_training(fresh(base), config, folder)


@pytest.mark.parametrize("first", ["pissa", "pissa_niter_4", "olora"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_checkpoint_is_plain_lora_for_the_base_as_it_was(
    base: LoadedModel, tmp_path: Path, kind: str, first: str
) -> None:
    trained = begin(base, KINDS[kind], first, tmp_path)
    # Nothing is trained yet: what was taken out of the base is what the adapter adds.
    assert torch.allclose(logits(trained), logits(base), atol=1e-4)
    assert weights_hash(trained.model.get_base_model()) != base.base_hash
    shake(trained, scale=0.05)
    wanted = logits(trained)
    assert not torch.allclose(wanted, logits(base), atol=1e-2)
    with merged_adapter(trained, "default"):
        assert torch.allclose(logits(trained), wanted, atol=1e-4)
    metadata = describe(trained)
    assert metadata.base_hash == base.base_hash
    assert "init_lora_weights" not in metadata.lora
    assert metadata.lora["r"] == 2 * KINDS[kind]["r"]
    save_adapter(trained, metadata, tmp_path / "folder")
    save_checkpoint(trained, metadata, tmp_path / "one.pt")
    asked = PeftConfig(kwargs={**KINDS[kind], "init_lora_weights": first})
    for path in (tmp_path / "folder", tmp_path / "one.pt"):
        loaded = fresh(base)
        before = state(loaded.model)
        again = load_adapter(loaded, read_adapter(path), asked)
        assert same(state(again.model), before)
        assert torch.allclose(logits(again), wanted, atol=1e-4)
        assert torch.allclose(logits(merge_for_good(again)), wanted, atol=1e-4)
    theirs = PeftModel.from_pretrained(fresh(base).model, str(tmp_path / "folder"))
    assert torch.allclose(logits(base.with_model(theirs)), wanted, atol=1e-4)


def test_the_same_as_peft_converts(base: LoadedModel, tmp_path: Path) -> None:
    """Its own conversion, by another route: side by side instead of factorised anew."""
    trained = begin(base, QV, "pissa", tmp_path)
    trained.model.peft_config["default"].init_lora_weights = True
    trained.model.save_pretrained(str(tmp_path / "first"))
    trained.model.peft_config["default"].init_lora_weights = "pissa"
    shake(trained, scale=0.05)
    trained.model.save_pretrained(
        str(tmp_path / "theirs"), path_initial_model_for_weight_conversion=str(tmp_path / "first")
    )
    theirs = read_adapter(tmp_path / "theirs").weights
    ours = trained_weights(trained)
    assert theirs.keys() == ours.keys()
    for key in (key for key in ours if ".lora_A." in key):
        other = key.replace("lora_A", "lora_B")
        assert ours[key].shape == theirs[key].shape
        assert torch.allclose(ours[other] @ ours[key], theirs[other] @ theirs[key], atol=1e-5)


def test_factors_by_hand() -> None:
    """B A - B0 A0 of rank 1 each: [[2, 0], [0, 0]] - [[0, 0], [0, 3]]."""
    a, b = "x.lora_A.weight", "x.lora_B.weight"
    weights = {
        a: torch.tensor([[1.0, 0.0]]),
        b: torch.tensor([[2.0], [0.0]]),
        "bias": torch.ones(2),
    }
    initial = {a: torch.tensor([[0.0, 1.0]]), b: torch.tensor([[0.0], [3.0]])}
    plain = as_plain_lora(weights, initial, torch.float32)
    assert plain[a].shape == (2, 2)
    assert torch.allclose(plain[b] @ plain[a], torch.tensor([[2.0, 0.0], [0.0, -3.0]]), atol=1e-6)
    assert torch.equal(plain["bias"], torch.ones(2))


def test_half_precision_rounds_the_difference_not_the_weights() -> None:
    """The difference is a thousandth of the factors; side by side, rounding would bury it."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    a0, b0 = draw(8, 64), draw(48, 8)
    a, b = a0 + 1e-3 * draw(8, 64), b0 + 1e-3 * draw(48, 8)
    wanted = b @ a - b0 @ a0
    keys = "x.lora_A.weight", "x.lora_B.weight"
    initial = dict(zip(keys, (a0, b0), strict=True))
    plain = as_plain_lora(dict(zip(keys, (a, b), strict=True)), initial, torch.bfloat16)
    ours = plain[keys[1]].float() @ plain[keys[0]].float()
    apart = [torch.cat(pair, dim).bfloat16().float() for pair, dim in (((b, -b0), 1), ((a, a0), 0))]
    error = (ours - wanted).norm() / wanted.norm()
    assert error < 0.01
    assert (apart[0] @ apart[1] - wanted).norm() / wanted.norm() > 100 * error


def test_in_bfloat16(tiny_mistral: Path, tmp_path: Path) -> None:
    half = load_model(ModelConfig(str(tiny_mistral), torch_dtype="bfloat16"))
    trained = begin(half, QV, "pissa", tmp_path)
    to_training_precision(trained)
    shake(trained, scale=0.05)
    to_base_precision(trained)
    learned = {p.dtype for name, p in trained.model.named_parameters() if "lora_" in name}
    assert learned == {torch.float32}  # until what they began with is taken off
    save_checkpoint(trained, describe(trained), tmp_path / "one.pt")
    adapter = read_adapter(tmp_path / "one.pt")
    assert {value.dtype for value in adapter.weights.values()} == {torch.bfloat16}
    again = load_adapter(fresh(half), adapter, None)
    assert {p.dtype for p in again.model.parameters()} == {torch.bfloat16}
    # The base less its principal part was rounded, and so is the base: by 1 part in 256 each.
    gap = (logits(again) - logits(trained)).float().abs().mean()
    change = (logits(trained) - logits(half)).float().abs().mean()
    assert gap < change / 10


# --- stopped and started again


@pytest.mark.parametrize("first", ["pissa", "pissa_niter_4", "olora"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_that_goes_on_begins_at_the_same_weights(
    tiny_mistral: Path, tmp_path: Path, first: str, dtype: str
) -> None:
    base = load_model(ModelConfig(str(tiny_mistral), torch_dtype=dtype))
    one = begin(base, KINDS["embeddings"], first, tmp_path)
    assert (tmp_path / INITIAL_FILE).is_file()
    torch.manual_seed(7)  # another process draws other numbers
    config = PeftConfig(kwargs={**KINDS["embeddings"], "init_lora_weights": first})
    other = begin_training(fresh(base), config, tmp_path)
    assert one.initial is not None
    assert other.initial is not None
    assert same(dict(one.initial), dict(other.initial))
    assert same(state(one.model), state(other.model))
    assert torch.equal(logits(one), logits(other))
    for loaded in (one, other):
        shake(loaded, scale=0.05)
    assert same(trained_weights(one), trained_weights(other))
    assert describe(one) == describe(other)


def test_what_a_run_kept_is_checked(base: LoadedModel, tmp_path: Path) -> None:
    begin(base, QV, "pissa", tmp_path)
    with pytest.raises(TrainingError, match="another adapter's weights; --overwrite"):
        begin(base, {**QV, "r": 2}, "pissa", tmp_path)
    kept = tmp_path / INITIAL_FILE
    kept.write_bytes(kept.read_bytes()[:-10])
    with pytest.raises(TrainingError, match="is damaged; --overwrite trains anew"):
        begin(base, QV, "pissa", tmp_path)


def test_plain_first_weights_keep_nothing(base: LoadedModel, tmp_path: Path) -> None:
    assert begin_training(fresh(base), PeftConfig(kwargs=QV), tmp_path).initial is None
    assert list(tmp_path.iterdir()) == []


# --- what cannot be converted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_dora": True}, "use_dora cannot be converted to plain LoRA"),
        ({"use_rslora": True, "rank_pattern": {"v_proj": 2}}, "rank_pattern cannot be converted"),
        ({"use_rslora": True, "alpha_pattern": {"v_proj": 2}}, "alpha_pattern cannot be converted"),
        ({"r": 20, "target_modules": ["k_proj"]}, "no rank 20 in model.layers.0.self_attn.k_proj"),
        ({"init_lora_weights": "pissa_niter_x"}, "'pissa_niter_x' is not supported; choose from"),
        ({"init_lora_weights": "loftq"}, "'loftq' is not supported; choose from true, false"),
        ({"init_lora_weights": "eva"}, "'eva' is not supported; choose from true, false"),
        ({"init_lora_weights": "corda"}, "'corda' is not supported; choose from true, false"),
        ({"init_lora_weights": "lora_ga"}, "'lora_ga' is not supported; choose from true, false"),
    ],
)
def test_refused(base: LoadedModel, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    config = PeftConfig(kwargs={**QV, "init_lora_weights": "pissa", **change})
    with pytest.raises(ConfigError, match=said) as caught:
        begin_training(fresh(base), config, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_two_modules_share_is_refused(
    byte_level_tokenizer: Any, tmp_path: Path
) -> None:
    folder = save_tiny_qwen(tmp_path / "tied", byte_level_tokenizer)
    tied = load_model(ModelConfig(str(folder), torch_dtype="float32"))
    with pytest.raises(ConfigError, match="lm_head shares its own with another module"):
        begin(tied, {**QV, "target_modules": ["q_proj", "lm_head"]}, "pissa", tmp_path)


def test_only_the_first_adapter_may_change_the_base(base: LoadedModel, tmp_path: Path) -> None:
    from scratchpad_rag.models.adapters import add_lora

    loaded = add_lora(fresh(base), PeftConfig(kwargs=QV))
    with pytest.raises(ConfigError, match="another adapter reads them"):
        add_lora(loaded, PeftConfig(kwargs={**QV, "init_lora_weights": "pissa"}), "second")
