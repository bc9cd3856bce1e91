from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from scratchpad_rag.records import Region
from scratchpad_rag.report.training import loss_plot, write_loss_plot

LOG = [
    {
        "step": 5,
        "loss": 2.0,
        **{f"loss_{region}": 1.0 + 0.1 * n for n, region in enumerate(Region)},
    },
    {"step": 8, "eval_score": 0.5, "eval_subspan_exact_match": 0.25},
    {"step": 10, "loss": 1.0, "loss_answer": 0.5},
]


def test_every_region_that_is_logged_is_drawn() -> None:
    figure = loss_plot(LOG)
    losses, scores = figure.axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in losses.get_lines()}
    assert drawn["all scored tokens"] == [[5, 2.0], [10, 1.0]]
    assert drawn["answer"] == [[5, 1.0 + 0.1 * list(Region).index(Region.ANSWER)], [10, 0.5]]
    assert set(drawn) == {"all scored tokens", *(region.value for region in Region)}
    colours = {line.get_color() for line in losses.get_lines()}
    assert len(colours) == len(drawn)
    (line,) = scores.get_lines()
    assert line.get_xydata().tolist() == [[8, 0.25]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*drawn, line.get_label()]


def test_without_validation_there_is_one_scale() -> None:
    assert len(loss_plot(LOG[:1]).axes) == 1


def test_the_file_is_an_svg_or_none(tmp_path: Path) -> None:
    write_loss_plot(LOG, tmp_path / "loss.svg")
    root = ET.parse(tmp_path / "loss.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    write_loss_plot([LOG[1]], tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()
