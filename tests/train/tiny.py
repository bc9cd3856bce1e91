"""Tiny language models of several families, made on the spot, and samples of random tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  its usual name

from scratchpad_rag.config import TrainConfig
from scratchpad_rag.records import Encoded, Region
from scratchpad_rag.tokens.samples import FixedSamples
from scratchpad_rag.train.trainer import TrainJob, TrainResult, train

VOCABULARY = 101
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
# One update of everything there is.
ONE_UPDATE = TrainConfig(
    num_train_epochs=1, lr=1e-2, gradient_accumulation_steps=64, logging_steps=1, seed=5
)
STEPWISE = TrainConfig(
    num_train_epochs=2, lr=1e-2, gradient_accumulation_steps=1, logging_steps=1, seed=5
)


def tiny_lm(family: str = "Llama", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A model with random weights, always the same; `family` as transformers spells it."""
    import transformers

    config = getattr(transformers, f"{family}Config")(**{**_SIZES, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{family}ForCausalLM")(config).to(dtype)
        for name, parameter in model.named_parameters():
            if "norm" in name:  # else all ones, and nothing that goes wrong with them is seen
                parameter.data.add_(torch.randn_like(parameter) / 4)
    return model.eval()


def with_lora(model: Any, **options: Any) -> Any:
    """The model with an adapter whose B is not zero, in float32."""
    from peft import LoraConfig, get_peft_model

    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **options}
    wrapped = get_peft_model(model, LoraConfig(**settings), autocast_adapter_dtype=False)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
        if "lora_A" in name or "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 8
    return wrapped.eval()


def sample(length: int, seed: int, scored_from: int = 1) -> Encoded:
    """Random tokens: the first third context, the second scratchpad, the last answer."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
    thirds = (Region.CONTEXT, Region.SCRATCHPAD, Region.ANSWER)
    regions = tuple(thirds[min(2, 3 * index // length)] for index in range(length))
    labels = tuple(token if index >= scored_from else -100 for index, token in enumerate(ids))
    return Encoded(tuple(ids), labels, regions, prompt_length=scored_from)


SAMPLES = [sample(12, 1), sample(31, 2, scored_from=10), sample(7, 3, 4), sample(22, 4, 15)]


def run(
    model: Any, samples: Sequence[Encoded], config: TrainConfig, folder: Path, **job: Any
) -> TrainResult:
    """A training as the application runs it."""
    return train(model, FixedSamples(samples), config, TrainJob(folder, pad_token_id=0, **job))


def trained(model: Any) -> dict[str, torch.Tensor]:
    """Copies of what trains."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Copies of the gradients that there are, which are cleared."""
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def plain_loss(model: Any, samples: Sequence[Encoded]) -> torch.Tensor:
    """The sum of -log p of all labels, each sample alone, from its whole logits in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for encoded in samples:
        logits = model(input_ids=torch.tensor([encoded.input_ids])).logits[0].double()
        labels = torch.tensor(encoded.labels)
        total = total + F.cross_entropy(logits[:-1], labels[1:], reduction="sum", ignore_index=-100)
    return total


def keep_gradients(model: Any) -> dict[str, torch.Tensor]:
    """Filled, at the next backward pass of each step, with the gradients summed so far."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        seen[name] = parameter.grad.clone()

    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(partial(keep, name))
    return seen


class AtPass:
    """Does something at the n-th forward pass of a model."""

    def __init__(self, model: Any, number: int, action: Callable[[], None]) -> None:
        self.count = 0
        self.number = number
        self.action = action
        model.register_forward_pre_hook(self)

    def __call__(self, *_: Any) -> None:
        self.count += 1
        if self.count == self.number:
            self.action()
