"""The tokens of a scratchpad, put together from those of the prompt, are those of a real one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from scratchpad_rag.data.sentences import split_sentences
from scratchpad_rag.decode.grammar import OUTSIDE, Grammar
from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.prompts.render import render_prompt, render_sample
from scratchpad_rag.prompts.template import ChatMarkers, Wording
from scratchpad_rag.records import Example, LossRegion, Method, Passage, ScratchpadForm
from scratchpad_rag.tokens.encode import encode_prompt, encode_sample
from scratchpad_rag.tokens.layout import Layout, encode_layout

# The same examples on every run, however busy the machine.
steady = settings(deadline=None, derandomize=True)

PLAIN = Wording()
CHATML = Wording(
    chat=ChatMarkers(
        "<|im_start|>system\n",
        "<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>",
    )
)
INST = Wording(chat=ChatMarkers("<s>[INST] ", None, " [/INST]", "</s>"))
KINDS = [
    pytest.param(("smollm2_tokenizer", CHATML), id="smollm2-chat"),
    pytest.param(("smollm2_tokenizer", PLAIN), id="smollm2-plain"),
    pytest.param(("byte_level_tokenizer", PLAIN), id="byte-level-plain"),
    pytest.param(("chat_tokenizer", CHATML), id="byte-level-chat"),
    pytest.param(("metaspace_tokenizer", PLAIN), id="metaspace-plain"),
    pytest.param(("metaspace_tokenizer", INST), id="metaspace-inst"),
    pytest.param(("joining_tokenizer", PLAIN), id="joining-plain"),
    pytest.param(("joining_tokenizer", CHATML), id="joining-chat"),
]
ANSWER = "Zz"
END = 2

# How Llama 3 cuts a text into pieces that are tokenized apart: newlines stay with the punctuation
# before them.
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
FORMAT_WORDS = ["\n\n", " Document", "Document", " (", "Title", "Question", "Answer"]


def made_tokenizer(words: Sequence[str], pattern: str | None = None) -> Any:
    """A byte-level BPE whose tokens are bytes and the words given, each merged from left to right.

    Words come before others in the order given. Without a pattern tokens may hold anything.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary = {"<s>": 0, "</s>": 1, "<|im_start|>": 3, "<|im_end|>": 4, "<pad>": 2}
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[letter] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    for word in words:
        [(spelt, _)] = as_bytes.pre_tokenize_str(word)
        for cut in range(1, len(spelt)):
            if (spelt[:cut], spelt[cut]) not in merges:
                merges.append((spelt[:cut], spelt[cut]))
                vocabulary[spelt[: cut + 1]] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = as_bytes
    if pattern is not None:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="module")
def joining_tokenizer() -> Any:
    """Makes one token of a stop and the empty line behind it, and of a space before both."""
    joined = [".\n\n", "!\n\n", '"\n\n', "?\n\n", ")\n\n", '."\n\n', " .\n\n"]
    tokenizer = made_tokenizer([*joined, *FORMAT_WORDS, " The", " It", ". "], LLAMA_3)
    for text in ("built.\n\nDocument", "why?\n\nDocument", 'so!"\n\nDocument'):
        assert tokenizer.decode(tokenizer(text).input_ids[-2]).endswith("\n\n")
        assert len(tokenizer.decode(tokenizer(text).input_ids[-2])) > 2
    return tokenizer


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> tuple[Any, Wording]:
    name, wording = request.param
    return request.getfixturevalue(name), wording


def asked(passages: Sequence[Passage], gold: tuple[int, ...] = ()) -> Example:
    return Example("q", "who built it", (ANSWER,), tuple(passages), gold)


def lay_out(shown: Example, tokenizer: Any, wording: Wording) -> Layout:
    return encode_layout(render_prompt(shown, wording), tokenizer)


def following(layout: Layout, number: int) -> int:
    """The first token of what stands behind a passage and what joins the two."""
    behind = layout.passages[number + 1 :]
    return behind[0].start if behind else layout.question[0]


def quoting(layout: Layout, gold: Sequence[int]) -> list[int]:
    """The tokens of a scratchpad of whole passages, up to `Answer:`, by the layout."""
    tokens = list(layout.opening)
    for count, number in enumerate(gold):
        passage = layout.passages[number]
        first = passage.start if count else passage.body
        tokens += layout.ids[first : following(layout, number)]
    return tokens + list(layout.ids[slice(*layout.question)])


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens, to the letter; behind a word, since decoders strip the first space."""
    word = tokenizer("x", add_special_tokens=False).input_ids
    text = tokenizer.decode([*word, *ids], skip_special_tokens=False)
    assert text.startswith("x")
    return text[1:]


def check_quotes(
    layout: Layout, shown: Example, tokenizer: Any, wording: Wording, gold: tuple[int, ...]
) -> None:
    """Compare with the completion of a sample that was rendered and tokenized as a whole."""
    rendered = render_sample(asked(shown.passages, gold), wording, Method.SCRATCHPAD)
    sample = encode_sample(rendered, tokenizer, LossRegion.SAMPLE, END)
    prompt, completion = sample.input_ids[: sample.prompt_length], sample.input_ids
    assert layout.ids == prompt
    expected = list(completion[sample.prompt_length : -1])
    path = quoting(layout, gold)
    assert path == expected[: len(path)]
    assert decode(tokenizer, expected[len(path) :]).strip() == ANSWER


def check_nothing(layout: Layout, shown: Example, tokenizer: Any, wording: Wording) -> None:
    """Compare with the completion of a sample that abstains, tokenized as a whole."""
    rendered = render_sample(asked(shown.passages), wording, Method.SCRATCHPAD, abstain=True)
    sample = encode_sample(rendered, tokenizer, LossRegion.SAMPLE, END)
    assert layout.ids == sample.input_ids[: sample.prompt_length]
    expected = list(sample.input_ids[sample.prompt_length : -1])
    path = [*layout.nothing, *layout.ids[slice(*layout.question)]]
    assert path == expected[: len(path)]
    assert decode(tokenizer, expected[len(path) :]).strip() == "unanswerable"


def check_sources(layout: Layout, shown: Example, tokenizer: Any) -> None:
    """Each token of a passage says the characters that it is said to stand for."""
    places = [layout.source(token) for token in range(len(layout.ids))]
    for number, passage in enumerate(layout.passages):
        text = shown.passages[number].text
        told = 0
        for token in range(passage.start, passage.end):
            place = places[token]
            assert place is not None
            assert place[0] == number
            assert 0 <= place[1] <= place[2] <= len(text)
            assert place[1] <= told  # no character is left out
            told = max(told, place[2])
            said = decode(tokenizer, [layout.ids[token]])
            if "�" not in said and place[2]:
                assert said in (text[place[1] : place[2]], " " + text[place[1] : place[2]])
        if passage.text > passage.body:
            head = [places[token] for token in range(passage.start, passage.text)]
            assert set(head) == {(number, 0, 0)}
        rest = decode(tokenizer, layout.ids[passage.end : following(layout, number)])
        assert rest.lstrip(" ") == (text[told:] + "\n\n").lstrip(" ")
        for token in range(passage.end, following(layout, number)):
            # One that joins the passage's end with what follows stands for that end.
            if layout.offsets[token][0] >= layout.texts[number][1]:
                assert places[token] is None
                continue
            place = places[token]
            assert place is not None
            assert place[0] == number
            assert place[1] < place[2] == len(text)
            said = decode(tokenizer, [layout.ids[token]])
            assert "�" in said or said.lstrip(" ").startswith(text[place[1] :].lstrip(" "))
    outside = [*range(layout.passages[0].start), *range(layout.question[0], len(layout.ids))]
    assert all(places[token] is None for token in outside)


def check_sentences(layout: Layout, shown: Example, tokenizer: Any) -> None:
    """A title with a run of sentences behind it reads as it would if it were written so."""
    for number, passage in enumerate(layout.passages):
        title, text = shown.passages[number].title, shown.passages[number].text
        ranges = split_sentences(text)
        found = []
        for first, last in passage.sentences:
            assert passage.text <= first < last <= passage.end
            place = layout.source(first)
            assert place is not None
            # The sentence whose first character the token holds.
            found.append(next(i for i, (b, e) in enumerate(ranges) if place[1] <= b < place[2]))
        assert found == sorted(set(found))
        for i, j in combinations([*range(len(found)), len(found)], 2):
            begin, end = ranges[found[i]][0], ranges[found[j - 1]][1]
            first, last = passage.sentences[i][0], passage.sentences[j - 1][1]
            ids = layout.ids[passage.start : passage.text] + layout.ids[first:last]
            expected = f"Document (Title: {title}) {text[begin:end]}"
            if last == passage.end:  # a token may hold its end and what follows
                ids += layout.ids[passage.end : following(layout, number)]
                expected = f"Document (Title: {title}) {text[begin:]}\n\n"
            assert decode(tokenizer, ids) == expected


# --- by hand


BRIDGES = (
    Passage("Marren", "The town lies by the river. It is old."),
    Passage("Corvin (A) b", 'The bridge was built by "Ida Holm".'),
    Passage("Ard", "The river crosses it!"),
)


def test_whole_passages(kind: tuple[Any, Wording]) -> None:
    tokenizer, wording = kind
    shown = asked(BRIDGES)
    layout = lay_out(shown, tokenizer, wording)
    assert layout.problem == ""
    assert list(layout.ids) == encode_prompt(render_prompt(shown, wording), tokenizer)
    for gold in ((0,), (1,), (2,), (0, 1), (2, 0), (1, 2, 0), (2, 1, 0), (0, 1, 2)):
        check_quotes(layout, shown, tokenizer, wording, gold)
    said = decode(tokenizer, quoting(layout, (2, 0)))
    assert said.removeprefix(" ") == (
        "Document (Title: Ard) The river crosses it!\n\n"
        "Document (Title: Marren) The town lies by the river. It is old.\n\n"
        "Question: Who built it?\n\nAnswer:"
    )
    check_nothing(layout, shown, tokenizer, wording)
    said = decode(tokenizer, layout.nothing)
    assert said.removeprefix(" ") == "None of the documents supports an answer.\n\n"
    check_sources(layout, shown, tokenizer)
    check_sentences(layout, shown, tokenizer)


def test_places_are_those_of_words() -> None:
    """Worked out by hand: all tokens are single characters but the format's own words."""
    tokenizer = made_tokenizer([".\n\n", *FORMAT_WORDS])
    shown = asked([Passage("A", "B c. F."), Passage("E", "G")])
    rendered = render_prompt(shown, PLAIN)
    layout = encode_layout(rendered, tokenizer)
    #  Document ( Title : _ A ) _ B _ c . _ F .\n\n Document ( Title : _ E ) _ G \n\n Question
    begin = layout.passages[0].start
    one, two = layout.passages
    assert [place - begin for place in one[:4]] == [0, 1, 8, 14]
    assert [place - begin for place in two[:4]] == [15, 16, 23, 24]
    assert layout.question[0] - begin == 25
    # `B c.` begins behind the title's space. `F` begins with no space of its own, either; the stop
    # behind it is part of what joins the passages.
    assert [(a - begin, b - begin) for a, b in one.sentences] == [(8, 12), (13, 14)]
    assert [(a - begin, b - begin) for a, b in two.sentences] == [(23, 24)]
    assert [layout.source(begin + k) for k in (0, 7, 8, 9, 13, 14, 15, 22, 23, 24)] == [
        (0, 0, 0),
        (0, 0, 0),
        (0, 0, 1),
        (0, 1, 2),
        (0, 5, 6),
        (0, 6, 7),
        (1, 0, 0),
        (1, 0, 0),
        (1, 0, 1),
        None,
    ]
    assert layout.source(begin - 1) is None
    assert decode(tokenizer, layout.ids[slice(*layout.question)]) == (
        "Question: Who built it?\n\nAnswer:"
    )
    assert layout.question[1] == len(layout.ids)  # a plain prompt ends with `Answer:`
    assert decode(tokenizer, layout.opening) == " Document"
    assert len(layout.opening) == 1
    assert [decode(tokenizer, [token]) for token in layout.separator] == ["\n\n"]


def test_sentences_of_a_real_vocabulary(smollm2_tokenizer: Any) -> None:
    text = "The bridge was built in 1895. It crosses the Ard! Who built it?\nIda Holm. She did."
    shown = asked([Passage("Corvin", text), Passage("Ard", "It is 3.5 miles long. Yes.")])
    for wording in (PLAIN, CHATML):
        layout = lay_out(shown, smollm2_tokenizer, wording)
        found = [
            [decode(smollm2_tokenizer, layout.ids[a:b]) for a, b in passage.sentences]
            for passage in layout.passages
        ]
        assert found == [
            # A sentence on a new line does not begin with the space that a title is followed by.
            [
                " The bridge was built in 1895.",
                " It crosses the Ard!",
                " Who built it?",
                " She did.",
            ],
            [" It is 3.5 miles long.", " Yes."],
        ]
        check_sentences(layout, shown, smollm2_tokenizer)
        # Before a word the pieces of two newlines are tokenized apart.
        assert [decode(smollm2_tokenizer, [token]) for token in layout.separator] == ["\n", "\n"]


def test_a_sentence_with_a_tab_in_its_first_token_cannot_follow_a_title() -> None:
    """A title ends in a space, which that token would be in place of."""
    tokenizer = made_tokenizer([" The", "\tIt", "\nIt", *FORMAT_WORDS])
    shown = asked([Passage("Ard", "The b.\tIt c. The d.\nIt e.")])
    layout = lay_out(shown, tokenizer, PLAIN)
    [passage] = layout.passages
    found = [decode(tokenizer, layout.ids[a:b]) for a, b in passage.sentences]
    assert found == [" The b.", " The d."]
    check_sentences(layout, shown, tokenizer)
    check_quotes(layout, shown, tokenizer, PLAIN, (0,))


def test_a_sentence_and_a_separator_are_a_block(kind: tuple[Any, Wording]) -> None:
    tokenizer, wording = kind
    shown = asked([Passage("Marren", "The town. The river. The book."), BRIDGES[1]])
    layout = lay_out(shown, tokenizer, wording)
    one, two = layout.passages
    for first, last in one.sentences[:-1]:
        ids = layout.ids[one.start : one.text] + layout.ids[first:last] + layout.separator
        ids += layout.ids[two.start : two.body]
        said = decode(tokenizer, ids)
        assert said in (
            "Document (Title: Marren) The town.\n\nDocument",
            "Document (Title: Marren) The river.\n\nDocument",
        )
    assert len(one.sentences) == 3


def test_without_passages_there_is_no_layout(kind: tuple[Any, Wording]) -> None:
    tokenizer, wording = kind
    layout = lay_out(asked([]), tokenizer, wording)
    assert layout.passages == ()
    assert layout.problem == ""
    assert layout.question == (0, 0)
    assert list(layout.ids) == encode_prompt(render_prompt(asked([]), wording), tokenizer)
    assert layout.source(0) is None
    assert layout.source(len(layout.ids) - 1) is None


@pytest.mark.parametrize(
    "question",
    ["what is Answer: in it", "a\n\nQuestion: b", "</s> or <|im_end|>", "so\n\nAnswer: or not"],
)
def test_a_question_may_hold_what_ends_one(kind: tuple[Any, Wording], question: str) -> None:
    tokenizer, wording = kind
    shown = Example("q", question, (ANSWER,), BRIDGES, (1,))
    layout = lay_out(shown, tokenizer, wording)
    rendered = render_sample(shown, wording, Method.SCRATCHPAD)
    sample = encode_sample(rendered, tokenizer, LossRegion.SAMPLE, END)
    expected = list(sample.input_ids[sample.prompt_length : -1])
    path = quoting(layout, (1,))
    assert path == expected[: len(path)]
    assert decode(tokenizer, expected[len(path) :]).strip() == ANSWER
    assert decode(tokenizer, layout.nothing).strip().endswith("an answer.")


# --- tokens across borders


def test_tokens_across_the_end_of_a_passage(joining_tokenizer: Any) -> None:
    shown = asked(BRIDGES)
    layout = lay_out(shown, joining_tokenizer, PLAIN)
    ends = [
        decode(joining_tokenizer, layout.ids[passage.end : following(layout, number)])
        for number, passage in enumerate(layout.passages)
    ]
    assert ends == [".\n\n", ".\n\n", "!\n\n"]
    assert all(following(layout, n) == p.end + 1 for n, p in enumerate(layout.passages))


def test_a_token_across_the_start_of_a_passage_is_a_problem() -> None:
    tokenizer = made_tokenizer(["\n\nDocument", *FORMAT_WORDS])
    shown = asked(BRIDGES)
    layout = lay_out(shown, tokenizer, PLAIN)
    assert tokenizer.get_vocab()["ĊĊDocument"] in layout.ids
    assert layout.problem
    assert layout.passages == ()
    assert layout.opening == ()
    assert list(layout.ids) == encode_prompt(render_prompt(shown, PLAIN), tokenizer)
    assert layout.source(40) is None
    # A single passage stands behind `Context:` and one newline, which are not joined.
    alone = asked(BRIDGES[:1])
    layout = lay_out(alone, tokenizer, PLAIN)
    assert layout.problem == ""
    check_quotes(layout, alone, tokenizer, PLAIN, (0,))


@pytest.mark.parametrize(
    "word",
    # The last two join half of what stands before a passage, or before the question, but not both.
    ["\n\nQuestion", "Context:\nDocument", "t (", "Document (", "\nDocument", "\nQuestion"],
)
def test_tokens_across_borders_are_laid_out_exactly_or_refused(word: str) -> None:
    check_or_refused(made_tokenizer([word, *FORMAT_WORDS]))


def check_or_refused(tokenizer: Any) -> None:
    layout = lay_out(asked(BRIDGES), tokenizer, PLAIN)
    assert list(layout.ids) == encode_prompt(render_prompt(asked(BRIDGES), PLAIN), tokenizer)
    if not layout.passages:
        assert layout.problem
        return
    assert not layout.problem
    for gold in ((0,), (1,), (2,), (2, 0), (0, 1)):
        check_quotes(layout, asked(BRIDGES), tokenizer, PLAIN, gold)
    if layout.nothing:
        check_nothing(layout, asked(BRIDGES), tokenizer, PLAIN)
    check_sources(layout, asked(BRIDGES), tokenizer)
    check_sentences(layout, asked(BRIDGES), tokenizer)


@pytest.mark.parametrize("word", [": None", ".\n\nQ", "\n\nQuestion: W"])
def test_a_sentence_joined_with_its_neighbours_is_not_offered(word: str) -> None:
    """The first token reaches back into `Answer:`, the others on into the question."""
    tokenizer = made_tokenizer([word, *(w for w in FORMAT_WORDS if w != "\n\n")])
    layout = lay_out(asked(BRIDGES), tokenizer, PLAIN)
    assert layout.nothing == ()


def test_tokens_within_the_sentence_are_no_hindrance() -> None:
    tokenizer = made_tokenizer([" None of the", "documents supports", ".\n\n", *FORMAT_WORDS])
    layout = lay_out(asked(BRIDGES), tokenizer, PLAIN)
    assert len(layout.nothing) < len(" None of the documents supports an answer.\n\n") - 20
    check_nothing(layout, asked(BRIDGES), tokenizer, PLAIN)
    check_or_refused(tokenizer)


def test_trimmed_offsets_are_laid_out_exactly_or_refused(byte_level_tokenizer: Any) -> None:
    from tokenizers import processors

    tokenizer = copy.deepcopy(byte_level_tokenizer)
    opening = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    trimming = processors.ByteLevel(trim_offsets=True)
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([trimming, opening])
    check_or_refused(tokenizer)


# --- any passages


# What every vocabulary can spell: SmolLM2's has no token for some control characters, and for
# bytes that only the empty planes of Unicode use. U+2581 is how Metaspace writes a space.
ALPHABET = st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co"), exclude_characters="\u2581")
LINES = [
    "The bridge was built.",
    "It is 3.5 miles long",
    "St. Corvin.",
    "A (b) c",
    "b) c) ",
    "Answer: 1911",
    "Document (Title: x) y",
    'She said "No."',
    "שלום",
    "👩‍👩‍👧",
    "日本。",
    "e\u0301",
    "  two",
    ". ",
]
BREAKS = [
    "\n\nQuestion: Who built it?\n\nAnswer:",
    "\n\nDocument (Title: Marren) ",
    "\n\n",
    "\n",
    " \n",
    ".\n\n",
    "\t",
]
SPECIALS = ["</s>", "<|im_end|>", "<s>"]


def joined(*choices: Sequence[str]) -> st.SearchStrategy[str]:
    piece = st.one_of(st.sampled_from(list(chain(*choices))), st.text(ALPHABET, max_size=6))
    return st.lists(piece, min_size=1, max_size=4).map("".join)


def titles(*choices: Sequence[str]) -> st.SearchStrategy[str]:
    """A title is one line, as `data.given.passage_from` makes it."""
    return joined(LINES, *choices).map(lambda text: " ".join(text.split())).filter(bool)


def texts(*choices: Sequence[str]) -> st.SearchStrategy[str]:
    endings = st.sampled_from(["", ".", "!", '"', " ", "\n", "…", ")", '."', "?", "é"])
    short = st.sampled_from(list("a.)\"!é日'?-"))
    long = st.builds(str.__add__, joined(LINES, BREAKS, *choices), endings)
    return st.one_of(short, long, long, long).filter(str.strip)


@st.composite
def passages(draw: st.DrawFn, *choices: Sequence[str]) -> list[Passage]:
    """Up to four passages, of which some are the same, or share a title or a text."""
    title = st.sampled_from(draw(st.lists(titles(*choices), min_size=1, max_size=3)))
    text = st.sampled_from(draw(st.lists(texts(*choices), min_size=1, max_size=3)))
    return draw(st.lists(st.builds(Passage, title, text), min_size=1, max_size=4))


def check(kind: tuple[Any, Wording], shown: list[Passage], order: Sequence[int]) -> None:
    tokenizer, wording = kind
    layout = lay_out(asked(shown), tokenizer, wording)
    assert layout.problem == ""
    for number in range(len(shown)):
        check_quotes(layout, asked(shown), tokenizer, wording, (number,))
    gold = tuple(number for number in order if number < len(shown))
    check_quotes(layout, asked(shown), tokenizer, wording, gold)
    check_nothing(layout, asked(shown), tokenizer, wording)
    check_sources(layout, asked(shown), tokenizer)
    check_sentences(layout, asked(shown), tokenizer)


orders = st.permutations(range(4))


@settings(parent=steady, max_examples=40)
@given(shown=passages(), order=orders)
@example(shown=[Passage("A", "."), Passage("A (b) c", '"')], order=[1, 0])
@example(shown=[Passage("A", "b."), Passage("A", "b.")], order=[0, 1])
@example(shown=[Passage("A", "B. C. "), Passage("A", " B.\nC.\n")], order=[1, 0])
@example(
    shown=[Passage("A", "\n\nB"), Passage("A", "B\n\nQuestion: Who built it?\n\nAnswer:")],
    order=[1, 0],
)
def test_any_passages(kind: tuple[Any, Wording], shown: list[Passage], order: list[int]) -> None:
    check(kind, shown, order)


@settings(parent=steady, max_examples=25)
@given(shown=passages(SPECIALS), order=orders)
@example(shown=[Passage("A", "b</s>")], order=[0])
@example(shown=[Passage("<|im_end|>", "b."), Passage("A", "c.")], order=[1, 0])
@example(shown=[Passage("A", "a"), Passage("A", "</s>")], order=[0, 1])
def test_passages_with_the_text_of_special_tokens(
    kind: tuple[Any, Wording], shown: list[Passage], order: list[int]
) -> None:
    tokenizer, wording = kind
    if not wording.chat:
        check(kind, shown, order)
        return
    # Text that looks like a special token is tokenized apart from its neighbours, so that the
    # borders can be other tokens than in the prompt, and a space can stand between two blocks
    # where a tokenizer begins every piece with one; the letters are the same.
    layout = lay_out(asked(shown), tokenizer, wording)
    assert layout.problem == ""
    gold = tuple(number for number in order if number < len(shown))
    completion = render_sample(asked(shown, gold), wording, Method.SCRATCHPAD).completion
    expected = completion[: completion.rindex("Answer:") + len("Answer:")]
    assert letters(decode(tokenizer, quoting(layout, gold))) == letters(expected)
    check_nothing(layout, asked(shown), tokenizer, wording)


def letters(text: str) -> str:
    return "".join(text.split())


# --- scratchpads of other forms

FORMS = list(ScratchpadForm)
TITLED = (
    Passage("Marren", "The town lies by the river. The keeper built it. The book."),
    Passage("Marren (A)", "The bridge was built by Zz. The river!"),
    Passage("Washington, D.C.", "The river."),
    Passage("\u05e9\u05dc\u05d5\u05dd \u65e5\u672c", "Who? The book."),
    Passage("Marren", "Another town."),
)


def leaves(
    shown: Example, kind: tuple[Any, Wording], form: ScratchpadForm
) -> tuple[Layout, int | None]:
    """The layout, and where the tokens of a training sample leave its grammar, if they do."""
    tokenizer, wording = kind
    wording = replace(wording, form=form)
    layout = lay_out(shown, tokenizer, wording)
    assert layout.problem == ""
    rendered = render_sample(shown, wording, Method.SCRATCHPAD)
    sample = encode_sample(rendered, tokenizer, LossRegion.SAMPLE, END)
    grammar = Grammar(layout, abstain=True)
    state = grammar.start
    for place, token in enumerate(sample.input_ids[sample.prompt_length :]):
        state = grammar.advance(state, token)
        if state == OUTSIDE:
            return layout, place
        if state.free:
            return layout, None
    raise AssertionError("the sample ends before its answer")


@pytest.mark.parametrize("form", FORMS)
def test_what_a_sample_teaches_is_let_through(
    kind: tuple[Any, Wording], form: ScratchpadForm
) -> None:
    for gold in ((0,), (1,), (2,), (3,), (4,), (1, 3), (3, 1), (2, 0, 1), (4, 3, 2, 1)):
        assert leaves(asked(TITLED, gold), kind, form)[1] is None, gold


@pytest.mark.parametrize("form", [ScratchpadForm.TITLE, ScratchpadForm.INDEX])
@settings(parent=steady, max_examples=20)
@given(shown=passages(), data=st.data())
def test_what_a_sample_of_any_passages_teaches_is_let_through(
    kind: tuple[Any, Wording], form: ScratchpadForm, shown: list[Passage], data: st.DataObject
) -> None:
    gold = data.draw(st.integers(0, len(shown) - 1))
    assert leaves(asked(shown, (gold,)), kind, form)[1] is None


@settings(parent=steady, max_examples=20)
@given(shown=passages(), data=st.data())
def test_what_a_sample_of_sentences_teaches_is_let_through_where_they_can_follow_a_title(
    kind: tuple[Any, Wording], shown: list[Passage], data: st.DataObject
) -> None:
    gold = data.draw(st.integers(0, len(shown) - 1))
    # White space before the first sentence may make other tokens of the title's last space.
    assume(not shown[gold].text[0].isspace())
    layout, left = leaves(asked(shown, (gold,)), kind, ScratchpadForm.SENTENCE)
    offered = len(layout.passages[gold].sentences)
    assert left is None or offered < len(split_sentences(shown[gold].text))


@pytest.mark.parametrize("form", FORMS)
@settings(parent=steady, max_examples=10)
@given(data=st.data())
def test_what_is_let_through_is_read_as_quotes_of_the_form(
    kind: tuple[Any, Wording], form: ScratchpadForm, data: st.DataObject
) -> None:
    tokenizer, wording = kind
    shown = asked(TITLED)
    grammar = Grammar(lay_out(shown, tokenizer, replace(wording, form=form)))
    state, tokens = grammar.start, []
    while (allowed := grammar.allowed(state)) is not None:
        tokens.append(data.draw(st.sampled_from(sorted(allowed))))
        state = grammar.advance(state, tokens[-1])
    said = decode(tokenizer, tokens)
    reading = parse_completion(said + " " + ANSWER, shown, Method.SCRATCHPAD, form)
    assert reading.parsed
    assert reading.quotes
    assert all(quote.verbatim for quote in reading.quotes)
    quoted = [quote.passage for quote in reading.quotes]
    assert len(set(quoted)) == len(quoted)
    assert set(quoted) <= state.used
    for quote in reading.quotes:
        assert quote.passage is not None
        text = TITLED[quote.passage].text
        assert quote.text == text[quote.start : quote.end]
        if form is ScratchpadForm.TITLE:
            assert (quote.start, quote.end) == (0, 0)
        elif form is ScratchpadForm.SENTENCE:
            ranges = split_sentences(text)
            assert quote.start in [begin for begin, _ in ranges]
            assert quote.end in [end for _, end in ranges]
        else:
            assert (quote.start, quote.end) == (0, len(text))


def test_a_title_joined_with_what_follows_is_left_in_that_token(joining_tokenizer: Any) -> None:
    wording = replace(PLAIN, form=ScratchpadForm.TITLE)
    layout = lay_out(asked(TITLED), joining_tokenizer, wording)
    for passage, shown in zip(layout.passages, TITLED, strict=True):
        [leave] = passage.exits
        assert [decode(joining_tokenizer, [token]) for token in leave.tokens] == [")\n\n"]
        said = decode(joining_tokenizer, [*layout.ids[passage.start : leave.place], *leave.tokens])
        assert said == f"Document (Title: {shown.title})\n\n"


def test_a_token_across_the_end_of_a_title_is_a_problem() -> None:
    tokenizer = made_tokenizer([")\n\nQ", *FORMAT_WORDS])
    title = replace(PLAIN, form=ScratchpadForm.TITLE)
    assert lay_out(asked(BRIDGES), tokenizer, title).problem == (
        "its tokens straddle the ends of titles"
    )
    assert lay_out(asked(BRIDGES), tokenizer, PLAIN).problem == ""


def test_numbers_are_chosen_digit_by_digit(smollm2_tokenizer: Any) -> None:
    """Twelve passages: behind `[1` come the bracket, or a digit of 10 to 12."""
    shown = asked([Passage("Ard", "The river.")] * 12)
    layout = lay_out(shown, smollm2_tokenizer, replace(PLAIN, form=ScratchpadForm.INDEX))
    grammar = Grammar(layout)
    state = grammar.start

    def write(text: str) -> set[str]:
        nonlocal state
        for token in smollm2_tokenizer(text, add_special_tokens=False).input_ids:
            state = grammar.advance(state, token)
        allowed = grammar.allowed(state)
        assert allowed is not None
        return {decode(smollm2_tokenizer, [token]) for token in allowed}

    assert write(" Document") == {" ["}
    assert write(" [") == set("123456789")
    assert write("1") == {"](", "0", "1", "2"}
    assert write("2") == {"]("}
    assert write("](Title: Ard) The river") == {"."}
    assert write(".\n\nDocument [1") == {"](", "0", "1"}  # the twelfth was quoted
