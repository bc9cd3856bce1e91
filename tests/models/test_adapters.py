from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scratchpad_rag.config import ModelConfig, PeftConfig
from scratchpad_rag.models.adapters import (
    active_adapter,
    add_lora,
    merge_for_good,
    merged_adapter,
)
from scratchpad_rag.models.load import LoadedModel, load_model

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.0}
PEFT = PeftConfig(kwargs=LORA)
IDS = torch.arange(3, 43)[None]


@pytest.fixture(scope="module")
def base(tiny_mistral: Path) -> LoadedModel:
    return load_model(ModelConfig(str(tiny_mistral), torch_dtype="float32"))


def fresh(base: LoadedModel) -> LoadedModel:
    return base.with_model(copy.deepcopy(base.model))


def logits(loaded: LoadedModel) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(IDS).logits


@pytest.fixture(scope="module")
def trained(base: LoadedModel) -> LoadedModel:
    """An adapter whose weights are all other than at the start, drawn from a seed."""
    loaded = add_lora(fresh(base), PEFT)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    loaded.model.eval()
    return loaded


# --- merged while it reads


def without_lora(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items() if "lora" not in key}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_merged_adapter_reads_alike_and_is_taken_out_bit_for_bit(
    trained: LoadedModel, dtype: torch.dtype
) -> None:
    loaded = trained.with_model(copy.deepcopy(trained.model).to(dtype))
    apart, before = logits(loaded), without_lora(loaded.model)
    with merged_adapter(loaded, active_adapter(loaded)):
        together = logits(loaded)
        held = without_lora(loaded.model)
        assert any(not torch.equal(held[key], before[key]) for key in before)
    # In bfloat16 the sum is rounded once more than the two products are.
    assert torch.allclose(together, apart, atol=1e-9 if dtype == torch.float64 else 0.5)
    after = without_lora(loaded.model)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert torch.equal(logits(loaded), apart)


def test_an_error_while_merged_takes_the_adapter_out(trained: LoadedModel) -> None:
    before = without_lora(trained.model)
    with pytest.raises(KeyboardInterrupt), merged_adapter(trained, "default"):
        raise KeyboardInterrupt
    assert all(torch.equal(v, before[k]) for k, v in without_lora(trained.model).items())


def test_without_a_name_the_base_reads(base: LoadedModel, trained: LoadedModel) -> None:
    with merged_adapter(trained, None):
        assert torch.equal(logits(trained), logits(base))
    with merged_adapter(base, None):
        assert torch.equal(logits(base), logits(base))


def test_merged_for_good(base: LoadedModel, trained: LoadedModel) -> None:
    merged = merge_for_good(trained.with_model(copy.deepcopy(trained.model)))
    assert type(merged.model) is type(base.model)
    assert torch.allclose(logits(merged), logits(trained), atol=1e-4)
    assert merge_for_good(base) is base
    quantized = replace(trained, config=replace(trained.config, quantization="int8"))
    assert merge_for_good(quantized) is quantized
    made_so = trained.with_model(copy.deepcopy(trained.model))
    made_so.model.get_base_model().config.quantization_config = {"quant_method": "awq"}
    assert merge_for_good(made_so) is made_so
    before = without_lora(made_so.model)
    with merged_adapter(made_so, active_adapter(made_so)):
        assert all(torch.equal(v, before[k]) for k, v in without_lora(made_so.model).items())
