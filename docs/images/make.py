"""Draw the pictures of docs/concepts.

    python docs/images/make.py

writes the SVG files beside this script, the same each time. What they show comes from the
project's own code (the regions of a sample, intervals) and from drafts.json, an answer of the
shipped reader that `record.py` took down.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import curve_picture
import draft_pictures
import sample_picture

HERE = Path(__file__).parent
PICTURES: dict[str, Callable[[], str]] = {
    "position-curve.svg": curve_picture.draw,
    "sample-format.svg": sample_picture.draw,
    "copy-decoder.svg": draft_pictures.draw_animated,
    "copy-decoder-passes.svg": draft_pictures.draw_passes,
}


def main() -> None:
    """Write every picture."""
    for name, draw in PICTURES.items():
        (HERE / name).write_text(draw(), encoding="utf-8")
        print(HERE / name)


if __name__ == "__main__":
    main()
