"""Rendered -> Encoded: character spans become token regions and labels, by the tokenizer's offsets.

Nothing searches the tokens for patterns: where a region begins in tokens follows from where its
characters stand in the one full string.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple, Protocol

from scratchpad_rag.errors import ModelError, SampleTooLongError
from scratchpad_rag.records import Encoded, LossRegion, Region, Rendered

IGNORED = -100
# A fast tokenizer keeps whether it splits special tokens, which another thread would change.
_ONE_AT_A_TIME = Lock()
# So many characters before a cut show a tokenizer that it is none: what joins two passages.
_LEAD = 2


class Tokenizer(Protocol):
    """The part of a transformers fast tokenizer that is used here."""

    is_fast: Any
    eos_token_id: Any
    added_tokens_decoder: Any

    def __call__(self, text: str, **kwargs: Any) -> Any: ...

    def convert_tokens_to_ids(self, tokens: str) -> Any: ...


class Tokens(NamedTuple):
    """Token ids and, for each, the characters `start:end` that it stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


def encode_prompt(rendered: Rendered, tokenizer: Tokenizer) -> list[int]:
    """Token ids of the prompt alone, the same ids that open the encoded sample."""
    return tokenize_prompt(rendered, tokenizer).ids


def tokenize_prompt(rendered: Rendered, tokenizer: Tokenizer) -> Tokens:
    """Token ids of the prompt with the characters that each stands for."""
    return _tokenize(rendered, rendered.prompt, tokenizer)


def tokenize_piece(before: str, piece: str, after: str, tokenizer: Tokenizer) -> list[int]:
    """Token ids of a piece of text as it is tokenized between its neighbours.

    Tokens that reach into a neighbour are not among them.
    """
    return _tokens_within(before, piece, after, tokenizer).ids


def tokenize_exactly(before: str, piece: str, after: str, tokenizer: Tokenizer) -> list[int] | None:
    """The same; None where a token reaches into a neighbour at either end of the piece."""
    tokens = _tokens_within(before, piece, after, tokenizer)
    begin, end = len(before), len(before) + len(piece)
    whole = tokens.ids and (tokens.offsets[0][0], tokens.offsets[-1][1]) == (begin, end)
    return tokens.ids if whole else None


def _tokens_within(before: str, piece: str, after: str, tokenizer: Tokenizer) -> Tokens:
    begin, end = len(before), len(before) + len(piece)
    found = _call(tokenizer, before + piece + after)
    kept = [
        (token, (start, stop))
        for token, (start, stop) in zip(found.ids, found.offsets, strict=True)
        if begin <= start and stop <= end and stop > begin
    ]
    return Tokens([token for token, _ in kept], [offsets for _, offsets in kept])


def tokenize_whole(before: str, piece: str, after: str, tokenizer: Tokenizer) -> list[int] | None:
    """The same for a piece of ASCII; None where a token reaches into a neighbour, or hides where
    it stands."""
    tokens = _call(tokenizer, before + piece + after)
    reached = len(before)
    ids: list[int] = []
    for token, (start, stop) in zip(tokens.ids, tokens.offsets, strict=True):
        if len(before) < stop and start < len(before) + len(piece):
            if start != reached:
                return None
            reached, ids = stop, [*ids, token]
    return ids if reached == len(before) + len(piece) else None


def encode_sample(
    rendered: Rendered, tokenizer: Tokenizer, loss_region: LossRegion, end_token_id: int
) -> Encoded:
    """Token ids, regions and labels of a prompt with its completion.

    Raises ModelError where a token straddles the border of prompt and completion: the prompt
    would then be other tokens in training than in use.
    """
    tokens = _tokenize(rendered, rendered.text, tokenizer)
    regions = token_regions(tokens.offsets, rendered)
    prompt_length = _prompt_length(tokens.offsets, rendered.prompt_end)
    if tokens.ids[:prompt_length] != encode_prompt(rendered, tokenizer):
        raise _joined(rendered)
    ids = tokens.ids
    if rendered.ends:
        ids, regions = [*ids, end_token_id], [*regions, Region.ANSWER]
    labels = make_labels(ids, regions, prompt_length, loss_region)
    choices, turns = (
        tuple(
            index
            for index, (begin, stop) in enumerate(tokens.offsets[prompt_length:], prompt_length)
            if bisect_left(places, begin) < bisect_left(places, stop)
        )
        for places in (rendered.choices, rendered.turns)
    )
    return Encoded(tuple(ids), tuple(labels), tuple(regions), prompt_length, choices, turns)


def count_tokens(rendered: Rendered, tokenizer: Tokenizer) -> int:
    """How many tokens `encode_sample` makes of a sample, in a third of its time.

    Raises ModelError where a token straddles the border of prompt and completion.
    """
    tokens = _tokenize(rendered, rendered.text, tokenizer)
    if any(begin < rendered.prompt_end < stop for begin, stop in tokens.offsets):
        raise _joined(rendered)
    return len(tokens.ids) + rendered.ends


class RegionCounts(NamedTuple):
    """Tokens of a sample: those of the prompt, of all, and of the completion by region."""

    prompt: int
    whole: int
    completion: Counter[Region]


def count_regions(rendered: Rendered, tokenizer: Tokenizer) -> RegionCounts:
    """How many tokens `encode_sample` makes of each part of a sample, without labels or checks."""
    tokens = _tokenize(rendered, rendered.text, tokenizer)
    regions = token_regions(tokens.offsets, rendered)
    prompt = _prompt_length(tokens.offsets, rendered.prompt_end)
    completion = Counter(regions[prompt:])
    completion[Region.ANSWER] += int(rendered.ends)
    return RegionCounts(prompt, len(tokens.ids) + rendered.ends, completion)


def learned_spans(
    rendered: Rendered, encoded: Encoded, tokenizer: Tokenizer
) -> list[tuple[int, int]]:
    """The characters of a sample whose tokens have a label, as ranges in order that do not touch.

    The end of a sequence, which stands for no character, is not among them.
    """
    offsets = _tokenize(rendered, rendered.text, tokenizer).offsets
    spans: list[tuple[int, int]] = []
    for (begin, end), label in zip(offsets, encoded.labels, strict=False):
        if label == IGNORED or end <= begin:
            continue
        if spans and begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((begin, end))
    return spans


def _joined(rendered: Rendered) -> ModelError:
    border = rendered.text[rendered.prompt_end - 12 : rendered.prompt_end + 12]
    return ModelError(f"this tokenizer joins the prompt's end with the completion at {border!r}")


def make_labels(
    ids: Sequence[int], regions: Sequence[Region], prompt_length: int, loss_region: LossRegion
) -> list[int]:
    """Labels at the place of their token (the model shifts them); -100 outside the loss region."""
    if loss_region is LossRegion.SAMPLE:
        return [IGNORED, *ids[1:]]
    if loss_region is LossRegion.COMPLETION:
        return [IGNORED] * prompt_length + list(ids[prompt_length:])
    return [
        token if index >= prompt_length and region is Region.ANSWER else IGNORED
        for index, (token, region) in enumerate(zip(ids, regions, strict=True))
    ]


def token_span(offsets: Sequence[tuple[int, int]], span: tuple[int, int]) -> tuple[int, int]:
    """Smallest token range `first:last` that covers the character span `start:end`.

    >>> token_span([(0, 3), (3, 7), (7, 9)], (4, 8))
    (1, 3)
    """
    start, end = span
    inside = [i for i, (begin, stop) in enumerate(offsets) if stop > start and begin < end]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def token_regions(offsets: Sequence[tuple[int, int]], rendered: Rendered) -> list[Region]:
    """The region of each token: that of its first character.

    A beginning-of-sequence token, which stands for no character, is scaffold.
    """
    starts = [span.start for span in rendered.spans]
    regions = []
    for begin, stop in offsets:
        # Where a tokenizer trims offsets, white space is an empty range behind its characters.
        first = begin if stop > begin else begin - 1
        if first < 0:
            regions.append(Region.SCAFFOLD)
        else:
            regions.append(rendered.spans[bisect_right(starts, first) - 1].region)
    return regions


def _prompt_length(offsets: Sequence[tuple[int, int]], prompt_end: int) -> int:
    ends = [index for index, (_, stop) in enumerate(offsets) if stop > prompt_end]
    return ends[0] if ends else len(offsets)


def _tokenize(rendered: Rendered, text: str, tokenizer: Tokenizer) -> Tokens:
    """Ids and character offsets of `text`, a prefix of the rendered text.

    Special tokens count only where a chat template wrote them: the same characters inside a
    passage or a question are plain text.
    """
    if not tokenizer.is_fast:
        raise ModelError("this model has no fast tokenizer, which character offsets need")
    if not rendered.chat:
        return _call(tokenizer, text, add_special_tokens=True, split_special_tokens=True)
    # Not `all_special_tokens`: that holds only the named ones, such as the end of sequence.
    specials = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    forged = _forged_specials(rendered, len(text), specials)
    tokens = Tokens([], [])
    position = 0
    for start, end in forged:
        _append(tokens, _cut(text, position, start, tokenizer), position)
        _append(tokens, _cut(text, start, end, tokenizer, split_special_tokens=True), start)
        position = end
    _append(tokens, _cut(text, position, len(text), tokenizer), position)
    return tokens


def _forged_specials(
    rendered: Rendered, length: int, specials: Sequence[str]
) -> list[tuple[int, int]]:
    """Spans of content (up to `length`) that hold the text of a special token."""
    return [
        (span.start, span.end)
        for span in rendered.spans
        if span.region is not Region.SCAFFOLD
        and span.end <= length
        and any(token in rendered.text[span.start : span.end] for token in specials)
    ]


def _cut(text: str, start: int, end: int, tokenizer: Tokenizer, **options: Any) -> Tokens:
    """Tokens of `text[start:end]`, begun as they are behind what stands before them.

    Some tokenizers put a space before all that they are given; where a token would reach across
    the cut, the piece is tokenized alone all the same.
    """
    lead = text[max(0, start - _LEAD) : start]
    tokens = _call(tokenizer, lead + text[start:end], **options)
    begins = [begin for begin, _ in tokens.offsets]
    if any(begin < len(lead) < stop for begin, stop in tokens.offsets):
        return _call(tokenizer, text[start:end], **options)
    first = bisect_left(begins, len(lead))
    behind = [(begin - len(lead), stop - len(lead)) for begin, stop in tokens.offsets[first:]]
    return Tokens(tokens.ids[first:], behind)


def _append(tokens: Tokens, more: Tokens, shift: int) -> None:
    tokens.ids.extend(more.ids)
    tokens.offsets.extend((begin + shift, stop + shift) for begin, stop in more.offsets)


def _call(tokenizer: Tokenizer, text: str, **options: Any) -> Tokens:
    if not text:
        return Tokens([], [])
    options = {"add_special_tokens": False, "split_special_tokens": False, **options}
    with _ONE_AT_A_TIME:
        output = tokenizer(text, return_offsets_mapping=True, verbose=False, **options)
    return Tokens(list(output["input_ids"]), [tuple(pair) for pair in output["offset_mapping"]])


def require_fitting(lengths: Sequence[int], context_length: int, answer_tokens: int = 0) -> None:
    """Refuse samples that do not fit the model's context, with how many and the longest.

    `answer_tokens` are kept free behind each prompt for what will be generated.
    Raises SampleTooLongError; nothing is ever cut to fit.
    """
    too_long = [length for length in lengths if length + answer_tokens > context_length]
    if too_long:
        what, room = "samples", ""
        if answer_tokens:
            what, room = "prompts", f" with the {answer_tokens} of --max_new_tokens"
        raise SampleTooLongError(
            f"{len(too_long)} of {len(lengths)} {what}{room} do not fit the model's context of "
            f"{context_length} tokens (the longest has {max(too_long)}); show fewer documents "
            "(--total_docs) or take a model with a longer context"
        )
