"""One frozen dataclass a stage, with every default."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from scratchpad_rag.records import EvalSplit, LossRegion, Method, ScratchpadForm

PASSAGE_ORDERS = ("ranked", "reversed", "shuffled", "given", "retrieved")
SUPPORT_ORDERS = ("given", "position")
TRACKERS = ("tensorboard", "trackio", "wandb")


@dataclass(frozen=True)
class DataConfig:
    """Which questions are read, and how many documents are shown with the gold one where."""

    name: str = "nq_lim"  # nq_lim (Lost in the Middle's) | examples (any file) | a public set
    path: str | None = None  # the file or folder, from here or from the package
    data_dir: str | None = None  # downloads: nq_lim's files, a public set's folder; data/qa_data
    total_docs: int = 20
    gold_at: tuple[int, ...] = (0, 4, 9, 14, 19)
    passage_order: str = "ranked"  # of the distractors around gold_at: ranked | reversed | shuffled
    # given: all passages where the file has them | retrieved: its first ones, gold or not
    support_order: str = "given"  # of gold passages in a scratchpad: given (reasoning) | position
    train_ratio: float = 0.8  # share of questions to train on, where the file has no splits
    num_train_samples: int | None = None  # not given: every training question once
    num_val_samples: int | None = None  # not given: all
    train_total_docs: int | None = (
        None  # where fewer are shown in training; gold anywhere among them
    )
    train_positions: str = "fixed"  # fixed (gold_at, drawn once) | uniform (anew every epoch)
    train_passages: str = "whole"  # uniform: whole | sentences (those that would support an answer)
    train_min_docs: int | None = None  # uniform: fewest documents; not given: always the most
    no_gold_rate: float = 0.0  # uniform: share of samples that show no gold and learn to abstain
    val_order: str = "position"  # position: a question at every position before the next | question
    seed: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """Which weights are loaded, and how."""

    pretrained_model_name_or_path: str = (
        ""  # Hub id | folder | file.gguf | package:module/file.gguf
    )
    cache_dir: str | None = None  # where downloads are kept; not given: the Hub's own cache
    revision: str | None = None  # of a Hub id: branch, tag or commit
    torch_dtype: str = "auto"  # auto | bfloat16 | float16 | float32 | float64
    attn_implementation: str = "sdpa"  # flash_attention_2 falls back to sdpa where it is missing
    device_map: str | None = None  # auto spreads over GPUs; without one it has no effect
    quantization: str | None = None  # int8 | nf4 (both need bitsandbytes)
    rope_theta: float | None = None  # replaces the model's own base of rotary embeddings
    low_cpu_mem_usage: bool | None = None  # always so in transformers 5; false is said, not obeyed
    trust_remote_code: bool = False  # runs code that comes with the weights
    prompt_format: str = "auto"  # auto | plain | chat


@dataclass(frozen=True)
class PeftConfig:
    """What is trained: an adapter, whose `kwargs` go to PEFT's LoraConfig as they are, or all."""

    method: str = "lora"  # lora | none (full finetuning: all weights of the model)
    kwargs: dict[str, Any] = field(default_factory=dict)  # LoraConfig's


@dataclass(frozen=True)
class TrainConfig:
    """How the adapter is trained."""

    num_train_epochs: float = 3.0
    lr: float = 1e-4
    weight_decay: float = 0.01
    scheduler: str = "none"  # none (a constant rate) | linear | cosine
    warmup_ratio: float = 0.0
    batch_size: int = 1  # samples a device and step; the CPU is fastest with one, unpadded
    gradient_accumulation_steps: int = 8
    packing: bool | None = None  # samples share rows; not given: on a GPU with flash attention
    gradient_checkpointing: bool | None = None  # not given: where memory asks for it
    max_grad_norm: float = 1.0  # gradients are clipped to this norm
    loss_region: LossRegion = LossRegion.SAMPLE
    choice_weight: float = 1.0  # what a token that chooses what is quoted counts in the loss
    answer_weight: float = 1.0  # what a token of the answer counts; of all other scored ones 1
    # passage | title | sentence | index; not given: the checkpoint's own, to train passage
    scratchpad_form: ScratchpadForm | None = None
    logging_steps: int = 5  # updates between two entries of the log
    save_steps: int | None = None  # updates between checkpoints; not given: 50, or once an epoch
    save_total_limit: int = 1  # checkpoints kept beside the best one
    eval_steps: int | None = None  # updates between validations by answering; not given: none
    eval_questions: int = 24  # validation questions answered each time, at most
    early_stopping_patience: int | None = None  # validations without a better one before the end
    report_to: tuple[str, ...] = ()  # trackers: tensorboard, wandb, trackio
    seed: int = 0  # of the order of samples and the first weights


@dataclass(frozen=True)
class GenerateConfig:
    """How answers are generated; always greedy."""

    backend: str = "native"  # native | transformers | vllm | http
    max_new_tokens: int | None = None  # not given: 512 with a scratchpad, else 128
    batch_size: int | None = None  # prompts at a time; not given: what is fastest (transformers: 1)
    verbatim: bool = False  # scratchpads are held to whole passages of the context (native)
    quote: str = "passage"  # passage | sentence: what --verbatim lets quotes be made of
    abstain: bool = True  # verbatim: the sentence that none supports an answer may replace quotes
    prompt_lookup_num_tokens: int | None = None  # transformers: 10 if not given; 0: plain decoding
    base_url: str | None = None  # http: the server, such as http://localhost:8000/v1
    endpoint: str = "chat"  # http: chat (the server's own template) | completions
    api_key_env: str = "OPENAI_API_KEY"  # http: the variable that holds the key, never the key
    concurrency: int = 8  # http: requests at a time
    timeout_seconds: float = 60.0  # http: of one try
    max_retries: int = 5  # http: after the first try


def max_new_tokens_for(config: GenerateConfig, method: Method | None) -> int:
    """The longest completion of a method where the config names none: a scratchpad is long."""
    if config.max_new_tokens is not None:
        return config.max_new_tokens
    return 512 if method is Method.SCRATCHPAD else 128


def generate_for(config: GenerateConfig, method: Method | None) -> GenerateConfig:
    """The config settled for a method: its `max_new_tokens`, and nothing to hold verbatim where
    no scratchpad is written."""
    quoting = method is Method.SCRATCHPAD
    return replace(
        config,
        max_new_tokens=max_new_tokens_for(config, method),
        verbatim=config.verbatim and quoting,
        quote=config.quote if quoting else "passage",
    )


@dataclass(frozen=True)
class EvaluateConfig:
    """What is shown, scored and printed, and where the answers are computed."""

    eval_split: EvalSplit = EvalSplit.ALL
    last_answer_only: bool = False
    print_outputs: bool = False
    executor: str = "local"  # local (this process) | ray (workers of a Ray cluster)
    num_actors: int | None = None  # ray: workers; not given: one a GPU, without GPUs one a machine
    ray_address: str | None = None  # ray: not given: a running cluster, else one on this machine


@dataclass(frozen=True)
class RunConfig:
    """Everything that one run depends on; saved beside its results."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    peft: PeftConfig | None = None
    train: TrainConfig = field(default_factory=TrainConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    train_method: Method | None = None
    model_name: str = ""  # the model config's name, which checkpoints are filed under
