"""The copy decoder at work: an answer of the shipped reader, pass by pass, from drafts.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from picture import CHARACTER, Picture

RECORDED = Path(__file__).parent / "drafts.json"
END = "<|im_end|>"


class Run(NamedTuple):
    """Text of one line of the page, at a column and a line."""

    column: int
    line: int
    text: str


class Page:
    """Text broken into lines, of which any characters can be asked where they stand."""

    def __init__(self, text: str, columns: int) -> None:
        self.text = text
        self.places: list[tuple[int, int]] = []  # (column, line) of each character
        line = 0
        for paragraph in text.split("\n"):
            for broken in _broken(paragraph, columns):
                self.places += [(column, line) for column in range(len(broken))]
                line += 1
            self.places.append((len(paragraph), line - 1))  # the line break itself
        self.lines = line

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """Characters `start:end`, a run for each line that they stand on."""
        at = start
        while at < end:
            column, line = self.places[at]
            stop = at + 1
            while stop < end and self.places[stop] == (column + stop - at, line):
                stop += 1
            words = self.text[at:stop].replace("\n", "")
            if words.strip():
                yield Run(column, line, words)
            at = stop


def _broken(paragraph: str, columns: int) -> list[str]:
    """Lines of at most so many columns that together are the paragraph, spaces and all."""
    lines = [""]
    for word in paragraph.split(" "):
        piece = word if lines == [""] else f" {word}"
        if len(lines[-1]) + len(piece) > columns:
            lines[-1] += " "
            lines.append(word)
        else:
            lines[-1] += piece
    return lines


def recorded() -> dict[str, Any]:
    """What `record.py` took down."""
    answer: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return answer


def told(one: dict[str, Any]) -> tuple[str, str]:
    """A pass in words: what was drafted, and what became of it."""
    drafted, accepted = len(one["drafted"]), one["accepted"]
    own = one["kept"][-1].replace("\n", "⏎")
    own = "the end" if own == END else f"“{own.strip()}”"
    refused = drafted - accepted
    held = f"{accepted} of {drafted} hold" if refused else f"all {drafted} hold"
    return _shortened("".join(one["drafted"])), f"{held}, then {own}"


def _shortened(text: str, most: int = 58) -> str:
    words = text.replace("\n", "⏎")
    return words if len(words) <= most else f"{words[: most - 21].strip()} … {words[-18:].strip()}"


def draw_passes() -> str:
    """A strip of tokens a pass: what was there, what was drafted, what held."""
    answer = recorded()
    passes = answer["free"]["passes"]
    tokens = answer["free"]["new_tokens"]
    height = 112 + 54 * len(passes) + 64
    picture = Picture(
        960,
        height,
        f"{tokens} tokens in {len(passes)} passes",
        "; ".join(
            f"pass {number}: {' '.join(told(one)).strip()}" for number, one in enumerate(passes, 1)
        ),
    )
    picture.text(24, 34, f"{tokens} tokens in {len(passes)} passes", size=16, bold=True)
    below = "each cell is a token of the answer; each row is one forward pass of the model"
    picture.text(24, 55, below, size=12.5, fill="muted")
    _legend(picture, 24, 82)
    wide, left, top = 650.0, 62.0, 112.0
    cell = wide / tokens
    done = 0
    for number, one in enumerate(passes, 1):
        y = top + 54 * (number - 1)
        picture.text(34, y + 15, str(number), size=15, anchor="middle", bold=True)
        picture.rect(left, y, cell * tokens, 20, "context", radius=3)
        picture.rect(left, y, cell * done, 20, "edge", radius=3)
        accepted, refused = one["accepted"], len(one["drafted"]) - one["accepted"]
        picture.rect(left + cell * done, y, cell * accepted, 20, "green")
        at = done + accepted
        if refused:
            for index in range(refused):
                x = left + cell * (at + 1 + index)
                picture.add(
                    f'<rect x="{x + 0.6:.1f}" y="{y + 0.6:.1f}" width="{cell - 1.2:.1f}" '
                    'height="18.8" fill="none" style="stroke:var(--red);stroke-width:1.2"/>'
                )
        picture.rect(left + cell * at, y, cell, 20, "blue")
        drafted, became = told(one)
        picture.mono(left, y + 37, drafted, 11.5, fill="muted")
        picture.text(left + wide + 40, y + 15, became, size=12.5)
        done += len(one["kept"])
    y = top + 54 * len(passes) + 12
    picture.line([(24, y), (936, y)], "grid")
    verbatim = answer["verbatim"]
    note = (
        f"Plain greedy decoding takes {len(answer['plain'])} passes for the same tokens, a pass a "
        f"token; with --verbatim it is {len(verbatim['passes'])} passes."
    )
    picture.text(24, y + 28, note, size=13)
    return picture.svg()


def _legend(picture: Picture, x: float, y: float) -> None:
    entries = (
        ("edge", "decided before"),
        ("green", "drafted, and holds"),
        ("red", "drafted, and refused"),
        ("blue", "the model's own token"),
    )
    for colour, words in entries:
        if colour == "red":
            picture.add(
                f'<rect x="{x + 0.6:.1f}" y="{y - 11.4:.1f}" width="12" height="13" fill="none" '
                'style="stroke:var(--red);stroke-width:1.4"/>'
            )
        else:
            picture.rect(x, y - 12, 13, 14, colour, radius=2)
        picture.text(x + 20, y, words, size=12.5)
        x += 34 + 7.1 * len(words)


# --- The animation

_SIZE, _LINE = 11.0, 16.0
_COLUMNS = 64
_PROMPT_X, _ANSWER_X, _TEXT_Y = 24.0, 496.0, 88.0
_PASS_SECONDS, _REST_SECONDS = 3.2, 4.0
_ROUNDS = 6  # then the finished answer stands still


class _Clock(NamedTuple):
    """When the parts of each pass are shown, in percent of one round."""

    passes: int

    @property
    def seconds(self) -> float:
        return self.passes * _PASS_SECONDS + _REST_SECONDS

    def at(self, number: int, share: float) -> float:
        return 100 * (number + share) * _PASS_SECONDS / self.seconds

    def span(self, name: str, start: float, end: float, alpha: float = 1.0) -> str:
        """An animation that shows what has the class `name` from `start` to `end` percent."""
        fade = 0.6
        stops = [f"0%,{start:.2f}%{{opacity:0}}", f"{min(start + fade, 99):.2f}%"]
        stops[1] += f",{end:.2f}%{{opacity:{alpha}}}"
        if end < 99:
            stops.append(f"{end + fade:.2f}%,100%{{opacity:0}}")
        return (
            f"@keyframes {name}{{{''.join(stops)}}}"
            f".{name}{{animation:{name} {self.seconds:g}s linear {_ROUNDS} forwards}}"
        )


def draw_animated() -> str:
    """The prompt's passages on the left, the answer on the right, in a round of all passes.

    Without animations (`prefers-reduced-motion`), and after some rounds, all that was decided
    stands there.
    """
    answer = recorded()
    free = answer["free"]
    passes = free["passes"]
    clock = _Clock(len(passes))
    prompt, starts = _prompt_text(answer)
    left = Page(prompt, _COLUMNS)
    words = [word for one in passes for word in one["kept"]]
    right = Page("".join(words).replace(END, "").lstrip(" "), _COLUMNS)
    height = _TEXT_Y + left.lines * _LINE + 62
    picture = Picture(
        960,
        height,
        "The copy decoder writes an answer with its quote",
        "In six passes: " + "; ".join(" ".join(told(one)) for one in passes),
    )
    _styles(picture, clock)
    picture.text(_PROMPT_X, 34, "The prompt’s documents", size=16, bold=True)
    picture.text(_ANSWER_X, 34, "The answer, as it is decided", size=16, bold=True)
    picture.text(_PROMPT_X, 57, "lit: where the draft is copied from", size=12.5, fill="muted")
    _answer_legend(picture)
    picture.line([(480, 24), (480, height - 24)], "grid")
    _draw_sources(picture, left, free, starts)
    for run in left.runs(0, len(prompt)):
        _put(picture, _PROMPT_X, run)
    _draw_answer(picture, right, passes)
    _captions(picture, passes, right)
    return picture.svg()


def _prompt_text(answer: dict[str, Any]) -> tuple[str, list[int]]:
    """The documents as they stand in the prompt, and where each one's text begins."""
    text, starts = "", []
    for title, body in answer["passages"]:
        text += f"Document (Title: {title}) "
        starts.append(len(text))
        text += f"{body}\n\n"
    return f"{text}Question: {answer['question']}\n\nAnswer:", starts


def _styles(picture: Picture, clock: _Clock) -> None:
    rules = [".g,.r,.s,.c{opacity:0}"]
    moving = []
    last = clock.passes - 1
    for number in range(clock.passes):
        begin, verify, commit = (clock.at(number, share) for share in (0.06, 0.45, 0.72))
        end = clock.at(number, 1.0) - 0.6
        moving += [
            clock.span(f"g{number}", begin, commit, 0.5),
            clock.span(f"r{number}", verify, commit),
            clock.span(f"s{number}", begin, end),
            clock.span(f"k{number}", commit, 100),
            clock.span(f"c{number}", begin, 100 if number == last else end),
            clock.span(f"d{number}", begin, verify - 0.8),
            clock.span(f"v{number}", verify, commit - 0.8),
            clock.span(f"h{number}", commit, 100 if number == last else end),
        ]
    picture.styles += [
        *rules,
        f"@media(prefers-reduced-motion:no-preference){{{''.join(moving)}.z{{opacity:0}}}}",
        "@media(prefers-reduced-motion:reduce){.s{opacity:1}}",
    ]


def _answer_legend(picture: Picture) -> None:
    picture.text(_ANSWER_X, 57, "grey: drafted", size=12.5, fill="muted")
    picture.text(_ANSWER_X + 96, 57, "green: holds", size=12.5, fill="green")
    picture.text(_ANSWER_X + 186, 57, "red: refused", size=12.5, fill="red")
    picture.text(_ANSWER_X + 276, 57, "blue: the model’s own", size=12.5, fill="blue")


def _put(
    picture: Picture, x: float, run: Run, fill: str = "ink", classes: str = "", line: str = ""
) -> None:
    at = x + run.column * _SIZE * CHARACTER
    y = _TEXT_Y + run.line * _LINE
    more = f' class="m {classes}"' if classes else ' class="m"'
    wide = len(run.text) * _SIZE * CHARACTER
    more += f' text-decoration="{line}"' if line else ""
    picture.add(
        f'<text{more} x="{at:.1f}" y="{y:.1f}" textLength="{wide:.1f}" '
        f'style="font-size:{_SIZE:g}px;fill:var(--{fill})">{escape(run.text)}</text>'
    )


def _draw_sources(picture: Picture, page: Page, free: dict[str, Any], starts: list[int]) -> None:
    """Light up, for each pass, the characters that its accepted draft was copied from."""
    places = free["places"]
    token = 0
    for number, one in enumerate(free["passes"]):
        drafted = range(token, token + one["accepted"])
        token += len(one["kept"])
        named = [places[index] for index in drafted if index < len(places) and places[index]]
        if named and named[-1][2]:
            passage, start, end = named[0][0], named[0][1], named[-1][2]
            ranges = [(starts[passage] + start, starts[passage] + end)]
            if start == 0:  # the title stands before the text
                head = page.text.rfind("Document (Title: ", 0, starts[passage])
                ranges = [(head + len("Document (Title: "), starts[passage] + end)]
        else:
            ranges = _other_sources(page, "".join(one["drafted"]))
        for start, end in ranges:
            for run in page.runs(start, end):
                picture.rect(
                    _PROMPT_X + run.column * _SIZE * CHARACTER - 1,
                    _TEXT_Y + run.line * _LINE - 12,
                    len(run.text.rstrip()) * _SIZE * CHARACTER + 2,
                    _LINE,
                    "hit",
                    more=f' class="s s{number}"',
                )


def _other_sources(page: Page, drafted: str) -> list[tuple[int, int]]:
    """Of a draft that stands in no passage's text: wherever its words stand, a head of every
    passage or one place in all, and of the question the last."""
    bare = drafted.strip()
    found = [at for at in range(len(page.text)) if page.text.startswith(bare, at)]
    if bare.startswith(":"):
        found = found[-1:]
    return [(at, at + len(bare)) for at in found]


def _draw_answer(picture: Picture, page: Page, passes: list[dict[str, Any]]) -> None:
    at = 0
    shift = 1  # the space that the answer begins with is not shown
    for number, one in enumerate(passes):
        held = "".join(one["kept"][:-1])
        own = one["kept"][-1].replace(END, "")
        refused = "".join(one["drafted"][one["accepted"] :])
        end = at + len(held) - (shift if number == 0 and held.startswith(" ") else 0)
        for run in page.runs(at, end):
            _put(picture, _ANSWER_X, run, "muted", f"g g{number}")
            _put(picture, _ANSWER_X, run, "green", f"k{number}")
        if refused and end <= len(page.text):
            column, line = page.places[end - 1] if end else (0, 0)
            text = refused.replace("\n", "⏎")[: _COLUMNS - column - 1]
            _put(picture, _ANSWER_X, Run(column + 1, line, text), "muted", f"g g{number}")
            _put(
                picture,
                _ANSWER_X,
                Run(column + 1, line, text),
                "red",
                f"r r{number}",
                "line-through",
            )
        for run in page.runs(end + len(own) - len(own.lstrip()), end + len(own)):
            _put(picture, _ANSWER_X, run, "blue", f"k{number}", "underline")
        at = end + len(own)


def _captions(picture: Picture, passes: list[dict[str, Any]], page: Page) -> None:
    y = _TEXT_Y + (page.lines + 2.5) * _LINE
    done = 0
    for number, one in enumerate(passes):
        _, became = told(one)
        done += len(one["kept"])
        name = f' class="c c{number}"'
        picture.text(_ANSWER_X, y, f"Pass {number + 1}", size=22, bold=True, more=name)
        count = f"{len(one['drafted'])} tokens are drafted"
        steps = (
            ("d", f"1  {count}, without the model"),
            ("v", "2  the model reads them all in one forward pass"),
            ("h", f"3  {became}"),
        )
        for step, words in steps:
            picture.text(_ANSWER_X, y + 28, words, size=14, more=f' class="c {step}{number}"')
        words = f"{done} tokens in {number + 1} pass{'es' * (number > 0)}"
        step = f' class="c h{number}"'
        picture.text(_ANSWER_X, y + 52, words, size=13, fill="muted", more=step)
    tokens = sum(len(one["kept"]) for one in passes)
    whole = f"{tokens} tokens in {len(passes)} passes"
    picture.text(_ANSWER_X, y, whole, size=22, bold=True, more=' class="z"')
    _count_passes(picture, passes, y + 92)


def _count_passes(picture: Picture, passes: list[dict[str, Any]], y: float) -> None:
    """A square for each pass so far, here and of plain decoding, which takes one a token."""
    tokens = sum(len(one["kept"]) for one in passes)
    picture.text(_ANSWER_X, y, "forward passes so far, here", size=13)
    below = "and by plain decoding, one for each token"
    picture.text(_ANSWER_X, y + 56, below, size=13)
    side, across = 9.0, 33
    for index in range(len(passes)):
        picture.rect(_ANSWER_X + 13 * index, y + 12, side, side, "context", radius=1.5)
    for index in range(tokens):
        column, row = index % across, index // across
        x, top = _ANSWER_X + 13 * column, y + 68 + 13 * row
        picture.rect(x, top, side, side, "context", radius=1.5)
    done = 0
    for number, one in enumerate(passes):
        more = f' class="k{number}"'
        x = _ANSWER_X + 13 * number
        picture.rect(x, y + 12, side, side, "green", radius=1.5, more=more)
        for index in range(done, done + len(one["kept"])):
            column, row = index % across, index // across
            x, top = _ANSWER_X + 13 * column, y + 68 + 13 * row
            picture.rect(x, top, side, side, "orange", radius=1.5, more=more)
        done += len(one["kept"])
