"""The passages that were shown, each once, in a file beside the scores that name them by id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Passage

SOURCES_FILE = "passages.jsonl"


@lru_cache(maxsize=65536)
def passage_id(passage: Passage) -> str:
    """A stable id of a passage: 12 hexadecimal digits of its title and text.

    >>> passage_id(Passage("Marren", "A town.")) == passage_id(Passage("Marren", "A town"))
    False
    """
    return hashlib.sha256(f"{passage.title}\0{passage.text}".encode()).hexdigest()[:12]


class SourceFile:
    """Appends passages to a file of JSON lines (`id`, `title`, `text`), each once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = set(read_sources(path))

    def add(self, passages: Sequence[Passage]) -> None:
        new = {passage_id(p): p for p in passages if passage_id(p) not in self._known}
        if not new:
            return
        lines = (
            json.dumps({"id": key, "title": p.title, "text": p.text}, ensure_ascii=False) + "\n"
            for key, p in new.items()
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
        self._known |= new.keys()


def read_sources(path: Path, *, mend: bool = True) -> dict[str, Passage]:
    """All passages by their ids; a last line cut off by a kill is removed from the file, unless it
    is not to `mend` it: who writes the line may be at it.

    Raises DataError for a line in the middle that is none; {} where there is no file.
    """
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content and mend:
        path.write_bytes(whole)
    passages = {}
    for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
        try:
            fields = json.loads(line.decode("utf-8"))
            passages[fields["id"]] = Passage(fields["title"], fields["text"])
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}:{number}: not a line of passages") from error
    return passages
