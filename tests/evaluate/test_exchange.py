"""Files of Lost in the Middle's scripts in and out, held against their rule as it is described."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.exchange import first_line_of, read_responses, to_responses
from scratchpad_rag.evaluate.metrics import subspan_exact_match
from scratchpad_rag.evaluate.sources import passage_id
from scratchpad_rag.prompts.template import SYSTEM_SENTENCE
from scratchpad_rag.records import Passage, Score

steady = settings(deadline=None, derandomize=True)
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


# --- their rule, from its description: SQuAD's normalisation, and any answer in the first line


def plain(text: str, pattern: Any = None) -> str:
    bare = "".join(letter for letter in text.lower() if letter not in PUNCTUATION)
    for article in re.finditer(r"\b(?:the|an|a)\b", bare) if pattern is None else pattern(bare):
        bare = bare[: article.start()] + " " * len(article[0]) + bare[article.end() :]
    return " ".join(bare.split())


def their_score(model_answer: str, answers: Sequence[str], pattern: Any = None) -> float:
    line = model_answer[: (model_answer + "\n").index("\n")].strip()
    return float(any(plain(answer, pattern) in plain(line, pattern) for answer in answers))


def nothing_left(answers: Sequence[str]) -> bool:
    return any(not plain(answer) for answer in answers)


def test_their_rule_by_hand() -> None:
    answers = ["Wilhelm Conrad Röntgen"]
    assert their_score("It was wilhelm conrad röntgen.\nQuestion: and then?", answers) == 1.0
    assert their_score("\nWilhelm Conrad Röntgen", answers) == 0.0
    assert their_score("a party", ["art"]) == 1.0
    assert their_score("twenty one", ["twenty-one"]) == 0.0
    # The one that differs: an answer of nothing but articles and punctuation is in everything.
    assert their_score("", ["The"]) == 1.0


PIECES = [
    *("the", "a", "an", " ", "  ", "\n", "\t", "-", "'", "“", "a.", "The.", "party", "art", "1911"),
    *("Röntgen", "ß", "İ", "Σ", "日本", "²", "e\u0301", "\u00a0", "\u2028", "_", "😀"),
]
texts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.text(max_size=12))


@settings(parent=steady, max_examples=300)
@given(said=texts, answers=st.lists(texts, min_size=1, max_size=3), take=st.booleans())
def test_scores_are_theirs(said: str, answers: list[str], take: bool) -> None:
    """Where an answer is left of every answer; ours finds none that is empty."""
    said = said + answers[0] if take else said
    ours = subspan_exact_match(first_line_of(said), answers)
    kept = [answer for answer in answers if plain(answer)]
    assert ours == (their_score(said, kept) if kept else 0.0)
    if nothing_left(answers):
        assert their_score(said, answers) == 1.0


@settings(parent=steady, max_examples=300)
@given(said=texts, answers=st.lists(texts, min_size=1, max_size=3), take=st.booleans())
def test_scores_are_theirs_with_the_package_that_they_use(
    said: str, answers: list[str], take: bool
) -> None:
    """`regex` counts combining marks to words and signs such as ² not; where an article stands
    beside neither, the two find the same."""
    regex = pytest.importorskip("regex")
    said = said + answers[0] if take else said
    words = r"\b(?:the|an|a)\b"
    for text in (said, *answers):
        bare = "".join(letter for letter in text.lower() if letter not in PUNCTUATION)
        one, other = re.finditer(words, bare), regex.finditer(words, bare)
        assume([m.span() for m in one] == [m.span() for m in other])
    kept = [answer for answer in answers if plain(answer)]
    theirs = their_score(said, kept, lambda bare: regex.finditer(words, bare))
    assert subspan_exact_match(first_line_of(said), answers) == theirs


# --- in


DOCUMENTS = [
    {"title": "Physics", "text": "The first went to Röntgen.", "isgold": True, "hasanswer": True},
    {"title": "Chemistry", "text": "It went to van 't Hoff.", "isgold": False, "hasanswer": False},
    {"title": "Peace", "text": "It was shared.", "isgold": False, "hasanswer": False},
]


def response(**changes: Any) -> dict[str, Any]:
    """A line as their script for Llama 2 writes it."""
    shown = changes.pop("shown", [1, 0, 2])
    fields: dict[str, Any] = {
        "question": "who got the first nobel prize in physics",
        "answers": ["Wilhelm Conrad Röntgen", "Röntgen"],
        "ctxs": [{"id": "7", "score": "1.5", **document} for document in DOCUMENTS],
        "nq_annotated_gold": {"title": "Physics"},
        "model_prompt": "Write a high-quality answer ...",
        "model_documents": [
            {**DOCUMENTS[index], "id": "7", "score": 1.5, "original_retrieval_index": None}
            for index in shown
        ],
        "model_answer": "It was Röntgen.\nQuestion: who got the second",
        "model": "meta-llama/Llama-2-7b-hf",
        "model_temperature": 0.0,
        "model_top_p": 1.0,
        "model_prompt_mention_random_ordering": False,
        "model_use_random_ordering": False,
    }
    return {**fields, **changes}


def key_values(**changes: Any) -> dict[str, Any]:
    records = [["k1", "v-1"], ["k2", "v-2"], ["k3", "v-3"]]
    fields: dict[str, Any] = {
        "ordered_kv_records": records,
        "key": "k2",
        "value": "v-2",
        "model_prompt": "Extract the value ...",
        "model_answer": 'The value\nis "V-2".',
        "model": "mosaicml/mpt-30b",
        "model_temperature": 0.0,
        "model_top_p": 1.0,
        "model_ordered_kv_records": [records[1], records[0], records[2]],
    }
    return {**fields, **changes}


def write(path: Path, *lines: dict[str, Any]) -> Path:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as stream:
        stream.write(text)
    return path


def read_one(tmp_path: Path, line: dict[str, Any], **options: str) -> tuple[Score, Any]:
    [read] = read_responses(write(tmp_path / "one.jsonl", line), **options)
    return read.score, read.passages


def test_a_line_of_theirs(tmp_path: Path) -> None:
    [(score, passages)] = read_responses(write(tmp_path / "answers.jsonl.gz", response()))
    assert score.method == "meta-llama/Llama-2-7b-hf"
    assert score.question == "who got the first nobel prize in physics"
    assert score.answers == ("Wilhelm Conrad Röntgen", "Röntgen")
    # What the model was shown, not the order of the file.
    assert [passage.title for passage in passages] == ["Chemistry", "Physics", "Peace"]
    assert score.num_documents == 3
    assert score.gold_positions == (1,)
    assert score.gold_total == 1
    assert score.shown == tuple(map(passage_id, passages))
    assert score.prediction == "It was Röntgen."
    assert score.completion == "It was Röntgen.\nQuestion: who got the second"
    assert (score.subspan_exact_match, score.exact_match) == (1.0, 0.0)
    assert score.f1 == pytest.approx(2 / 4)  # it, was, röntgen against röntgen
    assert (score.quotes, score.quote_recall, score.parsed) == ((), None, True)
    assert (score.passage_order, score.dataset, score.wall_seconds) == ("ranked", "", 0.0)


def test_the_same_question_has_the_same_id_in_every_file(tmp_path: Path) -> None:
    first, _ = read_one(tmp_path, response())
    other, _ = read_one(tmp_path, response(shown=[0, 1, 2], model_answer="no"))
    assert first.example_id == other.example_id
    assert (first.gold_positions, other.gold_positions) == ((1,), (0,))


def test_an_answer_on_the_second_line_is_none_by_their_rule(tmp_path: Path) -> None:
    score, _ = read_one(tmp_path, response(model_answer="\nRöntgen"))
    assert (score.prediction, score.subspan_exact_match) == ("", 0.0)
    assert score.completion_subspan_exact_match == 1.0
    score, _ = read_one(tmp_path, response(model_answer=""))
    assert (score.prediction, score.completion) == ("", "")


def test_closed_book_and_names(tmp_path: Path) -> None:
    closed, passages = read_one(tmp_path, response(model_documents=[]))
    assert (closed.method, closed.num_documents, passages) == ("closed_book", 0, ())
    assert (closed.gold_positions, closed.gold_total) == ((), 1)
    named, _ = read_one(tmp_path, response(), method="llama", dataset="nq")
    assert (named.method, named.dataset) == ("llama", "nq")
    shuffled, _ = read_one(tmp_path, response(model_use_random_ordering=True))
    assert shuffled.passage_order == "shuffled"


def test_without_model_documents_those_of_the_question_are_meant(tmp_path: Path) -> None:
    line = response()
    del line["model_documents"]
    score, passages = read_one(tmp_path, line)
    assert [passage.title for passage in passages] == ["Physics", "Chemistry", "Peace"]
    assert score.gold_positions == (0,)


def test_key_values(tmp_path: Path) -> None:
    score, passages = read_one(tmp_path, key_values())
    assert passages[0] == Passage("k2", "v-2")
    assert (score.example_id, score.answers, score.gold_positions) == ("k2", ("v-2",), (0,))
    assert score.question == 'What is the value of the key "k2"'
    assert score.subspan_exact_match == 1.0  # anywhere in the answer, upper or lower case
    score, _ = read_one(tmp_path, key_values(model_answer="v2"))
    assert score.subspan_exact_match == 0.0  # their rule keeps punctuation


MISSING = object()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_answer": MISSING}, "field 'model_answer' is missing; questions without"),
        ({"model_answer": None}, "'model_answer' must be a string, not null"),
        ({"model_answer": "\ud83d"}, "holds half a character"),
        ({"model": MISSING}, "field 'model' is missing"),
        ({"answers": "Röntgen"}, "'answers' must be a list, not a string"),
        ({"answers": []}, "the question has no answers"),
        ({"answers": [1911]}, "'answers', entry 1, must be a string, not a number"),
        ({"question": MISSING}, "neither 'question' nor 'ordered_kv_records'"),
        ({"model_documents": [{"title": "a"}]}, "model_documents 1: field 'text' is missing"),
        ({"model_documents": MISSING, "ctxs": MISSING}, "field 'ctxs' is missing"),
        ({"model_documents": [{**DOCUMENTS[0], "isgold": 1}]}, "'isgold' must be true or false"),
        ({"model_use_random_ordering": "no"}, "must be true or false, not a string"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    fields = {k: v for k, v in response(**changes).items() if v is not MISSING}
    path = write(tmp_path / "bad.jsonl", response(question="another"), fields)
    with pytest.raises(DataError, match=re.escape(message)) as raised:
        list(read_responses(path))
    assert str(raised.value).startswith(f"{path}:2: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "k9"}, "key 'k9' is not among ordered_kv_records; it must be once"),
        ({"model_ordered_kv_records": [["k2"]]}, "ordered_kv_records 1: must be [key, value]"),
        ({"value": ""}, "field 'value' is empty"),
    ],
)
def test_bad_key_values_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_one(tmp_path, key_values(**changes))


def test_answers_of_two_models_in_one_file_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "two.jsonl", response(), response(question="b", model="other"))
    with pytest.raises(
        DataError, match=r"two\.jsonl:2: answers of model 'other', and those at .*:1"
    ):
        list(read_responses(path))


def test_an_answer_given_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "twice.jsonl", response(), response(model_answer="another"))
    with pytest.raises(DataError, match=r"twice\.jsonl:2: .*was answered before, at .*:1"):
        list(read_responses(path))


def test_a_file_cut_off_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.jsonl.gz", *(response(question=f"q{n}") for n in range(50)))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz: the gzip data are cut off"):
        list(read_responses(path))


# --- out


TOWN, RIVER = Passage("Marren", "A town by the Ilse."), Passage("Ilse", "A river.")
KNOWN = {passage_id(passage): passage for passage in (TOWN, RIVER)}


@pytest.fixture
def score(tmp_path: Path) -> Score:
    """Ours, by way of theirs: of two passages, the second gold."""
    read, _ = read_one(tmp_path, response(answers=["Ilse"], question="which river"))
    return replace(
        read,
        method="scratchpad",
        num_documents=2,
        gold_positions=(1,),
        shown=(passage_id(RIVER), passage_id(TOWN)),
        prediction="the Ilse",
        completion=" Document (Title: Marren) ...\n\nQuestion: Which river?\n\nAnswer: the Ilse",
        subspan_exact_match=1.0,
    )


def test_a_line_of_ours(score: Score) -> None:
    written = to_responses([score], KNOWN, "tiny/scratchpad")
    [fields] = map(json.loads, written.lines)
    assert fields["question"] == "which river"
    assert fields["answers"] == ["Ilse"]
    documents = [
        {
            "title": passage.title,
            "text": passage.text,
            "id": passage_id(passage),
            "score": None,
            "hasanswer": None,
            "isgold": passage == TOWN,
            "original_retrieval_index": None,
        }
        for passage in (RIVER, TOWN)
    ]
    assert fields["ctxs"] == fields["model_documents"] == documents
    assert fields["model_answer"] == "the Ilse"
    assert (fields["model"], fields["model_temperature"]) == ("tiny/scratchpad", 0.0)
    assert fields["model_use_random_ordering"] is False
    assert fields["model_prompt"] == (
        f"{SYSTEM_SENTENCE}\n\nQuestion: Which river?\n\nContext:\n"
        "Document (Title: Ilse) A river.\n\nDocument (Title: Marren) A town by the Ilse.\n\n"
        "Question: Which river?\n\nAnswer:"
    )
    assert (written.mean, written.ours) == (1.0, 1.0)


def test_what_we_wrote_is_read_again(score: Score, tmp_path: Path) -> None:
    scores = [
        score,
        replace(score, gold_positions=(0,), shown=score.shown[::-1], prediction="no",
                subspan_exact_match=0.0),
        replace(score, num_documents=0, gold_positions=(), shown=(), method="closed_book"),
    ]  # fmt: skip
    path = tmp_path / "ours.jsonl"
    path.write_text("\n".join(to_responses(scores, KNOWN, "tiny").lines), encoding="utf-8")
    again = [read.score for read in read_responses(path)]
    for one, other in zip(scores, again, strict=True):
        for field in ("method", "question", "answers", "num_documents", "gold_positions", "shown",
                      "prediction", "subspan_exact_match", "passage_order", "dataset"):  # fmt: skip
            assert getattr(one, field) == getattr(other, field), field


def test_a_method_that_picks_passages_marks_gold_by_what_it_is(score: Score) -> None:
    picked = replace(score, method="rerank_then_read", shown=(passage_id(RIVER),))
    fields = json.loads(to_responses([picked, score], KNOWN, "m").lines[0])
    assert [document["isgold"] for document in fields["ctxs"]] == [False]
    fields = json.loads(to_responses([picked], KNOWN, "m").lines[0])
    assert [document["isgold"] for document in fields["ctxs"]] == [None]  # not known


def test_one_that_abstains_says_no_word_that_its_letters_hold(score: Score) -> None:
    silent = replace(
        score, answers=("era",), prediction="unanswerable", abstained=True, subspan_exact_match=0.0
    )
    written = to_responses([silent], KNOWN, "m")
    assert json.loads(written.lines[0])["model_answer"] == ""
    assert (written.mean, written.ours) == (0.0, 0.0)
    right = replace(silent, answers=("unanswerable",), subspan_exact_match=1.0)
    written = to_responses([right], KNOWN, "m")
    assert json.loads(written.lines[0])["model_answer"] == "unanswerable"
    assert (written.mean, written.ours) == (1.0, 1.0)


answer_texts = texts.filter(lambda text: bool(plain(text)))


@settings(parent=steady, max_examples=60)
@given(rows=st.lists(st.tuples(texts, st.lists(answer_texts, min_size=1, max_size=3)), min_size=1))
def test_their_rule_finds_our_mean_in_what_we_write(rows: list[tuple[str, list[str]]]) -> None:
    costs = (0, 0, 0, 0.0)
    rates = (0.0, 0.0, 0.0, 0.0, None, None, None)
    base = Score("sft", "q", "why", (), 1, (0,), "", "", (), True, *rates, *costs)
    base = replace(base, shown=(passage_id(TOWN),))
    scores = []
    for said, answers in rows:
        answer = said.strip().split("\n")[0].strip()  # as completions are parsed
        right = subspan_exact_match(answer, answers)
        scores.append(
            replace(base, answers=tuple(answers), prediction=answer, subspan_exact_match=right)
        )
    written = to_responses(scores, KNOWN, "m")
    lines = list(map(json.loads, written.lines))
    theirs = [their_score(line["model_answer"], line["answers"]) for line in lines]
    assert written.mean == pytest.approx(sum(theirs) / len(theirs))
    assert written.mean == pytest.approx(written.ours)


def test_key_value_questions_are_written_as_theirs(tmp_path: Path) -> None:
    read, passages = read_one(tmp_path, key_values(model_answer="V-2"))
    known = {passage_id(passage): passage for passage in passages}
    written = to_responses([read], known, "m", "litm_kv")
    [fields] = map(json.loads, written.lines)
    assert (fields["key"], fields["value"]) == ("k2", "v-2")
    assert fields["ordered_kv_records"] == [["k2", "v-2"], ["k1", "v-1"], ["k3", "v-3"]]
    assert fields["model_ordered_kv_records"] == fields["ordered_kv_records"]
    assert written.mean == 1.0
    path = tmp_path / "kv.jsonl"
    path.write_text(written.lines[0], encoding="utf-8")
    [again] = read_responses(path)
    assert replace(again.score, method=read.method) == read


def test_what_cannot_be_written_is_said(score: Score) -> None:
    old = replace(score, shown=())
    with pytest.raises(DataError, match="do not name the passages shown"):
        to_responses([old], KNOWN, "m")
    with pytest.raises(DataError, match=f"lacks passage {passage_id(TOWN)}"):
        to_responses([score], {passage_id(RIVER): RIVER}, "m")
    with pytest.raises(DataError, match="asks for no key's value"):
        to_responses([score], KNOWN, "m", "litm_kv")
