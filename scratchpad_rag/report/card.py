"""The model card of an exported reader: how it was trained, asked and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, StrictUndefined

from scratchpad_rag.evaluate.summary import MethodSummary
from scratchpad_rag.prompts.render import render_sample
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import Example, Method, Passage, Rendered, ScratchpadForm
from scratchpad_rag.report.labels import method_name
from scratchpad_rag.report.tables import markdown_table

_TEMPLATE = Path(__file__).parent / "templates" / "card.md.j2"
_FOLDER = "PATH_OF_THIS_FOLDER"  # in the examples, where no repository is named
_DOES = {
    ScratchpadForm.PASSAGE: "quotes",
    ScratchpadForm.TITLE: "names by their titles",
    ScratchpadForm.SENTENCE: "quotes supporting sentences of",
    ScratchpadForm.INDEX: "numbers and quotes",
}
_TAGS = ("question-answering", "retrieval-augmented-generation", "rag", "lora", "scratchpad-rag")


@dataclass(frozen=True)
class Measured:
    """The scores of a run, and which of its rows is the reader itself; None: it does not tell."""

    run: str
    summaries: Sequence[MethodSummary]
    row: str | None
    samples: Mapping[str, str] = field(default_factory=dict)  # what was asked, setting by setting


@dataclass(frozen=True)
class Exported:
    """What lies in the folder beside the card; None where a format was not asked for."""

    merged: bool = False
    gguf: str | None = None  # the file's name
    adapter: str | None = None  # the folder's name
    max_lora_rank: int | None = None  # what vLLM is to be told for the adapter


@dataclass(frozen=True)
class CardFacts:
    """What is known of a reader. Nothing is filled in that is not known."""

    title: str
    method: Method
    model_name: str  # the model config that it was trained with
    base: str  # where its weights come from, as the model config says
    wording: Wording
    lora: Mapping[str, Any]
    trainings: Sequence[Mapping[str, Any]]  # first to last, each going on from the one before
    exported: Exported
    base_model: str | None = None  # a Hub id
    license: str | None = None
    repo_id: str | None = None
    measured: Measured | None = None


def make_card(facts: CardFacts) -> ModelCard:
    """The card, with the metadata that the Hub reads at its head."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    body = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        facts=facts,
        place=facts.repo_id or _FOLDER,
        folder="reader" if facts.repo_id else _FOLDER,
        quotes=facts.method is Method.SCRATCHPAD,
        form=facts.wording.form.value,
        does=_DOES[facts.wording.form],
        prompt_format="plain" if facts.wording.chat is None else "chat",
        layout=_layout(facts.wording, facts.method),
        lora=_settings(facts.lora),
        trainings=_side_by_side(facts.trainings),
        table=markdown_table(facts.measured.summaries) if facts.measured else "",
        row=method_name(facts.measured.row) if facts.measured and facts.measured.row else None,
        samples=_settings(facts.measured.samples) if facts.measured else (),
    )
    return ModelCard(f"---\n{_metadata(facts).to_yaml()}\n---\n\n{body}")


def _side_by_side(trainings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Each setting with its value in every training, an en dash where it had none."""
    tables = [dict(_settings(training)) for training in trainings]
    names = dict.fromkeys(name for table in tables for name in table)
    return [(name, [table.get(name, "–") for table in tables]) for name in names]


def _metadata(facts: CardFacts) -> ModelCardData:
    exported = facts.exported
    library = "transformers" if exported.merged else "peft" if exported.adapter else "gguf"
    tags = [*_TAGS, *(["gguf"] if exported.gguf else [])]
    return ModelCardData(
        base_model=facts.base_model,
        license=facts.license,
        library_name=library,
        pipeline_tag="text-generation",
        tags=tags,
    )


def _layout(wording: Wording, method: Method) -> Rendered:
    """A training sample with words that stand for its parts, as the project itself renders it."""
    passages = (Passage("<title 1>", "<text 1>"), Passage("<title 2>", "<text 2>"))
    example = Example("layout", "<question>", ("<answer>",), passages, (1,))
    return render_sample(example, wording, method)


def _settings(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, _cell(value)) for key, value in values.items()]


def _cell(value: Any) -> str:
    """A value in a cell of a Markdown table."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
