"""The loss against plain cross-entropy of whole logits, and samples that share a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its usual name

from scratchpad_rag.errors import TrainingError
from scratchpad_rag.records import Encoded, Region
from scratchpad_rag.tokens.collate import REGIONS, Collator
from scratchpad_rag.train import loss as module
from scratchpad_rag.train.apart import keeps_apart
from scratchpad_rag.train.loss import RegionLoss, linear_cross_entropy, scoring
from tests.train.tiny import (
    ONE_UPDATE,
    SAMPLES,
    VOCABULARY,
    gradients,
    keep_gradients,
    plain_loss,
    run,
    sample,
    tiny_lm,
    with_lora,
)


def close(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float = 1e-5
) -> None:
    """Equal up to a share of each tensor's largest value."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        scale = max(1e-6, float(expected.abs().max()))
        torch.testing.assert_close(
            ours[name].double(),
            expected.double(),
            atol=tolerance * scale,
            rtol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def scored_loss(model: Any, samples: Sequence[Encoded], *, packed: bool = False) -> RegionLoss:
    return RegionLoss(*model(**Collator(0, packed=packed)(samples)))


# --- the output layer alone


@pytest.mark.parametrize("rows_a_chunk", [1, 5, 17, 64])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trains", [False, True])
def test_chunks_come_to_what_whole_logits_come_to(
    monkeypatch: pytest.MonkeyPatch, rows_a_chunk: int, bias: bool, trains: bool
) -> None:
    monkeypatch.setattr(module, "CHUNK_VALUES", rows_a_chunk * VOCABULARY)
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(24, VOCABULARY, bias=bias)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    head.requires_grad_(trains)
    hidden = torch.randn(17, 24, generator=generator, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (17,), generator=generator)
    targets[0], targets[-1] = 0, VOCABULARY - 1

    total, losses = linear_cross_entropy(hidden, head, targets)
    (0.25 * total).backward()

    wide = hidden.detach().double().requires_grad_()
    weights = [p.detach().double().requires_grad_() for p in head.parameters()]
    expected = F.cross_entropy(F.linear(wide, *weights), targets, reduction="none")
    (0.25 * expected.sum()).backward()
    torch.testing.assert_close(losses.double(), expected.detach(), atol=1e-5, rtol=1e-5)
    assert total.item() == pytest.approx(expected.sum().item(), rel=1e-6)
    assert hidden.grad is not None
    assert wide.grad is not None
    torch.testing.assert_close(hidden.grad.double(), wide.grad, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(head.parameters(), weights, strict=True):
        if trains:
            assert mine.grad is not None
            assert theirs.grad is not None
            torch.testing.assert_close(mine.grad.double(), theirs.grad, atol=1e-5, rtol=1e-5)
        else:
            assert mine.grad is None


@pytest.mark.parametrize("scales", [False, True])
def test_weights_scale_gradients_and_the_sum_and_leave_each_loss(
    monkeypatch: pytest.MonkeyPatch, scales: bool
) -> None:
    """Also where the head is more than a matrix, and its own forward is called."""
    monkeypatch.setattr(module, "CHUNK_VALUES", 2 * VOCABULARY)

    class Scaled(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0.5 * super().forward(x)

    generator = torch.Generator().manual_seed(1)
    head = (Scaled if scales else torch.nn.Linear)(8, VOCABULARY)
    hidden = torch.randn(5, 8, generator=generator, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (5,), generator=generator)
    weights = torch.tensor([1.0, 0.0, 3.0, 0.25, 10.0])
    total, losses = linear_cross_entropy(hidden, head, targets, weights)
    total.backward()

    copy = hidden.detach().clone().requires_grad_()
    plain = F.cross_entropy(head(copy), targets, reduction="none")
    mine = head.weight.grad.clone()  # type: ignore[union-attr]
    head.zero_grad()
    (plain * weights).sum().backward()
    torch.testing.assert_close(losses, plain.detach())
    torch.testing.assert_close(total, (plain * weights).sum())
    torch.testing.assert_close(hidden.grad, copy.grad)
    torch.testing.assert_close(mine, head.weight.grad)
    assert not hidden.grad[1].any()  # type: ignore[index]


def test_extreme_logits_have_a_loss() -> None:
    head = torch.nn.Linear(1, 4, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[80.0], [-80.0], [-1e30], [0.0]]))
    hidden = torch.ones(4, 1, requires_grad=True)
    total, losses = linear_cross_entropy(hidden, head, torch.tensor([0, 1, 2, 3]))
    total.backward()
    assert losses.tolist() == pytest.approx([0.0, 160.0, 1e30, 80.0])
    assert hidden.grad is not None
    # softmax is one for the first: 80 - 80, 80 + 80, 80 + 1e30, 80 - 0.
    assert hidden.grad.squeeze(1).tolist() == pytest.approx([0.0, 160.0, 1e30, 80.0])


def test_nothing_scored_costs_nothing() -> None:
    head = torch.nn.Linear(8, VOCABULARY)
    hidden = torch.ones(0, 8, requires_grad=True)
    total, losses = linear_cross_entropy(hidden, head, torch.zeros(0, dtype=torch.long))
    total.backward()
    assert float(total) == 0.0
    assert losses.shape == (0,)
    assert head.weight.grad is not None
    assert not head.weight.grad.any()


def test_under_autocast_a_float32_head_meets_bfloat16_states() -> None:
    """As mixed precision does it: the product is of rounded values, the master stays float32."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(32, VOCABULARY, bias=False)
    states = torch.randn(9, 32, generator=generator).bfloat16()
    targets = torch.randint(0, VOCABULARY, (9,), generator=generator)
    hidden = states.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        total, losses = linear_cross_entropy(hidden, head, targets)
    total.backward()

    wide = states.double().requires_grad_()
    weight = head.weight.detach().bfloat16().double().requires_grad_()
    expected = F.cross_entropy(wide @ weight.T, targets, reduction="none")
    expected.sum().backward()
    torch.testing.assert_close(losses.double(), expected.detach(), atol=2e-2, rtol=1e-2)
    assert hidden.grad is not None
    assert head.weight.grad is not None
    assert hidden.grad.dtype is torch.bfloat16
    assert head.weight.grad.dtype is torch.float32
    for mine, theirs in ((hidden.grad, wide.grad), (head.weight.grad, weight.grad)):
        assert theirs is not None
        scale = float(theirs.abs().max())
        torch.testing.assert_close(mine.double(), theirs, atol=1e-2 * scale, rtol=2e-2)


# --- whole models


def _all_weights(model: Any) -> Any:
    return model.requires_grad_(True)


MODELS: dict[str, tuple[Callable[[], Any], bool]] = {
    "adapter": (lambda: with_lora(tiny_lm()), True),
    "tied head": (lambda: with_lora(tiny_lm(tie_word_embeddings=True)), True),
    "head with a bias": (lambda: with_lora(tiny_lm("Phi", hidden_size=128)), True),
    "adapter on the head": (
        lambda: with_lora(tiny_lm(), target_modules=["q_proj", "lm_head"]),
        True,
    ),
    "head as a copy": (lambda: with_lora(tiny_lm(), modules_to_save=["lm_head"]), True),
    "all weights": (lambda: _all_weights(tiny_lm()), True),
    "all weights, tied": (lambda: _all_weights(tiny_lm(tie_word_embeddings=True)), True),
    "capped": (lambda: with_lora(tiny_lm("Gemma2", final_logit_softcapping=2.0)), False),
    "scaled down": (lambda: with_lora(tiny_lm("Granite", logits_scaling=4.0)), False),
    "scaled": (lambda: with_lora(tiny_lm("Cohere", logit_scale=0.25)), False),
    # Values so small that a cap changes a few of their last bits only, until they have grown.
    "capped, small": (
        lambda: with_lora(tiny_lm("Gemma2", final_logit_softcapping=30.0, initializer_range=0.002)),
        False,
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_loss_and_gradients_are_those_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(module, "CHUNK_VALUES", 7 * VOCABULARY)  # ends within a sample
    make, is_direct = MODELS[kind]
    model = make()
    expected = plain_loss(model, SAMPLES)
    expected.backward()
    theirs = gradients(model)
    assert theirs
    assert all(gradient.abs().max() > 0 for gradient in theirs.values())
    with scoring(model) as direct:
        assert direct is is_direct
        for packed in (False, True):
            losses = scored_loss(model, SAMPLES, packed=packed)
            losses.total.backward()
            assert float(losses.total) == pytest.approx(float(expected), rel=1e-5)
            assert float(losses.token_losses.sum()) == pytest.approx(float(expected), rel=1e-5)
            close(gradients(model), theirs, 3e-5)


def test_what_is_scored_where_no_sample_has_labels() -> None:
    for model in (with_lora(tiny_lm()), with_lora(tiny_lm("Granite", logits_scaling=4.0))):
        silent = replace(SAMPLES[0], labels=(-100,) * len(SAMPLES[0]))
        with scoring(model):
            losses = scored_loss(model, [silent])
            losses.total.backward()
        assert float(losses.total) == 0.0
        assert not any(gradient.any() for gradient in gradients(model).values())


def test_a_model_is_as_before_afterwards() -> None:
    model = with_lora(tiny_lm())
    base = model.get_base_model()
    ids = torch.tensor([SAMPLES[0].input_ids])
    before = model(input_ids=ids).logits
    with scoring(model):  # whoever asks for logits within a block, as validation does, gets them
        assert torch.equal(model(input_ids=ids).logits, before)
    with pytest.raises(KeyError), scoring(model):
        raise KeyError
    assert "forward" not in base.__dict__
    assert torch.equal(model(input_ids=ids).logits, before)


# --- samples in one row, in several, alone, and accumulated


@pytest.mark.parametrize("family", ["Llama", "Gemma2"])
@pytest.mark.parametrize(
    ("packing", "batch_size"),
    [(False, 1), (False, 2), (False, 4), (True, 1), (True, 2), (True, 4)],
)
def test_one_update_has_the_same_gradient_however_samples_are_put_together(
    tmp_path: Path, family: str, packing: bool, batch_size: int
) -> None:
    reference = with_lora(tiny_lm(family))
    scored = sum(label != -100 for s in SAMPLES for label in s.labels[1:])
    (plain_loss(reference, SAMPLES) / scored).backward()
    wanted = gradients(reference)

    model = with_lora(tiny_lm(family))
    seen = keep_gradients(model)
    config = replace(ONE_UPDATE, packing=packing, batch_size=batch_size)
    assert run(model, SAMPLES, config, tmp_path).steps == 1
    close(seen, wanted, 2e-5)


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen3", "Gemma2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_in_a_row_do_not_see_each_other(family: str, dtype: torch.dtype) -> None:
    changes = {"sliding_window": 5} if family == "Mistral" else {}
    model = with_lora(tiny_lm(family, dtype, **changes))
    silent = [replace(s, labels=(-100,) * len(s)) for s in (SAMPLES[0], sample(12, 77))]
    rows = [[silent[0], SAMPLES[1], silent[0]], [silent[1], SAMPLES[1], silent[1]]]
    totals, found = [], []
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16), scoring(model):
        for row in rows:
            losses = scored_loss(model, row, packed=True)
            losses.total.backward()
            totals.append(losses.token_losses)
            found.append(gradients(model))
    assert torch.equal(totals[0], totals[1])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_losses_of_a_packed_row_go_to_their_regions() -> None:
    model = with_lora(tiny_lm())
    with torch.no_grad(), scoring(model):
        packed = scored_loss(model, SAMPLES, packed=True)
        alone = [scored_loss(model, [s]) for s in SAMPLES]
    for region in (Region.CONTEXT, Region.SCRATCHPAD, Region.ANSWER):
        number = REGIONS.index(region)
        expected = torch.cat([a.token_losses[a.regions == number] for a in alone])
        found = packed.token_losses[packed.regions == number]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen3", "Gemma2", "Phi", "GPTNeoX"])
def test_models_that_mask_by_positions_keep_samples_apart(family: str) -> None:
    changes = {"hidden_size": 128} if family in ("Phi", "GPTNeoX") else {}
    assert keeps_apart(tiny_lm(family, **changes))


@pytest.mark.parametrize("family", ["Bloom", "Lfm2", "Mamba"])
def test_packing_is_refused_for_models_that_cannot(tmp_path: Path, family: str) -> None:
    """Attention by distance, convolutions, and a recurrent state run from sample to sample."""
    changes = {"Lfm2": {"layer_types": ["conv", "full_attention"]}, "Bloom": {"n_head": 4}}
    model = tiny_lm(family, **changes.get(family, {})).requires_grad_(True)
    with pytest.raises(TrainingError, match=f"{family}ForCausalLM lets the samples") as caught:
        run(model, SAMPLES, replace(ONE_UPDATE, packing=True), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
