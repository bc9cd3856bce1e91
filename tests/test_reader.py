"""The library's face, on tiny models with random weights and on adapters saved for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import scratchpad_rag
from scratchpad_rag.config import ModelConfig, PeftConfig, RunConfig
from scratchpad_rag.data.given import make_example
from scratchpad_rag.errors import CheckpointError, ConfigError, SampleTooLongError, UserError
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.reader import Reader, default_max_new_tokens, model_name_of
from scratchpad_rag.records import Completion, Method, Rendered

BRIDGE = "The bridge was built in 1895. It stands by the river."
TOWN = "The town lies by the river."


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout.strip()


class Scripted:
    """A backend that says what it is told to, and remembers the prompts."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.prompts: list[str] = []

    def generate(self, prompts: Sequence[Rendered]) -> list[Completion]:
        self.prompts += [prompt.prompt for prompt in prompts]
        return [
            Completion(text, (), 10, 5, 5, 0.1, "stop")
            for _, text in zip(prompts, self.texts, strict=True)
        ]


def scripted_reader(
    monkeypatch: pytest.MonkeyPatch, method: Method | None, *texts: str
) -> tuple[Reader, Scripted]:
    backend = Scripted(*texts)
    monkeypatch.setattr("scratchpad_rag.reader.load_backend", lambda *_: backend)
    loaded: Any = SimpleNamespace(wording=Wording())
    return Reader(loaded, method), backend


class TestPackage:
    def test_importing_the_package_and_the_reader_imports_no_torch(self) -> None:
        code = (
            "import sys, scratchpad_rag\nfrom scratchpad_rag import Reader\n"
            "print([m for m in ('torch', 'transformers', 'peft', 'rich') if m in sys.modules])"
        )
        assert run_python(code) == "[]"

    def test_names_and_version(self) -> None:
        assert scratchpad_rag.Reader is Reader
        assert scratchpad_rag.UserError is UserError
        assert scratchpad_rag.__version__[0].isdigit()
        assert {"Reader", "Passage", "__version__"} <= set(dir(scratchpad_rag))
        with pytest.raises(AttributeError, match="'Writer'"):
            _ = scratchpad_rag.Writer


class TestAnswer:
    def test_quotes_are_traced_to_document_and_characters(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        completion = (
            " Document (Title: Bridge) It stands by the river.\n\n"
            "Document (Title: Document 1) The town lay by the river.\n\n"
            "Question: When was it built?\n\nAnswer: 1895\n\nQuestion: And?"
        )
        reader, backend = scripted_reader(monkeypatch, Method.SCRATCHPAD, completion)
        reading = reader.answer("when was it built", [TOWN, ("Bridge", BRIDGE)])
        assert reading.answer == "1895"
        assert reading.parsed
        first, second = reading.quotes
        assert (first.passage, first.verbatim) == (1, True)
        assert BRIDGE[first.start : first.end] == "It stands by the river."
        assert (second.passage, second.verbatim) == (0, False)
        assert "Context:\nDocument (Title: Document 1) The town" in backend.prompts[0]

    def test_without_documents_zero_shot_is_closed_book(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader, backend = scripted_reader(monkeypatch, None, " In 1895.")
        assert reader.answer("when was it built").answer == "In 1895."
        assert "Context:" not in backend.prompts[0]

    def test_without_documents_a_scratchpad_reader_refuses(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader, backend = scripted_reader(monkeypatch, Method.SCRATCHPAD, "")
        with pytest.raises(UserError, match="there are no documents"):
            reader.answer("when was it built")
        assert backend.prompts == []

    def test_many_come_in_order_and_in_one_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reader, backend = scripted_reader(monkeypatch, Method.SFT, " one", " two")
        readings = reader.answer_many(["first", "second"], [[BRIDGE], [TOWN]])
        assert [reading.answer for reading in readings] == ["one", "two"]
        assert len(backend.prompts) == 2

    def test_many_must_match(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reader, _ = scripted_reader(monkeypatch, None)
        with pytest.raises(UserError, match="2 questions and 1 lists"):
            reader.answer_many(["first", "second"], [[BRIDGE]])
        with pytest.raises(UserError, match="list of questions"):
            reader.answer_many("first", [[BRIDGE]])

    @pytest.mark.parametrize("asked", [0, -1, 2.5, "9", True])
    def test_tokens_must_be_a_number_from_1(
        self, monkeypatch: pytest.MonkeyPatch, asked: Any
    ) -> None:
        reader, _ = scripted_reader(monkeypatch, None, "")
        with pytest.raises(UserError, match="max_new_tokens"):
            reader.answer("who", [BRIDGE], max_new_tokens=asked)

    def test_scratchpads_have_more_room(self) -> None:
        assert default_max_new_tokens(Method.SCRATCHPAD) == 512
        assert default_max_new_tokens(Method.SFT) == default_max_new_tokens(None) == 128


def save_tiny_adapter(model: Path, folder: Path, method: str, prompt_format: str = "plain") -> Path:
    """An untrained adapter for a tiny model, as a folder and as `reader.pt` in it."""
    from scratchpad_rag.models.adapters import add_lora
    from scratchpad_rag.models.checkpoints import AdapterMetadata, save_adapter, save_checkpoint
    from scratchpad_rag.models.load import load_model
    from scratchpad_rag.models.lora import lora_kwargs

    loaded = load_model(ModelConfig(str(model), torch_dtype="float32"))
    wrapped = add_lora(loaded, PeftConfig(kwargs={"r": 4, "target_modules": ["q_proj", "v_proj"]}))
    metadata = AdapterMetadata(
        method=method,
        model_name="tiny",
        base_hash=loaded.base_hash,
        lora=lora_kwargs(wrapped.model),
        prompt_format=prompt_format,
    )
    save_adapter(wrapped, metadata, folder)
    save_checkpoint(wrapped, metadata, folder / "reader.pt")
    return folder


@pytest.fixture(scope="module")
def adapter(tiny_mistral: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_adapter(tiny_mistral, tmp_path_factory.mktemp("adapter"), "scratchpad")


@pytest.fixture
def tiny_config(tiny_mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    """The tiny model, also as `configs/model/tiny.yaml` of the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "model").mkdir(parents=True)
    (tmp_path / "configs" / "model" / "tiny.yaml").write_text(
        f"pretrained_config:\n  pretrained_model_name_or_path: {tiny_mistral}\n"
        "  torch_dtype: float32\n"
    )
    return ModelConfig(str(tiny_mistral), torch_dtype="float32")


class TestLoad:
    def test_zero_shot(self, tiny_config: ModelConfig) -> None:
        reader = Reader.load(model=tiny_config, max_new_tokens=4)
        assert reader.method is None
        example = make_example("when was it built", [BRIDGE])
        answered = reader.read(example)
        assert answered.completion.new_tokens <= 4
        assert reader.read(example, 2).completion.new_tokens <= 2
        assert reader.answer("when was it built", [BRIDGE]) == answered.reading

    def test_zero_shot_chat(self, tiny_chat_mistral: Path) -> None:
        reader = Reader.load(model=ModelConfig(str(tiny_chat_mistral), torch_dtype="float32"))
        prompt = reader.prompt(make_example("when was it built", [BRIDGE]))
        assert prompt.prompt.startswith("<|im_start|>system\n")
        assert isinstance(reader.answer("when", [BRIDGE], max_new_tokens=3).answer, str)

    @pytest.mark.parametrize("name", ["", "reader.pt"])
    def test_a_checkpoint_names_its_model_and_method(
        self, adapter: Path, tiny_config: ModelConfig, name: str
    ) -> None:
        reader = Reader.load(str(adapter / name))
        assert reader.method is Method.SCRATCHPAD
        assert reader.generate.max_new_tokens == 512
        assert reader.loaded.config.pretrained_model_name_or_path == (
            tiny_config.pretrained_model_name_or_path
        )
        answered = reader.read(make_example("when was it built", [BRIDGE]), 8)
        assert 0 < answered.completion.forward_passes <= 8
        assert model_name_of(adapter) == "tiny"

    def test_the_same_model_under_another_name(
        self, adapter: Path, tiny_config: ModelConfig
    ) -> None:
        assert Reader.load(adapter, model=tiny_config).method is Method.SCRATCHPAD

    def test_another_model_or_prompt_is_refused(
        self, adapter: Path, tiny_mistral: Path, tiny_chat_mistral: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(CheckpointError, match="prompt_format plain"):
            Reader.load(adapter, model=ModelConfig(str(tiny_chat_mistral), torch_dtype="float32"))
        other = ModelConfig(str(tiny_chat_mistral), torch_dtype="float32", prompt_format="plain")
        with pytest.raises(CheckpointError, match="other weights"):
            Reader.load(adapter, model=other)

    def test_a_checkpoint_that_is_none_is_refused_before_the_model_is_loaded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "scratchpad_rag.models.load.load_model", lambda *_: pytest.fail("loaded")
        )
        (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
        for path, message in [("bad.pt", "not a checkpoint"), ("absent.pt", "no checkpoint")]:
            with pytest.raises(CheckpointError, match=message):
                Reader.load(tmp_path / path)

    def test_a_bare_state_dict_needs_to_be_told(
        self, adapter: Path, tiny_config: ModelConfig, tmp_path: Path
    ) -> None:
        import torch

        weights = torch.load(adapter / "reader.pt", weights_only=True)["model_state_dict"]
        bare = tmp_path / "bare.pt"
        torch.save(weights, bare)
        peft = tmp_path / "peft.yaml"
        peft.write_text("method: lora\nkwargs: {r: 4, target_modules: [q_proj, v_proj]}\n")
        with pytest.raises(CheckpointError, match="say its model config"):
            Reader.load(bare)
        with pytest.raises(CheckpointError, match="train_method"):
            Reader.load(bare, model="tiny", peft=str(peft))
        reader = Reader.load(bare, model="tiny", peft=str(peft), train_method="sft")
        assert reader.method is Method.SFT

    def test_an_engine_reads_a_finetuned_model_from_its_folder(
        self, tiny_config: ModelConfig, tmp_path: Path
    ) -> None:
        """vLLM loads the folder instead of the base; a `.pt` file it cannot read."""
        from scratchpad_rag.models.checkpoints import Adapter, AdapterMetadata
        from scratchpad_rag.models.load import engine_model
        from scratchpad_rag.reader import load_reader

        told = AdapterMetadata("sft", "tiny", "0" * 64, {}, "plain", kind="full")
        config = RunConfig(model=tiny_config, model_name="tiny")
        engine = engine_model(tiny_config)
        loaded, method = load_reader(engine, Adapter({}, told, tmp_path), config)
        assert loaded.config.pretrained_model_name_or_path == str(tmp_path)
        assert loaded.adapter is None
        assert method is Method.SFT
        with pytest.raises(CheckpointError, match=r"a\.pt holds all weights .* from a folder"):
            load_reader(engine, Adapter({}, told, tmp_path / "a.pt"), config)

    def test_wrong_names(self, adapter: Path) -> None:
        with pytest.raises(ConfigError, match=r"unknown model config .smolm2_135m.; did you mean"):
            Reader.load(model="smolm2_135m")
        with pytest.raises(ConfigError, match="unknown train_method 'dpo'; choose from sft"):
            Reader.load(train_method="dpo")

    def test_a_context_that_is_too_short_is_said(self, tiny_config: ModelConfig) -> None:
        reader = Reader.load(model=tiny_config)
        short = Reader(replace(reader.loaded, context_length=150), None)
        with pytest.raises(SampleTooLongError, match="do not fit the model's context"):
            short.answer("when was it built", [BRIDGE] * 20)
