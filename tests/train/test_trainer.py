from __future__ import annotations

import copy
import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from scratchpad_rag.config import ModelConfig, PeftConfig, TrainConfig
from scratchpad_rag.errors import TrainingError
from scratchpad_rag.models.adapters import add_lora
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.records import Encoded, Region
from scratchpad_rag.tokens.collate import REGIONS, Collator
from scratchpad_rag.tokens.samples import FixedSamples
from scratchpad_rag.train.loss import RegionLoss, scoring
from scratchpad_rag.train.trainer import TrainJob, TrainResult, train
from scratchpad_rag.train.watch import Tally

PEFT = PeftConfig(
    kwargs={"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.0}
)
# One sample a step, so that every sample is a step.
STEPWISE = TrainConfig(
    num_train_epochs=2, lr=1e-2, gradient_accumulation_steps=1, logging_steps=1, seed=5
)


def sample(length: int, seed: int, scored_from: int = 1) -> Encoded:
    """Random tokens: the first third context, the second scratchpad, the last answer."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 400, (length,), generator=generator).tolist()
    thirds = (Region.CONTEXT, Region.SCRATCHPAD, Region.ANSWER)
    regions = tuple(thirds[min(2, 3 * index // length)] for index in range(length))
    labels = tuple(token if index >= scored_from else -100 for index, token in enumerate(ids))
    return Encoded(tuple(ids), labels, regions, prompt_length=scored_from)


SAMPLES = [sample(12, 1), sample(31, 2, scored_from=10), sample(7, 3, 4), sample(22, 4, 15)]


@pytest.fixture(scope="module")
def base(tiny_mistral: Path) -> LoadedModel:
    return load_model(ModelConfig(str(tiny_mistral), torch_dtype="float32"))


@pytest.fixture
def make_model(base: LoadedModel) -> Callable[[], Any]:
    """A fresh PeftModel, always with the same weights, B not zero so that A has gradients."""

    def make() -> Any:
        loaded = add_lora(base.with_model(copy.deepcopy(base.model)), PEFT)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in loaded.model.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
        return loaded.model

    return make


def adapter(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}


def log_probabilities(model: Any, encoded: Encoded) -> list[float | None]:
    """-log p of each token that has a label, from the whole logits in float64, one at a time."""
    logits = model(torch.tensor([encoded.input_ids])).logits[0].double()
    losses: list[float | None] = [None]
    for position in range(1, len(encoded)):
        if encoded.labels[position] == -100:
            losses.append(None)
        else:
            row = logits[position - 1]
            losses.append(float(torch.logsumexp(row, 0) - row[encoded.labels[position]]))
    return losses


def mean_by_region(model: Any, samples: Sequence[Encoded]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    with torch.no_grad():
        for encoded in samples:
            for loss, region in zip(
                log_probabilities(model, encoded), encoded.regions, strict=True
            ):
                if loss is not None:
                    found.setdefault(region.value, []).append(loss)
                    found.setdefault("all", []).append(loss)
    return {region: sum(values) / len(values) for region, values in found.items()}


def run(
    model: Any, samples: Sequence[Encoded], config: TrainConfig, folder: Path, **kw: Any
) -> TrainResult:
    return train(model, FixedSamples(samples), config, TrainJob(folder, pad_token_id=0, **kw))


# --- the loss


def test_the_loss_is_that_of_the_whole_logits(make_model: Callable[[], Any]) -> None:
    model = make_model().eval()
    for chosen in ([SAMPLES[1]], SAMPLES):
        with torch.no_grad(), scoring(model) as direct:
            losses = RegionLoss(*model(**Collator(pad_token_id=0)(chosen)))
        assert direct
        expected: dict[Region, list[float]] = {}
        with torch.no_grad():
            for encoded in chosen:
                found = log_probabilities(model, encoded)
                for loss, region in zip(found, encoded.regions, strict=True):
                    if loss is not None:
                        expected.setdefault(region, []).append(loss)
        total = sum(sum(values) for values in expected.values())
        assert float(losses.total) == pytest.approx(total, abs=1e-4, rel=1e-5)
        for region, values in expected.items():
            mine = losses.token_losses[losses.regions == REGIONS.index(region)]
            assert len(mine) == len(values)
            assert sorted(mine.tolist()) == pytest.approx(sorted(values), abs=1e-5)


def test_a_sample_without_labels_costs_nothing_beside_others(
    make_model: Callable[[], Any],
) -> None:
    model = make_model().eval()
    silent = replace(SAMPLES[0], labels=(-100,) * len(SAMPLES[0]))
    totals = []
    for chosen in ([SAMPLES[1]], [SAMPLES[1], silent]):
        with torch.no_grad(), scoring(model):
            totals.append(float(RegionLoss(*model(**Collator(pad_token_id=0)(chosen))).total))
    assert totals[0] == pytest.approx(totals[1], rel=1e-6)


def test_the_losses_of_a_step_are_logged_by_region(
    make_model: Callable[[], Any], tmp_path: Path
) -> None:
    model = make_model()
    expected = mean_by_region(copy.deepcopy(model).eval(), SAMPLES)
    config = replace(STEPWISE, num_train_epochs=1, gradient_accumulation_steps=4)
    (entry,) = run(model, SAMPLES, config, tmp_path).log
    for region in ("context", "scratchpad", "answer"):
        assert entry[f"loss_{region}"] == pytest.approx(expected[region], abs=1e-4)
    # Trainer rounds this one.
    assert entry["loss"] == pytest.approx(expected["all"], abs=2e-4)
    assert "loss_question" not in entry


def test_what_is_chosen_is_a_part_of_the_scratchpad_with_a_loss_of_its_own(
    make_model: Callable[[], Any], tmp_path: Path
) -> None:
    model = make_model()
    sample = SAMPLES[1]
    chosen = [i for i, region in enumerate(sample.regions) if region is Region.SCRATCHPAD][1::2]
    losses = log_probabilities(copy.deepcopy(model).eval(), sample)
    config = replace(STEPWISE, num_train_epochs=1, gradient_accumulation_steps=1)
    (entry,) = run(model, [replace(sample, choices=tuple(chosen))], config, tmp_path).log
    expected = mean_by_region(make_model().eval(), [sample])
    assert entry["loss_scratchpad"] == pytest.approx(expected["scratchpad"], abs=1e-4)
    assert entry["loss"] == pytest.approx(expected["all"], abs=2e-4)
    own = [losses[token] for token in chosen]
    assert len(own) > 1
    assert entry["loss_choice"] == pytest.approx(sum(own) / len(own), abs=1e-4)


def test_a_tally_of_before_choices_were_counted_is_gone_on_with() -> None:
    tally = Tally()
    regions = len(REGIONS)
    old = {"tokens": 5, "seconds": 1.0, "sums": [2.0] * regions, "counts": [1.0] * regions}
    tally.restore(old, main=True)
    losses = tally.take_losses()
    assert losses == {"loss": 2.0} | {f"loss_{region}": 2.0 for region in REGIONS}


def test_each_log_covers_only_the_steps_since_the_last(
    make_model: Callable[[], Any], tmp_path: Path
) -> None:
    model = make_model()
    expected = mean_by_region(copy.deepcopy(model).eval(), SAMPLES)
    config = replace(STEPWISE, num_train_epochs=2, gradient_accumulation_steps=4, lr=1e-12)
    log = run(model, SAMPLES, config, tmp_path).log
    assert len(log) == 2
    for entry in log:  # nothing is learnt at this rate, so both say the same
        assert entry["loss_answer"] == pytest.approx(expected["answer"], abs=1e-4)


# --- gradient accumulation


def _keep(seen: dict[str, torch.Tensor], name: str, parameter: torch.Tensor) -> None:
    assert parameter.grad is not None
    seen[name] = parameter.grad.clone()  # the last one holds the whole sum


def test_accumulated_gradients_are_those_of_the_mean_over_all_tokens(
    make_model: Callable[[], Any], tmp_path: Path
) -> None:
    reference = make_model().train()
    losses = []
    for encoded in SAMPLES:
        logits = reference(torch.tensor([encoded.input_ids])).logits[0]
        labels = torch.tensor(encoded.labels)
        keep = labels[1:] != -100
        chosen = logits[:-1][keep].log_softmax(-1)
        losses.append(-chosen.gather(1, labels[1:][keep][:, None]).squeeze(1))
    torch.cat(losses).mean().backward()
    wanted = {n: p.grad.clone() for n, p in reference.named_parameters() if p.requires_grad}
    assert all(gradient.abs().max() > 1e-5 for gradient in wanted.values())
    trained = [parameter for parameter in reference.parameters() if parameter.requires_grad]
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.01, eps=1e-8).step()
    after = adapter(reference)

    for size, steps in ((4, 1), (1, 4), (2, 2)):
        model = make_model()
        seen: dict[str, torch.Tensor] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(partial(_keep, seen, name))
        config = replace(
            STEPWISE, num_train_epochs=1, batch_size=size, gradient_accumulation_steps=steps
        )
        result = run(model, SAMPLES, config, tmp_path / f"{size}x{steps}")
        assert result.steps == 1
        assert seen.keys() == wanted.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(seen[name], gradient, atol=1e-5, rtol=1e-4)
        for name, weight in adapter(model).items():
            torch.testing.assert_close(weight, after[name], atol=1e-5, rtol=1e-4)


def test_a_last_step_with_fewer_samples_is_still_a_mean(
    make_model: Callable[[], Any], tmp_path: Path
) -> None:
    """Five samples in steps of four: the fifth alone is a whole step."""
    config = replace(STEPWISE, num_train_epochs=1, gradient_accumulation_steps=4, lr=1e-12)
    model = make_model()
    expected = mean_by_region(copy.deepcopy(model).eval(), [SAMPLES[0]])
    log = run(model, [SAMPLES[0]] * 5, config, tmp_path).log
    assert len(log) == 2
    for entry in log:
        assert entry["loss_answer"] == pytest.approx(expected["answer"], abs=1e-4)
        assert entry["loss"] == pytest.approx(expected["all"], abs=2e-4)


# --- what training does


def test_the_base_stays_and_the_loss_falls(make_model: Callable[[], Any], tmp_path: Path) -> None:
    model = make_model()
    before = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}
    samples = [sample(24, 8, 12), sample(20, 9, 10)]
    config = replace(STEPWISE, num_train_epochs=40, gradient_accumulation_steps=2, lr=2e-2)
    result = run(model, samples, config, tmp_path)
    assert result.steps == 40
    assert result.log[-1]["loss_answer"] < 0.5 * result.log[0]["loss_answer"]
    assert result.tokens == 40 * (24 + 20)
    assert result.tokens_per_second > 0
    assert not result.interrupted
    assert not model.training
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, before[name])


@pytest.mark.parametrize(
    ("scheduler", "rates"),
    [
        ("none", [1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.75, 0.5, 0.25]),
        ("cosine", [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]),
    ],
)
def test_the_rate_follows_the_scheduler(
    make_model: Callable[[], Any], tmp_path: Path, scheduler: str, rates: list[float]
) -> None:
    config = replace(STEPWISE, num_train_epochs=1, scheduler=scheduler, lr=1e-3)
    log = run(make_model(), SAMPLES, config, tmp_path).log
    assert [entry["learning_rate"] for entry in log] == pytest.approx([1e-3 * r for r in rates])


def test_training_is_reproducible_and_its_seed_matters(
    make_model: Callable[[], Any], tmp_path: Path
) -> None:
    ends = []
    for number, seed in enumerate((5, 5, 6)):
        model = make_model()
        torch.manual_seed(number)  # whatever was drawn before
        run(model, SAMPLES, replace(STEPWISE, seed=seed), tmp_path / str(number))
        ends.append(adapter(model))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert any(not torch.allclose(ends[0][name], ends[2][name], atol=1e-6) for name in ends[0])


def test_nothing_to_train_on_is_refused(make_model: Callable[[], Any], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no samples"):
        run(make_model(), [], STEPWISE, tmp_path)


def test_a_loss_that_is_not_a_number_stops_naming_the_step(
    make_model: Callable[[], Any], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"the loss is nan at step 2") as caught:
        run(make_model(), SAMPLES, replace(STEPWISE, lr=1e30), tmp_path)
    assert "\n" not in str(caught.value)
    # A checkpoint that resuming would begin from must not hold the broken weights.
    assert not list(tmp_path.glob("checkpoint-*"))


# --- stopped and gone on with


class _AtPass:
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


SIX = [sample(10 + number, 20 + number) for number in range(6)]


@pytest.fixture
def uninterrupted(make_model: Callable[[], Any], tmp_path: Path) -> dict[str, torch.Tensor]:
    model = make_model()
    assert run(model, SIX, STEPWISE, tmp_path / "whole").steps == 12
    return adapter(model)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_resuming_ends_with_the_same_weights(
    make_model: Callable[[], Any],
    uninterrupted: dict[str, torch.Tensor],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    model = make_model()
    _AtPass(model, 8, lambda: os.kill(os.getpid(), number))
    folder = tmp_path / "run"
    result = run(model, SIX, STEPWISE, folder)
    assert result.interrupted
    assert result.steps == 8  # the step is finished
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-8"]
    assert signal.getsignal(number) is before
    assert any(not torch.equal(adapter(model)[n], w) for n, w in uninterrupted.items())

    said: list[str] = []
    again = make_model()
    result = run(again, SIX, STEPWISE, folder, resume=True, on_note=said.append)
    assert (result.steps, result.interrupted) == (12, False)
    assert len(said) == 1
    assert "checkpoint-8" in said[0]
    for name, weight in adapter(again).items():
        torch.testing.assert_close(weight, uninterrupted[name], atol=0, rtol=0)


def test_a_crash_goes_on_from_the_last_whole_checkpoint(
    make_model: Callable[[], Any], uninterrupted: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    def crash() -> None:
        raise MemoryError

    model = make_model()
    _AtPass(model, 9, crash)
    folder = tmp_path / "run"
    with pytest.raises(MemoryError):
        run(model, SIX, STEPWISE, folder)
    # One checkpoint an epoch of six; one that was being written has no trainer state yet.
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-6"]
    (folder / "checkpoint-8").mkdir()
    (folder / "checkpoint-8/adapter_model.safetensors").write_bytes(b"half")

    again = make_model()
    assert run(again, SIX, STEPWISE, folder, resume=True).steps == 12
    for name, weight in adapter(again).items():
        torch.testing.assert_close(weight, uninterrupted[name], atol=0, rtol=0)


def test_without_resume_training_begins_anew(
    make_model: Callable[[], Any], uninterrupted: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    folder = tmp_path / "whole"
    assert list(folder.glob("checkpoint-*"))
    again = make_model()
    assert run(again, SIX, STEPWISE, folder).steps == 12
    assert all(torch.equal(w, uninterrupted[n]) for n, w in adapter(again).items())
