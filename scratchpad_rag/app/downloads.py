"""`scratchpad-rag data download`: public sets by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scratchpad_rag.app.flags import say
from scratchpad_rag.data.catalogue import CATALOGUE, PublicSet, public_set
from scratchpad_rag.data.obtain import obtain
from scratchpad_rag.errors import ConfigError, DataError

_NQ_LIM = "Natural Questions as Lost in the Middle placed them, 10, 20 or 30 passages"


def set_lines(data_dir: Path) -> Iterator[str]:
    """A line a set: its name, what it is, its licence, and which splits are in `data_dir`."""
    rows = [("nq_lim", _NQ_LIM, "CC-BY-SA-3.0", _lim_here(data_dir))]
    rows += [(s.name, s.about, s.licence, _here(s, data_dir)) for s in CATALOGUE.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[3]])


def _here(chosen: PublicSet, data_dir: Path) -> str:
    there = [split for split in chosen.splits if chosen.found(split, data_dir)]
    return f"here: {', '.join(there)}" if there else "-"


def _lim_here(data_dir: Path) -> str:
    files = list(data_dir.glob("nq-open-*.jsonl.gz"))
    return f"here: {len(files)} files" if files else "-"


def download_set(name: str, split: str, from_hub: bool, data_dir: Path) -> None:
    """Bring a split of a set, or `all`, and say where it lies and under which licence."""
    if name not in CATALOGUE:
        choices = ", ".join(["nq_lim", *CATALOGUE])
        raise DataError(f"unknown data set {name!r}; choose from {choices}")
    chosen = public_set(name)
    if split not in ("train", "val", "all"):
        raise ConfigError(f"unknown split {split!r}; choose from val, train, all")
    for one in chosen.splits if split == "all" else (split,):
        say(str(obtain(chosen, one, say, data_dir, from_hub)))
    say(f"{name}: {chosen.about}; {chosen.licence}, {chosen.page}")
    if chosen.needs_corpus:
        say(
            "its questions name their passages: bring them together with a corpus by"
            " 'scratchpad-rag data build --questions FILE --passages FILE --out FILE'"
        )
