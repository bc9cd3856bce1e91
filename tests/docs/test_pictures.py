"""The pictures of docs/concepts: that they are what the code draws now, from what it does now."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from scratchpad_rag.prompts.render import render_sample
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import Example, LossRegion, Method, Passage

DOCS = Path(__file__).parent.parent.parent / "docs"
IMAGES = DOCS / "images"
RECORDED = json.loads((IMAGES / "drafts.json").read_text(encoding="utf-8"))
SVG = "{http://www.w3.org/2000/svg}"
NAMES = ("position-curve", "sample-format", "copy-decoder", "copy-decoder-passes")


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """The scripts of docs/images import each other by name, as they do when they are run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(IMAGES))
        before = set(sys.modules)
        yield
        for name in set(sys.modules) - before:
            if Path(getattr(sys.modules[name], "__file__", None) or "").parent == IMAGES:
                del sys.modules[name]


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


def kept(trace: dict[str, Any]) -> list[str]:
    return [word for one in trace["passes"] for word in one["kept"]]


def table_row(page: str, first: str) -> list[str]:
    """The cells of a page's table row by what stands in its first one, bold or not."""
    text = (DOCS / page).read_text(encoding="utf-8")
    [row] = re.findall(rf"^\| {re.escape(first)} \|(.*)\|$", text, re.M)
    return [cell.strip() for cell in row.split("|")]


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_what_is_drawn(name: str) -> None:
    drawn = script("make").PICTURES[f"{name}.svg"]()
    assert (IMAGES / f"{name}.svg").read_text(encoding="utf-8") == drawn, (
        "run: python docs/images/make.py"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_stands_alone_and_says_what_it_shows(name: str) -> None:
    text = (IMAGES / f"{name}.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert (root.findtext(f"{SVG}title") or "").strip()
    assert len(root.findtext(f"{SVG}desc") or "") > 80
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"href|url\(|@import|<script|<image", text)
    if "animation" in text:  # and nobody has to see it move
        assert "prefers-reduced-motion" in text


# --- The sample


def test_the_samples_rows() -> None:
    rows = script("sample_picture").rows()
    every, behind = {LossRegion.SAMPLE}, {LossRegion.SAMPLE, LossRegion.COMPLETION}
    assert [(row.name, set(loss)) for row, loss in rows] == [
        ("system", every),
        ("scaffold", every),
        ("question", every),
        ("scaffold", every),
        ("context 0", every),
        ("scaffold", every),
        ("context 1", every),
        ("scaffold", every),
        ("context 2", every),
        ("scaffold", every),
        ("question", every),
        ("scaffold", every),
        ("scaffold", behind),
        ("scratchpad 1", behind),
        ("scaffold", behind),
        ("question", behind),
        ("scaffold", behind),
        ("answer", set(LossRegion)),
        ("answer", set(LossRegion)),
    ]
    texts = [row.text for row, _ in rows]
    assert texts[11:13] == ["\n\nAnswer:", " "]
    assert texts[-2:] == [" Ida Holm", "(end of sequence)"]


@pytest.mark.parametrize("region", list(LossRegion))
def test_the_bars_are_the_labels(region: LossRegion, byte_level_tokenizer: Any) -> None:
    """In tokens, by the code that makes the labels; the first token is never learnt."""
    from scratchpad_rag.tokens.encode import encode_sample, learned_spans

    picture = script("sample_picture")
    sample = picture.sample()
    encoded = encode_sample(sample, byte_level_tokenizer, region, 2)
    spans = learned_spans(sample, encoded, byte_level_tokenizer)
    starts = {
        LossRegion.SAMPLE: 0,
        LossRegion.COMPLETION: sample.prompt_end,
        LossRegion.ANSWER: sample.text.rindex(" Ida Holm"),
    }
    assert [spans[0][0], spans[-1][1]] == [starts[region], len(sample.text)]


def test_the_layout_on_the_page_is_letter_for_letter() -> None:
    passages = (Passage("<title>", "<text>"), Passage("<title>", "<text>"))
    example = Example("q", "<Question>", ("<answer>",), passages, (0,))
    sample = render_sample(example, Wording(system="<system sentence>"), Method.SCRATCHPAD)
    page = (DOCS / "concepts/sample-format.md").read_text(encoding="utf-8")
    assert f"```\n{sample.text}<end of sequence>\n```" in page


def test_chat_markers_on_the_page_are_the_models(smollm2_folder: Path) -> None:
    from transformers import AutoTokenizer

    from scratchpad_rag.prompts.template import choose_wording

    chat = choose_wording(AutoTokenizer.from_pretrained(smollm2_folder), "auto").chat
    assert chat is not None
    assert chat.between is not None
    page = (DOCS / "concepts/sample-format.md").read_text(encoding="utf-8")
    for marker in (f"{chat.before_system}<system", f"{chat.between}Question", "Answer:"):
        assert marker.replace("\n", "⏎") in page
    assert f"Answer:{chat.before_completion}".replace("\n", "⏎") in page


# --- The curve


def test_the_curves_figures_are_the_pages() -> None:
    curve = script("curve_picture")
    page = "concepts/position-curve.md"
    rows = {name: table_row(page, name) for name in curve.PUBLISHED}
    for name, values in curve.PUBLISHED.items():
        assert [float(cell) for cell in rows[name][:5]] == list(values)
    closed_book, gold_only = rows["GPT-3.5-Turbo"][5:]
    assert (float(closed_book), float(gold_only)) == (curve.CLOSED_BOOK, curve.GOLD_ONLY)
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    by_place = text[text.index("first, in the middle, last") :]
    named = {"gold quotes forced": "Scratchpad, gold quotes forced"}
    for name, values in curve.HERE.items():
        [cell] = re.findall(rf"^\| {named.get(name, name)} \| ([\d /]+) \|", by_place, re.M)[:1]
        assert tuple(map(int, cell.split(" / "))) == values
    assert re.search(rf"^\| Gold only \| {curve.HERE_GOLD_ONLY} \|", text, re.M)


def test_the_intervals_of_twenty_questions() -> None:
    """None of 20 right: Clopper and Pearson's 1 - 0.025^(1/20) = 0.168; the page says 17 to 44."""
    curve = script("curve_picture")
    none = curve.interval(0, 20)
    assert (none.low, round(none.high, 3)) == (0.0, 0.168)
    widths = [
        found.high - found.low
        for values in curve.HERE.values()
        for found in (curve.interval(value, 20) for value in values)
    ]
    assert [round(100 * width) for width in (min(widths), max(widths))] == [17, 44]


# --- The decoder


def test_drafts_change_no_token() -> None:
    plain = RECORDED["plain"]
    assert len(plain) == RECORDED["free"]["new_tokens"] == 165
    assert kept(RECORDED["free"]) == plain
    assert kept(RECORDED["verbatim"]) == plain


def test_what_is_accepted_is_kept() -> None:
    for trace in (RECORDED["free"], RECORDED["verbatim"]):
        for one in trace["passes"]:
            held = one["accepted"]
            assert one["kept"][:-1] == one["drafted"][:held]
            assert one["drafted"][held : held + 1] != one["kept"][-1:]
            assert len(one["kinds"]) == len(one["drafted"])


def test_what_the_page_says_of_the_passes() -> None:
    counts = [(len(one["drafted"]), one["accepted"]) for one in RECORDED["free"]["passes"]]
    assert counts == [(4, 4), (89, 89), (40, 40), (23, 23), (3, 3), (5, 0)]
    assert len(RECORDED["verbatim"]["passes"]) == 5
    own = [one["kept"][-1] for one in RECORDED["free"]["passes"]]
    assert own == [" Ul", " g", "Question", " Bren", " Cross", "<|im_end|>"]
    assert RECORDED["free"]["passes"][-1]["drafted"] == [",", " the", " Ul", "f", "by"]
    page = (DOCS / "concepts/copy-decoder.md").read_text(encoding="utf-8")
    assert RECORDED["question"] in page
    assert "".join(RECORDED["plain"]).endswith("Answer: Brennfjell Cross<|im_end|>")
    assert RECORDED["answers"] == ["Brennfjell Cross"]


def test_tokens_stand_where_they_are_said_to_come_from() -> None:
    free, passages = RECORDED["free"], RECORDED["passages"]
    traced = 0
    for word, place in zip(kept(free)[:-1], free["places"], strict=True):
        if place is not None and place[2] > 0:
            number, start, end = place
            assert passages[number][1][start:end].strip() == word.strip()
            traced += 1
    assert traced > 100


@pytest.mark.slow
def test_the_answer_is_decoded_so_now(smollm2_folder: Path) -> None:
    """With the weights that are installed; a minute where they have to be converted first."""
    record = script("record")
    reader = record.load_reader()
    example = record.example_of(RECORDED["question"], record.TOTAL_DOCS, record.GOLD_AT)
    assert [[p.title, p.text] for p in example.passages] == RECORDED["passages"]
    for name in ("free", "verbatim"):
        now = record.trace(reader, example, verbatim=name == "verbatim")
        assert json.loads(json.dumps(now)) == RECORDED[name]
    with pytest.MonkeyPatch.context() as patch:  # the first tokens: each takes a pass
        patch.setattr(record, "MOST_NEW_TOKENS", 12)
        assert record.plain(reader, example) == RECORDED["plain"][:12]
