"""Checkpoints put on one model side by side, each under its method's name."""

from __future__ import annotations

from dataclasses import replace

from scratchpad_rag.config import RunConfig
from scratchpad_rag.models.checkpoints import Adapter
from scratchpad_rag.models.load import LoadedModel
from scratchpad_rag.reader import load_reader
from scratchpad_rag.records import Method


def put_on(loaded: LoadedModel, adapter: Adapter, method: Method, config: RunConfig) -> LoadedModel:
    """The model with an adapter named after its method, which has to be the adapter's own.

    `config.peft` says the LoRA config of a bare state dict, which does not tell its own. The form
    of scratchpads is that of the adapter that writes them.
    """
    peft = config.peft if adapter.metadata is None else None
    asked = replace(config, train_method=method, peft=peft)
    read = load_reader(loaded, adapter, asked, method.value)[0]
    return read if method is Method.SCRATCHPAD else replace(read, wording=loaded.wording)
