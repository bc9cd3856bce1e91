"""Train with TRL's SFTTrainer on the samples of benchmarks/train.py, a step for each line read.

    python3 -m venv TRL && TRL/bin/pip install torch==2.13.0 trl==1.16.0 peft==0.21.2
    python benchmarks/train.py speed --trl TRL/bin/python ...

Prints `{"ready": ...}`, then one JSON line for each step: its seconds, its loss, and the peak
resident memory so far in bytes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lockstep import serve_steps


def main() -> None:
    """Build the trainer as its documentation does, and run it in lockstep."""
    flags = _parse()
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(flags.threads)
    job = json.loads(flags.job.read_text(encoding="utf-8"))
    on_cuda = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        job["model"], dtype=torch.float32 if flags.autocast else torch.bfloat16
    )
    rows = [
        {"input_ids": row["input_ids"], "completion_mask": row["scored"]} for row in job["samples"]
    ]
    if job["loss_region"] == "sample":
        rows = [{"input_ids": row["input_ids"]} for row in rows]
    arguments = SFTConfig(
        output_dir=str(flags.job.parent / "trl"),
        max_length=None,
        per_device_train_batch_size=flags.batch_size,
        gradient_accumulation_steps=max(1, job["samples_a_step"] // flags.batch_size),
        max_steps=job["steps"],
        learning_rate=job["lr"],
        lr_scheduler_type="constant",
        weight_decay=0.0,
        gradient_checkpointing=flags.checkpointing,
        bf16=flags.autocast,
        padding_free=False,
        completion_only_loss=job["loss_region"] == "completion",
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=not on_cuda,
        disable_tqdm=True,
        dataloader_pin_memory=on_cuda,
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **job["lora"]),
    )
    trainer.add_callback(serve_steps())
    trainer.train()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--autocast", action="store_true", help="float32 weights under autocast")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--batch_size", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
