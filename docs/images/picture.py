"""A small SVG writer: text stays text, and a picture is readable on light and on dark pages.

Every picture is a card with a background of its own, in two sets of colours, of which the viewer's
`prefers-color-scheme` takes one. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

from html import escape

CHARACTER = 0.602  # the width of a character of the monospaced fonts, in sizes of the font
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Helvetica, Arial, sans-serif"
# name: (by day, by night). Tints of Okabe and Ito's colours, as in report/regions.py.
COLOURS = {
    "card": ("#ffffff", "#15171c"),
    "edge": ("#d5d8de", "#3a3e47"),
    "ink": ("#1b1c20", "#ecedf1"),
    "muted": ("#5b5f69", "#a8adb8"),
    "grid": ("#e8eaee", "#2b2f37"),
    "blue": ("#0072b2", "#62b6f0"),
    "orange": ("#c25400", "#f2935a"),
    "green": ("#007a59", "#3fcf9f"),
    "purple": ("#a3467c", "#e3a0c8"),
    "red": ("#b3261e", "#ff8f85"),
    "system": ("#d9edf9", "#17384b"),
    "question": ("#f4dfeb", "#4a2c3f"),
    "context": ("#f0f0f2", "#2a2d34"),
    "scratchpad": ("#fbe3c6", "#553a17"),
    "answer": ("#cfeee3", "#124a3a"),
    "scaffold": ("#ffffff", "#1b1e24"),
    "hit": ("#bfe3ff", "#0f4468"),
}


class Picture:
    """Elements in the order in which they are drawn; sizes in pixels."""

    def __init__(self, width: float, height: float, title: str, told: str) -> None:
        """`told` is what the picture shows, for those who do not see it."""
        self.width, self.height = width, height
        self.title, self.told = title, told
        self.body: list[str] = []
        self.styles: list[str] = []

    def add(self, element: str) -> None:
        self.body.append(element)

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str,
        *,
        radius: float = 0,
        more: str = "",
    ) -> None:
        """A filled rectangle; `fill` is the name of a colour."""
        round_ = f' rx="{radius:g}"' if radius else ""
        self.add(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{round_} '
            f'style="fill:var(--{fill})"{more}/>'
        )

    def line(
        self, points: list[tuple[float, float]], stroke: str, width: float = 1, dash: str = ""
    ) -> None:
        """An open line through points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f";stroke-dasharray:{dash}" if dash else ""
        self.add(
            f'<polyline points="{path}" fill="none" '
            f'style="stroke:var(--{stroke});stroke-width:{width:g}{dashes}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 13,
        fill: str = "ink",
        anchor: str = "start",
        bold: bool = False,
        more: str = "",
    ) -> None:
        """A line of text at its baseline."""
        at = "" if anchor == "start" else f' text-anchor="{anchor}"'
        weight = ";font-weight:600" if bold else ""
        self.add(
            f'<text x="{x:.1f}" y="{y:.1f}"{at} '
            f'style="font-size:{size:g}px;fill:var(--{fill}){weight}"{more}>{escape(text)}</text>'
        )

    def mono(
        self, x: float, y: float, text: str, size: float, *, fill: str = "ink", more: str = ""
    ) -> None:
        """Monospaced text that is as wide as its characters on every machine."""
        wide = len(text) * size * CHARACTER
        self.add(
            f'<text class="m" x="{x:.1f}" y="{y:.1f}" textLength="{wide:.1f}" '
            f'style="font-size:{size:g}px;fill:var(--{fill})"{more}>{escape(text)}</text>'
        )

    def svg(self) -> str:
        """The file's text."""
        day = ";".join(f"--{name}:{pair[0]}" for name, pair in COLOURS.items())
        night = ";".join(f"--{name}:{pair[1]}" for name, pair in COLOURS.items())
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'width="{self.width:g}" height="{self.height:g}" role="img" '
            'aria-labelledby="title told">',
            f'<title id="title">{escape(self.title)}</title>',
            f'<desc id="told">{escape(self.told)}</desc>',
            "<style>",
            f"svg{{{day};color-scheme:light dark}}",
            f"@media(prefers-color-scheme:dark){{svg{{{night}}}}}",
            f"text{{font-family:{SANS};white-space:pre}}",
            f".m{{font-family:{MONO}}}",
            *self.styles,
            "</style>",
            f'<rect x="0.5" y="0.5" rx="10" '
            f'width="{self.width - 1:g}" height="{self.height - 1:g}" '
            'style="fill:var(--card);stroke:var(--edge)"/>',
            *self.body,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"
