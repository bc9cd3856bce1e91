"""A folder of text files as a pool of passages of about a hundred words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scratchpad_rag.data.sentences import split_sentences
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Passage

ENDINGS = (".md", ".txt")
PASSAGE_WORDS = 100  # as in Lost in the Middle and DPR
_PARAGRAPH = re.compile(r"\n\s*\n")
_SHORT_WORDS = 30  # a last piece of fewer words belongs to the passage before it


def read_corpus(folder: Path, words: int = PASSAGE_WORDS) -> list[Passage]:
    """The `.txt` and `.md` files below a folder, in the order of their paths, as passages of about
    `words` words that end where a sentence does.

    The title is the file's name without its ending, underscores as spaces; files that share a name
    are told apart by their path (`b/notes.md`). Empty and hidden files are passed over. Raises
    DataError for a folder without text and for a file that cannot be read or is not UTF-8.
    """
    folder = Path(folder)
    texts = {path: _read_text(path) for path in _files(folder)}
    passages = [
        Passage(title, piece)
        for title, text in zip(_titles(folder, list(texts)), texts.values(), strict=True)
        for piece in split_passages(text, words)
    ]
    if not passages:
        endings = " or ".join(ENDINGS)
        raise DataError(f"{folder}: the folder holds no text ({endings}) to make passages of")
    return passages


def split_passages(text: str, words: int = PASSAGE_WORDS) -> list[str]:
    """A text in pieces of about `words` words, on the borders of sentences; white space becomes one
    space. A sentence of more than twice as many words is cut.

    >>> split_passages("One two. Three four. Five six.", words=4)
    ['One two. Three four.', 'Five six.']
    """
    pieces: list[list[str]] = []
    current: list[str] = []
    for sentence in _sentences(text, words):
        # Whichever is nearer to `words`: to stop here, or to take the sentence too.
        if current and len(current) + len(sentence) - words > words - len(current):
            pieces.append(current)
            current = []
        current = current + sentence
    short = min(_SHORT_WORDS, words // 3)
    if current and pieces and len(current) < short:
        pieces[-1] += current
    elif current:
        pieces.append(current)
    return [" ".join(piece) for piece in pieces]


def _sentences(text: str, words: int) -> Iterator[list[str]]:
    for paragraph in _PARAGRAPH.split(text):
        for start, end in split_sentences(paragraph):
            sentence = paragraph[start:end].split()
            step = words if len(sentence) > 2 * words else len(sentence)
            yield from (sentence[at : at + step] for at in range(0, len(sentence), step))


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in ENDINGS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _titles(folder: Path, paths: list[Path]) -> list[str]:
    names = [path.stem.replace("_", " ").strip() for path in paths]
    times = Counter(names)
    return [
        name if name and times[name] == 1 else path.relative_to(folder).as_posix()
        for name, path in zip(names, paths, strict=True)
    ]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as cause:
        raise DataError(f"{path}: not UTF-8 (byte {cause.start})") from cause
    except OSError as cause:
        raise DataError(f"{path}: cannot be read: {cause.strerror or cause}") from cause
