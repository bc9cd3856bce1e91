"""Next-token cross-entropy over the chosen region only, without the logits of the whole sample.

Hidden states of positions that nothing is asked of never reach the vocabulary. Of the others, the
vocabulary is met a chunk at a time: a chunk's gradient is made at once and its logits forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from torch import nn
from torch.utils.checkpoint import checkpoint

from scratchpad_rag.kernels import pointwise
from scratchpad_rag.tokens.encode import IGNORED
from scratchpad_rag.train.together import any_process

# Logits of a chunk, in values: 32 MB in bfloat16, which stays near the processor's cache.
CHUNK_VALUES = 1 << 24
_TRIED_TOKENS = 8
# What models do to logits, by its name in their configs: Gemma 2, Cohere, Granite.
_LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class RegionLoss(NamedTuple):
    """Summed loss, and each scored token's loss with the number of its region."""

    total: torch.Tensor  # scalar, float32; weighted, where tokens count differently
    token_losses: torch.Tensor  # (tokens,), float32, without gradient
    regions: torch.Tensor  # (tokens,)


class _LinearCrossEntropy(torch.autograd.Function):
    """The weighted sum of -log softmax(x W' + bias)[target]; gradients of `x`, and of `W` if it
    trains."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        weights: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        low, low_bias = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        dx = torch.empty_like(hidden)
        dweight = torch.zeros_like(weight, dtype=torch.float32) if weight.requires_grad else None
        dbias = (
            torch.zeros_like(bias, dtype=torch.float32)
            if bias is not None and bias.requires_grad
            else None
        )
        chunks = list(_chunks(len(hidden), len(weight)))
        # All chunks in turn in one place: new pages would cost more than what is computed in them.
        room = hidden.new_empty(max((c.stop - c.start for c in chunks), default=0), len(weight))
        for rows in chunks:
            logits = room[: rows.stop - rows.start]  # (chunk, vocabulary)
            torch.mm(hidden[rows], low.t(), out=logits)
            if low_bias is not None:
                logits += low_bias
            losses[rows], slope = _losses_and_slope(logits, targets[rows])
            if weights is not None:
                slope *= weights[rows, None].to(slope.dtype)
            torch.mm(slope, low, out=dx[rows])
            if dweight is not None:
                dweight += slope.t() @ hidden[rows]
            if dbias is not None:
                dbias += slope.sum(0, dtype=torch.float32)
        ctx.save_for_backward(dx, dweight, dbias)
        ctx.kind = weight.dtype
        ctx.mark_non_differentiable(losses)
        return _weighted(losses, weights), losses

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        dx, dweight, dbias = ctx.saved_tensors
        scale = gradients[0]
        scaled = [None if d is None else (d * scale).to(ctx.kind) for d in (dweight, dbias)]
        return (dx * scale.to(dx.dtype), *scaled, None, None)


def linear_cross_entropy(
    hidden: torch.Tensor,
    head: nn.Module,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum, and each token's, of -log p(target), for hidden states before the output layer.

    `hidden` is (tokens, size), `targets` (tokens,). The sum is weighted by `weights` (tokens,),
    where they are given; each token's own loss is not. Where `head` is more than a matrix and a
    bias (an adapter on it, packed weights) its own forward is called, chunk by chunk, and again on
    the way back.
    """
    if isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward:
        with _computing(head, partial(_fused, head)):
            return head(hidden, targets, weights)  # type: ignore[no-any-return]
    losses = [
        checkpoint(_head_losses, head, hidden[rows], targets[rows], use_reentrant=False)
        for rows in _chunks(len(hidden), _vocabulary(head))
    ]
    together = torch.cat(losses)
    return _weighted(together, weights), together.detach()


def _weighted(losses: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return (losses if weights is None else losses * weights).sum()


@contextmanager
def _computing(head: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Have a module compute something else when it is called.

    It is still called as a module, since that is when FSDP and DeepSpeed put its weights together:
    once by every process, however many tokens it has.
    """
    before = head.__dict__.get("forward")
    head.forward = forward
    try:
        yield
    finally:
        del head.forward
        if before is not None:
            head.forward = before


def _fused(
    head: nn.Linear, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    device = hidden.device.type
    autocast = torch.is_autocast_enabled(device)
    hidden = hidden.to(torch.get_autocast_dtype(device) if autocast else head.weight.dtype)
    with torch.autocast(device, enabled=False):
        return _LinearCrossEntropy.apply(hidden, head.weight, head.bias, targets, weights)  # type: ignore[no-untyped-call, no-any-return]


def _head_losses(head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(head(hidden).float(), targets, reduction="none")


def _vocabulary(head: Any) -> int:
    return int(getattr(head, "out_features", None) or 1 << 16)


def _chunks(rows: int, vocabulary: int) -> Iterator[slice]:
    """At least one, if an empty one: whatever trains in the output layer has to have a gradient."""
    size = max(1, CHUNK_VALUES // vocabulary)
    for begin in range(0, max(1, rows), size):
        yield slice(begin, min(rows, begin + size))


def _losses_and_slope(
    logits: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's loss, and softmax - onehot in the logits' precision; the logits may be lost."""
    if pointwise.serves(logits, lanes=1):
        return pointwise.cross_entropy_(logits, targets), logits
    wide = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    rows = torch.arange(len(targets), device=targets.device)
    log_total = wide.logsumexp(-1)
    losses = log_total - wide[rows, targets]
    slope = wide.sub(log_total[:, None]).exp_()
    slope[rows, targets] -= 1
    return losses, slope.to(logits.dtype)


@contextmanager
def scoring(model: Any) -> Iterator[bool]:
    """Let a causal LM take `labels` and `regions` and return its RegionLoss, within a block.

    `weights`, if given, say what each label counts in its total.

    The loss is computed inside the model's forward, so that wrappers around it (DDP, FSDP) see
    nothing but a forward. Yields whether the output layer is met directly; a model that does more
    between hidden states and logits than its output layer (scales or caps them) keeps its own way.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    direct = not any_process(not _is_direct(base))
    own = base.forward
    before = base.__dict__.get("forward")

    @wraps(own)  # whoever looks at the signature sees the model's own
    def forward(
        *args: Any,
        labels: torch.Tensor | None = None,
        regions: Any = None,
        weights: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        if regions is None:
            return own(*args, labels=labels, **inputs)
        assert labels is not None
        targets = labels[:, 1:]  # (batch, length - 1): what each position has to predict
        scored = targets != IGNORED
        counts = None if weights is None else weights[:, 1:][scored]
        if direct:
            hidden = base.base_model(**inputs, use_cache=False).last_hidden_state
            rows = hidden[:, :-1][scored]  # (tokens, size)
            total, losses = linear_cross_entropy(
                rows, base.get_output_embeddings(), targets[scored], counts
            )
        else:
            columns = scored.any(dim=0).nonzero().squeeze(-1)
            logits = own(**inputs, logits_to_keep=columns, use_cache=False).logits
            kept = scored[:, columns]
            losses = F.cross_entropy(
                logits[kept].float(), targets[:, columns][kept], reduction="none"
            )
            total, losses = _weighted(losses, counts), losses.detach()
        return tuple(RegionLoss(total, losses, regions[:, 1:][scored]))

    base.forward = forward
    try:
        yield direct
    finally:
        if before is None:
            del base.forward
        else:
            base.forward = before


@contextmanager
def mixed_precision(model: nn.Module) -> Iterator[None]:
    """Autocast where a model has weights in low precision and float32 masters beside them."""
    weights = [p for p in model.parameters() if p.is_floating_point()]
    low = {p.dtype for p in weights} & {torch.bfloat16, torch.float16}
    mixed = bool(low) and any(p.dtype is torch.float32 for p in weights)
    with torch.autocast(weights[0].device.type, next(iter(low), torch.bfloat16), enabled=mixed):
        yield


def _is_direct(base: Any) -> bool:
    """Whether the logits are the output layer's of the hidden states, tried on a few tokens.

    To the last bit: where logits are small a cap changes no more, and they grow in training.
    """
    head, inner = base.get_output_embeddings(), base.base_model
    if head is None or inner is base:
        return False
    device = next(base.parameters()).device
    if device.type == "meta":  # of several processes one holds the weights until they are spread
        return not any(getattr(base.config, name, None) for name in _LOGIT_CHANGES)
    ids = torch.arange(1, _TRIED_TOKENS + 1, device=device)[None]
    training = base.training
    base.eval()
    try:
        with torch.no_grad(), mixed_precision(base):
            logits = base(input_ids=ids, use_cache=False).logits.float()
            ours = head(inner(input_ids=ids, use_cache=False).last_hidden_state).float()
    finally:
        base.train(training)
    return torch.equal(logits, ours)
