"""Scores of answers to exported questions, for lm-evaluation-harness.

This file is copied beside exported tasks as `utils.py` and needs nothing but Python. It reads
completions and scores final answers as scratchpad-rag does, from which the tasks came.
"""

from __future__ import annotations

import re
import string
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LENIENT_ANSWER = re.compile(r"^Answer:", re.MULTILINE)
_NO_SUPPORT = "None of the documents supports an answer."
_UNANSWERABLE = "unanswerable"


def score_answer(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The completion is the answer, up to the end of its first line that holds anything."""
    answer = _first_line(results[0])
    return _scores(answer, doc["answers"], answer == _UNANSWERABLE)


def score_scratchpad(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The completion quotes passages, restates the question, and answers behind `Answer:`."""
    scratchpad, answer = _split(results[0], doc["passages"], doc["restated"])
    answer = _first_line(answer)
    silent = answer == _UNANSWERABLE or scratchpad.strip() == _NO_SUPPORT
    return _scores(answer, doc["answers"], silent)


def _scores(answer: str, answers: list[str], abstains: bool) -> dict[str, float]:
    said = _normalise(answer)
    wanted = [text for text in map(_normalise, answers) if text]
    equal = said in wanted
    # "unanswerable" has "era" and "able" in it, and says neither.
    found = equal if abstains else any(text in said for text in wanted)
    return {"subspan_exact_match": float(found), "exact_match": float(equal)}


def _normalise(text: str) -> str:
    """SQuAD's: lower case, no punctuation, no articles, single spaces."""
    bare = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0].strip()


def _split(completion: str, passages: list[str], restated: str) -> tuple[str, str]:
    """Scratchpad and answer. A passage may hold `Answer:` itself: whole ones are passed over."""
    start = _behind_passages(completion, sorted(passages, key=len, reverse=True))
    found = completion.find(restated, start)
    if found >= 0:
        return completion[:found], completion[found + len(restated) :]
    lenient = _LENIENT_ANSWER.search(completion, start)
    if lenient:
        return completion[: lenient.start()], completion[lenient.end() :]
    return completion, ""


def _behind_passages(completion: str, longest_first: list[str]) -> int:
    position = 0
    while True:
        body = completion[position:].lstrip()
        match = next((text for text in longest_first if body.startswith(text)), None)
        if match is None:
            return position
        position = len(completion) - len(body) + len(match)
