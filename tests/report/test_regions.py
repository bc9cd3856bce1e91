"""A sample shown by region and by what is learnt: nothing lost, readable without colour."""

from __future__ import annotations

import io
import itertools

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from scratchpad_rag.prompts.render import render_sample
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import Example, Method, Passage, Region, Rendered, Span
from scratchpad_rag.report.regions import BAR, Row, show_regions, split_rows

EXAMPLE = Example(
    "q",
    "who built it",
    ("Ida Holm",),
    (Passage("Mill", "It stands by the river."), Passage("Light", "Ida Holm built it.")),
    (1,),
)
RENDERED = render_sample(EXAMPLE, Wording(system="Answer."), Method.SCRATCHPAD)


def test_a_sample_line_by_line() -> None:
    text = str(show_regions(RENDERED, [(RENDERED.prompt_end, len(RENDERED.text))]))
    assert text.splitlines() == [
        "  system        Answer.",
        "  scaffold      ⏎⏎Question:",
        "  question      Who built it?",
        "  scaffold      ⏎⏎Context:⏎",
        "  context 0     Document (Title: Mill) It stands by the river.",
        "  scaffold      ⏎⏎",
        "  context 1     Document (Title: Light) Ida Holm built it.",
        "  scaffold      ⏎⏎Question:",
        "  question      Who built it?",
        "  scaffold      ⏎⏎Answer:",
        "▌ scaffold",
        "▌ scratchpad 1  Document (Title: Light) Ida Holm built it.",
        "▌ scaffold      ⏎⏎Question:",
        "▌ question      Who built it?",
        "▌ scaffold      ⏎⏎Answer:",
        "▌ answer         Ida Holm",
        "▌ answer        (end of sequence)",
        "▌ is learnt",
    ]


def test_where_only_the_answer_is_learnt_only_it_has_a_bar() -> None:
    begin = RENDERED.text.rindex(" Ida Holm")
    rows = show_regions(RENDERED, [(begin, len(RENDERED.text))]).rows
    assert [row for row in rows if row.learnt] == [
        Row(" Ida Holm", Region.ANSWER, True),
        Row("(end of sequence)", Region.ANSWER, True),
    ]


def test_without_labels_nothing_is_said_of_learning() -> None:
    text = str(show_regions(RENDERED))
    assert BAR not in text
    assert "learnt" not in text


@st.composite
def rendered_and_learnt(draw: st.DrawFn) -> tuple[Rendered, list[tuple[int, int]]]:
    text = draw(st.text("ab\n é", max_size=30))
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=5)) | {0, len(text)})
    spans = tuple(Span(a, b, draw(st.sampled_from(Region))) for a, b in itertools.pairwise(cuts))
    marks = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    return Rendered(text, 0, spans), list(zip(marks[::2], marks[1::2], strict=False))


@given(rendered_and_learnt())
def test_rows_are_the_text_and_the_marks(case: tuple[Rendered, list[tuple[int, int]]]) -> None:
    rendered, learnt = case
    rows = split_rows(rendered, learnt)
    assert "".join(row.text for row in rows) == rendered.text
    marked = [any(a <= at < b for a, b in learnt) for at in range(len(rendered.text))]
    assert [row.learnt for row in rows for _ in row.text] == marked
    regions = [span.region for span in rendered.spans for _ in range(span.start, span.end)]
    assert [row.region for row in rows for _ in row.text] == regions


def test_long_pieces_are_folded_in_their_middle() -> None:
    rows = show_regions(RENDERED, fold=20).rows
    assert rows[4].text == "Document ( […26 characters…] the river."
    assert rows[2].text == "Who built it?"


def test_a_terminal_without_colour_shows_the_same_rows() -> None:
    shown = show_regions(RENDERED, [(RENDERED.prompt_end, len(RENDERED.text))])
    console = Console(file=io.StringIO(), record=True, width=60, color_system=None)
    console.print(shown.terminal(60), soft_wrap=True)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 60
    assert "▌ scratchpad 1  Document (Title: Light) Ida Holm built it." in text
    # Long lines go on behind the bar, so that none is mistaken for one that is not learnt.
    narrow = show_regions(RENDERED, [(0, len(RENDERED.text))]).terminal(38).plain
    assert all(line.startswith(BAR) for line in narrow.splitlines() if line)


def test_colours_come_with_bold_and_underline() -> None:
    shown = show_regions(RENDERED, [(RENDERED.prompt_end, len(RENDERED.text))])
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(shown.terminal(100), soft_wrap=True)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[1;4;33mDocument (Title: Light)" in text  # bold, underlined, yellow


def test_characters_that_command_a_terminal_are_taken_out() -> None:
    rendered = Rendered("a\x1b[31m\tb", 0, (Span(0, 8, Region.CONTEXT),))
    shown = show_regions(rendered)
    assert "\x1b" not in str(shown)
    assert "\x1b" not in shown.terminal(80).plain
    assert "\x1b" not in shown.html


def test_html_says_what_is_learnt_without_styles() -> None:
    rendered = Rendered("<b>&", 0, (Span(0, 4, Region.ANSWER),))
    html = show_regions(rendered, [(2, 4)]).html
    assert "&lt;b</span>" in html
    assert "<b><u>&gt;&amp;</u></b>" in html


def test_a_notebook_keeps_an_image_and_text() -> None:
    bundle = show_regions(RENDERED)._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert "Document (Title: Mill)" in bundle["text/plain"]
    assert "text/html" not in bundle  # hosts would show it in place of the image, without styles
