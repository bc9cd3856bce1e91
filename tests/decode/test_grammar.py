"""What the grammar lets through is what a scratchpad may be, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from scratchpad_rag.decode.grammar import OUTSIDE, Grammar, State
from scratchpad_rag.tokens.layout import Layout, PassageTokens

# The same examples on every run, however busy the machine.
steady = settings(deadline=None, derandomize=True)

# A prompt laid out by hand: OPEN begins a passage (FIRST the first of a completion), JOIN stands
# between blocks, PART where a block is left before its end, ANSWER for `Answer:`.
FIRST, OPEN, JOIN, ANSWER, PART = 3, 4, 5, 6, 7
QUESTION = (31, 32)


class Page(NamedTuple):
    """A passage: title, sentences, and what stands behind the last of them (white space, say)."""

    title: tuple[int, ...]
    sentences: tuple[tuple[int, ...], ...]
    tail: tuple[int, ...] = ()

    @property
    def text(self) -> tuple[int, ...]:
        return (*sum(self.sentences, ()), *self.tail)


def layout_of(
    pages: Sequence[Page],
    question: tuple[int, ...] = QUESTION,
    opening: tuple[int, ...] = (FIRST,),
    join: tuple[int, ...] = (JOIN,),
    separator: tuple[int, ...] = (PART,),
    nothing: tuple[int, ...] = (),
) -> Layout:
    ids, places = [10, 11], []
    for page in pages:
        start = len(ids)
        ids += [OPEN, *page.title]
        text, sentences = len(ids), []
        for sentence in page.sentences:
            sentences.append((len(ids), len(ids) + len(sentence)))
            ids += sentence
        ids += page.tail
        places.append(PassageTokens(start, start + 1, text, len(ids), tuple(sentences)))
        ids += join
    asked = (len(ids), len(ids) + len(question) + 1)
    ids += [*question, ANSWER, 9]
    return Layout(tuple(ids), tuple(places), asked, opening, separator, nothing)


def untitled(*texts: Sequence[int]) -> Layout:
    return layout_of([Page((), (tuple(text),)) for text in texts])


def steps(grammar: Grammar, tokens: Sequence[int]) -> State:
    """The state behind tokens, each of which is allowed."""
    state = grammar.start
    for place, token in enumerate(tokens):
        allowed = grammar.allowed(state)
        assert allowed is not None, place
        assert token in allowed, place
        state = grammar.advance(state, token)
        assert state != OUTSIDE
    return state


def allowed_behind(grammar: Grammar, *tokens: int) -> set[int] | None:
    allowed = grammar.allowed(steps(grammar, tokens))
    return None if allowed is None else set(allowed)


# --- whole passages, step by step


def test_one_passage() -> None:
    grammar = Grammar(untitled([12, 13]))
    assert allowed_behind(grammar) == {FIRST}
    assert allowed_behind(grammar, FIRST) == {12}
    assert allowed_behind(grammar, FIRST, 12) == {13}
    assert allowed_behind(grammar, FIRST, 12, 13) == {JOIN}
    # It may be quoted once; then only the question is left.
    assert allowed_behind(grammar, FIRST, 12, 13, JOIN) == {31}
    assert allowed_behind(grammar, FIRST, 12, 13, JOIN, 31) == {32}
    assert allowed_behind(grammar, FIRST, 12, 13, JOIN, 31, 32) == {ANSWER}
    assert allowed_behind(grammar, FIRST, 12, 13, JOIN, 31, 32, ANSWER) is None


def test_passages_that_begin_alike() -> None:
    grammar = Grammar(untitled([12, 13, 14], [12, 13, 15], [12, 16]))
    assert allowed_behind(grammar, FIRST) == {12}
    assert allowed_behind(grammar, FIRST, 12) == {13, 16}
    assert allowed_behind(grammar, FIRST, 12, 13) == {14, 15}
    second = (FIRST, 12, 13, 15, JOIN)
    assert steps(grammar, second).used == {1}
    assert allowed_behind(grammar, *second) == {OPEN, 31}
    assert allowed_behind(grammar, *second, OPEN, 12) == {13, 16}
    assert allowed_behind(grammar, *second, OPEN, 12, 13) == {14}
    third = (*second, OPEN, 12, 16, JOIN)
    assert steps(grammar, third).used == {1, 2}
    assert allowed_behind(grammar, *third, OPEN, 12) == {13}
    assert allowed_behind(grammar, *third, OPEN, 12, 13, 14, JOIN) == {31}


def test_a_passage_that_another_one_begins_with() -> None:
    grammar = Grammar(untitled([12], [12, 13]))
    assert allowed_behind(grammar, FIRST, 12) == {JOIN, 13}
    assert steps(grammar, [FIRST, 12, JOIN]).used == {0}
    assert allowed_behind(grammar, FIRST, 12, JOIN, OPEN, 12) == {13}
    assert steps(grammar, [FIRST, 12, 13, JOIN]).used == {1}
    assert allowed_behind(grammar, FIRST, 12, 13, JOIN, OPEN, 12) == {JOIN}


def test_identical_passages_are_quoted_once() -> None:
    grammar = Grammar(untitled([12, 13], [14], [12, 13]))
    state = steps(grammar, [FIRST, 12, 13, JOIN])
    assert state.used == {0, 2}
    assert grammar.allowed(state) == {OPEN, 31}
    assert allowed_behind(grammar, FIRST, 12, 13, JOIN, OPEN) == {14}


def test_two_hundred_passages_each_once() -> None:
    texts = [[100 + k // 20, 200 + k] for k in range(200)]
    grammar = Grammar(untitled(*texts))
    state = steps(grammar, [FIRST, *texts[0], JOIN])
    for left, text in zip(range(199, 0, -1), reversed(texts[1:]), strict=True):
        assert grammar.allowed(state) == {OPEN, 31}
        state = grammar.advance(state, OPEN)
        assert grammar.allowed(state) == {one for one, _ in texts[1 : left + 1]}
        for token in [*text, JOIN]:
            state = grammar.advance(state, token)
            assert state.inside
        assert len(state.used) == 201 - left
    assert state.used == set(range(200))
    assert grammar.allowed(state) == {31}
    for token in (*QUESTION, ANSWER):
        state = grammar.advance(state, token)
    assert state.free


def test_sentences_are_nothing_where_whole_passages_are_quoted() -> None:
    grammar = Grammar(layout_of([Page((20,), ((12, 13), (14,)))]))
    assert allowed_behind(grammar, FIRST, 20) == {12}
    assert allowed_behind(grammar, FIRST, 20, 12, 13) == {14}


def test_openings_and_separators_of_several_tokens() -> None:
    pages = [Page((20,), ((12,), (13,))), Page((21,), ((14,),))]
    layout = layout_of(pages, opening=(1, 2, FIRST), join=(JOIN, 8), separator=(PART, 8))
    whole = Grammar(layout)
    assert [allowed_behind(whole, *(1, 2, FIRST)[:k]) for k in range(4)] == [
        {1},
        {2},
        {FIRST},
        {20, 21},
    ]
    assert allowed_behind(whole, 1, 2, FIRST, 21, 14, JOIN) == {8}
    assert allowed_behind(whole, 1, 2, FIRST, 21, 14, JOIN, 8) == {OPEN, 31}
    by_sentence = Grammar(layout, sentences=True)
    assert allowed_behind(by_sentence, 1, 2, FIRST, 20, 12, PART) == {8}
    assert allowed_behind(by_sentence, 1, 2, FIRST, 20, 12, PART, 8) == {OPEN, 31}


def test_without_a_word_of_its_own_the_last_token_joins() -> None:
    """As where a stop and the empty line behind it are one token."""
    pages = [Page((20,), ((12, 13),)), Page((21,), ((14,),))]
    grammar = Grammar(layout_of(pages, join=(90,)), sentences=True)
    assert allowed_behind(grammar, FIRST, 20, 12, 13) == {90}
    assert allowed_behind(grammar, FIRST, 20, 12, 13, 90) == {OPEN, 31}


def test_outside_and_free() -> None:
    grammar = Grammar(untitled([12, 13], [14]))
    assert grammar.start.inside
    assert grammar.advance(grammar.start, 12) == OUTSIDE
    assert grammar.advance(steps(grammar, [FIRST]), JOIN) == OUTSIDE
    # No scratchpad is empty.
    assert grammar.advance(steps(grammar, [FIRST]), 31) == OUTSIDE
    assert not OUTSIDE.inside
    assert not OUTSIDE.free
    assert grammar.allowed(OUTSIDE) == frozenset()
    assert grammar.advance(OUTSIDE, 12) == OUTSIDE
    free = steps(grammar, [FIRST, 14, JOIN, *QUESTION, ANSWER])
    assert free.free
    assert not free.inside
    assert free.used == {1}
    assert grammar.allowed(free) is None
    for token in (12, OPEN, 31, 999):
        assert grammar.advance(free, token) == free


def test_without_passages_nothing_is_inside() -> None:
    for sentences in (False, True):
        grammar = Grammar(Layout((10, 11, 12)), sentences=sentences)
        assert not grammar.start.inside
        assert grammar.advance(grammar.start, 10) == OUTSIDE


# --- sentences, step by step


def test_a_run_of_sentences() -> None:
    grammar = Grammar(layout_of([Page((20,), ((12, 13), (14,), (15, 16)))]), sentences=True)
    assert allowed_behind(grammar, FIRST) == {20}
    assert allowed_behind(grammar, FIRST, 20) == {12, 14, 15}
    assert allowed_behind(grammar, FIRST, 20, 12) == {13}
    assert allowed_behind(grammar, FIRST, 20, 12, 13) == {14, PART}
    assert allowed_behind(grammar, FIRST, 20, 12, 13, 14) == {15, PART}
    assert allowed_behind(grammar, FIRST, 20, 14) == {15, PART}
    assert allowed_behind(grammar, FIRST, 20, 14, PART) == {31}
    # Behind its last sentence the prompt's own tokens go on.
    for run in ((12, 13, 14, 15, 16), (14, 15, 16), (15, 16)):
        assert allowed_behind(grammar, FIRST, 20, *run) == {JOIN}
        assert allowed_behind(grammar, FIRST, 20, *run, JOIN) == {31}
        assert steps(grammar, [FIRST, 20, *run, JOIN]).used == {0}


def test_sentences_of_several_passages() -> None:
    pages = [Page((20,), ((12,), (13,))), Page((21,), ((14,), (15,))), Page((22,), ((16,),))]
    grammar = Grammar(layout_of(pages), sentences=True)
    assert allowed_behind(grammar, FIRST) == {20, 21, 22}
    assert allowed_behind(grammar, FIRST, 21) == {14, 15}
    assert allowed_behind(grammar, FIRST, 21, 14, PART) == {OPEN, 31}
    assert allowed_behind(grammar, FIRST, 21, 14, PART, OPEN) == {20, 22}
    assert allowed_behind(grammar, FIRST, 21, 14, PART, OPEN, 22, 16, JOIN, OPEN) == {20}
    assert steps(grammar, [FIRST, 21, 14, PART, OPEN, 22, 16, JOIN]).used == {1, 2}
    assert steps(grammar, [FIRST, 21, 14, PART, *QUESTION, ANSWER]).free


def test_what_follows_the_last_sentence_may_be_left_out() -> None:
    page = Page((20,), ((12,), (13,)), tail=(17, 18))
    grammar = Grammar(layout_of([page]), sentences=True)
    assert allowed_behind(grammar, FIRST, 20, 13) == {17, PART}
    assert allowed_behind(grammar, FIRST, 20, 13, PART) == {31}
    assert allowed_behind(grammar, FIRST, 20, 13, 17) == {18}
    assert allowed_behind(grammar, FIRST, 20, 13, 17, 18) == {JOIN}


def test_a_passage_without_sentences_is_quoted_whole() -> None:
    layout = layout_of([Page((20,), ((12, 13),)), Page((21,), (), tail=(14, 15))])
    grammar = Grammar(layout, sentences=True)
    assert allowed_behind(grammar, FIRST, 21) == {14}
    assert allowed_behind(grammar, FIRST, 21, 14) == {15}
    assert allowed_behind(grammar, FIRST, 21, 14, 15) == {JOIN}


def test_sentences_that_begin_alike() -> None:
    page = Page((20,), ((12, 13), (12, 14), (12,)))
    grammar = Grammar(layout_of([page]), sentences=True)
    assert allowed_behind(grammar, FIRST, 20) == {12}
    # The last sentence is at its end; the others go on.
    assert allowed_behind(grammar, FIRST, 20, 12) == {13, 14, JOIN}
    assert allowed_behind(grammar, FIRST, 20, 12, 14) == {12, PART}
    twice = Page((20,), ((12,), (12,), (13,)))
    grammar = Grammar(layout_of([twice]), sentences=True)
    assert allowed_behind(grammar, FIRST, 20, 12) == {12, 13, PART}
    assert allowed_behind(grammar, FIRST, 20, 12, 12) == {13, PART}


# --- passages of which one cannot be told from the beginning of another until later


def test_a_passage_with_the_whole_of_another_and_more_paragraphs_leaves_that_one_unused() -> None:
    grammar = Grammar(untitled([12], [12, JOIN, 13]))
    second_then_first = [FIRST, 12, JOIN, 13, JOIN, OPEN, 12, JOIN, *QUESTION, ANSWER]
    assert steps(grammar, second_then_first).free


def test_a_first_sentence_of_two_passages_uses_only_the_one_that_goes_on() -> None:
    pages = [Page((20,), ((12,), (13,))), Page((20,), ((12,), (14,)))]
    grammar = Grammar(layout_of(pages), sentences=True)
    one_then_other = [FIRST, 20, 12, 13, JOIN, OPEN, 20, 14, JOIN, *QUESTION, ANSWER]
    assert steps(grammar, one_then_other).free


# --- no more than there is room for


def test_only_passages_that_fit_may_be_begun() -> None:
    # Behind FIRST they take 3, 5 and 2 tokens with JOIN; the question and a word of an answer 4.
    layout = untitled([12, 13], [14, 15, 16, 17], [18])
    assert Grammar(layout).least == 1 + 2 + 4
    assert allowed_behind(Grammar(layout, room=10), FIRST) == {12, 14, 18}
    assert allowed_behind(Grammar(layout, room=9), FIRST) == {12, 18}
    assert allowed_behind(Grammar(layout, room=7), FIRST) == {18}
    # Another one takes OPEN as well.
    behind = (FIRST, 18, JOIN)
    assert allowed_behind(Grammar(layout, room=11), *behind, OPEN) == {12}
    assert allowed_behind(Grammar(layout, room=11), *behind) == {OPEN, 31}
    assert allowed_behind(Grammar(layout, room=10), *behind) == {31}


def test_only_sentences_that_fit_may_be_begun() -> None:
    layout = layout_of([Page((20,), ((12, 13), (14, 15, 16), (17,)))])
    # FIRST, the title, a sentence with PART (the last with JOIN), and 4 for the rest.
    assert Grammar(layout, sentences=True).least == 1 + 1 + 2 + 4
    grammar = Grammar(layout, sentences=True, room=10)
    assert allowed_behind(grammar, FIRST, 20) == {12, 14, 17}
    assert allowed_behind(grammar, FIRST, 20, 12, 13) == {PART}
    assert allowed_behind(grammar, FIRST, 20, 14, 15, 16) == {PART}
    grammar = Grammar(layout, sentences=True, room=9)
    assert allowed_behind(grammar, FIRST, 20) == {12, 17}


# --- nothing to quote

NONE, OF_THEM = 40, 41


def abstaining(*texts: Sequence[int], **options: tuple[int, ...]) -> Layout:
    some = [Page((), (tuple(text),)) for text in texts]
    return layout_of(some, **{"nothing": (NONE, OF_THEM, PART), **options})


def test_nothing_may_be_said_in_place_of_quotes() -> None:
    layout = abstaining([12, 13], [14])
    grammar = Grammar(layout, abstain=True)
    assert allowed_behind(grammar) == {FIRST, NONE}
    assert allowed_behind(grammar, NONE) == {OF_THEM}
    assert allowed_behind(grammar, NONE, OF_THEM) == {PART}
    # No passage may follow.
    assert allowed_behind(grammar, NONE, OF_THEM, PART) == {31}
    assert allowed_behind(grammar, NONE, OF_THEM, PART, 31, 32) == {ANSWER}
    state = steps(grammar, [NONE, OF_THEM, PART, *QUESTION, ANSWER])
    assert state.free
    assert state.used == frozenset()
    # Nor may it follow a quote.
    assert allowed_behind(grammar, FIRST) == {12, 14}
    assert allowed_behind(grammar, FIRST, 14, JOIN) == {OPEN, 31}
    assert allowed_behind(grammar, FIRST, 14, JOIN, OPEN, 12, 13, JOIN) == {31}


def test_nothing_is_offered_only_where_asked_for() -> None:
    assert allowed_behind(Grammar(abstaining([12], [14]))) == {FIRST}
    assert allowed_behind(Grammar(untitled([12], [14]), abstain=True)) == {FIRST}
    without_passages = Layout((10, 11), nothing=(NONE, PART))
    assert not Grammar(without_passages, abstain=True).start.inside


def test_nothing_and_a_quote_may_begin_alike() -> None:
    """As where a space before both is a token of its own."""
    layout = abstaining([12, 13], opening=(1, FIRST), nothing=(1, NONE, PART))
    grammar = Grammar(layout, abstain=True)
    assert allowed_behind(grammar) == {1}
    assert allowed_behind(grammar, 1) == {FIRST, NONE}
    assert allowed_behind(grammar, 1, FIRST) == {12}
    assert allowed_behind(grammar, 1, NONE, PART) == {31}


def test_nothing_takes_room_as_well() -> None:
    # A quote of [12] takes 3 tokens with FIRST and JOIN; the question and a word of an answer 4.
    layout = abstaining([12], nothing=(NONE, OF_THEM, 42, PART))
    assert Grammar(layout, abstain=True).least == 7
    assert allowed_behind(Grammar(layout, abstain=True, room=8)) == {FIRST, NONE}
    assert allowed_behind(Grammar(layout, abstain=True, room=7)) == {FIRST}


# --- any passages

words = st.integers(12, 14)
joins = st.sampled_from([(JOIN,), (JOIN, 8)])
openings = st.sampled_from([(FIRST,), (2, FIRST)])
separators = st.sampled_from([(PART,), (PART, 9)])
# Also one that begins as an opening does.
nothings = st.sampled_from([(), (40, PART), (40, 41, PART, 9), (2, 40, PART)])


def pages(title: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[Page]:
    sentence = st.lists(words, min_size=1, max_size=3).map(tuple)
    tail = st.sampled_from([(), (), (17,), (17, 18)])
    return st.builds(Page, title, st.lists(sentence, min_size=1, max_size=3).map(tuple), tail)


shown = st.lists(pages(st.sampled_from([(20,), (21,), (20, 21), (20, 20)])), min_size=1, max_size=5)


@st.composite
def layouts(draw: st.DrawFn, shown: st.SearchStrategy[list[Page]]) -> tuple[list[Page], Layout]:
    some = draw(shown)
    question = tuple(draw(st.lists(st.integers(31, 33), min_size=1, max_size=3)))
    layout = layout_of(
        some, question, draw(openings), draw(joins), draw(separators), draw(nothings)
    )
    return some, layout


def written(layout: Layout, blocks: Sequence[Sequence[int]]) -> list[int]:
    """A scratchpad of blocks without their first words, each with what ends it."""
    tokens = list(layout.opening)
    for count, block in enumerate(blocks):
        tokens += [OPEN] * bool(count)
        tokens += block
    return tokens + list(layout.ids[slice(*layout.question)])


def join_of(layout: Layout) -> tuple[int, ...]:
    return layout.ids[layout.passages[-1].end : layout.question[0]]


def whole(layout: Layout, page: Page) -> tuple[int, ...]:
    return (*page.title, *page.text, *join_of(layout))


def runs(layout: Layout, page: Page) -> Iterator[tuple[int, ...]]:
    """Every block that may be made of a page's sentences."""
    last = len(page.sentences)
    for begin in range(last):
        for end in range(begin + 1, last + 1):
            said = (*page.title, *sum(page.sentences[begin:end], ()))
            if end == last:
                yield (*said, *page.tail, *join_of(layout))
            if end < last or page.tail:
                yield (*said, *layout.separator)


def walk(grammar: Grammar, draw: st.DrawFn) -> list[int]:
    """Tokens that the grammar allows, until anything is."""
    state, tokens = grammar.start, []
    while not state.free:
        allowed = grammar.allowed(state)
        assert allowed
        token = draw(st.sampled_from(sorted(allowed)))
        refused = next(word for word in range(10, 1000) if word not in allowed)
        assert grammar.advance(state, refused) == OUTSIDE
        state = grammar.advance(state, token)
        tokens.append(token)
        assert len(tokens) < 400
    return tokens


def blocks_of(layout: Layout, tokens: Sequence[int]) -> list[tuple[int, ...]]:
    """The blocks of a scratchpad, read with nothing but the marks that no text holds."""
    first, end = len(layout.opening), len(tokens) - (layout.question[1] - layout.question[0])
    assert tuple(tokens[:first]) == layout.opening
    assert tuple(tokens[end:]) == layout.ids[slice(*layout.question)]
    blocks: list[tuple[int, ...]] = [()]
    for token in tokens[first:end]:
        if token == OPEN:
            blocks.append(())
        else:
            blocks[-1] = (*blocks[-1], token)
    return blocks


def come_from_distinct(choices: Sequence[set[int]]) -> bool:
    """Whether each block can be given a page of its own."""
    numbers = range(max(max(choice, default=0) for choice in choices) + 1)
    return any(
        all(number in choice for number, choice in zip(chosen, choices, strict=True))
        for chosen in permutations(numbers, len(choices))
    )


@steady
@given(case=layouts(shown), data=st.data())
def test_whatever_is_let_through_is_made_of_distinct_passages(
    case: tuple[list[Page], Layout], data: st.DataObject
) -> None:
    some, layout = case
    blocks = blocks_of(layout, walk(Grammar(layout), data.draw))
    texts = [whole(layout, page) for page in some]
    assert all(block in texts for block in blocks)
    assert len(set(blocks)) == len(blocks)


@steady
@given(case=layouts(shown), data=st.data())
def test_whatever_is_let_through_is_made_of_runs_of_sentences(
    case: tuple[list[Page], Layout], data: st.DataObject
) -> None:
    some, layout = case
    blocks = blocks_of(layout, walk(Grammar(layout, sentences=True), data.draw))
    possible = [set(runs(layout, page)) for page in some]
    choices = [{n for n, texts in enumerate(possible) if block in texts} for block in blocks]
    assert come_from_distinct(choices)


@steady
@given(case=layouts(shown), sentences=st.booleans(), more=st.integers(0, 25), data=st.data())
def test_what_is_let_through_ends_within_the_room(
    case: tuple[list[Page], Layout], sentences: bool, more: int, data: st.DataObject
) -> None:
    _, layout = case
    room = Grammar(layout, sentences=sentences).least + more
    tokens = walk(Grammar(layout, sentences=sentences, room=room), data.draw)
    assert len(tokens) < room  # a word of an answer fits


@steady
@given(
    case=layouts(shown),
    sentences=st.booleans(),
    more=st.integers(0, 25) | st.none(),
    data=st.data(),
)
def test_whatever_may_abstain_does_so_or_is_made_of_what_could_be_quoted_anyway(
    case: tuple[list[Page], Layout], sentences: bool, more: int | None, data: st.DataObject
) -> None:
    _, layout = case
    quoting = Grammar(layout, sentences=sentences)
    room = {} if more is None else {"room": quoting.least + more}
    quoting = Grammar(layout, sentences=sentences, **room)
    grammar = Grammar(layout, sentences=sentences, abstain=True, **room)
    assert grammar.least == quoting.least
    tokens = walk(grammar, data.draw)
    asked = layout.ids[slice(*layout.question)]
    if tuple(tokens) == (*layout.nothing, *asked):
        assert layout.nothing
    else:
        assert steps(quoting, tokens).free
    if more is not None:
        assert len(tokens) < quoting.least + more
    if layout.nothing and (more is None or len(layout.nothing) + len(asked) < quoting.least + more):
        assert steps(grammar, [*layout.nothing, *asked]).free


@steady
@given(case=layouts(shown), sentences=st.booleans(), data=st.data())
def test_what_may_be_quoted_may_be_quoted_where_abstaining_is_allowed(
    case: tuple[list[Page], Layout], sentences: bool, data: st.DataObject
) -> None:
    _, layout = case
    tokens = walk(Grammar(layout, sentences=sentences), data.draw)
    assert steps(Grammar(layout, sentences=sentences, abstain=True), tokens).free


@steady
@given(case=layouts(shown), data=st.data())
def test_all_sequences_of_passages_that_fit_are_let_through(
    case: tuple[list[Page], Layout], data: st.DataObject
) -> None:
    some, layout = case
    texts = sorted({whole(layout, page) for page in some})
    chosen = data.draw(st.lists(st.sampled_from(texts), min_size=1, unique=True))
    tokens = written(layout, chosen)
    assert steps(Grammar(layout, room=len(tokens) + 1), tokens).free


@steady
@given(case=layouts(shown), data=st.data())
def test_the_shortest_quote_takes_the_least_room(
    case: tuple[list[Page], Layout], data: st.DataObject
) -> None:
    some, layout = case
    texts = [whole(layout, page) for page in some]
    assert Grammar(layout).least == min(len(written(layout, [text])) for text in texts) + 1
    parts = [block for page in some for block in runs(layout, page)]
    assert (
        Grammar(layout, sentences=True).least
        == min(len(written(layout, [block])) for block in parts) + 1
    )


@steady
@given(case=layouts(shown), data=st.data())
def test_all_sequences_of_distinct_passages_are_let_through(
    case: tuple[list[Page], Layout], data: st.DataObject
) -> None:
    some, layout = case
    texts = sorted({whole(layout, page) for page in some})
    chosen = data.draw(st.lists(st.sampled_from(texts), min_size=1, unique=True))
    state = steps(Grammar(layout), written(layout, chosen))
    assert state.free
    assert state.used == {n for n, page in enumerate(some) if whole(layout, page) in chosen}


@steady
@given(
    case=layouts(
        st.lists(pages(st.integers(20, 25).map(lambda n: (n,))), min_size=1, max_size=5).map(
            lambda some: [page._replace(title=(20 + n,)) for n, page in enumerate(some)]
        )
    ),
    data=st.data(),
)
def test_all_sequences_of_runs_of_sentences_are_let_through(
    case: tuple[list[Page], Layout], data: st.DataObject
) -> None:
    """Where titles differ: which passage a block is of is then never in doubt."""
    some, layout = case
    numbers = st.lists(st.sampled_from(range(len(some))), min_size=1, unique=True)
    chosen = data.draw(numbers)
    blocks = [data.draw(st.sampled_from(list(runs(layout, some[n])))) for n in chosen]
    tokens = written(layout, blocks)
    state = steps(Grammar(layout, sentences=True), tokens)
    assert state.free
    assert state.used == set(chosen)
    assert steps(Grammar(layout, sentences=True, room=len(tokens) + 1), tokens).free
