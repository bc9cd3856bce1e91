"""`scratchpad-rag export`, in process, on a tiny reader."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from scratchpad_rag.app import cli
from scratchpad_rag.config import ModelConfig, PeftConfig
from scratchpad_rag.models.adapters import add_lora
from scratchpad_rag.models.checkpoints import (
    AdapterMetadata,
    read_adapter,
    save_adapter,
    save_checkpoint,
)
from scratchpad_rag.models.load import load_model
from scratchpad_rag.models.lora import lora_kwargs
from scratchpad_rag.reader import Reader
from scratchpad_rag.records import Method, Score

ROOT = Path(__file__).parents[2]
DOCUMENTS = [("Bridge", "The bridge was built in 1895."), ("Town", "The town lies by the river.")]


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Home(NamedTuple):
    """A folder with a model's config and the same adapter as a file and as a folder."""

    folder: Path
    config: Path
    file: Path
    adapter: Path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def run(*arguments: object) -> Done:
        monkeypatch.setattr("sys.argv", ["scratchpad-rag", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


def train_by_lot(base: Any, seed: int, **lora: Any) -> Any:
    """A reader whose adapter is drawn from a seed."""
    wanted = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "down_proj"], **lora}
    trained = add_lora(base, PeftConfig(kwargs=wanted))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in trained.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return trained


def describe(trained: Any, **changes: Any) -> AdapterMetadata:
    usual = {
        "method": "scratchpad",
        "model_name": "tiny",
        "base_hash": trained.base_hash,
        "lora": lora_kwargs(trained.model),
        "prompt_format": "chat",
        "training": {"lr": "0.0005", "data": "/home/someone/secret/questions.jsonl"},
    }
    return AdapterMetadata(**{**usual, **changes})


@pytest.fixture(scope="module")
def home(tiny_chat_mistral: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    model = {"pretrained_model_name_or_path": str(tiny_chat_mistral), "torch_dtype": "float32"}
    (folder / "tiny.yaml").write_text(yaml.safe_dump({"pretrained_config": model}))
    trained = train_by_lot(load_model(ModelConfig(**model)), seed=3)
    save_checkpoint(trained, describe(trained), folder / "reader.pt")
    save_adapter(trained, describe(trained), folder / "adapter")
    return Home(folder, folder / "tiny.yaml", folder / "reader.pt", folder / "adapter")


@pytest.fixture
def export(call: Callable[..., Done], home: Home) -> Callable[..., Done]:
    def run(*arguments: object, checkpoint: Path = home.file) -> Done:
        given = ("--checkpoint_path", checkpoint, "--model_config", home.config)
        return call("export", *given, *arguments)

    return run


def refused(done: Done, told: str) -> None:
    """One line and exit code 2."""
    assert done.code == 2, done.err
    line = done.err.splitlines()[-1]
    assert line.startswith("error: ")
    assert told in line
    assert "Traceback" not in done.err


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class TestFormats:
    def test_all_of_them_in_one_folder(
        self, export: Callable[..., Done], home: Home, tmp_path: Path
    ) -> None:
        out = tmp_path / "new/out"
        formats = ("--format", "merged", "--format", "gguf", "--format", "adapter")
        done = export("--out", out, *formats, "--gguf_type", "f32")
        assert done.code == 0, done.err
        expected = {
            *("README.md", "scratchpad_rag_export.json", "Modelfile"),
            *("config.json", "generation_config.json", "model.safetensors"),
            *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
            *("adapter/adapter_config.json", "adapter/adapter_model.safetensors"),
            *("adapter/scratchpad_rag.json", "tiny-scratchpad-f32.gguf"),
        }
        assert names(out) == expected
        listed = {line.split()[1]: line.split()[0] for line in done.out.splitlines()}
        assert listed == {name: f"{(out / name).stat().st_size:,}" for name in expected}
        assert [path.name for path in out.parent.iterdir()] == ["out"]  # nothing is left beside it
        assert "tiny-scratchpad-f32.gguf: read again, and its logits differ by" in done.err

    @pytest.mark.parametrize("kind", ["file", "adapter"])
    def test_the_merged_model_answers_as_the_reader(
        self, kind: str, export: Callable[..., Done], home: Home, tmp_path: Path
    ) -> None:
        checkpoint = getattr(home, kind)
        done = export("--out", tmp_path / "out", "--format", "merged", checkpoint=checkpoint)
        assert done.code == 0, done.err
        ours = Reader.load(home.file, str(home.config), max_new_tokens=24)
        config = ModelConfig(str(tmp_path / "out"), torch_dtype="float32")
        theirs = Reader(load_model(config), Method.SCRATCHPAD)
        question = "When was the bridge built?"
        said = ours.answer(question, DOCUMENTS)
        assert theirs.answer(question, DOCUMENTS, max_new_tokens=24) == said
        plain = Reader.load(None, str(home.config), max_new_tokens=24).answer(question, DOCUMENTS)
        assert plain.completion != said.completion

    def test_the_adapter_is_the_checkpoint_s(
        self, export: Callable[..., Done], home: Home, tmp_path: Path
    ) -> None:
        done = export("--out", tmp_path / "out", "--format", "adapter")
        assert done.code == 0, done.err
        written, trained = read_adapter(tmp_path / "out/adapter"), read_adapter(home.file)
        assert written.metadata == trained.metadata
        assert written.weights.keys() == trained.weights.keys()
        assert all(
            torch.equal(written.weights[key], trained.weights[key]) for key in trained.weights
        )
        config = json.loads((tmp_path / "out/adapter/adapter_config.json").read_text())
        assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8)
        assert config["base_model_name_or_path"] is None  # a folder of this machine
        assert "--max-lora-rank 8" in (tmp_path / "out/README.md").read_text()

    def test_a_named_base_model_stands_in_the_adapter_and_the_card(
        self, export: Callable[..., Done], tmp_path: Path
    ) -> None:
        named = ("--base_model", "someone/tiny", "--license", "mit")
        done = export("--out", tmp_path / "out", "--format", "adapter", *named)
        assert done.code == 0, done.err
        config = json.loads((tmp_path / "out/adapter/adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "someone/tiny"
        head = yaml.safe_load((tmp_path / "out/README.md").read_text().split("---")[1])
        assert (head["base_model"], head["license"]) == ("someone/tiny", "mit")

    def test_the_modelfile_belongs_to_the_gguf_file(
        self, export: Callable[..., Done], tmp_path: Path
    ) -> None:
        done = export("--out", tmp_path / "out", "--format", "gguf", "--gguf_type", "q8_0")
        assert done.code == 0, done.err
        text = (tmp_path / "out/Modelfile").read_text()
        assert "FROM ./tiny-scratchpad-q8_0.gguf\n" in text
        assert 'PARAMETER stop "<|im_end|>"\nPARAMETER stop "</s>"\n' in text
        reader = gguf.GGUFReader(tmp_path / "out/tiny-scratchpad-q8_0.gguf")
        assert reader.fields["general.name"].contents() == "tiny-scratchpad"

    def test_another_precision(self, export: Callable[..., Done], tmp_path: Path) -> None:
        done = export("--out", tmp_path / "out", "--format", "merged", "--torch_dtype", "bfloat16")
        assert done.code == 0, done.err
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        assert model.dtype == torch.bfloat16

    def test_the_card_tells_no_folders(self, export: Callable[..., Done], tmp_path: Path) -> None:
        assert export("--out", tmp_path / "out", "--format", "merged").code == 0
        text = (tmp_path / "out/README.md").read_text()
        assert "| `data` | questions.jsonl |" in text
        assert "/home/" not in text
        assert str(tmp_path.parent) not in text

    def test_the_card_s_snippets_run(
        self, export: Callable[..., Done], home: Home, tmp_path: Path
    ) -> None:
        formats = ("--format", "merged", "--format", "adapter")
        assert export("--out", tmp_path / "out", *formats).code == 0
        text = (tmp_path / "out/README.md").read_text()
        text = text.replace("PATH_OF_THIS_FOLDER", str(tmp_path / "out"))
        snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert len(snippets) == 3
        script = "prompt = 'Question: Who?\\n\\nAnswer:'\n" + "\n".join(snippets)
        script = script.replace('"tiny"', repr(str(home.config)))  # no config of the project
        exec(compile(script, "card", "exec"), {})

    def test_what_is_written_may_be_read_by_others(
        self, export: Callable[..., Done], tmp_path: Path
    ) -> None:
        before = os.umask(0o022)
        try:
            assert export("--out", tmp_path / "out", "--format", "merged").code == 0
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
        assert stat.S_IMODE((tmp_path / "out/model.safetensors").stat().st_mode) == 0o644


class TestBareStateDict:
    @pytest.fixture
    def bare(self, home: Home, tmp_path: Path) -> Path:
        torch.save(read_adapter(home.file).weights, tmp_path / "bare.pt")
        lora = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "down_proj"]}
        (tmp_path / "lora.yaml").write_text(yaml.safe_dump({"method": "lora", "kwargs": lora}))
        return tmp_path / "bare.pt"

    def test_flags_say_what_it_does_not(
        self, export: Callable[..., Done], bare: Path, tmp_path: Path
    ) -> None:
        told = ("--peft_config", tmp_path / "lora.yaml", "--train_method", "sft")
        formats = ("--format", "adapter", "--format", "merged")
        done = export("--out", tmp_path / "out", *formats, *told, checkpoint=bare)
        assert done.code == 0, done.err
        written = read_adapter(tmp_path / "out/adapter").metadata
        assert written is not None
        assert (written.method, written.prompt_format) == ("sft", "chat")
        assert (written.lora["r"], written.lora["lora_alpha"]) == (4, 8)

    def test_without_them_it_is_refused(
        self, export: Callable[..., Done], bare: Path, tmp_path: Path
    ) -> None:
        done = export("--out", tmp_path / "out", "--format", "merged", checkpoint=bare)
        refused(done, "say its --model_config, --peft_config and --train_method")


class TestRefusals:
    def test_a_folder_that_is_there(self, export: Callable[..., Done], tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert export("--out", out, "--format", "adapter").code == 0
        kept = (out / "README.md").read_bytes()
        refused(export("--out", out, "--format", "merged"), f"{out} exists; --overwrite replaces")
        assert (out / "README.md").read_bytes() == kept
        assert export("--out", out, "--format", "merged", "--overwrite").code == 0
        assert not (out / "adapter").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_overwriting_what_is_no_export(
        self, export: Callable[..., Done], tmp_path: Path
    ) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/thesis.txt").write_text("years of work")
        done = export("--out", tmp_path / "mine", "--format", "merged", "--overwrite")
        refused(done, "holds something else than an export")
        assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"

    def test_overwriting_what_is_read(self, export: Callable[..., Done], tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert export("--out", out, "--format", "adapter").code == 0
        again = ("--out", out, "--format", "merged", "--overwrite")
        refused(export(*again, checkpoint=out / "adapter"), "which this run reads")
        assert (out / "adapter/adapter_model.safetensors").is_file()

    @pytest.mark.parametrize(
        ("lora", "told"),
        [
            ({"use_dora": True}, "vLLM does not read its LoRA options use_dora"),
            ({"r": 600}, "vLLM reads LoRA up to rank 512, and this one has 600"),
            ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ],
    )
    def test_an_adapter_that_vllm_would_misread(
        self,
        lora: dict[str, Any],
        told: str,
        export: Callable[..., Done],
        tiny_chat_mistral: Path,
        tmp_path: Path,
    ) -> None:
        base = load_model(ModelConfig(str(tiny_chat_mistral), torch_dtype="float32"))
        trained = train_by_lot(base, seed=5, **lora)
        save_checkpoint(trained, describe(trained), tmp_path / "reader.pt")
        done = export(
            "--out", tmp_path / "out", "--format", "adapter", checkpoint=tmp_path / "reader.pt"
        )
        refused(done, told)
        assert not (tmp_path / "out").exists()

    def test_a_model_that_llama_cpp_has_not(
        self, call: Callable[..., Done], tmp_path: Path, byte_level_tokenizer: Any
    ) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": len(byte_level_tokenizer)}
        GPT2LMHeadModel(GPT2Config(**shape)).save_pretrained(tmp_path / "model")
        byte_level_tokenizer.save_pretrained(tmp_path / "model")
        model = {"pretrained_model_name_or_path": str(tmp_path / "model"), "torch_dtype": "float32"}
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"pretrained_config": model}))
        trained = train_by_lot(load_model(ModelConfig(**model)), 3, target_modules=["c_attn"])
        metadata = describe(trained, prompt_format="plain")
        save_checkpoint(trained, metadata, tmp_path / "reader.pt")
        given = (
            "--checkpoint_path",
            tmp_path / "reader.pt",
            "--model_config",
            tmp_path / "tiny.yaml",
        )
        done = call("export", *given, "--out", tmp_path / "out", "--format", "gguf")
        refused(done, "no GGUF file is written of a gpt2 model; choose one of llama, mistral")

    def test_a_parent_that_is_no_folder(self, export: Callable[..., Done], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        refused(export("--out", tmp_path / "file/out", "--format", "merged"), "is not a folder")

    def test_a_missing_checkpoint(self, export: Callable[..., Done], tmp_path: Path) -> None:
        done = export("--out", tmp_path / "o", "--format", "merged", checkpoint=Path("gone.pt"))
        refused(done, "there is no checkpoint gone.pt")

    @pytest.mark.parametrize("gone", ["--format", "--out", "--checkpoint_path"])
    def test_what_must_be_said(self, gone: str, call: Callable[..., Done], home: Home) -> None:
        given = {"--format": "merged", "--out": "x", "--checkpoint_path": home.file}
        del given[gone]
        done = call("export", *(part for pair in given.items() for part in pair))
        assert done.code == 2
        assert gone in done.err

    @pytest.mark.parametrize(
        ("form", "limit"), [("merged", 40_000), ("gguf", 40_000), ("adapter", 2_000)]
    )
    def test_a_full_disk_leaves_nothing(
        self, form: str, limit: int, home: Home, tmp_path: Path
    ) -> None:
        """The system's limit on a file's size stands for the disk that ends."""
        script = (
            "import resource, sys\n"
            "from scratchpad_rag.app.cli import main\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
            "sys.argv = ['scratchpad-rag', *sys.argv[1:]]\n"
            "main()\n"
        )
        given = ("--checkpoint_path", home.file, "--model_config", home.config)
        asked = ("export", *given, "--out", tmp_path / "out", "--format", form)
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, asked)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            encoding="utf-8",
        )
        refused(Done(done.returncode, done.stdout, done.stderr), f"cannot write to {tmp_path}/out")
        assert list(tmp_path.iterdir()) == []


class TestPushing:
    def test_a_dry_run_keeps_nothing_and_asks_nobody(
        self, export: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scratchpad_rag.app.export.push", None)  # calling it would fail
        push = ("--push_to_hub", "me/reader", "--dry_run")
        done = export("--out", tmp_path / "out", "--format", "merged", *push)
        assert done.code == 0, done.err
        listed = {line.split()[1] for line in done.out.splitlines()}
        assert {"README.md", "model.safetensors", "config.json"} <= listed
        assert list(tmp_path.iterdir()) == []
        assert export("--out", tmp_path / "out", "--format", "adapter").code == 0

    def test_without_a_token_nothing_is_begun(
        self, export: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scratchpad_rag.app.hub.get_token", lambda: None)
        push = ("--push_to_hub", "me/reader")
        refused(export("--out", tmp_path / "out", "--format", "merged", *push), "needs a token")
        assert list(tmp_path.iterdir()) == []

    def test_what_is_written_stays_where_the_hub_refuses(
        self, export: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from huggingface_hub import constants

        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
        push = ("--push_to_hub", "me/reader", "--private")
        done = export("--out", tmp_path / "out", "--format", "merged", *push)
        refused(done, "cannot upload to me/reader: ")
        assert f"exported: {tmp_path / 'out'}" in done.err
        assert "hf download me/reader" in (tmp_path / "out/README.md").read_text()


class TestMeasured:
    def run_folder(
        self, folder: Path, methods: list[str], model_name: str = "tiny", **data: Any
    ) -> Path:
        folder.mkdir(parents=True)
        scores = [score(method, n, float(n < 3)) for method in methods for n in range(4)]
        lines = "".join(json.dumps(asdict(one)) + "\n" for one in scores)
        (folder / "scores.jsonl").write_text(lines)
        config = {"model_name": model_name, "data": {"path": "/somewhere/questions.jsonl", **data}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    def test_the_reader_s_own_row(
        self, export: Callable[..., Done], home: Home, tmp_path: Path
    ) -> None:
        run = self.run_folder(tmp_path / "my_run", ["sft", "scratchpad"])
        (run / "scratchpad").mkdir()
        (run / "scratchpad/adapter").symlink_to(home.adapter)
        done = export("--out", tmp_path / "out", "--format", "adapter", "--run", run)
        assert done.code == 0, done.err
        text = (tmp_path / "out/README.md").read_text()
        assert "Scores of the run `my_run`." in text
        assert "This reader is the row **Scratchpad**." in text
        assert "| Scratchpad | 75% (" in text
        assert "| `data` | questions.jsonl |" in text
        assert "| `documents shown` | 5 |" in text

    def test_a_run_that_read_some_checkpoint(
        self, export: Callable[..., Done], tmp_path: Path
    ) -> None:
        run = self.run_folder(tmp_path / "run", ["scratchpad"])
        done = export("--out", tmp_path / "out", "--format", "adapter", "--run", run)
        assert done.code == 0, done.err
        assert "does not tell which checkpoint" in (tmp_path / "out/README.md").read_text()

    def test_another_reader_s_scores_are_refused(
        self,
        export: Callable[..., Done],
        tiny_chat_mistral: Path,
        tmp_path: Path,
    ) -> None:
        run = self.run_folder(tmp_path / "run", ["scratchpad"])
        base = load_model(ModelConfig(str(tiny_chat_mistral), torch_dtype="float32"))
        other = train_by_lot(base, seed=9)
        save_adapter(other, describe(other), run / "adapter")
        out = ("--out", tmp_path / "out", "--format", "adapter")
        refused(export(*out, "--run", run), "measured other readers")
        sft = self.run_folder(tmp_path / "sft", ["sft"])
        refused(export(*out, "--run", sft), "measured other readers")
        model = self.run_folder(tmp_path / "model", ["scratchpad"], model_name="mistral_7b")
        refused(export(*out, "--run", model), "measured mistral_7b, and the checkpoint is of tiny")
        refused(export(*out, "--run", tmp_path / "gone"), "holds no scores.jsonl")
        assert not (tmp_path / "out").exists()


def score(method: str, number: int, right: float) -> Score:
    return Score(
        method=method,
        example_id=f"q{number}",
        question="?",
        answers=("1895",),
        num_documents=5,
        gold_positions=(2,),
        prediction="1895",
        completion="1895",
        quotes=(),
        parsed=True,
        subspan_exact_match=right,
        exact_match=right,
        f1=right,
        completion_subspan_exact_match=right,
        quote_precision=None,
        quote_recall=None,
        verbatim_rate=None,
        prompt_tokens=100,
        new_tokens=10,
        forward_passes=4,
        wall_seconds=0.5,
    )
