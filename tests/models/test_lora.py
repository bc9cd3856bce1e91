"""LoRA configs are checked in one line, against PEFT and against the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.config import ModelConfig, PeftConfig
from scratchpad_rag.errors import ConfigError
from scratchpad_rag.models.adapters import add_lora
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.models.lora import lora_config, lora_kwargs, plain_lora, require_modules
from scratchpad_rag.models.start import require_trainable
from tests.models.tiny import fresh

LINEAR = "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"


@pytest.fixture(scope="module")
def base(tiny_mistral: Path) -> LoadedModel:
    return load_model(ModelConfig(str(tiny_mistral), torch_dtype="float32"))


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"rank": 4}, "unknown key 'rank'"),
        ({"lora_alfa": 4}, "unknown key 'lora_alfa'; did you mean 'lora_alpha'?"),
        ({"r": 0}, "r is 0; it must be a whole number from 1"),
        ({"r": "many"}, "r is 'many'; it must be a whole number from 1"),
        ({"r": 2.5}, "r is 2.5; it must be a whole number from 1"),
        ({"lora_alpha": "16"}, "lora_alpha is '16'; it must be a number"),
        ({"lora_alpha": True}, "lora_alpha is True; it must be a number"),
        ({"lora_dropout": 1.5}, "lora_dropout is 1.5; it must be a number from 0 to 1"),
        ({"use_dora": "yes"}, "use_dora is 'yes'; it must be true or false"),
        ({"bias": "some"}, "bias is 'some'; it must be none, all or lora_only"),
        ({"target_modules": 4}, "target_modules is 4; it must be a list of names or a text"),
        ({"modules_to_save": "lm_head"}, "modules_to_save is 'lm_head'; it must be a list of"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern is {'q_proj': 0}; it must be ranks by"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern is ['q_proj']; it must be numbers by"),
        ({"target_modules": "q_proj", "layers_to_transform": [1]}, "`layers_to_transform` cannot"),
        ({"kasa_config": {}}, "kasa_config is not supported: it changes the base model"),
        ({"layer_replication": [[0, 1]]}, "layer_replication is not supported"),
        ({"init_lora_weights": "magic"}, "init_lora_weights 'magic' is not supported"),
    ],
)
def test_what_is_no_config_is_refused_in_one_line(kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lora_config({"target_modules": ["q_proj"], **kwargs})
    assert str(caught.value).startswith(f"PEFT rejects the LoRA config: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        (
            {"target_modules": ["query"]},
            f"target_modules: there is no module 'query' (choose from {LINEAR})",
        ),
        (
            {"target_modules": ["q_proj", "k_porj"]},  # one of them is there
            "target_modules: there is no module 'k_porj' (choose from k_proj, down_proj, "
            "gate_proj, lm_head, o_proj, q_proj, up_proj, v_proj)",
        ),
        (
            {"target_modules": ["model.layers.2.self_attn.q_proj"]},
            "target_modules: there is no module 'model.layers.2.self_attn.q_proj' (choose from "
            "q_proj, down_proj,",
        ),
        (
            {"target_modules": "q_proj"},
            "target_modules: 'q_proj' matches no module's whole name, such as "
            "'model.layers.0.self_attn.q_proj'; a list of names matches their ends (choose from "
            "q_proj, down_proj,",
        ),
        ({"target_modules": r".*\.(w_q|w_v)"}, r"target_modules: '.*\\.(w_q|w_v)' matches no"),
        ({"target_modules": "(q_proj"}, "target_modules: '(q_proj' is no regular expression"),
        (
            {"modules_to_save": ["lm_had"]},
            "modules_to_save: there is no module 'lm_had' (choose from lm_head, down_proj, "
            "embed_tokens, gate_proj,",
        ),
        ({"modules_to_save": ["head"]}, "modules_to_save: there is no module 'head' (choose from"),
        ({"layers_to_transform": [0, 2]}, "layers_to_transform: there is no layer 2 in this model"),
        ({"layers_to_transform": 7}, "layers_to_transform: there is no layer 7 in this model"),
        (
            {"rank_pattern": {"k_proj": 2}},
            "rank_pattern: 'k_proj' matches no target module (choose from q_proj)",
        ),
        ({"alpha_pattern": {"(": 2}}, "alpha_pattern: '(' is no regular expression"),
        ({"exclude_modules": ["q_proj"]}, "PEFT rejects the LoRA config: "),
        ({"trainable_token_indices": [100000]}, "PEFT rejects the LoRA config: "),
        ({"target_modules": ["mlp"]}, "PEFT rejects the LoRA config: Target module MistralMLP"),
    ],
)
def test_modules_that_are_not_there(base: LoadedModel, kwargs: dict[str, Any], said: str) -> None:
    for present in (False, True):  # on the model alone, and beside another adapter
        loaded = fresh(base)
        if present:
            loaded = add_lora(loaded, PeftConfig(kwargs={"target_modules": "all-linear"}), "one")
        with pytest.raises(ConfigError) as caught:
            add_lora(loaded, PeftConfig(kwargs={"target_modules": ["q_proj"], **kwargs}), "two")
        assert str(caught.value).startswith(said)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"target_modules": "all-linear"},
        {"target_modules": "ALL-LINEAR"},
        {"target_modules": ["self_attn.q_proj", "model.layers.1.mlp.up_proj"]},
        {"target_modules": r".*_proj", "rank_pattern": {r".*\.0\..*k_proj": 2}},
        {"target_modules": "all-linear", "alpha_pattern": {"k_proj": 2}},
        {"modules_to_save": ["lm_head", "model.norm", "mlp"]},
        {},  # PEFT knows Mistral's usual ones
    ],
)
def test_what_is_there_is_accepted(base: LoadedModel, kwargs: dict[str, Any]) -> None:
    require_trainable(base, PeftConfig(kwargs=kwargs))
    add_lora(fresh(base), PeftConfig(kwargs=kwargs))


def test_the_saved_config_says_what_is_not_default(base: LoadedModel) -> None:
    kwargs = {"r": 8, "lora_alpha": 8, "target_modules": ["v_proj", "q_proj"], "use_dora": True}
    model = add_lora(fresh(base), PeftConfig(kwargs=kwargs)).model
    said = lora_kwargs(model)
    assert said == {
        "task_type": "CAUSAL_LM",
        "r": 8,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
        "use_dora": True,
    }


def test_a_plain_config_of_twice_the_rank_scales_alike() -> None:
    pissa = {"r": 8, "lora_alpha": 12, "init_lora_weights": "pissa_niter_4"}
    assert plain_lora(pissa) == {"r": 16, "lora_alpha": 24}
    stable = plain_lora({**pissa, "use_rslora": True})
    assert stable["lora_alpha"] / 16**0.5 == pytest.approx(12 / 8**0.5)
    patterns = plain_lora({**pissa, "rank_pattern": {"q": 2}, "alpha_pattern": {"k": 5}})
    assert patterns["rank_pattern"] == {"q": 4}
    assert patterns["alpha_pattern"] == {"k": 10}
    assert plain_lora({"r": 8, "init_lora_weights": "gaussian"})["r"] == 8


def test_require_modules_leaves_the_model_alone(base: LoadedModel) -> None:
    before = [name for name, _ in base.model.named_modules()]
    require_modules(base, lora_config({"target_modules": ["q_proj"]}))
    assert [name for name, _ in base.model.named_modules()] == before
