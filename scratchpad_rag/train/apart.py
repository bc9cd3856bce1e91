"""Whether a model keeps the samples of a packed row apart."""

from __future__ import annotations

from typing import Any

import torch

from scratchpad_rag.train.loss import mixed_precision

_LENGTH = 8  # of each of the two samples that are tried


def keeps_apart(model: Any) -> bool:
    """Whether hidden states of a sample are the same beside any other in its row.

    Positions that begin anew tell samples apart where attention has a mask made of them. Recurrent
    layers, convolutions and attention by distance (ALiBi) know nothing of them, and most models
    pass over what they do not know without a word, so two rows are tried.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = next(base.parameters()).device
    positions = torch.arange(_LENGTH, device=device).repeat(2)[None]
    rows = torch.arange(3 * _LENGTH, device=device).view(3, _LENGTH)
    training = base.training
    base.eval()
    try:
        with torch.no_grad(), mixed_precision(base):
            first, second = (
                _hidden_states(base, torch.cat([rows[number], rows[2]])[None], positions)
                for number in (0, 1)
            )
    except TypeError:  # a model that takes no positions
        return False
    finally:
        base.train(training)
    return torch.equal(first[:, _LENGTH:], second[:, _LENGTH:])


def _hidden_states(base: Any, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = base.base_model(
        input_ids=ids, position_ids=positions, use_cache=False
    ).last_hidden_state
    return found
