from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from scratchpad_rag.evaluate.summary import summarise
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.prompts.template import ChatMarkers, Wording
from scratchpad_rag.records import Example, Method, Passage, Score, ScratchpadForm
from scratchpad_rag.report.card import CardFacts, Exported, Measured, make_card

CHAT = Wording(chat=ChatMarkers("<sys>", "</sys><user>", "</user><assistant>", "</assistant>"))
FACTS = CardFacts(
    title="tiny scratchpad reader",
    method=Method.SCRATCHPAD,
    model_name="tiny",
    base="someone/tiny",
    wording=CHAT,
    lora={"r": 8, "target_modules": ["q_proj", "v_proj"]},
    trainings=({"lr": "0.0005", "num_train_samples": "240"},),
    exported=Exported(merged=True, gguf="tiny-f16.gguf", adapter="adapter", max_lora_rank=8),
    base_model="someone/tiny",
    license="apache-2.0",
)


def score(method: str, number: int, right: float, gold: int = 0) -> Score:
    return Score(
        method=method,
        example_id=f"q{number}",
        question="?",
        answers=("1895",),
        num_documents=5,
        gold_positions=(gold,),
        prediction="1895",
        completion="1895",
        quotes=(),
        parsed=True,
        subspan_exact_match=right,
        exact_match=right,
        f1=right,
        completion_subspan_exact_match=right,
        quote_precision=None,
        quote_recall=None,
        verbatim_rate=None,
        prompt_tokens=100,
        new_tokens=10,
        forward_passes=4,
        wall_seconds=0.5,
    )


def metadata(card: ModelCard) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(str(card).split("---")[1])
    return loaded


def test_the_hub_reads_the_metadata(tmp_path: Path) -> None:
    make_card(FACTS).save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data.to_dict()
    assert data["base_model"] == "someone/tiny"
    assert data["license"] == "apache-2.0"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert {"rag", "question-answering", "gguf"} <= set(data["tags"])


def test_what_is_not_known_is_not_said() -> None:
    bare = replace(FACTS, base_model=None, license=None, trainings=(), lora={})
    card = make_card(bare)
    assert not {"base_model", "license"} & set(metadata(card))
    text = str(card)
    assert "License: not known" in text
    assert "| Setting |" not in text
    assert "does not tell its settings" in text or "with these settings" not in text
    assert "Nothing was measured for this card." in text
    assert "%" not in text.split("## How it was measured")[1]


@pytest.mark.parametrize(
    ("exported", "library", "shown", "hidden"),
    [
        (Exported(merged=True), "transformers", "AutoModelForCausalLM", "ollama"),
        (Exported(gguf="x-f16.gguf"), "gguf", "ollama create", "AutoModelForCausalLM"),
        (Exported(adapter="adapter", max_lora_rank=16), "peft", "--max-lora-rank 16", "ollama"),
    ],
)
def test_only_what_lies_there_is_explained(
    exported: Exported, library: str, shown: str, hidden: str
) -> None:
    card = make_card(replace(FACTS, exported=exported))
    assert metadata(card)["library_name"] == library
    assert shown in str(card)
    assert hidden not in str(card)


@pytest.mark.parametrize("wording", [Wording(), CHAT])
def test_the_layout_is_the_prompt_itself(wording: Wording) -> None:
    passages = (Passage("<title 1>", "<text 1>"), Passage("<title 2>", "<text 2>"))
    prompt = render_prompt(Example("q", "<question>", (), passages, ()), wording)
    text = str(make_card(replace(FACTS, wording=wording)))
    assert f"```text\n{prompt.text}\n```" in text
    written = "Document (Title: <title 2>) <text 2>\n\nQuestion: <question>?\n\nAnswer: <answer>\n"
    assert written in text
    sft = str(make_card(replace(FACTS, wording=wording, method=Method.SFT)))
    assert written not in sft
    assert "<answer>\n```" in sft


def test_another_form_of_scratchpad_is_asked_and_told_as_it_is() -> None:
    plain = str(make_card(FACTS))
    assert "It first quotes the passages" in plain
    assert "ScratchpadForm" not in plain
    text = str(make_card(replace(FACTS, wording=replace(CHAT, form=ScratchpadForm.INDEX))))
    assert "It first numbers and quotes the passages" in text
    assert "Document [1](Title: <title 1>) <text 1>" in text
    code = text.split("from the merged weights:")[1].split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert 'ScratchpadForm("index")' in code
    assert "wording=loaded.wording.writing(method, form)" in code


def test_settings_stand_in_a_table() -> None:
    text = str(make_card(replace(FACTS, trainings=({"data": "a|b\nc"},))))
    assert "| LoRA `r` | 8 |" in text
    assert "| LoRA `target_modules` | q_proj, v_proj |" in text
    assert "| `data` | a\\|b c |" in text


def test_stages_of_training_stand_side_by_side() -> None:
    stages = ({"lr": "0.1", "train_passages": "sentences"}, {"lr": "0.2", "seed": "1"})
    text = str(make_card(replace(FACTS, trainings=stages)))
    assert "these settings, each stage going on from the one before:" in text
    table = text[text.index("| Setting | Stage 1 | Stage 2 |") :].split("\n\n")[0].splitlines()
    assert table[1] == "| --- | --- | --- |"
    assert "| LoRA `r` | 8 | 8 |" in table
    assert table[-3:] == [
        "| `lr` | 0.1 | 0.2 |",
        "| `train_passages` | sentences | – |",
        "| `seed` | – | 1 |",
    ]


def test_the_measured_table() -> None:
    scores = [score("sft", n, 0.0) for n in range(4)]
    scores += [score("scratchpad", n, float(n < 3)) for n in range(4)]
    measured = Measured("quickstart", summarise(scores), "scratchpad", {"documents shown": "5"})
    text = str(make_card(replace(FACTS, measured=measured)))
    assert "Scores of the run `quickstart`." in text
    assert "This reader is the row **Scratchpad**." in text
    assert "| `documents shown` | 5 |" in text
    rows = [line for line in text.splitlines() if line.startswith(("| Scratchpad |", "| SFT |"))]
    assert len(rows) == 2
    assert rows[1].startswith("| Scratchpad | 75% (")  # 3 of 4, with its interval
    assert rows[0].startswith("| SFT | 0% (")
    assert "Nothing was measured" not in text
    unknown = str(make_card(replace(FACTS, measured=replace(measured, row=None))))
    assert "does not tell which checkpoint" in unknown


def test_a_repository_is_downloaded_by_its_name() -> None:
    text = str(make_card(replace(FACTS, repo_id="me/reader")))
    assert "hf download me/reader --local-dir reader" in text
    assert 'Reader.load("reader/adapter", "tiny")' in text
    assert 'AutoModelForCausalLM.from_pretrained("me/reader")' in text
    assert "PATH_OF_THIS_FOLDER" not in text
