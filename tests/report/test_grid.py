"""The page of a grid: what it says, what it refuses, and that it stands for any part of a grid."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.questions import require_same_questions
from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.records import Passage, Quote, Score
from scratchpad_rag.report import curves, marks, plots, verdicts
from scratchpad_rag.report.captions import run_settings
from scratchpad_rag.report.failures import FAILURES, choose_failures, mark_passage
from scratchpad_rag.report.grid import FALSE_QUOTE, kind_of_failure, write_grid_report
from scratchpad_rag.report.grid_runs import Names, read_runs
from scratchpad_rag.report.html import ReportContext
from scratchpad_rag.report.inline import THEME
from scratchpad_rag.report.latex import escape
from scratchpad_rag.report.measures import measure
from tests.report.synthetic import grid, without_new_fields, write_run
from tests.report.test_report import Page

EVIL = "<script>alert('x')</script><img src=http://evil.example/x.png onerror=alert(1)>"
CONTEXT = ReportContext(title="A <b>title</b>", subtitle="Made up", notes=["It reads.", "- slowly"])
METHODS = ("closed_book", "sft", "scratchpad", "scratchpad_gold_forced", "scratchpad_wrong_forced")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, five methods, 24 questions; all passages mean harm."""
    scores, passages = grid(("nq", "hotpotqa"), METHODS, (5, 10), questions=24, places=3)
    passages = {k: Passage(p.title + EVIL, f"{p.text} {EVIL}") for k, p in passages.items()}
    return write_run(tmp_path_factory.mktemp("runs") / "made_up", scores, passages)


@pytest.fixture(scope="module")
def out(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grid_report([run], tmp_path_factory.mktemp("out"), context=CONTEXT).parent


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    return Page(out / "report.html")


def a_score(
    method: str = "sft", question: str = "q0", *, right: bool = True, **fields: object
) -> Score:
    """Five passages, the gold one first."""
    values: dict[str, object] = {
        "method": method,
        "example_id": question,
        "question": f"What is {question}?",
        "answers": ("Ada",),
        "num_documents": 5,
        "gold_positions": (0,),
        "prediction": "Ada" if right else "Bob",
        "completion": " Ada" if right else " Bob",
        "quotes": (),
        "parsed": True,
        "subspan_exact_match": float(right),
        "exact_match": float(right),
        "f1": float(right),
        "completion_subspan_exact_match": float(right),
        "quote_precision": None,
        "quote_recall": None,
        "verbatim_rate": None,
        "prompt_tokens": 100,
        "new_tokens": 5,
        "forward_passes": 2,
        "wall_seconds": 0.5,
    }
    return Score(**(values | fields))  # type: ignore[arg-type]


def test_writes_every_file_and_leaves_nothing_else(out: Path) -> None:
    figures = [
        f"{name}_{data}"
        for name in (
            "position_curves",
            "document_curves",
            "heat_map",
            "errors",
            "forced",
            "no_gold",
            "as_retrieved",
            "cost",
        )
        for data in ("nq", "hotpotqa")
    ]
    files = {f"{name}.{end}" for name in figures for end in ("png", "svg")}
    tables = {"report.html", "table.csv", "paired.csv", "table.tex", "paired.tex"}
    assert {path.name for path in out.iterdir()} == files | tables
    assert (out / "cost_nq.png").read_bytes()[:4] == b"\x89PNG"


def test_figures_of_one_data_set_need_no_name(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", *grid(("nq",), ("sft", "scratchpad"), (5,), questions=8))
    names = {path.name for path in write_grid_report([run], tmp_path / "out").parent.iterdir()}
    assert {"position_curves.svg", "heat_map.png", "errors.svg"} <= names


def test_page_needs_nothing_from_elsewhere(page: Page) -> None:
    tags = {name for name, _ in page.tags}
    assert not tags & {"link", "iframe", "object", "embed", "img", "base"}
    for _, attributes in page.tags:
        assert "src" not in attributes
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    urls = re.findall(r"https?://[^\s\"<']+", re.sub(r"&lt;.*?&gt;", "", page.source))
    assert set(urls) <= {"http://www.w3.org/1999/xlink"}


def test_ids_are_unique_and_references_resolve(page: Page) -> None:
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="#|url\(#|aria-labelledby=")([\w-]+)', page.source)
    assert set(used) - {"main"} <= set(ids)


def test_headings_go_down_one_step_at_a_time(page: Page) -> None:
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(page.headings))


def test_every_figure_and_table_is_told(page: Page) -> None:
    figures = [a for a in page.all("svg") if a.get("role") == "img"]
    assert len(figures) > 10
    assert all(re.search(r"\d+%", figure["aria-label"] or "") for figure in figures)
    hidden = [a for a in page.all("svg") if a.get("role") != "img"]
    # Pictures in a key and in a table stand beside their names and numbers.
    assert all(a.get("aria-hidden") == "true" or "class" not in a for a in hidden)
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(a.get("scope") in ("col", "row", "rowgroup") for a in page.all("th"))


def test_harmful_text_stays_text(page: Page) -> None:
    assert EVIL in page.text
    assert len(page.all("script")) == 1  # the page's own
    assert not page.all("img")
    assert "A <b>title</b>" in page.text


def test_first_table_holds_the_accuracies(run: Path, page: Page) -> None:
    scores = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    own = [
        s["subspan_exact_match"]
        for s in scores
        if s["method"] == "sft"
        and s["dataset"] == "nq"
        and s["passage_order"] == "ranked"
        and s["gold_positions"]
    ]
    assert len(own) == 24 * 2 * 3
    cell = page.row("SFT")[0][1]
    assert cell.startswith(f"{100 * sum(own) / len(own):.0f}% (")


def test_csv_has_a_line_a_cell_and_method(run: Path, out: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((out / "table.csv").read_text())))
    # 3 places, no gold and as retrieved at 2 numbers; forced in the 3 places only; once a question.
    assert len(rows) == 2 * (2 * 10 + 2 * 6 + 1)
    row = next(
        r for r in rows if r["method"] == "sft" and r["dataset"] == "nq" and r["position"] == "2"
    )
    scores = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    own = [
        s
        for s in scores
        if (s["method"], s["dataset"], s["num_documents"]) == ("sft", "nq", 5)
        and s["gold_positions"] == [2]
        and s["passage_order"] == "ranked"
    ]
    assert int(row["samples"]) == len(own) == 24
    assert float(row["accuracy"]) == pytest.approx(sum(s["subspan_exact_match"] for s in own) / 24)
    assert float(row["low"]) <= float(row["accuracy"]) <= float(row["high"])
    assert row["quote_recall"] == ""


def test_paired_csv_holds_the_difference_of_the_means(out: Path) -> None:
    means = {
        (r["dataset"], r["method"], r["documents"], r["gold"], r["position"]): float(r["accuracy"])
        for r in csv.DictReader(io.StringIO((out / "table.csv").read_text()))
    }
    rows = list(csv.DictReader(io.StringIO((out / "paired.csv").read_text())))
    cells = [r for r in rows if r["documents"]]
    assert cells
    for r in cells:
        cell = (r["documents"], r["gold"], r["position"])
        difference = (
            means[r["dataset"], r["method"], *cell] - means[r["dataset"], r["baseline"], *cell]
        )
        assert float(r["difference"]) == pytest.approx(difference)
        assert float(r["p_holm"]) >= float(r["p"])


def _parts() -> dict[str, Sequence[Score]]:
    scores, _ = grid(("nq",), ("closed_book", "sft", "scratchpad"), (5, 10), questions=10, places=3)
    return {
        "old files": without_new_fields(scores),
        "one method": [s for s in scores if s.method == "sft"],
        "one position": [s for s in scores if s.gold_positions in ((0,), ())],
        "no quotes": [s for s in scores if s.method != "scratchpad"],
        "nothing inserted": [s for s in scores if s.passage_order == "retrieved"],
        "no gold only": [s for s in scores if not s.gold_positions and s.num_documents],
        "closed-book only": [s for s in scores if s.method == "closed_book"],
        "one question": [s for s in scores if s.example_id == "nq-0"],
        "all right": [replace(s, subspan_exact_match=1.0) for s in scores],
        "all wrong": [replace(s, subspan_exact_match=0.0) for s in scores],
        "free of charge": [replace(s, wall_seconds=0.0, new_tokens=0) for s in scores],
        "given order": [replace(s, passage_order="given") for s in scores if s.gold_positions],
        "a method of one's own": [replace(s, method=f"{s.method} {EVIL}") for s in scores],
        "one score": scores[:1],
    }


@pytest.mark.parametrize("part", _parts())
def test_any_part_of_a_grid_has_a_page(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "png_bytes", lambda figure: b"")  # half of the time
    run = write_run(tmp_path / "run", _parts()[part], {})
    page = Page(write_grid_report([run], tmp_path / "out", context=CONTEXT))
    own = re.sub("None (found|of the documents)", "", page.text)
    assert not re.search(r"\b(nan|inf|None)\b", own)
    assert page.headings.count(1) == 1
    for table in ("table.tex", "paired.tex"):
        assert "nan" not in (tmp_path / "out" / table).read_text()


def test_runs_side_by_side_are_named(tmp_path: Path) -> None:
    methods = ("closed_book", "sft", "scratchpad")
    runs = [
        write_run(tmp_path / name, *grid(("nq",), methods, (5, 10), questions=12, shift=shift))
        for name, shift in (("small", 0.0), ("large", 1.5))
    ]
    page = Page(write_grid_report(runs, tmp_path / "out", context=CONTEXT))
    assert page.rows[0] == ["Method", "small", "large"]
    assert page.row("Scratchpad − SFT · large")
    assert page.row("Scratchpad · large − small")
    measures = measure(read_runs(runs))[0]
    assert measures.accuracy["sft\x1flarge"].estimate > measures.accuracy["sft\x1fsmall"].estimate
    against = {(c.method, c.baseline) for c in measures.pooled}
    assert ("sft\x1flarge", "sft\x1fsmall") in against
    assert ("closed_book\x1flarge", "closed_book\x1fsmall") not in against  # a bound, not compared


def test_holms_correction_is_over_everything_of_a_kind(tmp_path: Path) -> None:
    methods = ("zero_shot", "sft", "scratchpad")
    runs = [
        write_run(tmp_path / name, *grid(("nq",), methods, (5,), questions=12, seed=0, shift=shift))
        for name, shift in (("a", 0.0), ("b", 0.4))
    ]
    found = sorted(measure(read_runs(runs))[0].pooled, key=lambda c: c.difference.p_value)
    assert len(found) == 2 + 2 + 3
    worst = 0.0
    for number, one in enumerate(found):  # Holm (1979), by hand
        worst = max(worst, min(1.0, (len(found) - number) * one.difference.p_value))
        assert one.adjusted_p == pytest.approx(worst)


def test_runs_of_other_questions_are_refused_with_the_difference(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", [a_score(question=f"q{n}") for n in range(3)], {})
    second = write_run(tmp_path / "b", [a_score(question=f"q{n}") for n in range(1, 7)], {})
    message = (
        r"a and b answered different questions.*: 1 only in a \(q0\); "
        r"4 only in b \(q3, q4, q5, …\)$"
    )
    with pytest.raises(DataError, match=message):
        write_grid_report([first, second], tmp_path / "out", context=CONTEXT)
    assert not (tmp_path / "out").exists()


def test_the_same_id_with_other_words_is_another_question() -> None:
    with pytest.raises(DataError, match=r"1 worded differently under the same id \(nq/q0\)"):
        require_same_questions(
            {
                "a": [a_score(dataset="nq")],
                "b": [a_score(dataset="nq", question="q0", answers=("Ada",)), _reworded()],
            }
        )


def _reworded() -> Score:
    return replace(a_score(dataset="nq"), question="Who is q0?")


def test_same_questions_by_other_methods_in_other_cells_are_the_same() -> None:
    require_same_questions({"a": [a_score()], "b": [a_score("scratchpad", num_documents=20)]})


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("none",), "no score file"),
        (("empty",), "no scores in it"),
        (("run", "run"), "named twice"),
    ],
)
def test_runs_that_cannot_be_read_are_one_line(
    names: Sequence[str], problem: str, tmp_path: Path
) -> None:
    write_run(tmp_path / "empty", [], {})
    write_run(tmp_path / "run", [a_score()], {})
    with pytest.raises(DataError, match=problem):
        write_grid_report([tmp_path / name for name in names], tmp_path / "out", context=CONTEXT)


def test_a_score_file_cut_in_mid_line_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [a_score(), a_score(question="q1")], {})
    file = run / "scores.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert len(read_runs([run]).scores) == 1
    assert len(read_runs([file]).scores) == 1  # the file itself may be named


def test_failures_are_twenty_and_the_same_each_time(run: Path) -> None:
    scores = read_runs([run])
    first, again = (choose_failures(scores, kind_of_failure) for _ in range(2))
    assert first == again
    assert len(first) == FAILURES
    assert len({(f.dataset, f.question) for f in first}) == FAILURES
    assert {f.method for f in first} == {"sft", "scratchpad"}  # no bounds and no probes
    assert {f.dataset for f in first} == {"nq", "hotpotqa"}


def test_failures_do_not_depend_on_the_order_of_the_file(run: Path) -> None:
    grid_scores = read_runs([run])
    turned = replace(grid_scores, scores=tuple(reversed(grid_scores.scores)))
    key = lambda f: (f.dataset, f.question, f.method)  # noqa: E731
    first, second = (
        sorted(choose_failures(one, kind_of_failure), key=key) for one in (grid_scores, turned)
    )
    assert [key(f) for f in first] == [key(f) for f in second]


def test_what_counts_as_a_failure() -> None:
    quoting = {"quote_recall": 1.0, "quote_precision": 1.0, "method": "scratchpad"}
    assert kind_of_failure(a_score()) == ""
    assert kind_of_failure(a_score(right=False)) == "wrong answer, no quotes"
    assert kind_of_failure(a_score(right=False, **quoting)) == "right passage, wrong answer"
    missed = quoting | {"quote_recall": 0.5}
    assert kind_of_failure(a_score(right=False, **missed)) == "wrong passage quoted, or none"
    silent = a_score(right=False, gold_positions=(), abstained=True)
    assert kind_of_failure(silent) == ""  # rightly
    assert kind_of_failure(replace(silent, abstained=False)) == FALSE_QUOTE


def test_quotes_are_marked_in_their_passage() -> None:
    quotes = [
        Quote("is red", "Rose", 0, 3, 9, verbatim=True),
        Quote("red and", "Rose", 0, 6, 13, verbatim=False),  # overlaps
        Quote("", "Rose", 0, 0, 0, verbatim=False),  # only a title
    ]
    pieces = mark_passage("It is red and old.", quotes)
    assert [(p.text, p.kind) for p in pieces] == [
        ("It ", ""),
        ("is red", "verbatim"),
        (" and", "altered"),
        (" old.", ""),
    ]
    assert "".join(p.text for p in mark_passage("Short.", quotes)) == "Short."


def test_gold_passages_are_labelled_and_shown_with_the_quoted_ones(tmp_path: Path) -> None:
    scores, passages = grid(("nq",), ("sft", "scratchpad"), (5,), questions=30)
    run = write_run(tmp_path / "run", scores, passages)
    failures = choose_failures(read_runs([run]), kind_of_failure)
    shown = [f for f in failures if "gold at" in f.place]
    assert shown
    for failure in shown:
        assert [p.gold for p in failure.sources].count(True) == 1
        assert len(failure.sources) + len(failure.others) == 5
    wrong = [f for f in shown if f.kind == "wrong passage quoted, or none" and len(f.sources) == 2]
    assert {(p.gold, p.quoted) for f in wrong for p in f.sources} == {(True, False), (False, True)}


def test_a_run_without_passages_marks_the_output_alone(tmp_path: Path) -> None:
    scores, _ = grid(("nq",), ("scratchpad",), (5,), questions=10)
    run = write_run(tmp_path / "run", scores, {})
    failures = choose_failures(read_runs([run]), kind_of_failure)
    assert all(f.unknown and not f.sources for f in failures)
    assert any(p.kind == "verbatim" for f in failures for p in f.output)


def test_settings_come_from_the_config_and_nothing_secret_does(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [a_score()], {})
    (run / "grid.yaml").write_text(
        "model_name: tiny\nmodel: {pretrained_model_name_or_path: org/tiny}\nseed: 3\n"
        "methods: [sft, scratchpad]\nhub_token: hf_secret\n"
        "generate: {backend: native, api_key_env: KEY}\n"
        "datasets: {nq: {experiment: nq_lim, total_docs: [5, 10], data: {path: x}}}\n"
    )
    settings = run_settings({"run": run})
    assert settings["Model"] == "tiny (org/tiny)"
    assert settings["Seed"] == "3"
    assert settings["Data set nq"] == "experiment nq_lim; documents 5, 10"
    assert not re.search("secret|KEY", str(settings))
    assert "a: Model" in run_settings({"a": run, "b": run})


def test_findings_call_nothing_real_that_is_not(tmp_path: Path) -> None:
    """The same answers from two methods: no difference, no loss."""
    scores = [
        a_score(method, f"q{q}", right=q % 2 == 0, gold_positions=(at,), num_documents=n)
        for method in ("sft", "scratchpad")
        for q in range(20)
        for n, places in ((5, (0, 4)), (10, (0, 9)))
        for at in places
    ]
    run = write_run(tmp_path / "run", scores, {})
    grid_scores = read_runs([run])
    (finding,) = verdicts.findings(measure(grid_scores), grid_scores.names)
    told = dict(finding.points)
    assert "which chance may explain" in told["Accuracy"]
    assert "not distinguishable from none" in told["Position"]
    assert "not distinguishable from none" in told["Length"]
    assert "beyond chance" not in " ".join(told.values())


def test_findings_say_what_is_clear(tmp_path: Path) -> None:
    """Scratchpad is always right; SFT only where the gold passage is first, among 5."""
    scores = [
        a_score(
            method,
            f"q{q}",
            right=method == "scratchpad" or (at == 0 and n == 5),
            gold_positions=(at,),
            num_documents=n,
        )
        for method in ("sft", "scratchpad")
        for q in range(40)
        for n, places in ((5, (0, 4)), (20, (0, 19)))
        for at in places
    ]
    run = write_run(tmp_path / "run", scores, {})
    grid_scores = read_runs([run])
    (measures,) = measure(grid_scores)
    assert measures.best() == "scratchpad"
    told = dict(verdicts.findings([measures], grid_scores.names)[0].points)
    assert "It is 75.0 points ahead of SFT, the next one" in told["Accuracy"]
    assert "more than chance explains" in told["Accuracy"]
    sft = next(r for r in measures.robustness if r.method == "sft")
    at_five = next(p for p in sft.positions if p.num_documents == 5)
    assert verdicts.drop_is_real(at_five)
    assert at_five.drop.estimate == pytest.approx(1.0)
    assert sft.length is not None
    # From one half to nothing over two doublings.
    assert sft.length.slope.estimate == pytest.approx(-0.25)
    assert "Scratchpad by 0.0 points (0.0 to 0.0), not distinguishable" in told["Length"]


def test_the_lead_counts_data_sets() -> None:
    assert verdicts._share(0, 3) == "none of 3"
    assert verdicts._share(2, 2) == "both"


def test_latex_is_taken_literally() -> None:
    assert escape("50%_of $x^2$ & {y}~\\z #1") == (
        r"50\%\_of \$x\textasciicircum{}2\$ \& \{y\}\textasciitilde{}\textbackslash{}z \#1"
    )


def test_latex_tables_are_whole(out: Path) -> None:
    for name in ("table.tex", "paired.tex"):
        text = (out / name).read_text()
        assert text.count(r"\begin{") == text.count(r"\end{") == 2
        columns = re.search(r"\\begin\{tabular\}\{@\{\}(\w+)@\{\}\}", text)
        assert columns is not None
        rows = [line for line in text.splitlines() if line.endswith(r" \\")]
        assert len(rows) > 3
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns[1]) - 1}
        depth = 0
        for character in re.sub(r"\\[{}\\]", "", text):
            depth += (character == "{") - (character == "}")
            assert depth >= 0
        assert depth == 0


def test_heat_maps_have_a_contrast_that_reads() -> None:
    css = (Path(curves.__file__).parent / "templates" / "grid.css").read_text()
    rules = re.findall(r"\.h(\d) \{ background: (#\w+); color: (#\w+)", css)
    assert [number for number, *_ in rules] == list("012345")
    for _, back, ink in rules:
        assert _contrast(back, ink) >= 4.5
    lightness = [_luminance(back) for _, back, _ in rules]
    assert lightness == sorted(lightness, reverse=True)


def test_numbers_in_the_files_heat_map_have_a_contrast_that_reads() -> None:
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    colours = LinearSegmentedColormap.from_list("shades", curves.SHADES)
    for step in range(101):
        back = colours(step / 100)
        assert _contrast(to_hex(back), to_hex(curves.ink_on(back))) >= 4.5


@pytest.mark.parametrize("theme", range(3))  # day, night, print
def test_numbers_on_bars_have_a_contrast_that_reads(theme: int) -> None:
    css = (Path(curves.__file__).parent / "templates" / "report.css").read_text()

    def themed(colour: str) -> str:
        if colour not in THEME:
            return colour
        found = re.findall(rf"{THEME[colour]}: (#\w+)", css)
        assert len(found) == 3
        return str(found[theme])

    for fill in marks.OUTCOMES.values():
        back = marks.SURFACE if fill.hatch else fill.face  # on a hatch numbers have a ground
        assert _contrast(themed(fill.text), themed(back)) >= 4.5


def _luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    full = colour if len(colour) == 7 else "#" + "".join(2 * c for c in colour[1:])
    parts = [int(full[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_document_axis_is_in_doublings(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", *grid(("nq",), ("sft",), (5, 10, 20), questions=8))
    grid_scores = read_runs([run])
    (measures,) = measure(grid_scores)
    figure = curves.document_figure(measures, grid_scores.names)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    places = [axes.transData.transform((n, 0.5))[0] for n in (5, 10, 20)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1])
    assert math.log2(20 / 5) == 2


def test_names_of_runs() -> None:
    names = Names(("135M", "360M"))
    key = names.key("scratchpad", "360M")
    assert (names.base(key), names.run(key)) == ("scratchpad", "360M")
    alone = Names(("run",))
    assert (alone.key("a.b", "run"), alone.base("a.b"), alone.run("a.b")) == ("a.b", "a.b", "run")


def test_a_data_set_as_retrieved_is_judged_by_those_cells(tmp_path: Path) -> None:
    scores, passages = grid(("nq",), ("closed_book", "sft", "scratchpad"), (5, 10), questions=30)
    retrieved = [
        replace(s, dataset="nq_as_retrieved")
        for s in scores
        if s.passage_order == "retrieved" or s.method == "closed_book"
    ]
    run = write_run(tmp_path / "run", [*scores, *retrieved], passages)
    grid_scores = read_runs([run])
    inserted, found = measure(grid_scores)
    own = [s.subspan_exact_match for s in retrieved if s.method == "sft"]
    assert found.accuracy["sft"].estimate == pytest.approx(sum(own) / len(own))
    assert inserted.accuracy["sft"].n == 30 * 10
    assert {(c.method, c.baseline) for c in found.pooled} == {
        ("scratchpad", "closed_book"),
        ("scratchpad", "sft"),
    }
    assert verdicts.title_of(found.dataset) == "Natural Questions, as retrieved"
    told = dict(verdicts.findings([found], grid_scores.names)[0].points)
    assert "2 cells of 30 questions with the passages as retrieved" in told["Accuracy"]
    assert verdicts.lead([inserted, found], grid_scores.names) == ""  # the same questions twice


def test_a_run_that_goes_on_is_not_touched(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", *grid(("nq",), ("sft",), (5,), questions=3))
    for name in ("scores.jsonl", "passages.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"id": "half a li')
    before = [(run / name).read_bytes() for name in ("scores.jsonl", "passages.jsonl")]
    assert len(read_runs([run]).scores) == 3 * 7
    assert [(run / name).read_bytes() for name in ("scores.jsonl", "passages.jsonl")] == before


def test_a_figure_that_would_show_nothing_is_left_out(tmp_path: Path) -> None:
    scores, passages = grid(("nq",), ("sft",), (5,), questions=8, places=2)  # it never abstains
    run = write_run(tmp_path / "run", scores, passages)
    page = Page(write_grid_report([run], tmp_path / "out", context=CONTEXT))
    files = {path.stem for path in (tmp_path / "out").iterdir()}
    assert not files & {"no_gold", "cost"}  # one method has nothing to be held against
    assert "What if no passage answers?" in page.text
    assert "★" not in "".join(cell for row in page.rows for cell in row)
    assert "Points gained" not in page.text


def test_names_and_numbers_stay_within_their_figures() -> None:
    whole, narrow = Interval(0.5, 0.0, 1.0, 3), Interval(0.97, 0.93, 1.0, 30)
    rows = [marks.Dots("A method of a rather long name · 360M", (whole, None, narrow, whole))]
    dots = marks.dot_figure(rows, marks.RETRIEVED_MARKS, "Accuracy", key=True)
    points = [
        marks.Point(method, Interval(x, x, x, 1), Interval(y, y - 0.1, y + 0.1, 30))
        for method, x, y in (("sft", 20, 0.5), ("scratchpad", 30, 0.5), ("zero_shot", 30, 0.49))
    ]
    scatter = marks.scatter_figure(points, Names(("run",)), "New tokens", "Accuracy", log=True)
    assert len(scatter.axes[0].get_xticks()) >= 2
    for figure in (dots, scatter):
        figure.canvas.draw()
        box, inside = figure.get_tightbbox(), figure.bbox_inches
        assert box.x0 >= -0.01
        assert box.x1 <= inside.width + 0.01
        assert box.y0 >= -0.01
        assert box.y1 <= inside.height + 0.01
