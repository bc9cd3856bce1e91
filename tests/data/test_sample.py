"""The sample set: what the generator makes, and the files that come with the project."""

import gzip
import json
import re
import string
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from random import Random

import bm25s
import pytest

from scratchpad_rag.data.sample import (
    SampleConfig,
    SampleSet,
    bm25_top1,
    build_sample,
    write_sample,
)
from scratchpad_rag.data.sample_prose import facts_in
from scratchpad_rag.data.sample_world import build_world, load_encyclopedia
from scratchpad_rag.errors import DataError

COMMITTED = Path(__file__).parents[2] / "data" / "qa_data" / "sample"
SMALL = SampleConfig(seed=3, num_questions=300, num_passages=600)


def squad_words(text):
    """SQuAD's normalisation, written apart from the one under test."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in kept.split() if word not in {"a", "an", "the"}]


def holds(text, answer):
    words, wanted = squad_words(text), squad_words(answer)
    return any(
        words[start : start + len(wanted)] == wanted
        for start in range(len(words) - len(wanted) + 1)
    )


def residue(text):
    """What an unfinished template leaves behind."""
    wrong_a = r"\b[Aa] (?=[aeiouAEIOU])(?!(?:[Uu]ni|[Uu]s[ei]|[Oo]ne\b|[Ee]u))"
    wrong_an = r"\b[Aa]n (?=[b-df-gj-np-tv-zB-DF-GJ-NP-TV-Z])"
    pattern = rf"[{{}}\[\]|_]|  |\s[,.;:?!]|\.\.|,,|\bNone\b|{wrong_a}|{wrong_an}|\b(\w+) \1\b"
    return re.search(pattern, text)


def read_lines(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def small() -> SampleSet:
    return build_sample(SMALL)


@pytest.fixture(scope="module")
def committed():
    return (
        read_lines(COMMITTED / "passages.jsonl.gz"),
        read_lines(COMMITTED / "questions.jsonl.gz"),
    )


def test_same_seed_gives_the_same_bytes(small, tmp_path):
    write_sample(small, tmp_path / "first")
    write_sample(build_sample(SMALL), tmp_path / "second")
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == ["README.md", "passages.jsonl.gz", "questions.jsonl.gz"]
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_another_seed_gives_another_set(small):
    other = build_sample(replace(SMALL, seed=4, num_questions=20))
    assert {p.text for p in other.passages}.isdisjoint(p.text for p in small.passages)


def test_counts_and_splits(small):
    assert len(small.passages) == 600
    assert Counter(question.split for question in small.questions) == {"train": 200, "val": 100}
    assert all(len(question.distractors) == 29 for question in small.questions)


def test_distractors_are_distinct_and_leave_out_the_gold_passage(small):
    for question in small.questions:
        assert len({*question.distractors, *question.gold}) == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_passages": 100, "num_questions": 50}, "too few"),
        ({"num_questions": 601}, "601 questions"),
        ({"val_fraction": 1.5}, "val_fraction is 1.5"),
        ({"num_distractors": 0}, "num_distractors is 0"),
    ],
)
def test_impossible_counts_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        build_sample(replace(SMALL, **change))


def test_bm25_top1_counts_what_outranks_the_gold_passage(small):
    top1 = bm25_top1(small)
    assert 0 < top1.pool <= top1.shown < 1
    assert bm25_top1(small, shown=2).shown == top1.shown  # the best distractor decides


def test_every_fact_has_four_phrasings_and_four_questions():
    kinds = load_encyclopedia().kinds
    assert len(kinds) >= 20
    for kind in kinds:
        assert len(kind.facts) >= 8, kind.name
        for fact in kind.facts:
            stating = [line for line in kind.openings + kind.sentences if fact in facts_in(line)]
            assert len(set(stating)) >= 4, f"{kind.name}.{fact}"
            assert len(set(kind.questions[fact])) >= 4, f"{kind.name}.{fact}"
        lines = (*kind.openings, *kind.sentences, *kind.asides, *kind.references)
        known = {*kind.facts, "lookalike"}
        assert all(facts_in(line) <= known for line in lines), kind.name
        assert all(line.count("{e}") == 1 for asked in kind.questions.values() for line in asked)
        assert all(line[-1] in ".?" for line in (*kind.openings, *kind.sentences, *kind.asides))


@pytest.fixture(scope="module")
def world():
    return build_world(load_encyclopedia(), 6000, Random(11))


def test_links_lead_to_entities_that_exist(world):
    names = {
        kind: {entity.mention for entity in entities} for kind, entities in world.entities.items()
    }
    links = 0
    for kind in world.encyclopedia.kinds:
        for entity in world.entities[kind.name]:
            for fact, spec in kind.facts.items():
                if "link" in spec and fact in entity.facts:
                    links += 1
                    assert entity.facts[fact].text in names[spec["link"]]
    assert links > 3000


def test_no_two_entities_share_a_name(world):
    names = Counter(
        entity.name.casefold() for entities in world.entities.values() for entity in entities
    )
    assert max(names.values()) == 1


def test_dates_agree_across_links(world):
    people = {person.mention: person.facts for person in world.entities["person"]}
    towns = {town.mention: town.facts for town in world.entities["town"]}
    for facts in people.values():
        assert 44 <= facts["died"].year - facts["born"].year <= 88
        assert towns[facts["birthplace"].text]["founded"].year < facts["born"].year
        if "mentor" in facts:
            assert people[facts["mentor"].text]["born"].year < facts["born"].year
    for novel in world.entities["novel"]:
        author = people[novel.facts["author"].text]
        assert author["born"].year + 24 <= novel.facts["published"].year < author["died"].year
        assert author["profession"].text in {"novelist", "poet", "essayist"}
    for bridge in world.entities["bridge"]:
        facts = bridge.facts
        assert facts["designed"].year < facts["opened"].year < facts["damaged"].year
        designer = people[facts["designer"].text]
        assert designer["born"].year < facts["designed"].year < designer["died"].year
    for battle in world.entities["battle"]:
        assert towns[battle.facts["town"].text]["founded"].year < battle.facts["fought"].year


def test_no_answer_is_much_commoner_than_the_others(world):
    for kind in world.encyclopedia.kinds:
        entities = world.entities[kind.name]
        for fact in kind.facts:
            values = Counter(e.facts[fact].text for e in entities if fact in e.facts)
            assert values.most_common(1)[0][1] <= max(3, 0.101 * len(entities)), (kind.name, fact)


def test_committed_files_are_compact_and_complete(committed):
    passages, questions = committed
    assert sum(path.stat().st_size for path in COMMITTED.iterdir()) < 4_000_000
    assert len(passages) >= 6000
    assert len(questions) == 3000
    assert Counter(q["split"] for q in questions) == {"train": 2000, "val": 1000}
    assert len({p["id"] for p in passages}) == len(passages)
    assert len({p["title"].casefold() for p in passages}) == len(passages)
    assert len({q["question"] for q in questions}) == len(questions)


def test_committed_passages_are_80_to_130_words_of_finished_prose(committed):
    passages, questions = committed
    for passage in passages:
        assert 80 <= len(passage["text"].split()) <= 130, passage["title"]
        assert residue(passage["text"]) is None, residue(passage["text"])
        assert passage["text"][0].isupper()
        assert passage["text"].endswith(".")
        assert passage["title"] in passage["text"]
    for question in questions:
        assert residue(question["question"]) is None, question["question"]
        assert question["question"].endswith("?")
        assert question["question"][0].isupper()


@pytest.mark.parametrize("text", ["a {name}", "two  spaces", "a otter", "an bridge", "the the end"])
def test_residue_is_noticed(text):
    assert residue(text)


def test_committed_answers_stand_in_the_gold_passage_and_nowhere_else_shown(committed):
    passages, questions = committed
    text_of = {p["id"]: f"{p['title']} {p['text']}" for p in passages}
    normal = {name: f" {' '.join(squad_words(text))} " for name, text in text_of.items()}
    for question in questions:
        (gold,) = question["gold"]
        assert any(answer in text_of[gold] for answer in question["answers"]), question["id"]
        assert len(question["distractors"]) == len(set(question["distractors"])) == 29
        for answer in question["answers"]:
            wanted = f" {' '.join(squad_words(answer))} "
            assert wanted.strip(), question["id"]
            assert not holds(question["question"], answer), question["id"]
            for name in question["distractors"]:
                assert wanted not in normal[name], (question["id"], name)


def test_committed_splits_share_no_gold_passage(committed):
    _, questions = committed
    gold = defaultdict(set)
    for question in questions:
        gold[question["split"]].update(question["gold"])
    assert gold["train"]
    assert gold["val"]
    assert gold["train"].isdisjoint(gold["val"])


def test_committed_set_is_hard_for_a_word_match(committed):
    """BM25's best passage, computed here with bm25s alone."""
    passages, questions = committed
    corpus = [f"{p['title']} {p['text']}" for p in passages]
    index = {p["id"]: number for number, p in enumerate(passages)}
    retriever = bm25s.BM25()
    retriever.index(
        bm25s.tokenize(corpus, stopwords="en", show_progress=False), show_progress=False
    )
    hits = 0
    for question in questions:
        tokens = bm25s.tokenize(
            question["question"], stopwords="en", return_ids=False, show_progress=False
        )[0]
        scores = retriever.get_scores(tokens)
        rivals = [index[name] for name in question["distractors"][:19]]
        hits += scores[index[question["gold"][0]]] > scores[rivals].max()
    assert 0.40 <= hits / len(questions) <= 0.75


def test_committed_readme_names_licence_and_recipe():
    readme = (COMMITTED / "README.md").read_text(encoding="utf-8")
    assert "CC0" in readme
    assert "scratchpad-rag data sample --out DIR --seed 0" in readme
