"""Notes that a user has shown on a report page."""

from __future__ import annotations

from pathlib import Path

from scratchpad_rag.errors import UserError


def read_notes(path: Path | None) -> tuple[str, ...]:
    """Paragraphs and list items of a text file, as the report page shows them.

    A paragraph ends at a blank line; a line that begins with "- " is an item of a list.
    """
    if path is None:
        return ()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    notes: list[str] = []
    for block in text.split("\n\n"):
        for line in block.strip().splitlines():
            if line.startswith("- ") or not notes or line == block.strip().splitlines()[0]:
                notes.append(line.strip())
            else:
                notes[-1] += " " + line.strip()
    return tuple(note for note in notes if note)
