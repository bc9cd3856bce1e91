"""The style sheet: contrast by day and by night, and nothing from elsewhere."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from scratchpad_rag.app.web.anchors import script, style


def variables(selector: str) -> dict[str, str]:
    match = re.search(re.escape(selector) + r" \{(.*?)\n\}", style(), re.DOTALL)
    assert match is not None
    return dict(re.findall(r"--sp-([a-z-]+):\s*(#[0-9a-f]{6});", match[1]))


THEMES = {"light": variables(":root"), "dark": variables("\n.dark")}


def luminance(colour: str) -> float:
    """Of WCAG 2.2, from `#rrggbb`."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_worked_out_as_the_standard_does() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(
        4.54, abs=0.01
    )  # known from WCAG's texts


TEXT = [
    *((ink, "paper") for ink in ("ink", "muted", "lit", "right", "wrong", "warn")),
    *((ink, "panel") for ink in ("ink", "muted")),
    *(("ink", lit) for lit in ("verbatim", "altered", "invented")),
    *(("paper", badge) for badge in ("lit", "warn", "wrong")),
]
SHAPES = [
    *(
        (shape, "paper")
        for shape in ("edge", "blue", "scratchpad", "zero-shot", "lit", "warn", "wrong")
    ),
    *((shape, "panel") for shape in ("lit", "blue", "muted")),
    ("lit", "verbatim"),
    ("warn", "altered"),
    ("wrong", "invented"),
]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("front", "back"), TEXT)
def test_text_can_be_read(theme: str, front: str, back: str) -> None:
    colours = THEMES[theme]
    assert contrast(colours[front], colours[back]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("front", "back"), SHAPES)
def test_shapes_can_be_seen(theme: str, front: str, back: str) -> None:
    colours = THEMES[theme]
    assert contrast(colours[front], colours[back]) >= 3


def test_both_themes_have_the_same_colours_and_each_is_used() -> None:
    assert THEMES["light"].keys() == THEMES["dark"].keys()
    files = [f for f in (resources.files("scratchpad_rag.app.web")).iterdir() if f.is_file()]
    texts = "".join(file.read_text(encoding="utf-8") for file in files)
    used = set(re.findall(r"var\(--sp-([a-z-]+)", texts))
    assert THEMES["light"].keys() <= used


def test_the_page_begins_in_the_colours_that_it_ends_in() -> None:
    pytest.importorskip("gradio")
    from scratchpad_rag.app.web.dress import theme as theme_of_page

    theme = theme_of_page()
    first = theme.body_background_fill, theme.body_text_color
    assert first == (THEMES["light"]["paper"], THEMES["light"]["ink"])
    night = theme.body_background_fill_dark, theme.body_text_color_dark
    assert night == (THEMES["dark"]["paper"], THEMES["dark"]["ink"])


def test_nothing_comes_from_elsewhere() -> None:
    assert not re.search(r"url\(|@import|@font-face|https?:", style())
    assert not re.search(r"https?:|fetch\(|import\s*\(|innerHTML|eval\(", script())


def test_neither_can_close_the_element_that_it_stands_in() -> None:
    assert "</" not in style() + script()


def test_it_is_calm_for_those_who_ask_for_it() -> None:
    assert "prefers-reduced-motion: reduce" in style()
    assert "prefers-reduced-motion: reduce" in script()
