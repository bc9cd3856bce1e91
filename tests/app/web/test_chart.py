"""The chart: means and places that were worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest

from scratchpad_rag.app.web.chart import NARROW, WIDE, Mean, chart, means_of, offset_of
from scratchpad_rag.app.web.views import Point
from tests.app.web.drawn import Element, ids, parse


def point(
    reader: str, position: int, right: bool, documents: int = 5, question: str = "Q"
) -> Point:
    return Point(reader, documents, position, right, None, question)


RUNS = [
    point("Scratchpad", 0, True),
    point("Zero-shot", 0, True),
    point("Scratchpad", 2, True),
    point("Zero-shot", 2, False),
    point("Scratchpad", 2, False),
    point("Zero-shot", 2, False),
    point("Scratchpad", 2, True),
    point("Zero-shot", 2, True),
]


def drawing(html: str, name: str = "sp-wide") -> Element:
    (svg,) = parse(html).find(tag="svg", class_=name)
    return svg


def test_means_count_each_reader_by_itself() -> None:
    assert means_of(RUNS, "Scratchpad") == [Mean(0, 1, 1), Mean(2, 2, 3)]
    assert means_of(RUNS, "Zero-shot") == [Mean(0, 1, 1), Mean(2, 1, 3)]
    assert means_of(RUNS, "Neither") == []


def test_positions_and_shares_are_drawn_where_they_belong() -> None:
    # 860 wide, 46 and 14 of margin: 800 for 5 columns of 160, their middles at 126 and 446.
    # 100% lies below the top (8) and the runs that were right (34), 0% lies 190 lower.
    assert (WIDE.x(0, 5), WIDE.x(2, 5), WIDE.high, WIDE.low) == (126, 446, 42, 232)
    lines = drawing(chart(RUNS, 5)).find(tag="polyline")
    # 2 of 3: 232 - 190 * 2 / 3 = 105.3; 1 of 3: 168.7
    assert [line.attributes["points"] for line in lines] == [
        "126.0,42.0 446.0,105.3",
        "126.0,42.0 446.0,168.7",
    ]


def test_right_runs_stand_above_the_plot_and_wrong_ones_below() -> None:
    svg = drawing(chart(RUNS, 5))
    discs = svg.find(tag="circle", class_="sp-run")
    heights = [float(disc.attributes["cy"]) for disc in discs]
    assert [WIDE.top < y < WIDE.high for y in heights] == [True, True, False, True]
    assert WIDE.low < heights[2] < WIDE.axis
    assert len(svg.find(tag="polygon", class_="sp-run")) == 4
    # A column is 160 wide: none leaves its own.
    columns = [int((float(disc.attributes["cx"]) - 46) // 160) for disc in discs]
    assert columns == [0, 2, 2, 2]


def test_a_new_run_moves_none_of_the_others() -> None:
    def places(runs: list[Point]) -> list[tuple[str, str]]:
        svg = drawing(chart(runs, 5))
        discs = svg.find(tag="circle", class_="sp-run")
        return [(d.attributes["cx"], d.attributes["cy"]) for d in discs]

    before = places(RUNS)
    after = places([*RUNS, point("Scratchpad", 2, True)])
    assert after[: len(before)] == before
    assert len(set(after)) == len(after) == 5


def test_places_in_a_column_stay_in_it_and_apart() -> None:
    places = [offset_of(number) for number in range(200)]
    assert all(-0.5 <= across < 0.5 and 0 <= away < 1 for across, away in places)
    across = sorted(x for x, _ in places)
    assert max(b - a for a, b in pairwise(across)) < 0.02  # evenly: 1 / 200 = 0.005 on average


def test_runs_over_other_numbers_of_documents_are_counted_but_not_drawn() -> None:
    html = chart([*RUNS, point("Scratchpad", 7, True, documents=20)], 5)
    assert "8 answers over 5 documents (1 answer over other numbers not drawn)" in parse(html).text
    assert len(drawing(html).find(class_="sp-run")) == 8


def test_the_table_says_what_the_picture_shows() -> None:
    rows = [[cell.text for cell in row.parts] for row in parse(chart(RUNS, 5)).find(tag="tr")]
    assert rows == [
        ["Document with the answer", "Scratchpad", "Zero-shot"],
        ["1", "1 of 1 right (100%)", "1 of 1 right (100%)"],
        ["3", "2 of 3 right (67%)", "1 of 3 right (33%)"],
    ]
    only_one = parse(chart(RUNS[:3], 5)).find(tag="td")
    assert [cell.text for cell in only_one][-1] == "–"


def test_the_number_of_runs_stands_under_each_mean() -> None:
    numbers = drawing(chart(RUNS, 5)).find(class_="sp-runs")
    assert [(n.attributes["x"], n.text) for n in numbers] == [
        ("126.0", "1"),
        ("446.0", "3"),
        ("126.0", "1"),
        ("446.0", "3"),
    ]
    many = [point("Scratchpad", n, True, documents=40) for n in range(40)]
    narrow = drawing(chart(many, 40), "sp-narrow").find(class_="sp-runs")
    assert [n.text for n in narrow] == ["40 in all"]


@pytest.mark.parametrize("documents", [1, 2, 5, 20, 30, 40, 100, 500])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_ticks_name_the_first_document_and_do_not_touch(documents: int, size: object) -> None:
    name = "sp-wide" if size is WIDE else "sp-narrow"
    svg = drawing(chart([], documents), name)
    ticks = [t for t in svg.find(class_="sp-tick") if t.text.isdigit()]
    assert ticks[0].text == "1"
    places = [float(t.attributes["x"]) for t in ticks]
    # 8 pixels a figure of 12 pixels' type, and as much between two numbers
    widths = [8 * len(t.text) for t in ticks]
    assert all(
        b - a > (v + w) / 2 + 4 for (a, v), (b, w) in pairwise(zip(places, widths, strict=True))
    )


def test_readers_differ_in_more_than_colour_and_are_named() -> None:
    root = parse(chart(RUNS, 5))
    (legend,) = root.find(class_="sp-legend")
    assert [item.text for item in legend.find(tag="li")] == ["Scratchpad", "Zero-shot"]
    assert [i.find(class_="sp-mean")[0].tag for i in legend.find(tag="li")] == ["circle", "polygon"]


def test_it_describes_itself_and_its_ids_are_its_own() -> None:
    root = parse(chart(RUNS, 5))
    assert len(ids(root)) == len(set(ids(root)))
    for svg in root.find(class_="sp-svg"):
        for name in svg.attributes["aria-labelledby"].split():
            assert root.find(id_=name)
    (description,) = drawing(chart(RUNS, 5)).find(tag="desc")
    assert "Scratchpad, right answers: document 1 1 of 1, document 3 2 of 3." in description.text


def test_without_runs_it_says_what_to_do() -> None:
    root = parse(chart([], 20))
    assert "Each run over 20 documents adds a mark" in root.text
    assert root.find(class_="sp-run") == root.find(tag="table") == []


def test_markup_in_a_question_or_a_name_is_shown_as_text() -> None:
    evil = '"><script>alert(1)</script>'
    root = parse(chart([point(evil, 0, True, question=evil)], 5))
    assert root.find(tag="script") == []
    assert any(evil in title.text for title in root.find(tag="title"))
