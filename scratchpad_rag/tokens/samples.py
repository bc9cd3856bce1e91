"""The samples of every epoch: a list that stays the same, or questions placed anew each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from scratchpad_rag.data.curriculum import (
    Curriculum,
    Placement,
    draw,
    plan_epoch,
    require_drawable,
)
from scratchpad_rag.prompts.render import render_sample
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import Encoded, Example, LossRegion, Method, Rendered
from scratchpad_rag.tokens.encode import Tokenizer, count_tokens, encode_sample


class EpochSamples(Protocol):
    """Samples that may differ from epoch to epoch. Epochs and indices count from 0."""

    def __len__(self) -> int:
        """Samples an epoch."""
        ...

    def sample(self, epoch: int, index: int) -> Encoded:
        """The same for the same arguments."""
        ...

    def lengths(self, epoch: int) -> Sequence[int]:
        """Tokens of each sample (or a tight upper bound), without keeping the samples."""
        ...


class FixedSamples:
    """A list of samples, the same every epoch."""

    def __init__(self, samples: Sequence[Encoded]) -> None:
        self.samples = samples
        self._lengths = tuple(map(len, samples))

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, epoch: int, index: int) -> Encoded:
        return self.samples[index]

    def lengths(self, epoch: int) -> Sequence[int]:
        return self._lengths


@dataclass(frozen=True)
class SampleFormat:
    """What makes a training sample of an example."""

    wording: Wording
    tokenizer: Tokenizer
    method: Method
    loss_region: LossRegion
    end_token_id: int

    def encode(self, example: Example, *, abstain: bool = False) -> Encoded:
        """Raises ModelError where the tokenizer joins the prompt with the completion."""
        rendered = self.render(example, abstain=abstain)
        return encode_sample(rendered, self.tokenizer, self.loss_region, self.end_token_id)

    def count(self, example: Example, *, abstain: bool = False) -> int:
        """The number of tokens of the encoded sample, in less time."""
        return count_tokens(self.render(example, abstain=abstain), self.tokenizer)

    def render(self, example: Example, *, abstain: bool = False) -> Rendered:
        """The text of the sample with the span of every region."""
        return render_sample(example, self.wording, self.method, abstain=abstain)


class DrawnSamples:
    """Questions with all their passages, placed as a curriculum draws it for each epoch.

    A sample is rendered and encoded when it is asked for. One without gold learns to abstain.
    Raises DataError where a question does not fit the curriculum.
    """

    def __init__(
        self, questions: Sequence[Example], curriculum: Curriculum, form: SampleFormat
    ) -> None:
        require_drawable(questions, curriculum)
        self.questions = questions
        self.curriculum = curriculum
        self.form = form
        self._latest: tuple[int, tuple[Placement, ...]] | None = None  # an epoch and its plan
        self._lengths: dict[int, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.questions)

    def plan(self, epoch: int) -> tuple[Placement, ...]:
        """How each question is shown in an epoch."""
        latest = self._latest
        if latest is None or latest[0] != epoch:
            latest = epoch, plan_epoch(self.questions, self.curriculum, epoch)
            self._latest = latest
        return latest[1]

    def sample(self, epoch: int, index: int) -> Encoded:
        placement = self.plan(epoch)[index]
        shown = draw(self.questions[index], self.curriculum, placement)
        return self.form.encode(shown, abstain=placement.gold_at is None)

    def lengths(self, epoch: int) -> Sequence[int]:
        """Exactly the tokens of each sample; every one is tokenized once, and counted."""
        if epoch not in self._lengths:
            self._lengths[epoch] = tuple(
                self.form.count(draw(question, self.curriculum, at), abstain=at.gold_at is None)
                for question, at in zip(self.questions, self.plan(epoch), strict=True)
            )
        return self._lengths[epoch]
