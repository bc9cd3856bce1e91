from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.tokens.samples import FixedSamples
from scratchpad_rag.train.plan import PlanShape, Stream, Visit, plan_epoch, plan_run
from tests.train.tiny import sample

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)
SHAPES = st.builds(
    PlanShape,
    batch_size=st.integers(1, 5),
    packed=st.booleans(),
    seed=st.integers(0, 3),
    epochs=st.sampled_from([0.1, 0.5, 1.0, 1.5, 2.0, 2.25]),
)


class Lengths:
    """Samples of which the plan needs nothing but their lengths, others in every epoch."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._lengths)

    def sample(self, epoch: int, index: int) -> None:  # type: ignore[override]
        raise AssertionError("a plan is made without samples")

    def lengths(self, epoch: int) -> list[int]:
        return [length + epoch for length in self._lengths]


@given(LENGTHS, SHAPES, st.integers(0, 4))
def test_every_sample_once_an_epoch_and_no_batch_too_large(
    lengths: list[int], shape: PlanShape, epoch: int
) -> None:
    batches = plan_epoch(lengths, shape, epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    capacity = shape.batch_size * max(lengths)
    for batch in batches:
        assert batch
        if shape.packed:
            assert sum(lengths[index] for index in batch) <= capacity
        else:
            assert len(batch) <= shape.batch_size
    if not shape.packed:  # only the last one is smaller
        assert len(batches) == -(-len(lengths) // shape.batch_size)
    assert plan_epoch(lengths, shape, epoch) == batches


@pytest.mark.parametrize("packed", [False, True])
def test_other_epochs_and_seeds_have_other_orders(packed: bool) -> None:
    lengths = list(range(10, 40))
    plans = [
        tuple(plan_epoch(lengths, PlanShape(2, packed, seed, 1.0), epoch))
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    ]
    assert len(set(plans)) == len(plans)


@given(LENGTHS, SHAPES)
def test_a_run_is_its_epochs_in_a_row(lengths: list[int], shape: PlanShape) -> None:
    samples = Lengths(lengths)
    batches = plan_run(samples, shape)  # type: ignore[arg-type]
    whole = int(shape.epochs)
    expected = [
        tuple(Visit(epoch, index) for index in batch)
        for epoch in range(whole)
        for batch in plan_epoch(samples.lengths(epoch), shape, epoch)
    ]
    assert batches[: len(expected)] == expected
    seen = Counter((visit.epoch, visit.sample) for batch in batches for visit in batch)
    assert set(seen.values()) == {1}
    rest = batches[len(expected) :]
    share = shape.epochs - whole
    last = plan_epoch(samples.lengths(whole), shape, whole)
    # Within half a batch of the share, and never nothing.
    assert (len(rest) == 0) == (share == 0)
    assert share == 0 or abs(len(rest) - share * len(last)) <= 1
    assert rest == [tuple(Visit(whole, i) for i in batch) for batch in last[: len(rest)]]


def test_a_fraction_of_an_epoch_by_hand() -> None:
    samples = FixedSamples([sample(5, number) for number in range(10)])
    counts = [
        Counter(visit.epoch for batch in plan_run(samples, shape) for visit in batch)
        for shape in (
            PlanShape(1, False, 0, 1.5),
            PlanShape(4, False, 0, 1.5),  # batches of 4, 4 and 2: of three, two
            PlanShape(1, False, 0, 0.01),
            PlanShape(2, True, 0, 0.4),  # five rows of two: two
        )
    ]
    assert counts == [{0: 10, 1: 5}, {0: 10, 1: 8}, {0: 1}, {0: 4}]


@given(st.integers(1, 30), st.integers(1, 8))
def test_processes_share_the_plan_and_take_as_many_steps(count: int, processes: int) -> None:
    batches = [(Visit(0, number),) for number in range(count)]
    streams = [list(Stream(batches, process, processes)) for process in range(processes)]
    assert len({len(stream) for stream in streams}) == 1
    assert all(len(Stream(batches, p, processes)) == len(streams[p]) for p in range(processes))
    # In the order in which steps are taken: round by round, process by process.
    taken = [stream[turn] for turn in range(len(streams[0])) for stream in streams]
    assert taken[:count] == [list(batch) for batch in batches]
    assert all(visit.silent for batch in taken[count:] for visit in batch)
    assert len(taken) - count < processes
    assert not any(visit.silent for batch in taken[:count] for visit in batch)
