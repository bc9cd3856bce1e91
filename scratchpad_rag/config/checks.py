"""Values that are refused before any work is done."""

from __future__ import annotations

from scratchpad_rag.config.stages import (
    PASSAGE_ORDERS,
    SUPPORT_ORDERS,
    TRACKERS,
    DataConfig,
    RunConfig,
)
from scratchpad_rag.errors import ConfigError


def check_values(config: RunConfig) -> None:
    """Raise ConfigError, naming the first value that cannot be."""
    data, train, generate = config.data, config.train, config.generate
    checks = [
        (data.total_docs >= 1, f"total_docs is {data.total_docs}; it must be 1 or more"),
        (
            data.train_total_docs is None or data.train_total_docs >= 1,
            f"train_total_docs is {data.train_total_docs}; it must be 1 or more",
        ),
        (
            data.val_order in ("position", "question"),
            f"unknown val_order {data.val_order!r}; choose from position, question",
        ),
        (
            data.passage_order in PASSAGE_ORDERS,
            f"unknown passage_order {data.passage_order!r}; choose from "
            + ", ".join(PASSAGE_ORDERS),
        ),
        (
            data.support_order in SUPPORT_ORDERS,
            f"unknown support_order {data.support_order!r}; choose from "
            + ", ".join(SUPPORT_ORDERS),
        ),
        *_curriculum_checks(data),
        (len(data.gold_at) > 0, "gold_at is empty; name one position or more"),
        (
            0 < data.train_ratio < 1,
            f"train_ratio is {data.train_ratio}; it must be between 0 and 1",
        ),
        (train.lr > 0, f"lr is {train.lr}; it must be above 0"),
        (train.num_train_epochs > 0, f"num_train_epochs is {train.num_train_epochs}"),
        *(
            (number >= 1, f"{name} is {number}; it must be 1 or more")
            for name, number in (
                ("batch_size", train.batch_size),
                ("gradient_accumulation_steps", train.gradient_accumulation_steps),
                ("logging_steps", train.logging_steps),
                ("save_steps", 1 if train.save_steps is None else train.save_steps),
                ("save_total_limit", train.save_total_limit),
                ("eval_steps", 1 if train.eval_steps is None else train.eval_steps),
                ("eval_questions", train.eval_questions),
                (
                    "early_stopping_patience",
                    1 if train.early_stopping_patience is None else train.early_stopping_patience,
                ),
                (
                    "max_new_tokens",
                    1 if generate.max_new_tokens is None else generate.max_new_tokens,
                ),
                (
                    "batch_size of generate",
                    1 if generate.batch_size is None else generate.batch_size,
                ),
            )
        ),
        *(
            (number >= 0, f"{name} is {number}; it must be 0 or more")
            for name, number in (
                ("weight_decay", train.weight_decay),
                ("warmup_ratio", train.warmup_ratio),
                ("max_grad_norm", train.max_grad_norm),
                ("choice_weight", train.choice_weight),
                ("answer_weight", train.answer_weight),
                ("1 - warmup_ratio", 1 - train.warmup_ratio),
                ("prompt_lookup_num_tokens", generate.prompt_lookup_num_tokens or 0),
            )
        ),
        (
            train.scheduler in ("none", "linear", "cosine"),
            f"unknown scheduler {train.scheduler!r}; choose from none, linear, cosine",
        ),
        (
            train.early_stopping_patience is None or train.eval_steps is not None,
            "early_stopping_patience needs eval_steps: it counts validations",
        ),
        *(
            (name in TRACKERS, f"unknown tracker {name!r}; choose from {', '.join(TRACKERS)}")
            for name in train.report_to
        ),
        *(
            (number is None or number >= 1, f"the number of samples is {number}")
            for number in (data.num_train_samples, data.num_val_samples)
        ),
        *(
            (
                0 <= position < data.total_docs,
                f"gold position {position} is outside the {data.total_docs} documents shown "
                f"(0 to {data.total_docs - 1})",
            )
            for position in data.gold_at
        ),
    ]
    for holds, message in checks:
        if not holds:
            raise ConfigError(message)


def _curriculum_checks(data: DataConfig) -> list[tuple[bool, str]]:
    most = data.train_total_docs or data.total_docs
    fewest = most if data.train_min_docs is None else data.train_min_docs
    drawn = data.train_positions == "uniform"
    return [
        (
            data.train_positions in ("fixed", "uniform"),
            f"unknown train_positions {data.train_positions!r}; choose from fixed, uniform",
        ),
        (
            data.train_passages in ("whole", "sentences"),
            f"unknown train_passages {data.train_passages!r}; choose from whole, sentences",
        ),
        (
            1 <= fewest <= most,
            f"train_min_docs is {fewest}; it must be from 1 to the {most} documents of training",
        ),
        (
            0 <= data.no_gold_rate < 1,
            f"no_gold_rate is {data.no_gold_rate}; it must be 0 or more and below 1",
        ),
        *(
            (drawn or not given, f"{name} needs train_positions uniform")
            for name, given in (
                ("train_min_docs", data.train_min_docs is not None),
                ("no_gold_rate", data.no_gold_rate != 0),
                ("train_passages sentences", data.train_passages == "sentences"),
            )
        ),
    ]
