"""Which sentences of a passage support the answer to a question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from scratchpad_rag.data.answers import AnswerFinder
from scratchpad_rag.data.normalise import spaced_words
from scratchpad_rag.data.sentences import split_sentences
from scratchpad_rag.records import Example, Passage


def supporting_sentences(example: Example, index: int) -> tuple[int, int]:
    """Characters `start:end` of whole sentences of the passage at `index`, one behind the other.

    Where the data mark supporting sentences (`Example.support`), the shortest run that holds those
    of this passage. Else one sentence: of those that hold an answer (where none does, of all) the
    one with most words of the question, the first of equals.

    >>> ida = Passage("Ida Holm", "Ida Holm was born in 1860. She built a bridge in 1911. It fell.")
    >>> supporting_sentences(Example("q", "when was the bridge built", ("1911",), (ida,), (0,)), 0)
    (27, 54)
    """
    text = example.passages[index].text
    sentences = split_sentences(text)
    if not sentences:
        return 0, len(text)
    marked = [
        (start, end)
        for begin, stop in _places(text, example.support)
        for start, end in sentences
        if start < stop and begin < end
    ]
    if marked:
        return min(marked)[0], max(marked)[1]
    finder = AnswerFinder(example.answers)
    holding = [
        (start, end) for start, end in sentences if finder.find(Passage("", text[start:end]))
    ]
    asked = set(spaced_words(example.question).split())
    return max(
        holding or sentences,
        key=lambda place: len(asked & set(spaced_words(text[slice(*place)]).split())),
    )


def in_sentences(example: Example) -> Example:
    """The example with each passage cut to its title and its `supporting_sentences`.

    About a third of the tokens ask for the same choice. Passages of distractors keep the sentence
    that is nearest to the question, so that length tells nothing.
    """
    passages = [
        replace(passage, text=passage.text[slice(*supporting_sentences(example, index))])
        for index, passage in enumerate(example.passages)
    ]
    return replace(example, passages=tuple(passages))


def _places(text: str, pieces: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    for piece in pieces:
        begin = text.find(piece)
        if begin >= 0:
            yield begin, begin + len(piece)
