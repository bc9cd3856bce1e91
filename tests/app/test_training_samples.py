"""What a training is given, from the config and the data to the samples of its epochs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from scratchpad_rag.app.commands import Job, train_and_evaluate
from scratchpad_rag.app.training import describe_adapter, training_samples
from scratchpad_rag.config import DataConfig, ModelConfig, PeftConfig, RunConfig, TrainConfig
from scratchpad_rag.data.select import Selection, select_samples
from scratchpad_rag.errors import ConfigError, DataError, SampleTooLongError
from scratchpad_rag.models.adapters import add_lora
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.records import EvalSplit, Method
from scratchpad_rag.tokens.samples import FixedSamples


@pytest.fixture(scope="module")
def loaded(tiny_mistral: Path) -> LoadedModel:
    return load_model(
        ModelConfig(pretrained_model_name_or_path=str(tiny_mistral), torch_dtype="float32")
    )


@pytest.fixture
def config(tmp_path: Path, tiny_mistral: Path) -> RunConfig:
    lines = [
        {
            "id": f"q{number}",
            "question": f"when was bridge {number} built",
            "answers": [str(1850 + number)],
            "passages": [
                {"title": f"P{at}", "text": f"The town {at}. " * (1 + number), "gold": at == 0}
                for at in range(5)
            ],
        }
        for number in range(10)
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return RunConfig(
        data=DataConfig(
            name="examples",
            path=str(path),
            total_docs=4,
            gold_at=(0,),
            train_positions="uniform",
            train_min_docs=2,
            no_gold_rate=0.25,
        ),
        model=ModelConfig(pretrained_model_name_or_path=str(tiny_mistral), torch_dtype="float32"),
        peft=PeftConfig(kwargs={"r": 2, "target_modules": ["q_proj"]}),
        train=TrainConfig(num_train_epochs=1.5),
        train_method=Method.SCRATCHPAD,
    )


def select(config: RunConfig) -> Selection:
    return select_samples(config.data, EvalSplit.ALL, lambda _: None)


def with_data(config: RunConfig, **changes: object) -> RunConfig:
    return replace(config, data=replace(config.data, **changes))  # type: ignore[arg-type]


def test_samples_are_drawn_anew_every_epoch(loaded: LoadedModel, config: RunConfig) -> None:
    samples = training_samples(loaded, select(config), Method.SCRATCHPAD, config)
    assert len(samples) == 8
    texts = [
        [loaded.tokenizer.decode(samples.sample(epoch, index).input_ids) for index in range(8)]
        for epoch in range(2)
    ]
    assert all(first != second for first, second in zip(*texts, strict=True))
    for epoch in texts:
        assert sum(text.endswith("Answer: unanswerable</s>") for text in epoch) == 2
        counts = sorted(text.split("Answer:")[0].count("Document (Title: ") for text in epoch)
        assert counts[0] == 2
        assert counts[-1] == 4


def test_fixed_samples_are_those_of_a_list(loaded: LoadedModel, config: RunConfig) -> None:
    fixed = with_data(config, train_positions="fixed", train_min_docs=None, no_gold_rate=0.0)
    samples = training_samples(loaded, select(fixed), Method.SCRATCHPAD, fixed)
    assert isinstance(samples, FixedSamples)
    assert len(samples) == 8
    assert samples.sample(0, 3) == samples.sample(1, 3)


def test_the_longest_sample_of_any_epoch_has_to_fit(loaded: LoadedModel, config: RunConfig) -> None:
    config = with_data(config, seed=4)  # whose longest sample is in the half epoch
    selection = select(config)
    samples = training_samples(loaded, selection, Method.SFT, config)
    longest = max(len(samples.sample(epoch, i)) for epoch in range(2) for i in range(8))
    assert longest > max(len(samples.sample(0, i)) for i in range(8))
    fitting = replace(loaded, context_length=longest)
    assert len(training_samples(fitting, selection, Method.SFT, config)) == 8
    short = replace(loaded, context_length=longest - 1)
    with pytest.raises(SampleTooLongError, match=rf"^1 of 16 samples .*longest has {longest}\)"):
        training_samples(short, selection, Method.SFT, config)
    one_epoch = replace(config, train=TrainConfig(num_train_epochs=1))
    assert len(training_samples(short, selection, Method.SFT, one_epoch)) == 8


def test_questions_with_too_few_passages_are_refused(
    loaded: LoadedModel, config: RunConfig
) -> None:
    many = with_data(config, train_total_docs=6)
    with pytest.raises(DataError, match="has 5 passages, and up to 6 documents"):
        training_samples(loaded, select(many), Method.SFT, many)


@pytest.mark.parametrize("positions", ["fixed", "uniform"])
def test_no_questions_are_refused(loaded: LoadedModel, config: RunConfig, positions: str) -> None:
    chosen = with_data(config, train_positions=positions, train_min_docs=None, no_gold_rate=0.0)
    nothing = select(chosen)._replace(train=[])
    with pytest.raises(DataError, match="no questions to train on"):
        training_samples(loaded, nothing, Method.SFT, chosen)


def test_positions_are_not_drawn_where_nothing_else_is_shown(
    config: RunConfig, tmp_path: Path
) -> None:
    gold_only = replace(config, evaluate=replace(config.evaluate, eval_split=EvalSplit.GOLD))
    job = Job("examples", runs=tmp_path / "runs", checkpoints=tmp_path / "checkpoints")
    with pytest.raises(ConfigError, match="uniform needs --eval_split val_anc: with val_pos"):
        train_and_evaluate(gold_only, job)


def test_a_checkpoint_says_what_was_drawn(tiny_mistral: Path, config: RunConfig) -> None:
    assert config.peft is not None
    adapted = add_lora(load_model(config.model), config.peft)
    said = describe_adapter(adapted, Method.SCRATCHPAD, config).training
    assert {key: said[key] for key in ("train_positions", "train_min_docs", "no_gold_rate")} == {
        "train_positions": "uniform",
        "train_min_docs": "2",
        "no_gold_rate": "0.25",
    }
    assert said["train_total_docs"] == "4"
