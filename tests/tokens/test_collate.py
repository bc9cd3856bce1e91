from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scratchpad_rag.records import Encoded, Region
from scratchpad_rag.tokens.collate import CHOICE, REGIONS, Collator, Weights

LONG = Encoded(
    (5, 6, 7, 8),
    (5, 6, 7, 8),
    (Region.SCAFFOLD, Region.CONTEXT, Region.ANSWER, Region.ANSWER),
    prompt_length=2,
)
SHORT = Encoded((9, 4), (-100, 4), (Region.QUESTION, Region.ANSWER), prompt_length=1)


def test_a_single_sample_is_not_padded_and_gets_no_mask() -> None:
    batch = Collator(pad_token_id=0)([LONG])
    assert set(batch) == {"input_ids", "labels", "regions"}
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8]]
    assert batch["labels"].tolist() == [[-100, 6, 7, 8]]  # nothing predicts the first token


def test_a_batch_is_padded_on_the_right() -> None:
    batch = Collator(pad_token_id=3)([LONG, SHORT])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [9, 4, 3, 3]]
    assert batch["labels"].tolist() == [[-100, 6, 7, 8], [-100, 4, -100, -100]]
    assert "attention_mask" not in batch
    number = {region: index for index, region in enumerate(REGIONS)}
    pad = number[Region.SCAFFOLD]
    assert batch["regions"].tolist() == [
        [pad, number[Region.CONTEXT], number[Region.ANSWER], number[Region.ANSWER]],
        [number[Region.QUESTION], number[Region.ANSWER], pad, pad],
    ]
    assert set(REGIONS) == set(Region)


def test_tokens_that_choose_are_numbered_apart() -> None:
    chosen = replace(LONG, choices=(2,))
    number = REGIONS.index(Region.ANSWER)
    for packed in (False, True):
        batch = Collator(pad_token_id=0, packed=packed)([chosen])
        assert batch["regions"][0, 2:].tolist() == [CHOICE, number]
    assert CHOICE not in range(len(REGIONS))


def test_samples_of_one_length_need_no_mask() -> None:
    batch = Collator(pad_token_id=0)([SHORT, SHORT])
    assert "attention_mask" not in batch
    assert batch["input_ids"].shape == (2, 2)


def test_a_padding_token_that_is_the_end_token_is_still_learnt_where_it_is_real() -> None:
    ends = Encoded((9, 2), (9, 2), (Region.QUESTION, Region.ANSWER), prompt_length=1)
    batch = Collator(pad_token_id=2)([LONG, ends])
    assert batch["labels"].tolist()[1] == [-100, 2, -100, -100]


def test_weights_have_a_mean_of_one_over_what_is_scored() -> None:
    """Four copied tokens at 1, one that chooses and one that goes on at 10, two of the answer at 4:
    32 over 8 tokens, so 4 is one. The prompt counts for nothing."""
    regions = (*[Region.CONTEXT] * 2, *[Region.SCRATCHPAD] * 6, *[Region.ANSWER] * 2)
    sample = Encoded(
        tuple(range(10)), (-100, -100, *range(2, 10)), regions, 2, choices=(4,), turns=(2,)
    )
    weights = Weights(choice=10, answer=4).of(sample)
    assert weights[2:] == [2.5, 0.25, 2.5, 0.25, 0.25, 0.25, 1.0, 1.0]
    assert sum(weights[2:]) / 8 == 1.0


def test_weights_stand_beside_their_tokens() -> None:
    weights = Weights(answer=3)
    batch = Collator(0, weights=weights)([LONG, SHORT])
    # LONG is scored from its first token on, which nothing predicts: 1, 1, 3, 3 over their mean 2.
    padded = torch.tensor([[0.5, 0.5, 1.5, 1.5], [1 / 3, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(batch["weights"], padded)
    packed = Collator(0, packed=True, weights=weights)([LONG, SHORT])
    assert packed["weights"].tolist()[0] == pytest.approx([0.5, 0.5, 1.5, 1.5, 1 / 3, 1.0])


def test_a_sample_that_only_keeps_others_in_step_has_weights_too() -> None:
    silent = replace(LONG, labels=(-100,) * 4)
    assert Weights(choice=0, answer=0).of(silent) == [1.0, 1.0, 0.0, 0.0]


def test_without_weights_the_batch_is_as_ever() -> None:
    assert "weights" not in Collator(0, weights=Weights())([LONG])
