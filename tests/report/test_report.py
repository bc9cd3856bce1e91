"""Reports of scores made by hand: the numbers, the page's structure, and text that means harm."""

from __future__ import annotations

import csv
import io
import itertools
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from rich.console import Console

from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.summary import compare, summarise
from scratchpad_rag.records import Quote, Score
from scratchpad_rag.report import plots
from scratchpad_rag.report.examples import choose_examples, mark_quotes
from scratchpad_rag.report.findings import headline, is_distinguishable, second_headline
from scratchpad_rag.report.html import ReportContext, write_report
from scratchpad_rag.report.inline import THEME
from scratchpad_rag.report.tables import csv_table, markdown_table, rich_table

POSITIONS = (0, 2, 4)
EVIL = "<script>alert('x')</script><img src=http://evil.example/x.png onerror=alert(1)>"
CONTEXT = ReportContext(
    title="A <b>title</b>",
    subtitle="Five passages",
    settings={"Seed": "0", "Model & base": "<tiny>"},
    command="python main.py --eval_only",
    notes=["It reads.", "- English", "- slowly"],
    wall_seconds=125.0,
)


def a_score(
    method: str,
    question: str = "q0",
    position: int | None = 0,
    right: bool = True,
    **fields: object,
) -> Score:
    documents = {"closed_book": 0, "gold_only": 1}.get(method, 5)
    writes_quotes = method.startswith("scratchpad")
    values: dict[str, object] = {
        "method": method,
        "example_id": question,
        "question": f"What is {question}?",
        "answers": ("Ada", "Ada L."),
        "num_documents": documents,
        "gold_positions": () if position is None else (position,),
        "prediction": "Ada" if right else "Bob",
        "completion": " Ada" if right else " Bob",
        "quotes": (),
        "parsed": True,
        "subspan_exact_match": float(right),
        "exact_match": float(right) / 2,
        "f1": 0.25,
        "completion_subspan_exact_match": 1.0,
        "quote_precision": 0.4 if writes_quotes else None,
        "quote_recall": 0.6 if writes_quotes else None,
        "verbatim_rate": 0.8 if writes_quotes else None,
        "prompt_tokens": 1234,
        "new_tokens": 50,
        "forward_passes": 7,
        "wall_seconds": 0.25,
    }
    return Score(**(values | fields))  # type: ignore[arg-type]


def a_run(questions: int = 12) -> list[Score]:
    """Scratchpad right on 3 of 4, SFT on 1 of 4, zero-shot on 1 of 2, closed-book on none."""
    shares = {"scratchpad": (1, 1, 1, 0), "sft": (0, 1, 0, 0), "zero_shot": (0, 1, 1, 0)}
    scores = [
        a_score(method, f"q{q}", position, bool(pattern[(q + q // 4 * position) % 4]))
        for method, pattern in shares.items()
        for q in range(questions)
        for position in POSITIONS
    ]
    scores += [a_score("closed_book", f"q{q}", None, False) for q in range(questions)]
    return scores + [a_score("gold_only", f"q{q}", 0, True) for q in range(questions)]


class Page(HTMLParser):
    """What the tests ask of a page: its tags, ids, references, headings, tables and text."""

    VOID = ("meta", "br", "img", "link", "hr", "input")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[int] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, name: str) -> list[list[str]]:
        return [row for row in self.rows if row and row[0] == name]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    out = tmp_path_factory.mktemp("report")
    return Page(write_report(a_run(), out, context=CONTEXT))


def test_writes_every_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = write_report(a_run(), tmp_path / "new" / "run", context=CONTEXT)
    names = sorted(file.name for file in path.parent.iterdir())
    expected = ["position_curve.png", "position_curve.svg", "report.html", "table.csv", "table.md"]
    assert names == expected
    png = (path.parent / "position_curve.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(png[16:20], "big") == 2160  # 7.2 inches of 300 dots
    svg = ElementTree.parse(path.parent / "position_curve.svg").getroot()
    assert svg.tag.endswith("svg")


def test_same_scores_same_files(tmp_path: Path) -> None:
    first = write_report(a_run(4), tmp_path / "a", context=CONTEXT)
    second = write_report(a_run(4), tmp_path / "b", context=CONTEXT)
    for file in first.parent.iterdir():
        assert file.read_bytes() == (second.parent / file.name).read_bytes()


def test_a_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report(a_run(4), tmp_path, context=CONTEXT)
    before = path.read_bytes()

    def no_space(*_: object) -> int:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(OSError, match="no space"):
        write_report(a_run(8), tmp_path, context=CONTEXT)
    assert path.read_bytes() == before


def test_page_needs_nothing_from_elsewhere(page: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object", "base"} & {t for t, _ in page.tags}
    references = [
        attributes[name]
        for _, attributes in page.tags
        for name in ("src", "href", "xlink:href", "srcset", "action", "data")
        if attributes.get(name)
    ]
    assert references  # the markers of the plots
    assert all(reference and reference.startswith("#") for reference in references)
    assert "@import" not in page.source
    assert set(re.findall(r"url\((.)", page.source)) <= {"#"}
    assert set(re.findall(r"https?://[\w.]+", page.source)) <= {"http://www.w3.org"}


def test_ids_are_unique_and_references_resolve(page: Page) -> None:
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    pointed = set(re.findall(r'href="#([^"]+)"', page.source))
    pointed |= set(re.findall(r"url\(#([^)]+)\)", page.source))
    pointed |= {a["aria-labelledby"] for _, a in page.tags if a.get("aria-labelledby")}
    assert pointed <= set(ids)


def test_figures_are_told_in_words_with_their_numbers(page: Page) -> None:
    figures = [a for a in page.all("svg") if a.get("class") == "plot"]
    assert len(figures) == 4  # curve and bars, each for wide and for narrow screens
    assert all(figure["role"] == "img" for figure in figures)
    curve, _, bars, _ = (figure["aria-label"] or "" for figure in figures)
    assert "Scratchpad: 75% at 0, 75% at 2, 75% at 4." in curve
    assert "Closed-book: 0%" in curve
    assert re.search(r"SFT 25% \(95% interval \d+–\d+\)", bars)


def test_structure(page: Page) -> None:
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(page.headings))
    assert len(page.all("table")) == len(page.all("caption")) == 5
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    assert ("html", {"lang": "en"}) in page.tags
    viewport = next(m for m in page.all("meta") if m.get("name") == "viewport")
    assert viewport["content"] == "width=device-width, initial-scale=1"
    assert "prefers-color-scheme: dark" in page.source


def test_rows_hold_the_numbers_counted_by_hand(page: Page) -> None:
    accuracy, positions, cost = page.row("Scratchpad")
    assert re.fullmatch(r"75% \(\d+–\d+\)", accuracy[1])
    assert accuracy[2:] == ["38%", "25%", "60%", "40%", "80%", "0", "12", "36"]
    assert [cell.split(" ")[0] for cell in positions[1:]] == ["75%", "75%", "75%"]
    assert cost[1:] == ["1,234", "50.0", "7.00", "0.250"]
    sft = page.row("SFT")[0]
    assert sft[1].startswith("25% (")
    assert sft[4:7] == ["–", "–", "–"]
    assert page.row("Gold only")[0][1] == "100% (74–100)"  # 0.025 ** (1 / 12) = 0.735
    assert page.row("Closed-book")[0][1] == "0% (0–26)"
    assert len(page.row("Closed-book")) == 2  # results and cost, but no positions


def test_csv_holds_the_means_unrounded() -> None:
    scores = a_run()
    rows = {row["method"]: row for row in csv.DictReader(csv_table(summarise(scores)).splitlines())}
    for method, row in rows.items():
        right = [s.subspan_exact_match for s in scores if s.method == method]
        assert float(row["subspan_exact_match"]) == pytest.approx(sum(right) / len(right))
        assert float(row["low"]) <= float(row["subspan_exact_match"]) <= float(row["high"])
        assert int(row["samples"]) == len(right)
    assert rows["sft"]["quote_recall"] == ""
    assert float(rows["scratchpad"]["verbatim_rate"]) == pytest.approx(0.8)
    assert csv_table([]).strip() == ""


def test_settings_notes_and_command_are_on_the_page(page: Page) -> None:
    assert ["Model & base", "<tiny>"] in page.rows
    assert "A <b>title</b>" in page.text
    assert "python main.py --eval_only" in page.text
    assert "2 min 5 s" in page.text
    assert len(page.all("li")) == 2
    assert any(row[0] == "Python" for row in page.rows)


def test_text_of_scores_is_only_ever_text(tmp_path: Path) -> None:
    quote = Quote(EVIL, EVIL, None, 0, 0, verbatim=False)
    score = replace(
        a_score("scratchpad", "q<1>", 2, False),
        question=EVIL,
        answers=(EVIL, "القدس", "🎉"),
        prediction="שלום " + EVIL,
        completion=f"Document {EVIL} more \x00\x1b \ud800 🎉",
        quotes=(quote,),
    )
    other = a_score(EVIL + "$x_{$|\n]", "q1", 2)
    context = ReportContext(EVIL, EVIL, {EVIL: EVIL}, EVIL, [EVIL, "- " + EVIL])
    page = Page(write_report([score, other], tmp_path, context=context))
    assert not {"script", "img", "b"} & {tag for tag, _ in page.tags}
    assert page.text.count(EVIL) >= 9
    assert {"class": "invented"} in page.all("mark")
    assert "in no passage" in page.text
    assert not re.search("[\x00-\x08\x1b\ud800-\udfff]", page.source)
    assert any(a.get("dir") == "auto" and a.get("class") == "output" for a in page.all("dd"))
    ElementTree.parse(tmp_path / "position_curve.svg")


@pytest.mark.parametrize(
    "scores",
    [
        [a_score("scratchpad", "q0", 0)],
        [a_score("closed_book", "q0", None, False)],
        [a_score("sft", "q0", 7, num_documents=20, wall_seconds=float("nan"), f1=float("nan"))],
        [a_score("no_gold", "q0", None)],
        [a_score(f"run {n} with a long name {'x' * 80}", f"q{n}", n % 3) for n in range(14)],
        [a_score("scratchpad", "q0", 0, answers=(), prediction="", completion="", parsed=False)],
    ],
    ids=["one", "closed-book", "nan", "no gold", "many unknown", "empty"],
)
def test_odd_runs_have_a_page_without_nan(scores: Sequence[Score], tmp_path: Path) -> None:
    page = Page(write_report(scores, tmp_path, context=ReportContext("T", "S")))
    for file in ("table.csv", "table.md"):
        assert "nan" not in (tmp_path / file).read_text("utf-8").lower()
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", page.source)
    assert "How this was made" in page.text


def test_no_scores_are_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="evaluate first"):
        write_report([], tmp_path, context=CONTEXT)


def test_headline_says_what_is_distinguishable_and_what_is_not() -> None:
    scores = a_run(40)
    text = headline(scores, summarise(scores))
    assert text.startswith("Scratchpad answered 75% of its samples right")
    assert "50.0 points above SFT" in text
    assert "distinguishable from zero at the 95% level. It is 25.0 points above Zero-shot" in text
    alike = [
        a_score(m, f"q{q}", 0, q % 3 != r)
        for q in range(9)
        for r, m in enumerate(["scratchpad", "sft"])
    ]
    assert "is not distinguishable from zero" in headline(alike, summarise(alike))
    assert "Zero-shot was not run" in headline(alike, summarise(alike))


def test_the_reader_trained_beforehand_has_a_paragraph_of_its_own() -> None:
    both = [
        *(a_score("scratchpad", f"q{i}") for i in range(3)),
        *(a_score("scratchpad_shipped", f"q{i}") for i in range(3)),
    ]
    assert "Scratchpad (trained beforehand) answered" in second_headline(both, summarise(both))
    assert second_headline(both[:3], summarise(both[:3])) == ""


def test_headline_makes_nothing_of_one_question() -> None:
    scores = [
        a_score(m, "q0", p, m == "scratchpad") for m in ("scratchpad", "sft") for p in range(5)
    ]
    difference = compare(scores, "scratchpad", "sft")
    assert difference is not None
    assert difference.interval.excludes_zero
    assert not is_distinguishable(difference)
    assert "is not distinguishable" in headline(scores, summarise(scores))


def test_headline_without_scratchpad_claims_nothing_for_it() -> None:
    scores = [a_score("sft", f"q{q}", 0, q > 1) for q in range(4)]
    text = headline(scores, summarise(scores))
    assert text.startswith("SFT answered 50%")
    assert "Scratchpad is not among them" in text


def test_headline_takes_the_model_trained_beforehand_where_it_is_the_only_one() -> None:
    scores = [
        a_score(m, f"q{q}", 0) for m in ("scratchpad_shipped", "sft_shipped") for q in range(3)
    ]
    text = headline(scores, summarise(scores))
    assert text.startswith("Scratchpad (trained beforehand) answered 100%")
    assert "the same as SFT (trained beforehand)" in text


def test_quotes_are_marked_by_how_true_they_are() -> None:
    output = "Document (Title: A) one two. Document (Title: B) three. Moon. Answer: two"
    quotes = [
        Quote("one two.", "A", 3, 0, 8, verbatim=True),
        Quote("three.", "B", 1, 0, 6, verbatim=False),
        Quote("Moon.", "", None, 0, 0, verbatim=False),
        Quote("nowhere in the output", "", 0, 0, 5, verbatim=True),
    ]
    pieces = mark_quotes(output, quotes)
    assert [(p.text, p.kind, p.label) for p in pieces if p.kind] == [
        ("one two.", "verbatim", "passage 3, word for word"),
        ("three.", "altered", "passage 1, altered"),
        ("Moon.", "invented", "in no passage"),
    ]
    assert pieces[-1].text == " Answer: two"


@given(st.text("ab .", max_size=30), st.lists(st.text("ab .", max_size=6), max_size=4))
def test_marking_loses_no_text(output: str, texts: list[str]) -> None:
    quotes = [Quote(text, "", 0, 0, len(text), verbatim=True) for text in texts]
    assert "".join(piece.text for piece in mark_quotes(output, quotes)) == output


def test_a_long_output_is_cut_with_a_note(tmp_path: Path) -> None:
    long = "z" * 50_000
    quote = Quote(long, "", 0, 0, len(long), verbatim=True)
    score = a_score("scratchpad", completion="Answer " + long, quotes=(quote,))
    page = Page(write_report([score], tmp_path, context=CONTEXT))
    assert "47,507 more characters" in page.text  # 50,007 less the 2,500 shown
    assert 2400 < page.source.count("z") < 3500
    assert {"class": "verbatim"} in page.all("mark")[3:]  # after the three of the key


def test_examples_are_the_same_questions_and_positions_take_turns() -> None:
    chosen = {group.name: group for group in choose_examples(a_run(40))}
    questions = [example.question for example in chosen["Scratchpad"].examples]
    assert questions == [f"What is q{n}?" for n in range(0, 40, 5)]
    assert all([e.question for e in group.examples] == questions for group in chosen.values())
    places = [example.place for example in chosen["SFT"].examples]
    assert places[:4] == [
        f"5 passages shown, gold at position {p} (0 = first)" for p in (0, 2, 4, 0)
    ]
    assert chosen["Closed-book"].examples[0].place == "no passage shown"
    assert chosen["Gold only"].right == 8


def test_colours_of_plots_follow_the_theme(page: Page) -> None:
    plotted = "".join(re.findall(r'<svg class="plot".*?</svg>', page.source, re.DOTALL))
    bare = re.sub(r"var\(--[a-z]+, #[0-9a-f]{6}\)", "", plotted)
    assert not re.search(r"#[0-9a-f]{6}\b", bare)
    for colour, variable in THEME.items():
        assert to_hex(colour) == colour
        assert len(re.findall(rf"{variable}: #[0-9a-f]+", page.source)) == 3  # day, night, print


def test_methods_differ_in_more_than_colour() -> None:
    drawn = [(look.marker, look.dashes) for look in plots.looks([]).values()]
    assert len(drawn) == len(set(drawn))


@given(st.lists(st.floats(0, 1), max_size=9).map(sorted), st.floats(0.01, 0.3))
def test_names_at_line_ends_stand_apart_and_in_order(wanted: list[float], gap: float) -> None:
    places = plots.spread(wanted, gap)
    assert len(places) == len(wanted)
    assert all(b - a >= gap - 1e-6 for a, b in itertools.pairwise(places))
    assert sum(places) == pytest.approx(sum(wanted), abs=1e-6)
    if all(b - a > gap + 1e-6 for a, b in itertools.pairwise(wanted)):
        assert places == pytest.approx(wanted, abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9).map(sorted), st.floats(0.01, 0.12))
def test_names_at_line_ends_stay_beside_the_axes(wanted: list[float], gap: float) -> None:
    places = plots.spread(wanted, gap, 0.0, 1.0)
    assert all(b - a >= gap - 1e-6 for a, b in itertools.pairwise(places))
    assert places[0] >= -1e-6
    assert places[-1] <= 1 + 1e-6


@pytest.mark.parametrize("narrow", [False, True])
def test_no_name_is_drawn_outside_the_figure(narrow: bool) -> None:
    shipped = [a_score(f"{m}_shipped", "q0", 0) for m in ("sft", "scratchpad")]
    scores = [
        *a_run(),
        *shipped,
        *(a_score(f"run {n} of a long name again", "q0", 4) for n in range(6)),
    ]
    for draw in (plots.position_curve, plots.method_bars):
        figure = draw(summarise(scores), narrow=narrow)
        figure.canvas.draw()
        box, inside = figure.get_tightbbox(), figure.bbox_inches
        assert box.x0 >= -0.01
        assert box.y0 >= -0.01
        assert box.x1 <= inside.width + 0.01
        assert box.y1 <= inside.height + 0.01


def test_terminal_table_fits_and_takes_names_literally() -> None:
    scores = [*a_run(), *(a_score(m, "q0", 0) for m in ("scratchpad_shipped", "[red]x[/red]"))]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(rich_table(summarise(scores)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"Scratchpad +75% \(\d+–\d+\) +38% +25% +60% +50.0 +0.250", text)
    assert "[red]x[/red]" in text


def test_markdown_names_do_not_break_the_table() -> None:
    text = markdown_table(summarise([a_score("a|b\n`c`", "q0", 0), a_score("sft", "q0", 0)]))
    header, rule, first, second = text.splitlines()[:4]
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in (header, rule, first, second)}
    assert len(cells) == 1
    assert first.startswith("| a\\|b \\`c\\` | 100% (3–100) |")  # 0.025 for one question


def test_report_needs_neither_torch_nor_pyplot() -> None:
    code = (
        "import sys, scratchpad_rag.report.html, scratchpad_rag.report.tables; "
        "print([m for m in ('torch', 'transformers', 'matplotlib.pyplot') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
