from scratchpad_rag.data.retrieve.adversarial import AdversarialRetriever, title_words
from scratchpad_rag.data.retrieve.bm25 import BM25Retriever
from scratchpad_rag.records import Example, Passage


def order(question: Example, pool: list[Passage], depth: int | None = None) -> list[str]:
    retriever = AdversarialRetriever(pool, BM25Retriever(pool))
    (ranking,) = retriever.rank([question], depth or len(pool))
    return [pool[index].title for index in ranking.indices]


def asked(text: str, answer: str, title: str) -> Example:
    return Example("q", text, (answer,), (Passage(title, "the gold text"),), (0,))


def test_same_title_and_same_kind_before_either_before_neither() -> None:
    # By BM25 alone: mill, harbour, Corvin station, Corvin Bay, nothing.
    pool = [
        Passage("nothing", "an empty page"),
        Passage("Corvin Bay", "a bridge with boats since 1901"),
        Passage("Corvin station", "a bridge built beside it"),
        Passage("harbour", "the bridge was built 1880"),
        Passage("mill", "built bridge built bridge"),
    ]
    question = asked("when was the bridge built", "1874", "Corvin (bridge)")
    plain = BM25Retriever(pool).rank([question], 5)[0].indices
    assert [pool[index].title for index in plain] == [
        "mill",
        "harbour",
        "Corvin station",
        "Corvin Bay",
        "nothing",
    ]
    expected = ["Corvin Bay", "harbour", "Corvin station", "mill", "nothing"]
    assert order(question, pool) == expected
    assert order(question, pool, depth=2) == expected[:2]


def test_the_right_year_is_no_wrong_answer() -> None:
    pool = [Passage("A", "bridge bridge in 1874"), Passage("B", "bridge of the year 1901, long")]
    assert order(asked("when was the bridge built", "1874", "X"), pool) == ["B", "A"]


def test_a_name_must_be_unknown_to_question_and_title() -> None:
    pool = [
        Passage("Ida Holm", "lighthouse lighthouse of Ida Holm"),
        Passage("A", "lighthouse lighthouse at Corvin Bay"),
        Passage("B", "lighthouse kept by Karl Ansen at the time"),
    ]
    question = asked("who built the lighthouse of Corvin Bay", "Eva Lind", "X")
    assert order(question, pool)[0] == "B"


def test_entities_of_the_question_count_as_titles_do() -> None:
    pool = [Passage("A", "Corvin bridge bridge Corvin"), Passage("Corvin", "a port")]
    assert order(asked("Was the bridge of Corvin built?", "by hand", "X"), pool) == ["Corvin", "A"]
    # The first word of a question is a capital anyway.
    assert order(asked("Corvin has which bridge?", "by hand", "X"), pool) == ["A", "Corvin"]


def test_title_words_leave_out_what_says_nothing() -> None:
    assert title_words("The Light (2001 film)") == {"light"}
    assert title_words("List of an ox") == frozenset()
