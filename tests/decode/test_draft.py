"""What is drafted, and how far; the expected tokens are worked out by hand or by brute force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchpad_rag.decode.draft import Draft, Drafter, Habits, Kind, Match, NgramIndex, Rate
from scratchpad_rag.decode.grammar import Grammar
from scratchpad_rag.tokens.layout import Layout, PassageTokens

# The same examples on every run, however busy the machine.
steady = settings(deadline=None, derandomize=True)

# A prompt laid out by hand: each passage begins with OPEN and HEAD (a completion's first one with
# FIRST and HEAD), JOIN stands between blocks, PART where a quote is left, ANSWER for `Answer:`.
FIRST, OPEN, JOIN, ANSWER, PART = 3, 4, 5, 6, 7
HEAD = [8, 9]
QUESTION = [31, 32, 33]
CPU, GPU = 24.0, 400.0


def layout_of(
    passages: Sequence[Sequence[int]], sentence: int = 0, nothing: Sequence[int] = ()
) -> Layout:
    """`sentence`: of so many tokens each sentence is made; 0: there are none."""
    ids, places = [10, 11], []
    for passage in passages:
        start, text = len(ids), len(ids) + 3
        ids += [OPEN, *HEAD, *passage]
        cuts = [*range(text, len(ids), sentence), len(ids)] if sentence else []
        places.append(PassageTokens(start, start + 1, text, len(ids), tuple(pairwise(cuts))))
        ids.append(JOIN)
    asked = (len(ids), len(ids) + len(QUESTION) + 1)
    ids += [*QUESTION, ANSWER]
    return Layout(tuple(ids), tuple(places), asked, (FIRST,), (PART,), tuple(nothing))


def numbered(passages: int, words: int) -> list[list[int]]:
    """Passages without a word in common: 100, 101, ..., and 200, 201, ..., and so on."""
    return [[100 * (k + 1) + word for word in range(words)] for k in range(passages)]


def drafter_of(passages: Sequence[Sequence[int]], habits: Habits, **options: bool) -> Drafter:
    return Drafter(layout_of(passages), habits, **options)


# --- rates and habits


def test_a_rate_is_successes_of_trials() -> None:
    rate = Rate(3.0, 4.0)
    assert rate.estimate == 0.75
    rate.learn(1, 3)
    assert rate == Rate(4.0, 8.0)
    rate.learn(0, 0)
    assert rate.estimate == 0.5
    rate.learn(2, 0)
    assert rate == Rate(6.0, 10.0)


def test_a_rate_forgets_slowly() -> None:
    rate = Rate(1000.0, 2000.0)
    rate.learn(1, 0)
    assert rate == Rate(500.5, 1000.5)  # what came before and now counts half
    for _ in range(999):
        rate.learn(1, 0)
    assert rate.trials == 1999.5
    assert rate.estimate == pytest.approx(1499.5 / 1999.5)


def tokens_a_pass_costs(pass_tokens: float, p: float, length: int) -> float:
    """By the sum: the first token is certain, the k-th drafted one is kept at p to the k."""
    return (pass_tokens + length + 1) / sum(p**k for k in range(length + 1))


@pytest.mark.parametrize("pass_tokens", [1.0, CPU, GPU])
@pytest.mark.parametrize("thousandths", [0, 1, 40, 100, 333, 500, 750, 900, 990, 995, 998])
def test_the_best_length_is_the_cheapest(pass_tokens: float, thousandths: int) -> None:
    p = thousandths / 1000
    chosen = Habits(pass_tokens).best_length(Rate(thousandths, 1000))
    cheapest = min(tokens_a_pass_costs(pass_tokens, p, length) for length in range(512))
    assert tokens_a_pass_costs(pass_tokens, p, chosen) == pytest.approx(cheapest, rel=1e-9)


def test_best_lengths_by_hand() -> None:
    # A pass costs 3 tokens. One drafted: 5 / 1.5 = 3.33 a token; none: 4; two: 6 / 1.75 = 3.43.
    assert Habits(3.0).best_length(Rate(1.0, 2.0)) == 1
    # Never kept: nothing is drafted.
    assert Habits(1000.0).best_length(Rate(0.0, 10.0)) == 0


@pytest.mark.parametrize("pass_tokens", [1.0, CPU, GPU])
def test_the_best_length_grows_with_the_rate(pass_tokens: float) -> None:
    habits = Habits(pass_tokens)
    lengths = [habits.best_length(Rate(k, 1000)) for k in range(1000)]
    assert lengths == sorted(lengths)
    assert lengths[0] == 0
    assert lengths[-1] > 30


def test_a_reader_that_never_slips_gets_long_drafts() -> None:
    habits = Habits(CPU)
    for _ in range(60):
        habits.learn(Draft([1] * 50, [Kind.COPY] * 50, []), 50)
    assert habits.copy.estimate > 0.999
    assert habits.best_length(habits.copy) >= habits.best_length(Rate(998.0, 1000.0)) > 100
    assert habits.best_length(Rate(1.0, 1.0)) > 100
    # And a draft can be made with them.
    drafter = drafter_of(numbered(1, 300), habits)
    assert len(drafter.draft(1000).tokens) > 100


def test_the_best_length_grows_with_the_price_of_a_pass() -> None:
    for k in (100, 500, 900, 990):
        lengths = [Habits(price).best_length(Rate(k, 1000)) for price in (0.0, 1.0, 24.0, 400.0)]
        assert lengths == sorted(lengths)
        assert lengths[0] == 0  # a pass for nothing: no token is worth a guess


def test_a_choice_is_worth_it_where_the_pass_saved_costs_more_than_the_tokens_lost() -> None:
    habits = Habits(10.0)
    assert habits.worth(0.5, 9)  # 5 > 4.5
    assert not habits.worth(0.5, 10)
    assert habits.worth(0.9, 80)  # 9 > 8
    assert not habits.worth(0.9, 91)
    assert not habits.worth(0.0, 0)


def test_habits_are_learnt_up_to_the_first_refused_token() -> None:
    habits = Habits(CPU)
    habits.copy, habits.guess, habits.opening = Rate(0, 0), Rate(0, 0), Rate(0, 0)
    copy, guess, opening, choice = Kind.COPY, Kind.GUESS, Kind.OPENING, Kind.CHOICE
    draft = Draft([1] * 6, [opening, copy, choice, guess, copy, copy], [])
    habits.learn(draft, 3)  # the guess is refused; the copies behind it tell nothing
    assert habits.opening == Rate(1, 1)
    assert habits.copy == Rate(1, 1)
    assert habits.guess == Rate(0, 1)
    habits.learn(draft, 0)
    assert habits.opening == Rate(1, 2)
    habits.learn(draft, 6)
    assert (habits.opening, habits.copy, habits.guess) == (Rate(2, 3), Rate(4, 4), Rate(1, 2))
    habits.learn(Draft([], [], []), 0)
    assert habits.copy == Rate(4, 4)


# --- the index


def longest_by_search(sequence: Sequence[int], tail: Sequence[int]) -> Match | None:
    """Every place that something follows, from the last to the first."""
    best: Match | None = None
    for position in range(len(sequence) - 1, 0, -1):
        length = 0
        for width in range(1, min(position, len(tail), 32) + 1):
            if list(sequence[position - width : position]) == list(tail[-width:]):
                length = width
        if length and (best is None or length > best.length):
            best = Match(position, length)
    return best


def test_matches_by_hand() -> None:
    index = NgramIndex([1, 2, 3, 9, 2, 3, 8, 3, 7])
    assert index.longest_match([1, 2, 3]) == Match(3, 3)
    assert index.longest_match([5, 2, 3]) == Match(6, 2)  # twice; the second is the later one
    assert index.longest_match([9, 2, 3]) == Match(6, 3)
    assert index.longest_match([5, 3]) == Match(8, 1)
    assert index.longest_match([3]) == Match(8, 1)
    assert index.longest_match([7]) is None  # nothing follows it
    assert index.longest_match([3, 7]) is None
    assert index.longest_match([6]) is None
    assert index.longest_match([]) is None
    index.extend([2])
    assert index.longest_match([3, 7]) == Match(9, 2)
    assert NgramIndex([]).longest_match([1]) is None
    assert NgramIndex([1]).longest_match([1]) is None


def test_a_match_is_thirty_two_tokens_long_at_most() -> None:
    index = NgramIndex([*range(100), 1000, *range(40, 100), 1001])
    assert index.longest_match(range(100)) == Match(161, 32)
    # 68 follows 40 to 67 there and 0 to 67 here: 29 against 32 tokens.
    assert index.longest_match(range(69)) == Match(69, 32)


tokens = st.lists(st.integers(0, 2), max_size=50)


@steady
@given(pieces=st.lists(tokens, max_size=3), tail=tokens, own=st.booleans())
def test_the_longest_match_is_the_one_that_a_search_finds(
    pieces: list[list[int]], tail: list[int], own: bool
) -> None:
    sequence = [token for piece in pieces for token in piece][:60]
    index = NgramIndex(sequence[:7])
    for start in range(7, len(sequence), 7):
        index.extend(sequence[start : start + 7])
    assert index.sequence == sequence
    tail = sequence if own else tail
    assert index.longest_match(tail) == longest_by_search(sequence, tail)


@steady
@given(pieces=st.lists(tokens, max_size=6))
def test_an_index_that_grew_is_one_that_was_built_at_once(pieces: list[list[int]]) -> None:
    grown = NgramIndex([])
    for piece in pieces:
        grown.extend(piece)
    built = NgramIndex([token for piece in pieces for token in piece])
    for tail in ([0], [1, 2], [2, 2, 2], [0, 1, 0, 1], [1, 0, 2, 1, 0, 2]):
        assert grown.longest_match(tail) == built.longest_match(tail)


@pytest.mark.parametrize(("newer", "found"), [(63, Match(3, 3)), (64, Match(3 + 64 * 4, 2))])
def test_the_sixty_four_latest_places_are_looked_at(newer: int, found: Match) -> None:
    index = NgramIndex([1, 2, 3, 9, *[5, 2, 3, 8] * newer])
    assert index.longest_match([1, 2, 3]) == found


def test_an_index_is_as_large_as_its_sequence() -> None:
    """Two places a token, however it repeats itself: built in linear time."""
    length = 200_000
    for sequence in ([k * k % 9973 for k in range(length)], [1] * length):
        index = NgramIndex(sequence)
        singles, pairs = index._singles.values(), index._pairs.values()
        assert sum(map(len, singles)) == length - 1
        assert sum(map(len, pairs)) == length - 2


# --- drafts along the grammar


def test_the_first_draft_goes_as_far_as_there_is_no_choice() -> None:
    draft = drafter_of(numbered(20, 50), Habits(CPU)).draft(200)
    assert draft.tokens == [FIRST, *HEAD]
    assert draft.kinds == [Kind.OPENING, Kind.COPY, Kind.COPY]
    assert draft.allowed == []


def test_a_single_passage_is_drafted_with_all_that_follows() -> None:
    [words] = numbered(1, 30)
    draft = drafter_of([words], Habits(GPU)).draft(200)
    assert draft.tokens == [FIRST, *HEAD, *words, JOIN, *QUESTION, ANSWER]
    assert draft.kinds[:2] == [Kind.OPENING, Kind.COPY]
    assert set(draft.kinds[1:]) == {Kind.COPY}


def test_identical_passages_are_no_choice() -> None:
    words = numbered(1, 30)[0]
    draft = drafter_of([words, words], Habits(GPU)).draft(200)
    assert draft.tokens == [FIRST, *HEAD, *words, JOIN, *QUESTION, ANSWER]


@pytest.mark.parametrize("chosen", [0, 7, 19])
def test_behind_the_choice_the_rest_is_drafted(chosen: int) -> None:
    passages = numbered(20, 50)
    words = passages[chosen]
    drafter = drafter_of(passages, Habits(GPU))
    drafter.extend([FIRST, *HEAD, words[0]])
    draft = drafter.draft(1000)
    assert draft.tokens == [*words[1:], JOIN, *QUESTION, ANSWER]
    assert draft.kinds == [Kind.COPY] * 50 + [Kind.CHOICE] + [Kind.COPY] * 3


def test_a_shared_beginning_is_drafted_up_to_where_passages_part() -> None:
    passages = [[100, 101, 102 + k, *range(200, 230)] for k in range(20)]
    drafter = drafter_of(passages, Habits(CPU))
    assert drafter.draft(200).tokens == [FIRST, *HEAD, 100, 101]
    drafter.extend([FIRST, *HEAD, 100, 101, 105])
    assert drafter.draft(200).tokens[:31] == [*range(200, 230), JOIN]


def test_the_likelier_of_two_ways_is_taken_where_it_pays() -> None:
    # Three of four go on with 100: 0.75 * 400 > 0.25 * 189 tokens.
    passages = [[100, 101], [100, 102], [100, 103], [200, 201]]
    assert drafter_of(passages, Habits(GPU)).draft(9).tokens[:4] == [FIRST, *HEAD, 100]
    assert drafter_of(passages, Habits(1.0)).draft(9).tokens == [FIRST, *HEAD]


def test_a_reader_that_does_not_open_with_a_passage_gets_no_opening() -> None:
    habits = Habits(CPU)
    for _ in range(200):
        draft = drafter_of(numbered(3, 5), habits).draft(20)
        habits.learn(draft, 0)
    assert drafter_of(numbered(3, 5), habits).draft(20).tokens == []


@steady
@given(
    room=st.integers(0, 80),
    taken=st.integers(0, 60),
    passages=st.integers(1, 4),
    bound=st.booleans(),
)
def test_no_draft_is_longer_than_its_room(
    room: int, taken: int, passages: int, bound: bool
) -> None:
    words = numbered(passages, 20)
    drafter = drafter_of(words, Habits(GPU), bound=bound)
    quotes = [token for text in words for token in [OPEN, *HEAD, *text, JOIN]]
    drafter.extend([FIRST, *quotes[1:], *QUESTION, ANSWER, 99][:taken])
    draft = drafter.draft(room)
    assert len(draft.tokens) == len(draft.kinds) <= room
    assert drafter.draft(0).tokens == []
    assert len(drafter.draft(0).allowed) == bound


def test_no_draft_is_longer_than_five_hundred_and_twelve() -> None:
    long = Drafter(layout_of([list(range(100, 2000))]), Habits(GPU), bound=True)
    assert long.draft(10_000).tokens == [FIRST, *HEAD, *range(100, 609)]


# --- whether another quote comes


def written_with(quotes: Sequence[int], passages: Sequence[Sequence[int]]) -> list[list[int]]:
    """A completion in pieces, each behind the last choice: quotes, question, answer."""
    pieces = [[FIRST, *HEAD]]
    for count, number in enumerate(quotes):
        pieces[-1] += [OPEN, *HEAD] * bool(count)
        pieces += [[passages[number][0]], [*passages[number][1:], JOIN]]
    return [*pieces, [*QUESTION, ANSWER], [99]]


def test_how_many_passages_a_reader_quotes_is_learnt() -> None:
    habits, passages = Habits(CPU), numbered(6, 8)
    for turn in range(60):
        drafter = drafter_of(passages, habits)
        for piece in written_with([turn % 6, (turn + 2) % 6], passages):
            drafter.extend(piece)
    assert habits.closing[1] == Rate(3.0, 64.0)
    assert habits.closing[2] == Rate(63.0, 64.0)
    drafter = drafter_of(passages, habits)
    first, second = passages[4], passages[1]
    drafter.extend([FIRST, *HEAD, first[0]])
    # Another quote is begun, up to the choice of its passage.
    draft = drafter.draft(100)
    assert draft.tokens == [*first[1:], JOIN, OPEN, *HEAD]
    assert draft.kinds == [Kind.COPY] * 8 + [Kind.CHOICE] + [Kind.COPY] * 2
    drafter.extend([*draft.tokens, second[0]])
    draft = drafter.draft(100)
    assert draft.tokens == [*second[1:], JOIN, *QUESTION, ANSWER]
    assert draft.kinds == [Kind.COPY] * 8 + [Kind.CHOICE] + [Kind.COPY] * 3


def test_behind_the_last_passage_the_question_is_no_choice() -> None:
    habits, passages = Habits(CPU), numbered(1, 8)
    for _ in range(40):
        drafter = drafter_of(passages, habits)
        for piece in written_with([0], passages):
            drafter.extend(piece)
    assert 1 not in habits.closing


def test_a_reader_in_doubt_gets_no_draft_past_the_quote() -> None:
    habits, passages = Habits(CPU), numbered(6, 8)
    habits.closing[1] = Rate(50.0, 100.0)  # 0.5 * 24 < 0.5 * 53
    drafter = drafter_of(passages, habits)
    drafter.extend([FIRST, *HEAD, 100])
    assert drafter.draft(100).tokens == [*passages[0][1:], JOIN]


# --- verbatim


def test_forced_tokens_are_drafted_however_many() -> None:
    habits, [words] = Habits(CPU), numbered(1, 300)
    drafter = drafter_of([words], habits, bound=True)
    draft = drafter.draft(1000)
    assert draft.tokens == [FIRST, *HEAD, *words, JOIN, *QUESTION, ANSWER]
    assert set(draft.kinds) == {Kind.CHOICE}  # which teaches nothing: no other was possible
    assert draft.allowed == [{token} for token in draft.tokens] + [None]
    # Unbound, as many as are likely to be kept.
    assert len(drafter_of([words], habits).draft(1000).tokens) == habits.best_length(habits.copy)


def test_what_is_allowed_comes_with_each_token() -> None:
    passages = [[100, 101], [100, 102, 103], [200, 201]]
    drafter = drafter_of(passages, Habits(1.0), bound=True)
    draft = drafter.draft(50)
    assert draft.tokens == [FIRST, *HEAD]
    assert draft.allowed == [{FIRST}, {8}, {9}, {100, 200}]
    drafter.extend([FIRST, *HEAD, 100, 102])
    draft = drafter.draft(50)
    assert draft.tokens == [103, JOIN]
    assert draft.allowed == [{103}, {JOIN}, {OPEN, 31}]
    assert drafter.draft(1).allowed == [{103}, {JOIN}]
    assert drafter.draft(0) == Draft([], [], [frozenset({103})])
    drafter.extend([103, JOIN, *QUESTION, ANSWER])
    draft = drafter.draft(50)
    assert draft.allowed == [None] * (len(draft.tokens) + 1)


def test_what_is_allowed_by_sentences() -> None:
    drafter = Drafter(
        layout_of([[100, 101, 102, 103]], sentence=2), Habits(1.0), bound=True, sentences=True
    )
    drafter.extend([FIRST, *HEAD, 100])
    draft = drafter.draft(50)
    assert draft.tokens == [101]
    assert draft.allowed == [{101}, {102, PART}]


NOTHING = [40, 41, 42, 43, PART]


def test_the_sentence_that_abstains_is_drafted_when_its_first_word_is_written() -> None:
    passages = numbered(2, 40)
    for bound in (False, True):
        drafter = Drafter(
            layout_of(passages, nothing=NOTHING), Habits(CPU), bound=bound, abstain=bound
        )
        drafter.extend(NOTHING[:1])
        draft = drafter.draft(100)
        assert draft.tokens == [*NOTHING[1:], *QUESTION, ANSWER]
        drafter.extend(draft.tokens)
        assert drafter.state.free
        # None of it was copied from a passage; the question was.
        asked = drafter.grammar.layout.question
        assert drafter.sources == [None] * len(NOTHING) + [*range(*asked)]
        assert drafter.settled == len(drafter.written)


def test_whether_to_abstain_is_learnt() -> None:
    passages, habits = numbered(2, 40), Habits(CPU)
    layout = layout_of(passages, nothing=NOTHING)

    def drafter_now() -> Drafter:
        return Drafter(layout, habits, bound=True, abstain=True)

    assert drafter_now().draft(100).tokens[:1] == [FIRST]
    assert drafter_now().draft(100).allowed[0] == {FIRST, 40}
    for _ in range(20):
        drafter_now().extend(NOTHING)
    assert habits.abstaining.estimate == 21 / 28
    assert drafter_now().draft(100).tokens == [*NOTHING, *QUESTION, ANSWER]
    for _ in range(60):
        drafter_now().extend([FIRST, *HEAD, 100])
    assert habits.abstaining.estimate == 21 / 88
    assert drafter_now().draft(100).tokens[:1] == [FIRST]


def test_a_space_before_both_teaches_nothing() -> None:
    [passage] = numbered(1, 5)
    layout = replace(layout_of([passage], nothing=(1, *NOTHING)), opening=(1, FIRST))
    habits = Habits(CPU)
    drafter = Drafter(layout, habits, bound=True, abstain=True)
    before = replace(habits.abstaining)
    drafter.extend([1])
    assert habits.abstaining == before
    drafter.extend([40])
    assert habits.abstaining.estimate > before.estimate


def test_a_draft_is_never_made_of_the_sentence_that_abstains() -> None:
    """It stands nowhere in the prompt, so an answer is not copied from it."""
    [passage] = numbered(1, 5)
    drafter = Drafter(layout_of([passage], nothing=NOTHING), Habits(CPU))
    drafter.extend([FIRST, *HEAD, *passage, JOIN, *QUESTION, ANSWER, 40])
    assert drafter.draft(10).tokens == []


words = st.lists(st.integers(12, 14), min_size=1, max_size=5)


@settings(parent=steady)
@given(
    passages=st.lists(words, min_size=1, max_size=4),
    sentence=st.integers(0, 2),
    nothing=st.sampled_from([(), (40, PART), (FIRST, 40, PART)]),
    price=st.sampled_from([0.0, 1.0, CPU, GPU]),
    room=st.integers(0, 30),
    data=st.data(),
)
def test_a_bound_draft_is_allowed_throughout(
    passages: list[list[int]],
    sentence: int,
    nothing: tuple[int, ...],
    price: float,
    room: int,
    data: st.DataObject,
) -> None:
    layout, sentences = layout_of(passages, sentence, nothing), sentence > 0
    drafter = Drafter(layout, Habits(price), bound=True, sentences=sentences, abstain=True)
    grammar = Grammar(layout, sentences=sentences, abstain=True)
    state, written = grammar.start, 0
    while not state.free:
        draft = drafter.draft(room)
        assert len(draft.allowed) == len(draft.tokens) + 1
        assert len(draft.kinds) == len(draft.tokens) <= room
        behind = state
        for token, allowed in zip(draft.tokens, draft.allowed, strict=False):
            assert allowed == grammar.allowed(behind)
            assert allowed is not None
            assert token in allowed
            behind = grammar.advance(behind, token)
        assert draft.allowed[-1] == grammar.allowed(behind)
        kept = data.draw(st.integers(0, len(draft.tokens)))
        choices = draft.allowed[kept]
        chosen = [] if choices is None else [data.draw(st.sampled_from(sorted(choices)))]
        drafter.habits.learn(draft, kept)
        taken = draft.tokens[:kept] + chosen
        drafter.extend(taken)
        for token in taken:
            state = grammar.advance(state, token)
        assert drafter.state == state
        written += len(taken)
        assert written < 400
    assert drafter.draft(room).allowed == [None] * (len(drafter.draft(room).tokens) + 1)


# --- where the grammar was left


def test_behind_a_slip_the_passage_goes_on() -> None:
    passages = numbered(5, 40)
    words = passages[2]
    drafter = drafter_of(passages, Habits(CPU))
    drafter.extend([FIRST, *HEAD, *words[:10], 99])  # 99 in place of words[10]
    draft = drafter.draft(100)
    assert draft.kinds
    assert set(draft.kinds) == {Kind.GUESS}
    assert draft.tokens == words[11 : 11 + len(draft.tokens)]
    drafter.extend(words[11:13])
    draft = drafter.draft(100)
    assert set(draft.kinds[:27]) == {Kind.COPY}
    assert draft.tokens[:28] == [*words[13:], JOIN]


def test_behind_an_added_word_the_passage_goes_on() -> None:
    passages = numbered(5, 40)
    words = passages[2]
    drafter = drafter_of(passages, Habits(CPU))
    drafter.extend([FIRST, *HEAD, *words[:10], 99])  # 99 before words[10]
    drafter.draft(100)
    drafter.extend([words[10]])
    drafter.draft(100)
    drafter.extend([words[11]])  # two words of the passage: they are found again
    draft = drafter.draft(100)
    assert draft.tokens == words[12 : 12 + len(draft.tokens)]
    assert draft.tokens


def test_behind_words_left_out_the_passage_goes_on() -> None:
    passages = numbered(5, 40)
    words = passages[2]
    drafter = drafter_of(passages, Habits(CPU))
    drafter.extend([FIRST, *HEAD, *words[:10], words[15]])
    drafter.draft(100)
    drafter.extend([words[16]])
    draft = drafter.draft(100)
    assert draft.tokens == words[17 : 17 + len(draft.tokens)]
    assert draft.tokens
    drafter.extend(words[17:20])
    assert drafter.draft(100).tokens[:21] == [*words[20:], JOIN]


def test_a_slip_in_the_choice_of_a_way_loses_the_draft_only() -> None:
    drafter = drafter_of(numbered(5, 40), Habits(CPU))
    drafter.extend([FIRST, *HEAD, 99])
    drafter.draft(100)
    drafter.extend([98])
    assert drafter.draft(100).kinds.count(Kind.COPY) == 0
    assert drafter.sources[-2:] == [None, None]


def test_a_passage_without_its_head_is_drafted_when_two_of_its_words_are_written() -> None:
    """As by a reader that was trained on nothing: it quotes in its own way."""
    passages = numbered(5, 40)
    drafter = drafter_of(passages, Habits(CPU))
    drafter.extend([99, 98, passages[3][5]])
    assert drafter.draft(100).kinds.count(Kind.COPY) == 0
    drafter.extend([passages[3][6]])
    draft = drafter.draft(100)
    assert draft.tokens
    assert draft.tokens == passages[3][7 : 7 + len(draft.tokens)]
    assert set(draft.kinds) == {Kind.GUESS}


def test_a_long_match_is_taken_for_copying() -> None:
    passages = numbered(5, 40)
    drafter = drafter_of(passages, Habits(CPU))
    drafter.extend([99, *passages[3][5:9]])
    draft = drafter.draft(100)
    assert draft.tokens[:32] == [*passages[3][9:], JOIN]
    assert set(draft.kinds[:32]) == {Kind.COPY}


def test_the_sources_of_what_was_copied() -> None:
    passages = numbered(2, 4)
    drafter = drafter_of(passages, Habits(CPU))
    #  10 11 | 4 8 9 100 101 102 103 5 | 4 8 9 200 201 202 203 5 | 31 32 33 6
    drafter.extend([FIRST, *HEAD, *passages[1], JOIN, *QUESTION, ANSWER, 101, 99])
    # The first word stands nowhere in the prompt; whose head it was is known from the text behind.
    head, text, question = [None, 11, 12], [13, 14, 15, 16, 17], [18, 19, 20, 21]
    assert drafter.sources == [*head, *text, *question, None, None]
    assert drafter.written == [FIRST, *HEAD, *passages[1], JOIN, *QUESTION, ANSWER, 101, 99]
    drafter = drafter_of(passages, Habits(CPU))
    drafter.extend([FIRST, *HEAD, 100, 101, 99])
    drafter.draft(10)
    drafter.extend([103, JOIN])
    assert drafter.sources == [None, 3, 4, 5, 6, None, 8, 9]


def test_the_sources_of_sentences_that_begin_alike() -> None:
    #  10 11 | 4 8 9 50 51 50 52 5 | 4 8 9 50 53 50 54 5 | 31 32 33 6; sentences of two words
    layout = layout_of([[50, 51, 50, 52], [50, 53, 50, 54]], sentence=2)
    for word, sources in (
        (51, [3, 4, 5, 6]),
        (52, [3, 4, 7, 8]),
        (53, [11, 12, 13, 14]),
        (54, [11, 12, 15, 16]),
    ):
        drafter = Drafter(layout, Habits(CPU), bound=True, sentences=True)
        drafter.extend([FIRST, *HEAD, 50])
        assert drafter.settled == 1  # which of four sentences it is, of which passage, is open
        drafter.extend([word])
        assert drafter.settled == 5
        assert drafter.sources == [None, *sources]


def test_what_is_known_stays_known_where_sentences_begin_alike() -> None:
    """One passage: the title is settled, and may have been told, before its sentences part."""
    #  10 11 | 4 8 9 50 51 50 52 5 | 31 32 33 6
    layout = layout_of([[50, 51, 50, 52]], sentence=2)
    drafter = Drafter(layout, Habits(CPU), bound=True, sentences=True)
    drafter.extend([FIRST, *HEAD])
    assert drafter.settled == 3
    drafter.extend([50])
    assert drafter.settled == 3
    drafter.extend([52])
    assert drafter.settled == 5
    assert drafter.sources == [None, 3, 4, 7, 8]


# --- drafts by matches alone


@pytest.mark.parametrize("period", [[20], [20, 21], [20, 21, 22, 23, 24]])
def test_a_repetition_is_drafted_around(period: list[int]) -> None:
    drafter = Drafter(Layout((10, 11, 12)), Habits(CPU))
    drafter.extend([13, *period * 6])
    draft = drafter.draft(40)
    assert draft.tokens == (period * 40)[:40]
    assert set(draft.kinds) == {Kind.COPY}


def test_the_shortest_repetitions() -> None:
    for period in ([20], [20, 21]):
        drafter = Drafter(Layout((10, 11, 12)), Habits(CPU))
        drafter.extend(period * 2)
        draft = drafter.draft(3)
        assert draft.tokens == (period * 3)[:3]
        assert set(draft.kinds) == {Kind.GUESS}


def test_an_answer_that_stands_in_a_passage_is_drafted() -> None:
    passages = numbered(3, 40)
    habits = Habits(CPU)
    drafter = drafter_of(passages, habits)
    for piece in written_with([1], passages)[:-1]:
        drafter.extend(piece)
    drafter.extend(passages[1][20:22])
    draft = drafter.draft(10)
    assert draft.tokens == passages[1][22 : 22 + len(draft.tokens)]
    assert len(draft.tokens) == habits.best_length(habits.guess)
    assert set(draft.kinds) == {Kind.GUESS}


@pytest.mark.parametrize("bound", [False, True])
def test_right_behind_the_question_no_answer_is_drafted(bound: bool) -> None:
    """`Answer:` stands at the end of the prompt as well, where nothing follows it."""
    passages = numbered(3, 40)
    drafter = drafter_of(passages, Habits(CPU), bound=bound)
    for piece in written_with([1], passages)[:-1]:
        drafter.extend(piece)
    assert drafter.draft(10).tokens == []


def test_without_passages_or_matches_nothing_is_drafted() -> None:
    drafter = Drafter(Layout((10, 11, 12)), Habits(CPU))
    assert drafter.draft(10) == Draft([], [], [])
    drafter.extend([99])
    assert drafter.draft(10) == Draft([], [], [])
    drafter.extend([11])
    assert drafter.draft(10).tokens[:1] == [12]
    assert Drafter(Layout((10,)), Habits(CPU), bound=True).draft(5) == Draft([], [], [None])


def test_guesses_that_are_refused_become_shorter() -> None:
    habits = Habits(CPU)
    lengths = []
    for _ in range(150):
        drafter = Drafter(Layout(tuple(range(100, 200))), habits)
        drafter.extend([99, 120, 121])
        draft = drafter.draft(50)
        assert draft.tokens == list(range(122, 122 + len(draft.tokens)))
        assert set(draft.kinds) <= {Kind.GUESS}
        lengths.append(len(draft.tokens))
        habits.learn(draft, 0)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] >= 3
    assert lengths[-1] == 0
    # What is copied for certain is drafted as before.
    drafter = Drafter(Layout(tuple(range(100, 200))), habits)
    drafter.extend([99, 120, 121, 122, 123])
    assert len(drafter.draft(50).tokens) == 50


def test_guesses_that_are_kept_become_longer() -> None:
    habits = Habits(CPU)
    lengths = []
    for _ in range(20):
        drafter = Drafter(Layout(tuple(range(100, 200))), habits)
        drafter.extend([99, 120, 121])
        draft = drafter.draft(50)
        lengths.append(len(draft.tokens))
        habits.learn(draft, len(draft.tokens))
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[0]


# --- any completion


@settings(parent=steady)
@given(
    passages=st.lists(words, max_size=4),
    sentence=st.integers(0, 2),
    price=st.sampled_from([0.0, 1.0, CPU, GPU]),
    turns=st.lists(
        st.tuples(
            st.integers(0, 20), st.integers(0, 20), st.sampled_from([3, 4, 5, 12, 13, 31, 40, 99])
        ),
        max_size=12,
    ),
)
def test_any_completion_can_be_drafted(
    passages: list[list[int]],
    sentence: int,
    price: float,
    turns: list[tuple[int, int, int]],
) -> None:
    """A draft is kept up to some place, and another token is written there."""
    layout = layout_of(passages, sentence, NOTHING) if passages else Layout((10, 11, 12, 13))
    drafter = Drafter(layout, Habits(price), sentences=sentence > 0)
    written: list[int] = []
    for room, kept, token in turns:
        draft = drafter.draft(room)
        assert len(draft.tokens) == len(draft.kinds) <= room
        assert draft.allowed == []
        taken = [*draft.tokens[:kept], token]
        drafter.habits.learn(draft, min(kept, len(draft.tokens)))
        drafter.extend(taken)
        written += taken
        assert drafter.written == written
        copied = [*layout.ids, *layout.opening, *layout.separator]
        assert drafter.index.sequence == [*copied, *written]
        assert len(drafter.sources) == len(written)
        for token, source in zip(written, drafter.sources, strict=True):
            assert source is None or layout.ids[source] == token
