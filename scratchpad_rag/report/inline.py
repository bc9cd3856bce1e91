"""Figures as SVG inside a page: colours follow the page's theme, text is the page's own."""

from __future__ import annotations

import re

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from scratchpad_rag.report import plots

# The page's style sheet gives each of these its colour by day and by night.
THEME = {
    plots.INK: "--ink",
    plots.MUTED: "--muted",
    plots.RULE: "--rule",
    plots.SURFACE: "--paper",
    plots.BLUE: "--blue",
    plots.VERMILLION: "--vermillion",
    plots.GREEN: "--green",
    plots.PURPLE: "--purple",
    plots.ORANGE: "--orange",
    plots.SKY: "--sky",
    plots.STONE: "--stone",
    plots.WINE: "--wine",
}
_COLOUR = re.compile("|".join(THEME))
_UNWANTED = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL)
_FONT = re.compile(r"font: (?:(\w+) )?([\d.]+)px [^;\"]*")


def inline_svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an `<svg>` element that reads out `description`; `name` makes its ids unique.

    It scales to the width that it is given and refers to nothing outside itself.
    """
    svg = plots.svg_text(figure, text_as_paths=False)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None, "matplotlib writes a viewBox"
    body = svg[svg.index(">", view.start()) + 1 : svg.rindex("</svg>")]
    body = _UNWANTED.sub("", body)
    body = _prefix_ids(body, name)
    body = _COLOUR.sub(lambda match: f"var({THEME[match[0]]}, {match[0]})", body)
    body = _FONT.sub(_page_font, body)
    opening = (
        f'<svg class="plot" {view[0]} role="img" aria-label="{escape(description)}" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return Markup(opening + body + "</svg>")  # matplotlib has escaped the names in it


def _prefix_ids(svg: str, name: str) -> str:
    """Ids that something refers to, made unique in the page; the others go."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))

    def keep(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    svg = re.sub(r'\sid="([^"]*)"', keep, svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)


def _page_font(match: re.Match[str]) -> str:
    weight, size = match[1], match[2]
    bold = f"font-weight: {weight}; " if weight else ""
    return f"{bold}font-size: {size}px"
