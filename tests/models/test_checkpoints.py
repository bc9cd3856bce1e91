from __future__ import annotations

import copy
import io
import json
import pickle
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scratchpad_rag.config import ModelConfig, PeftConfig
from scratchpad_rag.errors import CheckpointError
from scratchpad_rag.models.adapters import add_lora
from scratchpad_rag.models.checkpoints import (
    METADATA_FILE,
    AdapterMetadata,
    read_adapter,
    save_adapter,
    save_checkpoint,
)
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.models.lora import lora_kwargs
from scratchpad_rag.models.restore import load_adapter

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


def metadata(loaded: LoadedModel, **changes: Any) -> AdapterMetadata:
    usual = AdapterMetadata(
        method="scratchpad",
        model_name="tiny",
        base_hash=loaded.base_hash,
        lora=lora_kwargs(loaded.model),
        prompt_format="plain",
        training={"lr": "0.0001"},
    )
    return replace(usual, **changes)


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


@pytest.fixture
def file(trained: LoadedModel, tmp_path: Path) -> Path:
    save_checkpoint(trained, metadata(trained), tmp_path / "made/adapter.pt")
    return tmp_path / "made/adapter.pt"


# --- out and in again


def test_file_and_folder_give_the_same_logits(
    base: LoadedModel, trained: LoadedModel, file: Path, tmp_path: Path
) -> None:
    save_adapter(trained, metadata(trained), tmp_path / "folder")
    wanted = logits(trained)
    assert not torch.allclose(wanted, logits(base), atol=1e-2)
    for path in (file, tmp_path / "folder"):
        again = load_adapter(fresh(base), read_adapter(path), None)
        again.model.eval()
        assert torch.equal(logits(again), wanted)
        assert read_adapter(path).metadata == metadata(trained)
    assert [path.name for path in file.parent.iterdir()] == ["adapter.pt"]


def test_the_two_hold_the_same_weights(trained: LoadedModel, file: Path, tmp_path: Path) -> None:
    save_adapter(trained, metadata(trained), tmp_path / "folder")
    one, other = read_adapter(file).weights, read_adapter(tmp_path / "folder").weights
    assert one.keys() == other.keys()
    assert len(one) == 8  # two layers, two modules, A and B
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_metadata_hold_the_shape_of_the_adapter(base: LoadedModel) -> None:
    default_rank = PeftConfig(kwargs={**LORA, "r": 8, "lora_alpha": 8})  # both PEFT's defaults
    said = lora_kwargs(add_lora(fresh(base), default_rank).model)
    assert said["r"] == 8
    assert said["lora_alpha"] == 8
    assert said["target_modules"] == ["q_proj", "v_proj"]


def test_a_peft_config_that_agrees_is_accepted(
    base: LoadedModel, trained: LoadedModel, tmp_path: Path
) -> None:
    for rank in (4, 8):  # 8 is PEFT's default
        peft = PeftConfig(kwargs={**LORA, "r": rank})
        made = add_lora(fresh(base), peft)
        save_checkpoint(made, metadata(made), tmp_path / "a.pt")
        load_adapter(fresh(base), read_adapter(tmp_path / "a.pt"), peft)


def test_two_adapters_on_one_model(base: LoadedModel, trained: LoadedModel, file: Path) -> None:
    loaded = load_adapter(fresh(base), read_adapter(file), None, "one")
    loaded = load_adapter(loaded, read_adapter(file), None, "two")
    assert set(loaded.model.peft_config) == {"one", "two"}
    loaded.model.eval()
    for name in ("one", "two"):
        loaded.model.set_adapter(name)
        assert torch.equal(logits(loaded), logits(trained))


# --- bare state dicts


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("infix", ["", ".default"])
def test_a_bare_state_dict_needs_a_peft_config(
    base: LoadedModel, trained: LoadedModel, file: Path, tmp_path: Path, wrapper: str, infix: str
) -> None:
    weights = {
        f"{wrapper}{key.removesuffix('.weight')}{infix}.weight": value
        for key, value in read_adapter(file).weights.items()
    }
    # As `torch.save(model.state_dict())` makes it: the base's weights are in it too.
    weights["base_model.model.lm_head.weight"] = base.model.lm_head.weight.detach()
    torch.save(weights, tmp_path / "bare.pt")
    adapter = read_adapter(tmp_path / "bare.pt")
    assert adapter.metadata is None
    with pytest.raises(CheckpointError, match="no metadata; say its --peft_config"):
        load_adapter(fresh(base), adapter, None)
    again = load_adapter(fresh(base), adapter, PEFT)
    again.model.eval()
    assert torch.equal(logits(again), logits(trained))


def test_a_bare_state_dict_of_another_rank_is_refused(
    base: LoadedModel, file: Path, tmp_path: Path
) -> None:
    torch.save(read_adapter(file).weights, tmp_path / "bare.pt")
    for other in ({**LORA, "r": 2}, {**LORA, "target_modules": ["q_proj"]}):
        with pytest.raises(CheckpointError, match=r"another base model or (rank|target)"):
            load_adapter(fresh(base), read_adapter(tmp_path / "bare.pt"), PeftConfig(kwargs=other))


# --- what is refused


def test_a_contradicting_rank_is_refused_with_both(base: LoadedModel, file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"trained with r 4, and --peft_config says 16"):
        load_adapter(fresh(base), read_adapter(file), PeftConfig(kwargs={**LORA, "r": 16}))
    other = PeftConfig(kwargs={**LORA, "target_modules": ["k_proj"]})
    with pytest.raises(CheckpointError, match=r"target_modules .*q_proj.*k_proj"):
        load_adapter(fresh(base), read_adapter(file), other)


def test_another_base_of_the_same_shape_is_refused(base: LoadedModel, file: Path) -> None:
    other = replace(fresh(base), base_hash="0" * 64)
    with pytest.raises(CheckpointError, match=r"trained on tiny, and .* has other weights"):
        load_adapter(other, read_adapter(file), None)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*none\.pt"):
        read_adapter(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match=r"no adapter_model\.safetensors"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(file: Path, tmp_path: Path, share: float) -> None:
    content = file.read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError) as caught:
        read_adapter(cut)
    assert str(cut) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_folder_is_refused(trained: LoadedModel, tmp_path: Path) -> None:
    save_adapter(trained, metadata(trained), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        read_adapter(tmp_path)
    weights.write_bytes(whole)
    (tmp_path / METADATA_FILE).write_text('{"method": "scr')
    with pytest.raises(CheckpointError, match="truncated"):
        read_adapter(tmp_path)


class _Malicious:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.path)!r}, 'w').write('ran')",))


def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    legacy = tmp_path / "legacy.pt"
    legacy.write_bytes(pickle.dumps({"model_state_dict": _Malicious(trap)}))
    zipped = tmp_path / "zipped.pt"
    torch.save({"model_state_dict": {"x": _Malicious(trap)}, "metadata": None}, zipped)
    for path in (legacy, zipped):
        with pytest.raises(CheckpointError, match="nothing in it was executed") as caught:
            read_adapter(path)
        assert not trap.exists()
        assert "\n" not in str(caught.value)
    # The trap works where the pickle is read without a care.
    pickle.loads(legacy.read_bytes())
    assert trap.exists()


def foreign_files(folder: Path) -> list[Path]:
    text, archive, tensor, others, empty = (folder / f"{n}.pt" for n in "abcde")
    text.write_text("these are not weights\n" * 20)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("hello.txt", "hello")
    archive.write_bytes(buffer.getvalue())
    torch.save(torch.ones(3), tensor)
    torch.save({"epoch": 3, "model_state_dict": {"layer.weight": torch.ones(3)}}, others)
    torch.save({}, empty)
    return [text, archive, tensor, others, empty]


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    for path in foreign_files(tmp_path):
        with pytest.raises(CheckpointError) as caught:
            read_adapter(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "newer version"),
        ({"method": "magic"}, "not understood"),
        ({"scratchpad_form": "words"}, "not understood"),
        ({"surprise": 1}, "not understood"),
        ({"format": "two"}, "not understood"),
        ({"lora": "r=8"}, "not understood"),
    ],
)
def test_metadata_from_elsewhere_are_refused(
    file: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    content = torch.load(file, weights_only=True)
    content["metadata"] |= change
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=said):
        read_adapter(tmp_path / "other.pt")


def test_metadata_of_a_newer_version_may_hold_new_keys(file: Path, tmp_path: Path) -> None:
    content = torch.load(file, weights_only=True)
    content["metadata"] |= {"format": 2, "surprise": 1}
    torch.save(content, tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match="newer version"):
        read_adapter(tmp_path / "newer.pt")


def test_a_disk_that_is_full_leaves_nothing(
    trained: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(content: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(trained, metadata(trained), tmp_path / "a.pt")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_says_what_it_is_in_json(trained: LoadedModel, tmp_path: Path) -> None:
    save_adapter(trained, metadata(trained), tmp_path)
    told = json.loads((tmp_path / METADATA_FILE).read_text())
    assert told["method"] == "scratchpad"
    assert told["format"] == 1
    assert "kind" not in told  # versions that know LoRA alone read it too
    assert (tmp_path / "adapter_config.json").is_file()
    assert (tmp_path / "adapter_model.safetensors").is_file()


def test_the_form_of_scratchpads_is_said_only_where_it_is_another(
    trained: LoadedModel, tmp_path: Path
) -> None:
    """So that older versions read the rest, and older checkpoints are of whole passages."""
    for form, said in (("passage", False), ("index", True)):
        made = metadata(trained, scratchpad_form=form)
        save_checkpoint(trained, made, tmp_path / form / "adapter.pt")
        save_adapter(trained, made, tmp_path / form)
        kept = json.loads((tmp_path / form / METADATA_FILE).read_text())
        assert ("scratchpad_form" in kept) is said
        for path in (tmp_path / form, tmp_path / form / "adapter.pt"):
            assert read_adapter(path).metadata == made


def test_the_trainings_that_it_went_on_from_are_kept_in_their_order(
    trained: LoadedModel, tmp_path: Path
) -> None:
    first, second = {"lr": "0.1"}, {"lr": "0.2"}
    made = metadata(trained, training={"lr": "0.3"}, earlier=(first, second))
    save_checkpoint(trained, made, tmp_path / "adapter.pt")
    save_adapter(trained, made, tmp_path)
    for path in (tmp_path, tmp_path / "adapter.pt"):
        found = read_adapter(path).metadata
        assert found == made
        assert found.trainings == (first, second, {"lr": "0.3"})
    save_adapter(trained, metadata(trained), tmp_path)
    assert "earlier" not in json.loads((tmp_path / METADATA_FILE).read_text())
    (tmp_path / METADATA_FILE).write_text(json.dumps(asdict(metadata(trained)) | {"earlier": [3]}))
    with pytest.raises(CheckpointError, match="earlier"):
        read_adapter(tmp_path)
