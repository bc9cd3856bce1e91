"""The questions that the demo offers where nobody types one."""

from __future__ import annotations

from dataclasses import replace

from scratchpad_rag.app.flags import say
from scratchpad_rag.config import DataConfig
from scratchpad_rag.data.select import select_samples
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import EvalSplit, Example


def validation_questions(config: DataConfig) -> list[Example]:
    """The validation questions of an experiment, each once, with all of their passages.

    Raises DataError where there are none, or they cannot be read.
    """
    once = config.gold_at[:1]  # the demo places the gold passage itself
    config = replace(config, num_train_samples=1, num_val_samples=None, gold_at=once)
    examples = select_samples(config, EvalSplit.ALL, say).val
    if not examples:
        raise DataError("this experiment has no validation questions; lower its train_ratio")
    return examples
