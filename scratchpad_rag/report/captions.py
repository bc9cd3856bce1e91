"""What a run's configs say about it, for the page: named settings only, never whole files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scratchpad_rag.config import read_yaml
from scratchpad_rag.report.labels import clean, count

GRID_FILE, CONFIG_FILE = "grid.yaml", "config.yaml"
_DATA_KEYS = {
    "experiment": "experiment",
    "total_docs": "documents",
    "gold_at": "gold at",
    "passage_order": "order",
    "questions": "questions",
}


def run_settings(folders: Mapping[str, Path]) -> dict[str, str]:
    """Settings of every run from `grid.yaml`, else `config.yaml`, in its folder; {} without them.

    Where there are several runs each setting is named with its run. Raises ConfigError for a file
    that is no YAML.
    """
    settings: dict[str, str] = {}
    for run, folder in folders.items():
        files = [folder / name for name in (GRID_FILE, CONFIG_FILE) if (folder / name).is_file()]
        if not files:
            continue
        for name, value in _settings(read_yaml(files[0])).items():
            settings[name if len(folders) == 1 else f"{run}: {name}"] = clean(value)
    return settings


def _settings(content: Mapping[str, Any]) -> dict[str, str]:
    model, generate = _mapping(content.get("model")), _mapping(content.get("generate"))
    weights = model.get("pretrained_model_name_or_path")
    told = {
        "Model": " ".join(
            str(v) for v in (content.get("model_name"), weights and f"({weights})") if v
        ),
        "Checkpoints": _pairs(content.get("checkpoints")),
        "Methods": _words(content.get("methods")),
        "Decoding": f"greedy, {generate['backend']} backend" if "backend" in generate else "",
        "Longest scratchpad": _tokens(
            content.get("max_new_tokens", generate.get("max_new_tokens"))
        ),
        "Longest answer alone": _tokens(content.get("answer_tokens")),
        "Seed": _words(content.get("seed", _mapping(content.get("data")).get("seed"))),
    }
    for name, data in _mapping(content.get("datasets")).items():
        known = _mapping(data)
        parts = [f"{label} {_words(known[k])}" for k, label in _DATA_KEYS.items() if known.get(k)]
        told[f"Data set {name}"] = "; ".join(parts)
    data = _mapping(content.get("data"))
    if data:
        told["Questions"] = str(data.get("path") or data.get("name") or "")
        told["Documents shown"] = _words(data.get("total_docs"))
        told["Gold passage at"] = _words(data.get("gold_at"))
    return {name: value for name, value in told.items() if value}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _words(value: object) -> str:
    """A number, a word or a list of them; "" for anything else.

    >>> _words([5, 10, 20]), _words(0), _words(None), _words({"a": 1})
    ('5, 10, 20', '0', '', '')
    """
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_words, value)))
    return str(value) if isinstance(value, str | int | float) else ""


def _pairs(value: object) -> str:
    return ", ".join(f"{name}: {_words(one)}" for name, one in _mapping(value).items())


def _tokens(value: object) -> str:
    return count(value, "token") if isinstance(value, int) else ""
