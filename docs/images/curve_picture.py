"""The position curve: as published, and as measured here, with what to read in it."""

from __future__ import annotations

from typing import NamedTuple

from picture import Picture

from scratchpad_rag.evaluate.statistics import Interval, bootstrap_rate

# Liu et al., "Lost in the Middle: How Language Models Use Long Contexts", TACL 2024
# (arXiv:2307.03172): 20 documents, accuracy in percent by the index of the gold one.
PLACES = (0, 4, 9, 14, 19)
PUBLISHED = {
    "GPT-3.5-Turbo": (75.8, 57.2, 53.8, 55.4, 63.2),
    "Claude-1.3": (59.9, 55.9, 56.8, 57.2, 60.1),
}
PUBLISHED_QUESTIONS = 2655
CLOSED_BOOK, GOLD_ONLY = 56.1, 88.3  # GPT-3.5-Turbo's
# docs/results.md, "Four data sets": Natural Questions, 20 documents, first / middle / last.
HERE_PLACES = (0, 9, 19)
HERE = {
    "gold quotes forced": (60, 55, 55),
    "SFT": (5, 0, 30),
    "Scratchpad, verbatim": (15, 10, 25),
}
HERE_QUESTIONS = 20
HERE_GOLD_ONLY = 35

_TOP, _BOTTOM = 92, 346


class _Axes(NamedTuple):
    left: float
    right: float

    def x(self, place: float) -> float:
        return self.left + 22 + (self.right - self.left - 44) * place / 19

    def y(self, percent: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * percent / 100


def interval(percent: float, questions: int) -> Interval:
    """The 95% interval of a rate over questions that are asked once each."""
    right = round(percent / 100 * questions)
    return bootstrap_rate([1.0] * right + [0.0] * (questions - right), range(questions))


def draw() -> str:
    """Two panels on one scale."""
    picture = Picture(
        960,
        432,
        "Accuracy by the place of the gold passage among 20 documents",
        "Left, as published: GPT-3.5-Turbo answers 75.8% with the gold passage first, 53.8% with "
        "it in the middle, 63.2% with it last; closed-book 56.1%, with the gold passage alone "
        "88.3%. Claude-1.3 stays between 55.9% and 60.1%. Right, measured here with a model of 135 "
        "million parameters and 20 questions: SFT 5, 0 and 30%, Scratchpad verbatim 15, 10 and "
        "25%, with gold quotes forced 60, 55 and 55%; the intervals are 17 to 44 points wide.",
    )
    _published(picture, _Axes(60, 450))
    _measured(picture, _Axes(606, 826))
    return picture.svg()


def _frame(picture: Picture, axes: _Axes, title: str, below: str, places: dict[int, str]) -> None:
    picture.text(axes.left - 36, 34, title, size=16, bold=True)
    picture.text(axes.left - 36, 55, below, size=12.5, fill="muted")
    for percent in (0, 25, 50, 75, 100):
        y = axes.y(percent)
        picture.line([(axes.left, y), (axes.right, y)], "grid")
        picture.text(axes.left - 8, y + 4, f"{percent}%", size=12, fill="muted", anchor="end")
    for place, name in places.items():
        picture.text(axes.x(place), _BOTTOM + 20, name, size=12, fill="muted", anchor="middle")
    middle = (axes.left + axes.right) / 2
    picture.text(
        middle, _BOTTOM + 40, "place of the gold passage", size=12.5, fill="muted", anchor="middle"
    )


def _curve(
    picture: Picture,
    axes: _Axes,
    places: tuple[int, ...],
    values: tuple[float, ...],
    questions: int,
    colour: str,
    shift: float = 0,
) -> None:
    points = [(axes.x(p) + shift, axes.y(v)) for p, v in zip(places, values, strict=True)]
    for (x, _), value in zip(points, values, strict=True):
        found = interval(value, questions)
        low, high = axes.y(100 * found.low), axes.y(100 * found.high)
        picture.line([(x, low), (x, high)], colour, 1.4)
        for y in (low, high):
            picture.line([(x - 4, y), (x + 4, y)], colour, 1.4)
    picture.line(points, colour, 2.4)
    for x, y in points:
        picture.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill:var(--{colour})"/>')


def _level(picture: Picture, axes: _Axes, percent: float, colour: str) -> None:
    y = axes.y(percent)
    picture.line([(axes.left, y), (axes.right, y)], colour, 1.6, "5 4")


def _mark(picture: Picture, x: float, y: float, number: int) -> None:
    picture.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9.5" style="fill:var(--ink)"/>')
    picture.text(x, y + 4.3, str(number), size=12, fill="card", anchor="middle", bold=True)


def _published(picture: Picture, axes: _Axes) -> None:
    places = {0: "first", 4: "5th", 9: "10th", 14: "15th", 19: "last"}
    below = "Lost in the Middle: 20 documents, 2,655 questions"
    _frame(picture, axes, "As published", below, places)
    _level(picture, axes, GOLD_ONLY, "blue")
    _level(picture, axes, CLOSED_BOOK, "blue")
    _curve(picture, axes, PLACES, PUBLISHED["Claude-1.3"], PUBLISHED_QUESTIONS, "orange")
    _curve(picture, axes, PLACES, PUBLISHED["GPT-3.5-Turbo"], PUBLISHED_QUESTIONS, "blue")
    right = axes.right + 4
    picture.text(right, axes.y(GOLD_ONLY) + 4, "gold only", size=12.5, fill="blue")
    picture.text(right, axes.y(69), "GPT-3.5", size=12.5, fill="blue", bold=True)
    picture.text(right, axes.y(60.8) + 1, "Claude-1.3", size=12.5, fill="orange", bold=True)
    picture.text(right, axes.y(53.2) + 2, "closed-book", size=12.5, fill="blue")
    _mark(picture, axes.x(0) + 18, axes.y(75.8) - 4, 1)
    _mark(picture, axes.x(9), axes.y(53.8) + 22, 2)
    _mark(picture, axes.x(9), axes.y((GOLD_ONLY + 56) / 2), 3)
    x = axes.x(9)
    for end, start in ((axes.y(GOLD_ONLY) + 4, 12), (axes.y(59), -12)):
        middle = axes.y((GOLD_ONLY + 56) / 2)
        picture.line([(x, middle - start), (x, end)], "muted", 1.2)


def _measured(picture: Picture, axes: _Axes) -> None:
    places = {0: "first", 9: "middle", 19: "last"}
    below = "135M parameters: 20 documents, 20 questions"
    _frame(picture, axes, "As measured here", below, places)
    _level(picture, axes, HERE_GOLD_ONLY, "muted")
    for shift, (name, colour) in zip((0, -7, 7), _HERE_COLOURS.items(), strict=True):
        _curve(picture, axes, HERE_PLACES, HERE[name], HERE_QUESTIONS, colour, shift)
    right = axes.right + 4
    picture.text(right, axes.y(55) + 4, "gold quotes", size=12.5, fill="green", bold=True)
    picture.text(right, axes.y(55) + 20, "forced", size=12.5, fill="green", bold=True)
    picture.text(right, axes.y(37) + 4, "gold only", size=12.5, fill="muted")
    picture.text(right, axes.y(30) + 4, "SFT", size=12.5, fill="orange", bold=True)
    picture.text(right, axes.y(23) + 4, "Scratchpad,", size=12.5, fill="blue", bold=True)
    picture.text(right, axes.y(23) + 20, "verbatim", size=12.5, fill="blue", bold=True)
    _mark(picture, axes.x(9) + 30, axes.y(57) + 28, 4)
    note = "Bars are 95% intervals, by the project's own code from the number of questions."
    picture.text(480, 414, note, size=12, fill="muted", anchor="middle")


_HERE_COLOURS = {"gold quotes forced": "green", "SFT": "orange", "Scratchpad, verbatim": "blue"}
