"""Passages made comparable: whether two are nearly the same, and whether one holds an answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from scratchpad_rag.data.normalise import normalise_answer, spaced_words
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Passage

NEAR_DUPLICATE = 0.8  # of the words of the shorter text found in the other
_NOT_SPANS = {"yes", "no"}  # HotpotQA's: a passage with the word "no" does not hold that answer


def check_near_duplicate(threshold: float) -> None:
    """Raises DataError for a threshold that no share of words can be held against."""
    if not 0 < threshold <= 1:
        raise DataError(f"near_duplicate {threshold} is outside 0..1; it is a share above 0")


class Comparable:
    """A passage in its normal forms, each made when it is first asked for."""

    def __init__(self, passage: Passage) -> None:
        self.passage = passage

    @cached_property
    def text(self) -> str:
        """The text without its title, in SQuAD's normal form."""
        return normalise_answer(self.passage.text)

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(self.text.split())

    @cached_property
    def squad(self) -> str:
        """Title and text in SQuAD's normal form, a space at either end."""
        return f" {normalise_answer(self.passage.title)} {self.text} "

    @cached_property
    def lowered(self) -> str:
        return f"{self.passage.title} {self.passage.text}".lower()

    @cached_property
    def spaced(self) -> str:
        """The words of title and text, parted by every mark, a space at either end."""
        return f" {spaced_words(self.lowered)} "


class Pool:
    """Passages to mine from; each is normalised at most once, and only if it is retrieved."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = passages
        self._comparable: dict[int, Comparable] = {}

    def __len__(self) -> int:
        return len(self.passages)

    def comparable(self, index: int) -> Comparable:
        """Passage `index` in its normal forms."""
        found = self._comparable.get(index)
        if found is None:
            found = self._comparable[index] = Comparable(self.passages[index])
        return found


def nearly_equal(one: Comparable, other: Comparable, threshold: float) -> bool:
    """Whether the texts are the same but for case, marks and articles, or nearly.

    Nearly: `threshold` (above 0, at most 1) of the distinct words of the shorter text are in the
    other. Titles do not count.

    >>> bridge = Comparable(Passage("Bridge", "The bridge was built in 1895."))
    >>> nearly_equal(bridge, Comparable(Passage("A copy", "A bridge, built in 1895")), 0.8)
    True
    >>> nearly_equal(bridge, Comparable(Passage("Tower", "The tower was built in 1901.")), 0.8)
    False
    """
    shorter = min(len(one.words), len(other.words))
    shared = len(one.words & other.words)
    return one.text == other.text or (shorter > 0 and shared >= threshold * shorter)


class Answers:
    """Tells whether a passage holds one of the answers as whole words.

    Two normal forms are searched: SQuAD's joins what punctuation parts ("U.S." is "us", "x-ray"
    is "xray"), the other parts it ("Röntgen's" holds "Röntgen").
    """

    def __init__(self, answers: Iterable[str]) -> None:
        spans = [answer for answer in answers if normalise_answer(answer) not in _NOT_SPANS]
        # An answer of nothing but articles and marks would be found everywhere.
        self._squad = [f" {form} " for form in map(normalise_answer, spans) if form]
        # The longest word beside each: it is looked for first, in the text as it stands but for
        # case, since few passages hold it and the normal form of a whole passage is slow to make.
        self._spaced = [
            (max(form.split(), key=len), f" {form} ") for form in map(spaced_words, spans) if form
        ]

    def are_in(self, passage: Comparable) -> bool:
        """Whether title or text holds an answer."""
        return any(answer in passage.squad for answer in self._squad) or any(
            word in passage.lowered and answer in passage.spaced for word, answer in self._spaced
        )
