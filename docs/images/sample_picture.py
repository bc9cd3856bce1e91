"""A training sample with its regions in colour and the three choices of what is learnt."""

from __future__ import annotations

import textwrap
from pathlib import Path

from picture import CHARACTER, Picture

from scratchpad_rag.data.corpus import read_corpus
from scratchpad_rag.prompts.render import render_sample
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import Example, LossRegion, Method, Region, Rendered
from scratchpad_rag.report.regions import Row, show_regions

TEXTS = Path(__file__).parent.parent / "howto/own-data/texts"
SHOWN = ("Sker Light", "Holm Light", "Ulla Bridge")
_FOLD = 150  # characters of a piece that are shown
_SIZE, _LINE, _COLUMNS = 12.5, 19.0, 88
_LEFT = 196.0
_TOP = 128.0
_BARS = {LossRegion.SAMPLE: 24.0, LossRegion.COMPLETION: 46.0, LossRegion.ANSWER: 68.0}


def example() -> Example:
    """A question of the how-to's data with three documents, the gold one in the middle."""
    found = {passage.title: passage for passage in read_corpus(TEXTS)}
    passages = tuple(found[title] for title in SHOWN)
    return Example("velm", "Who built Holm Light?", ("Ida Holm",), passages, (1,))


def sample(wording: Wording | None = None) -> Rendered:
    """The example as a scratchpad's training sample, in the plain format if nothing is said."""
    return render_sample(example(), wording or Wording(), Method.SCRATCHPAD)


def rows() -> list[tuple[Row, frozenset[LossRegion]]]:
    """Pieces of the sample with the loss regions in which they are learnt.

    In tokens the borders are those of the pieces; the sample's first token is never learnt, since
    nothing predicts it.
    """
    rendered = sample()
    shown = show_regions(rendered, [(rendered.prompt_end, len(rendered.text))], _FOLD)
    return [(row, _learnt(row)) for row in shown.rows]


def _learnt(row: Row) -> frozenset[LossRegion]:
    if not row.learnt:
        return frozenset({LossRegion.SAMPLE})
    if row.region is Region.ANSWER:
        return frozenset(LossRegion)
    return frozenset({LossRegion.SAMPLE, LossRegion.COMPLETION})


def draw() -> str:
    """One line of pieces under the other."""
    lines = [(row, loss, _wrap(row.text)) for row, loss in rows()]
    gap = 5.0
    height = _TOP + sum(len(texts) * _LINE + gap for _, _, texts in lines) + 48
    picture = Picture(
        960,
        height,
        "A training sample, region by region",
        "The system sentence, the question, three passages and the question again are the prompt; "
        "the scratchpad, the question once more and the answer are the completion. With the loss "
        "region sample everything is learnt, with completion what stands behind the prompt, with "
        "answer the answer and the end of the sequence.",
    )
    picture.text(24, 34, "One training sample, letter for letter", size=16, bold=True)
    told = "⏎ is a line break, ␣ a space at an end; long passages are folded"
    picture.text(936, 34, told, size=12.5, fill="muted", anchor="end")
    picture.text(24, 60, "learnt with --loss_region", size=12.5, fill="muted")
    for region, x in _BARS.items():
        picture.add(
            f'<text transform="translate({x + 8:.1f} {_TOP - 8:.1f}) rotate(-38)" '
            f'style="font-size:12px;fill:var(--ink)">{region.value}</text>'
        )
    y, border = _TOP, None
    for row, loss, texts in lines:
        tall = len(texts) * _LINE
        if row.learnt and border is None:
            border = y - gap / 2
        width = 2 * 8 + _COLUMNS * _SIZE * CHARACTER
        edge = ' stroke="currentColor" stroke-opacity="0.18"' * (row.region is Region.SCAFFOLD)
        picture.rect(_LEFT, y, width, tall, row.region.value, radius=4, more=edge)
        for region, x in _BARS.items():
            if region in loss:
                picture.rect(x, y, 12, tall + gap, "muted")
        picture.text(_LEFT - 10, y + 14, row.name, size=12.5, fill="muted", anchor="end")
        for number, text in enumerate(texts):
            fill = "muted" if row.region is Region.SCAFFOLD else "ink"
            picture.mono(_LEFT + 8, y + 14 + number * _LINE, text, _SIZE, fill=fill)
        y += tall + gap
    assert border is not None
    right = _LEFT + 16 + _COLUMNS * _SIZE * CHARACTER
    picture.line([(96, border), (right, border)], "ink", 1.4, "6 4")
    picture.text(right - 10, border - 8, "prompt ↑", fill="ink", anchor="end")
    picture.text(right - 10, border + 17, "completion ↓", fill="ink", anchor="end")
    note = "Drawn from the project's own renderer: render_sample, show_regions."
    picture.text(24, y + 24, note, size=12, fill="muted")
    return picture.svg()


def _wrap(text: str) -> list[str]:
    visible = text.replace("\n", "⏎")
    bare = visible.strip(" ")
    before = len(visible) - len(visible.lstrip(" "))
    visible = "␣" * before + bare + "␣" * (len(visible) - before - len(bare))
    return textwrap.wrap(visible, _COLUMNS, drop_whitespace=False, break_on_hyphens=False) or [""]
