"""Where a model's weights come from: its name on the Hub and its license, where they are known."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import gguf
from huggingface_hub import ModelCard, try_to_load_from_cache

from scratchpad_rag.config import ModelConfig
from scratchpad_rag.models.load import gguf_source


class Origin(NamedTuple):
    """What may be said of base weights. `name` shows nothing of this machine's folders."""

    name: str
    base_model: str | None  # a Hub id
    license: str | None


def find_origin(config: ModelConfig) -> Origin:
    """Look into what lies here: a GGUF file's own words, or the model card beside the weights."""
    name = config.pretrained_model_name_or_path
    file = gguf_source(config)
    if file is not None:
        shown = name if name.startswith("package:") else file.name
        return Origin(shown, None, _license_in_gguf(file))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Origin(folder.resolve().name, None, _license_in_card(folder / "README.md"))
    cached = try_to_load_from_cache(
        name, "README.md", cache_dir=config.cache_dir, revision=config.revision
    )
    card = Path(cached) if isinstance(cached, str) else None
    return Origin(name, name, None if card is None else _license_in_card(card))


def _license_in_gguf(file: Path) -> str | None:
    field = gguf.GGUFReader(file).get_field(gguf.Keys.General.LICENSE)
    return None if field is None else str(field.contents())


def _license_in_card(file: Path) -> str | None:
    if not file.is_file():
        return None
    try:
        said = ModelCard.load(file, ignore_metadata_errors=True).data.get("license")
    except ValueError:  # no metadata at its head, or none that is YAML
        return None
    return said if isinstance(said, str) else None
