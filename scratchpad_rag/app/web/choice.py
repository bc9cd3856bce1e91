"""What somebody has chosen on the page, and the examples that are to be read for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scratchpad_rag.app.web.source import Asks
from scratchpad_rag.errors import UserError
from scratchpad_rag.records import Example

MAX_QUESTION_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Choice:
    """A sample question by its number or a typed one, documents, and the answer's place from 1.

    A question that is typed, be it only space, goes before a sample.
    """

    questions: Asks
    sample: int | None
    typed: str
    documents: int
    position: int

    @property
    def is_typed(self) -> bool:
        return bool(self.typed.strip())

    @property
    def gold(self) -> int:
        """How many passages are known to answer the question."""
        if self.is_typed or self.sample is None:
            return 0
        return len(self.questions.example(self.sample).gold)

    @property
    def last_position(self) -> int:
        """Where the first gold passage can stand at the latest, from 1."""
        return max(1, self.documents - max(1, self.gold) + 1)

    def most_documents(self, otherwise: int) -> int:
        """How many the sample question has, or, where there is none, `otherwise`."""
        if self.is_typed or self.sample is None:
            return otherwise
        return len(self.questions.example(self.sample).passages)

    @property
    def why_no_position(self) -> str:
        """Why no place can be chosen for the answer; "" where one can."""
        if self.is_typed:
            return "Nobody knows which passage answers a typed question."
        if not self.gold:
            return "No passage is known to answer this question."
        return "" if self.documents else "No passage is shown."

    def previewed(self) -> Example | None:
        """What will be read of a sample question; None where that is not known yet."""
        if self.is_typed or self.sample is None:
            return None
        return self._shown(self.sample, self.position)

    def asked(self) -> Iterator[Example]:
        """The one example that is to be read. Raises UserError where there is no question."""
        if self.is_typed:
            yield self.questions.typed(checked_question(self.typed), self.documents)
        elif self.sample is None or self.typed:
            raise UserError("there is no question: choose one, or type your own")
        else:
            yield self._shown(self.sample, self.position)

    def walked(self) -> Iterator[Example]:
        """The same question with the answer at the first place, the last, and between them."""
        if self.is_typed or self.sample is None or not self.documents:
            raise UserError("only a sample question has a passage that is known to hold the answer")
        for place in walk_positions(self.documents, self.gold):
            yield self._shown(self.sample, place + 1)

    def _shown(self, sample: int, position: int) -> Example:
        """All gold passages are shown, or none: of several, the first stands at the position."""
        documents = max(self.documents, self.gold) if self.documents else 0
        place = min(position, self.last_position) - 1 if self.gold and documents else None
        return self.questions.shown(sample, documents, place)


def checked_question(text: str) -> str:
    """A typed question without the space around it. Raises UserError."""
    question = text.strip()
    if not question.strip("?"):
        raise UserError("there is no question: choose one above, or type your own")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise UserError(
            f"the question has {len(question):,} characters; "
            f"{MAX_QUESTION_CHARACTERS:,} are the most that this page takes"
        )
    return question


def walk_positions(documents: int, gold: int, stops: int = 5) -> tuple[int, ...]:
    """Positions for the first of `gold` passages from the first place to the last, evenly.

    >>> walk_positions(20, 1), walk_positions(3, 1), walk_positions(20, 2), walk_positions(2, 2)
    ((0, 4, 9, 14, 19), (0, 1, 2), (0, 4, 9, 13, 18), (0,))
    """
    last = max(0, documents - gold)
    steps = min(stops, last + 1) - 1
    if steps < 1:
        return (0,)
    return tuple(last * step // steps for step in range(steps + 1))
