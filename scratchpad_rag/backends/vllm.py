"""vLLM's offline engine: all prompts in one call, drafts by n-grams of the prompt.

From vLLM 0.19.1 on, the first to run with transformers 5. It pins its own torch and transformers
and so has an environment of its own. Greedy choices are those of plain decoding, as far as sums in
half precision taken in another order leave them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from peft import LoraConfig
from safetensors.torch import save_file

from scratchpad_rag.backends.native import decode_text
from scratchpad_rag.config import GenerateConfig, ModelConfig, max_new_tokens_for
from scratchpad_rag.errors import CheckpointError, ConfigError, ModelError
from scratchpad_rag.models.checkpoints import Adapter
from scratchpad_rag.models.load import LoadedModel
from scratchpad_rag.records import Completion, Rendered
from scratchpad_rag.tokens.encode import encode_prompt, require_fitting

_DTYPES = ("auto", "bfloat16", "float16", "float32")
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what max_lora_rank may be, in every version
# A quoted passage has a hundred tokens and more, and while it is copied nearly all drafts hold.
# With the token that follows them, 15 make 16, a size that CUDA graphs are recorded for. Passages
# share short phrases; the longest match, up to 12 tokens, tells which of them goes on.
_SPECULATION = {
    "method": "ngram",
    "num_speculative_tokens": 15,
    "prompt_lookup_max": 12,
    "prompt_lookup_min": 3,
}
# Rows at a time where the config names none. vLLM sets memory aside for one draft a row, however
# many there are (vllm-project/vllm#37521); with its own 1024 rows the logits would outgrow it.
_ROWS = 256
# Prompts a little longer than those before are no reason to start another engine.
_LENGTH_STEP = 1024
# What vLLM reads of a LoRA config, or need not read; it ignores the rest without a word.
_LORA_OPTIONS = {
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "init_lora_weights", "task_type"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
}


def engine_arguments(
    model: ModelConfig,
    generate: GenerateConfig,
    prompt_tokens: int,
    max_new_tokens: int,
    lora_rank: int | None,
) -> dict[str, Any]:
    """Keywords of `vllm.LLM`. The model is a Hub id or a folder, never a GGUF file.

    attn_implementation, device_map and low_cpu_mem_usage have no meaning there. Raises
    ConfigError for what vLLM cannot do.
    """
    wanted = {
        "model": model.pretrained_model_name_or_path,
        "revision": model.revision,
        "download_dir": model.cache_dir,
        "dtype": _dtype(model, lora_rank),
        "quantization": _quantization(model),
        "trust_remote_code": model.trust_remote_code,
        "hf_overrides": _overrides(model.rope_theta),
        "generation_config": "vllm",  # else the model's own adds stop tokens to ours
        "max_model_len": prompt_tokens + max_new_tokens,
        "max_num_seqs": generate.batch_size or _ROWS,
        "enable_prefix_caching": True,
        "speculative_config": dict(_SPECULATION),
    }
    if lora_rank is not None:
        wanted |= {"enable_lora": True, "max_lora_rank": allowed_rank(lora_rank)}
    return {key: value for key, value in wanted.items() if value is not None}


def sampling_arguments(max_new_tokens: int, stop_token_ids: Sequence[int]) -> dict[str, Any]:
    """Keywords of `vllm.SamplingParams`: greedy, and tokens alone, which are decoded here."""
    return {
        "temperature": 0.0,
        "max_tokens": max_new_tokens,
        "stop_token_ids": list(stop_token_ids),
        "detokenize": False,
    }


def write_adapter(adapter: Adapter, folder: Path) -> int:
    """Write the PEFT folder that vLLM loads an adapter from; returns its rank.

    Raises CheckpointError for an adapter without metadata, or one that vLLM would misread.
    """
    if adapter.metadata is None:
        raise CheckpointError(
            f"{adapter.path} has no metadata, which the vllm backend needs; "
            "read it with --backend native and its --peft_config"
        )
    make: Any = LoraConfig  # untyped in PEFT
    try:
        config = make(**{"task_type": "CAUSAL_LM", **adapter.metadata.lora})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{adapter.path}: PEFT rejects its metadata ({error})") from error
    default = make().to_dict()
    given = {key for key, value in config.to_dict().items() if value != default.get(key)}
    if given - _LORA_OPTIONS:
        options = ", ".join(sorted(given - _LORA_OPTIONS))
        raise CheckpointError(f"{adapter.path}: vLLM does not read its LoRA options {options}")
    ranks = {len(value) for key, value in adapter.weights.items() if ".lora_A." in key}
    if ranks != {config.r}:
        raise CheckpointError(
            f"{adapter.path} says r {config.r}, and its weights are of rank "
            f"{', '.join(map(str, sorted(ranks)))}"
        )
    config.inference_mode = True
    config.save_pretrained(str(folder))
    weights = {key: value.detach().cpu().contiguous() for key, value in adapter.weights.items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return int(config.r)


class VllmBackend:
    """The engine starts with the first prompts and is kept; only longer ones make another.

    The engine tells neither forward passes nor drafts, and the time of a first token says nothing
    among prompts that wait for each other: these are 0. `loaded.model` is not used.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        config: GenerateConfig,
        adapter: Adapter | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Raises ConfigError or CheckpointError for what cannot work, before anything is loaded."""
        try:
            import vllm
        except ImportError as error:
            raise ConfigError(
                "the vllm backend needs vLLM: pip install 'scratchpad-rag[vllm]', in an "
                "environment of its own, since it pins its own torch and transformers"
            ) from error
        self.loaded = loaded
        self.config = config
        self.notify = notify
        self.max_new_tokens = max_new_tokens_for(config, None)
        self._vllm: Any = vllm
        self._engine: Any = None
        self._room = 0  # tokens of the longest prompt that the engine takes
        self._least_room = 0  # and of the longest one that is known to come
        self._folder: TemporaryDirectory[str] | None = None
        self._rank: int | None = None
        if adapter is not None:
            self._folder = TemporaryDirectory(prefix="scratchpad-rag-vllm-")
            self._rank = write_adapter(adapter, Path(self._folder.name))
        self._arguments(prompt_tokens=1)  # what cannot work is refused now

    def generate(self, prompts: Sequence[Rendered]) -> Iterator[Completion]:
        """All completions come at the end of one call, each with its share of the call's time."""
        encoded = [encode_prompt(prompt, self.loaded.tokenizer) for prompt in prompts]
        if not encoded:
            return
        lengths = [len(ids) for ids in encoded]
        require_fitting(lengths, self.loaded.context_length, self.max_new_tokens)
        engine = self._open(max(*lengths, self._least_room))
        sampling = sampling_arguments(self.max_new_tokens, self.loaded.stop_token_ids)
        begin = time.perf_counter()
        outputs = engine.generate(
            [{"prompt_token_ids": ids} for ids in encoded],
            self._vllm.SamplingParams(**sampling),
            use_tqdm=False,
            lora_request=self._lora_request(),
        )
        share = (time.perf_counter() - begin) / len(encoded)
        for length, output in zip(lengths, outputs, strict=True):
            yield self._complete(length, output, share)

    def make_room(self, prompt: Rendered) -> None:
        """Have the engine start with room for this prompt, where prompts come in several calls."""
        self._least_room = len(encode_prompt(prompt, self.loaded.tokenizer))

    def _arguments(self, prompt_tokens: int) -> dict[str, Any]:
        return engine_arguments(
            self.loaded.config, self.config, prompt_tokens, self.max_new_tokens, self._rank
        )

    def _open(self, longest: int) -> Any:
        if self._engine is not None and longest <= self._room:
            return self._engine
        stepped = -(-longest // _LENGTH_STEP) * _LENGTH_STEP
        self._room = min(stepped, self.loaded.context_length - self.max_new_tokens)
        self._engine = None
        gc.collect()  # an engine takes most of the GPU's memory, until the last trace of it is gone
        arguments = self._arguments(self._room)
        self.notify(f"starting vLLM for up to {arguments['max_model_len']} tokens a prompt")
        try:
            self._engine = self._vllm.LLM(**arguments)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"vLLM cannot run {arguments['model']}: {reason}") from error
        return self._engine

    def _lora_request(self) -> Any:
        if self._folder is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest("adapter", 1, self._folder.name)

    def _complete(self, prompt_tokens: int, output: Any, seconds: float) -> Completion:
        answer = output.outputs[0]
        reason = answer.finish_reason
        if reason not in ("stop", "length"):
            raise ModelError(
                f"vLLM ended an answer with finish_reason {reason!r}, not stop or length"
            )
        generated = tuple(answer.token_ids)
        tokens = generated[:-1] if reason == "stop" else generated  # a stop token is the last
        return Completion(
            text=decode_text(self.loaded.tokenizer, tokens),
            token_ids=tokens,
            prompt_tokens=prompt_tokens,
            new_tokens=len(generated),
            forward_passes=0,
            wall_seconds=seconds,
            finish_reason=reason,
            prefilled_tokens=prompt_tokens - (output.num_cached_tokens or 0),
        )


def _dtype(model: ModelConfig, lora_rank: int | None) -> str:
    """`auto` is the precision that the weights are stored in, and half precision for float32."""
    name = model.torch_dtype.removeprefix("torch.")
    if name not in _DTYPES:
        raise ConfigError(
            f"vLLM does not compute in torch_dtype {name!r}; choose from {', '.join(_DTYPES)}"
        )
    if name == "float32" and lora_rank is not None:
        raise ConfigError("vLLM reads adapters in half precision; torch_dtype float32 needs none")
    return name


def _quantization(model: ModelConfig) -> str | None:
    if model.quantization is None:
        return None
    if model.quantization != "nf4":
        raise ConfigError(
            f"vLLM does not quantize to {model.quantization} while loading; choose nf4 (with "
            "bitsandbytes, and from vLLM 0.28 on with vllm-bnb-plugin too)"
        )
    return "bitsandbytes"


def allowed_rank(rank: int) -> int:
    """The smallest max_lora_rank that holds a rank.

    >>> allowed_rank(8), allowed_rank(12)
    (8, 16)
    """
    allowed = next((allowed for allowed in _LORA_RANKS if rank <= allowed), None)
    if allowed is None:
        raise ConfigError(f"vLLM reads LoRA up to rank {_LORA_RANKS[-1]}, and this one has {rank}")
    return allowed


def _overrides(rope_theta: float | None) -> Callable[[Any], Any] | None:
    """A function, which can be sent to other processes: as a plain value rope_theta is silently
    unused beside transformers 5, and as rope_parameters it would drop the model's own scaling."""
    return None if rope_theta is None else partial(_set_rope_theta, theta=float(rope_theta))


def _set_rope_theta(config: Any, theta: float) -> Any:
    parameters = getattr(config, "rope_parameters", None)
    if isinstance(parameters, dict) and "rope_theta" in parameters:
        parameters["rope_theta"] = theta
    elif config.architectures != [""]:  # so is the empty config that vLLM tries it on first
        raise ModelError(f"rope_theta: a {config.model_type} model has no single rope_theta")
    return config
