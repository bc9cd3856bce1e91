"""A retriever by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scratchpad_rag.data.retrieve.adversarial import AdversarialRetriever
from scratchpad_rag.data.retrieve.base import Retriever
from scratchpad_rag.data.retrieve.bm25 import BM25Retriever
from scratchpad_rag.data.retrieve.dense import DENSE_MODEL, DenseRetriever, find_model
from scratchpad_rag.data.retrieve.drawn import RandomRetriever
from scratchpad_rag.data.retrieve.hybrid import HybridRetriever
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Passage

RETRIEVERS = ("bm25", "dense", "hybrid", "random", "adversarial")
REAL = ("bm25", "dense", "hybrid")  # what a product may stand on: they know no gold passage


@dataclass(frozen=True)
class RetrieverConfig:
    """Which retriever, the embedding model of a dense one, and the seed of a random one.

    Raises DataError for an unknown name, and where a dense one's packages are not installed.
    """

    name: str = "bm25"
    model: str = DENSE_MODEL
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in RETRIEVERS:
            raise DataError(f"unknown retriever {self.name!r}; choose from {', '.join(RETRIEVERS)}")
        if self.name in ("dense", "hybrid"):
            find_model(self.model)
        elif self.model != DENSE_MODEL:
            raise DataError(
                f"retriever_model {self.model} has no effect on {self.name}; it is for dense and"
                " hybrid"
            )


def load_retriever(
    config: RetrieverConfig, passages: Sequence[Passage], progress: bool = False
) -> Retriever:
    """Index a pool. Raises DataError where an embedding model cannot be loaded."""
    match config.name:
        case "random":
            return RandomRetriever(passages, config.seed)
        case "dense":
            return DenseRetriever(passages, config.model, progress=progress)
        case "hybrid":
            dense = DenseRetriever(passages, config.model, progress=progress)
            return HybridRetriever([BM25Retriever(passages), dense], len(passages))
        case "adversarial":
            return AdversarialRetriever(passages, BM25Retriever(passages))
        case _:
            return BM25Retriever(passages)
