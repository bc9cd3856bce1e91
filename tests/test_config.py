from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from scratchpad_rag.config import (
    DataConfig,
    GenerateConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    build,
    config_names,
    find_config,
    load_config,
    load_experiment,
    load_model_config,
    load_peft_config,
    max_new_tokens_for,
    read_yaml,
    save_config,
)
from scratchpad_rag.errors import ConfigError
from scratchpad_rag.records import EvalSplit, LossRegion, Method

CONFIGS = Path(__file__).parent.parent / "configs"
NO_FLAGS: dict[str, dict[str, object]] = {"data": {}, "train": {}, "generate": {}, "evaluate": {}}

# A file as the paper repo has it: every key of theirs.
PAPER_EXPERIMENT = """
dataset:
  name: nq_lim
  dataset_config:
    cache_dir: ./data/qa_data
    total_docs: 20
    gold_at: [0, 4, 9, 14, 19]
    train_ratio: 0.8
    num_train_samples: 500
    num_val_samples: 250
    include_support: true
    seed: 42
pretrained_model_config:
  pretrained_model_name_or_path: mistralai/Mistral-7B-v0.1
preprocess_config:
  max_length: 4096
"""
UNIFORM = "dataset: {name: nq_lim, dataset_config: {train_positions: uniform"
PAPER_MODEL = """
pretrained_config:
  pretrained_model_name_or_path: mistralai/Mistral-7B-v0.1
  cache_dir: /weights
  torch_dtype: bfloat16
  attn_implementation: flash_attention_2
  device_map: auto
  quantization: nf4
  rope_theta: 40000
  low_cpu_mem_usage: true
"""
PAPER_PEFT = """
method: lora
kwargs:
  r: 8
  lora_alpha: 16
  target_modules: [q_proj, v_proj]
  lora_dropout: 0.05
  bias: none
  task_type: CAUSAL_LM
"""


def write(folder: Path, text: str, name: str = "paper.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def load(experiment: str, **sections: dict[str, object]) -> RunConfig:
    config, _ = load_config(experiment, "mistral_7b", None, {**NO_FLAGS, **sections})
    return config


# --- every file that the project ships


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("experiment/*.yaml")), ids=lambda p: p.stem)
def test_every_experiment_file_loads_without_warning(path: Path) -> None:
    config, warnings = load_config(path.stem, "mistral_7b", "lora_r8_a16_qv", NO_FLAGS)
    assert warnings == []
    raw = yaml.safe_load(path.read_text())["dataset"]
    assert config.data.name == raw["name"]
    assert config.data.total_docs == raw["dataset_config"]["total_docs"]
    assert list(config.data.gold_at) == raw["dataset_config"]["gold_at"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("model/*.yaml")), ids=lambda p: p.stem)
def test_every_model_file_loads(path: Path) -> None:
    raw = yaml.safe_load(path.read_text())["pretrained_config"]
    config = load_model_config(path.stem)
    for key, value in raw.items():
        assert getattr(config, key) == value


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("peft/*.yaml")), ids=lambda p: p.stem)
def test_every_peft_file_loads(path: Path) -> None:
    assert load_peft_config(path.stem).kwargs == yaml.safe_load(path.read_text())["kwargs"]


def test_the_model_configs_of_the_commands_exist() -> None:
    promised = {
        "mistral_7b",
        "mistral_7b_instruct",
        "llama2_7b_32k",
        "llama2_7b_32k_instruct",
        "smollm2_135m",
        "smollm2_1.7b",
        "qwen3_4b",
        "llama3.1_8b_instruct",
    }
    assert promised <= set(config_names("model"))


# --- files written for the paper repo


def test_an_experiment_file_of_the_paper_repo_loads_with_warnings(tmp_path: Path) -> None:
    path = write(tmp_path, PAPER_EXPERIMENT)
    config, warnings = load_config(path, "mistral_7b", None, NO_FLAGS)
    assert config.data == DataConfig(
        name="nq_lim",
        data_dir="./data/qa_data",
        total_docs=20,
        gold_at=(0, 4, 9, 14, 19),
        train_ratio=0.8,
        num_train_samples=500,
        num_val_samples=250,
        seed=42,
    )
    assert len(warnings) == 3
    for key in ("include_support", "pretrained_model_config", "preprocess_config"):
        assert sum(key in warning for warning in warnings) == 1
    assert all(path in warning for warning in warnings)


def test_a_model_file_with_all_keys_loads(tmp_path: Path) -> None:
    assert load_model_config(write(tmp_path, PAPER_MODEL)) == ModelConfig(
        pretrained_model_name_or_path="mistralai/Mistral-7B-v0.1",
        cache_dir="/weights",
        torch_dtype="bfloat16",
        attn_implementation="flash_attention_2",
        device_map="auto",
        quantization="nf4",
        rope_theta=40000.0,
        low_cpu_mem_usage=True,
    )


def test_a_peft_file_of_the_paper_repo_loads(tmp_path: Path) -> None:
    config = load_peft_config(write(tmp_path, PAPER_PEFT))
    assert config.method == "lora"
    assert config.kwargs == {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj"],
        "lora_dropout": 0.05,
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }


# --- what wins


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, PAPER_EXPERIMENT + "train: {lr: 0.5, weight_decay: 0.25}\n")
    config = load(path, train={"lr": 0.125, "weight_decay": None}, data={"seed": 7})
    assert config.train.lr == 0.125  # the flag
    assert config.train.weight_decay == 0.25  # the file: a flag of None was not given
    assert config.train.num_train_epochs == 3.0  # the default
    assert config.data.seed == 7
    assert config.data.num_train_samples == 500


def test_a_flag_of_zero_or_false_is_given(tmp_path: Path) -> None:
    path = write(tmp_path, "dataset: {name: nq_lim}\nevaluate: {last_answer_only: true}\n")
    config = load(path, evaluate={"last_answer_only": False}, train={"weight_decay": 0.0})
    assert config.evaluate.last_answer_only is False
    assert config.train.weight_decay == 0.0


def test_choices_are_read_by_the_words_of_the_flags(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "dataset: {name: nq_lim}\ntrain: {loss_region: answer}\n"
        "evaluate: {eval_split: val_closed_book}\n",
    )
    config = load(path)
    assert config.train.loss_region is LossRegion.ANSWER
    assert config.evaluate.eval_split is EvalSplit.CLOSED_BOOK
    for split in EvalSplit:
        assert load(path, evaluate={"eval_split": split.value}).evaluate.eval_split is split


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("2.5e-05", 2.5e-5), ("1e3", 1000.0), ("-3e+2", -300.0)],
)
def test_exponents_without_a_point_are_numbers(tmp_path: Path, text: str, value: float) -> None:
    path = write(tmp_path, f"lr: {text}\nname: 1e4x\n")
    assert read_yaml(Path(path)) == {"lr": value, "name": "1e4x"}


def test_a_rate_written_as_1e_4_reaches_the_config(tmp_path: Path) -> None:
    path = write(tmp_path, "dataset: {name: nq_lim}\ntrain: {lr: 1e-4}\n")
    assert load(path).train.lr == 0.0001


# --- where configs are found


def test_a_config_in_the_current_folder_goes_before_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("model", "mistral_7b").resolve() == CONFIGS / "model/mistral_7b.yaml"
    (tmp_path / "configs/model").mkdir(parents=True)
    write(tmp_path / "configs/model", PAPER_MODEL, "mistral_7b.yaml")
    assert load_model_config("mistral_7b").rope_theta == 40000.0


def test_names_with_a_dot_in_them_are_found() -> None:
    assert find_config("model", "smollm2_1.7b").name == "smollm2_1.7b.yaml"


def test_the_model_name_is_the_config_s(tmp_path: Path) -> None:
    path = write(tmp_path, PAPER_MODEL, "my_model.yaml")
    config, _ = load_config("nq_lim_20_docs", path, None, NO_FLAGS, Method.SFT)
    assert config.model_name == "my_model"
    assert config.train_method is Method.SFT


# --- mistakes


def test_an_unknown_name_is_refused_with_choices_and_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        find_config("model", "mistrall_7b")
    message = str(caught.value)
    assert "'mistrall_7b'" in message
    assert "did you mean 'mistral_7b'?" in message
    assert "qwen3_4b" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("dataset: {name: nq_lim, dataset_config: {total_doc: 5}}", "total_doc", "total_docs"),
        ("dataset: {nam: nq_lim}", "nam", "name"),
        ("datasett: {name: nq_lim}", "datasett", "dataset"),
        ("dataset: {name: nq_lim}\ntrain: {num_epochs: 3}", "num_epochs", "num_train_epochs"),
        ("dataset: {name: nq_lim}\ngenerate: {max_tokens: 3}", "max_tokens", "max_new_tokens"),
    ],
)
def test_an_unknown_key_is_refused_with_choices_and_the_nearest(
    tmp_path: Path, text: str, key: str, nearest: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    message = str(caught.value)
    assert path in message
    assert f"unknown key {key!r}" in message
    assert f"did you mean {nearest!r}?" in message
    assert "choose from" in message


def test_an_unknown_key_of_a_model_or_peft_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "pretrained_config: {pretrained_model_name_or_path: a/b, rope_teta: 1}")
    with pytest.raises(ConfigError, match=r"rope_teta.*did you mean 'rope_theta'"):
        load_model_config(path)
    path = write(tmp_path, "method: lora\nkwarg: {r: 8}")
    with pytest.raises(ConfigError, match=r"kwarg.*did you mean 'kwargs'"):
        load_peft_config(path)
    path = write(tmp_path, "method: prefix\nkwargs: {}")
    with pytest.raises(ConfigError, match="'prefix'; choose from lora"):
        load_peft_config(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dataset: {name: nq_lim}\ntrain: {lr: fast}", "fast"),
        ("dataset: {name: nq_lim}\ntrain: {loss_region: everything}", "everything"),
        ("dataset: {name: nq_lim, dataset_config: {total_docs: many}}", "many"),
        ("dataset: {name: nq_lim, dataset_config: {gold_at: [first]}}", "first"),
        ("dataset: {name: nq_lim, dataset_config: {total_docs: 0}}", "total_docs is 0"),
        ("dataset: {name: nq_lim, dataset_config: {gold_at: []}}", "gold_at"),
        ("dataset: {name: nq_lim, dataset_config: {gold_at: [20]}}", "20"),
        ("dataset: {name: nq_lim, dataset_config: {gold_at: [-1]}}", "-1"),
        ("dataset: {name: nq_lim, dataset_config: {train_ratio: 1.5}}", "1.5"),
        ("dataset: {name: nq_lim, dataset_config: {num_val_samples: 0}}", "0"),
        ("dataset: {name: nq_lim, dataset_config: {train_positions: any}}", "fixed, uniform"),
        ("dataset: {name: nq_lim, dataset_config: {train_min_docs: 5}}", "train_min_docs needs"),
        ("dataset: {name: nq_lim, dataset_config: {no_gold_rate: 0.5}}", "no_gold_rate needs"),
        (f"{UNIFORM}, train_min_docs: 21}}}}", "train_min_docs is 21"),
        (f"{UNIFORM}, train_min_docs: 0}}}}", "train_min_docs is 0"),
        (f"{UNIFORM}, train_total_docs: 5, train_min_docs: 6}}}}", "the 5 documents of training"),
        (f"{UNIFORM}, no_gold_rate: 1.0}}}}", "no_gold_rate is 1.0"),
        (f"{UNIFORM}, no_gold_rate: -0.1}}}}", "no_gold_rate is -0.1"),
        (f"{UNIFORM}, no_gold_rate: .nan}}}}", "no_gold_rate is nan"),
        ("dataset: {name: nq_lim}\ntrain: {scheduler: step}", "none, linear, cosine"),
        ("dataset: {name: nq_lim}\ngenerate: {max_new_tokens: 0}", "max_new_tokens"),
        ("dataset: {name: nq_lim}\ngenerate: {batch_size: 0}", "batch_size"),
        ("dataset: {name: nq_lim}\ntrain: {gradient_accumulation_steps: 0}", "gradient"),
        ("dataset: {name: nq_lim}\ntrain: [1, 2]", "train"),
        ("dataset: nq_lim", "dataset"),
        ("dataset: {name: nq_lim, dataset_config: 5}", "dataset_config"),
    ],
)
def test_values_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_malformed_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "dataset:\n  name: nq_lim\n  a: [1, 2\nb: 3\n")
    with pytest.raises(ConfigError, match=rf"{path}:\d"):
        read_yaml(Path(path))


@pytest.mark.parametrize("content", [b"- a list\n", b"", b"\xff\xfe"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_experiment(str(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config file .*none\.yaml"):
        load_model_config(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="pretrained_model_name_or_path"):
        load_model_config(write(tmp_path, "pretrained_config: {}"))


# --- what is made of it


def test_configs_are_frozen() -> None:
    config = load("nq_lim_20_docs")
    for part in (config, config.data, config.model, config.train, config.evaluate):
        name = dataclasses.fields(part)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, None)


def test_gold_positions_are_a_tuple_of_numbers() -> None:
    config = build(DataConfig, {"gold_at": ["0", 4]}, "here")
    assert config.gold_at == (0, 4)
    assert isinstance(config.gold_at, tuple)


def test_a_saved_config_says_every_value(tmp_path: Path) -> None:
    config = dataclasses.replace(
        load("nq_lim_20_docs", evaluate={"eval_split": "val_pos"}), train_method=Method.SCRATCHPAD
    )
    save_config(config, tmp_path / "config.yaml")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert saved["data"]["gold_at"] == [0, 4, 9, 14, 19]
    assert saved["train"]["lr"] == TrainConfig().lr
    assert saved["evaluate"]["eval_split"] == "val_pos"
    assert saved["train_method"] == "scratchpad"
    assert saved["model"]["pretrained_model_name_or_path"] == "mistralai/Mistral-7B-v0.1"


@pytest.mark.parametrize("name", ["smollm2_1.7b", "llama3.1_8b_instruct", "smollm2_135m"])
def test_a_model_keeps_its_whole_name(name: str) -> None:
    config, _ = load_config("sample_5_docs", name, None, {})
    assert config.model_name == name
    assert load_model_config(config.model_name) == config.model


def test_completions_have_room_for_what_the_method_writes() -> None:
    config = GenerateConfig()
    assert max_new_tokens_for(config, Method.SCRATCHPAD) == 512
    assert max_new_tokens_for(config, None) == max_new_tokens_for(config, Method.SFT) == 128
    assert max_new_tokens_for(GenerateConfig(max_new_tokens=9), Method.SCRATCHPAD) == 9
