"""Text made comparable: questions for grouping, answers and passages for matching."""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NOT_A_WORD = re.compile(r"[\W_]+")
_PUNCTUATION = string.punctuation.encode()


def normalise_question(question: str) -> str:
    """The same key for spellings of one question: case, width, spaces and closing marks ignored.

    >>> normalise_question("  Who wrote  Dracula ?")
    'who wrote dracula'
    """
    words = unicodedata.normalize("NFKC", question).casefold().split()
    # A question of nothing but marks keeps them: it must not fall together with every other one.
    return " ".join(words).rstrip("?!. ") or " ".join(words)


def question_id(question: str) -> str:
    """A stable id for a question that came without one: 16 hexadecimal digits.

    >>> question_id("Who wrote Dracula?") == question_id("who wrote dracula")
    True
    """
    return hashlib.sha256(normalise_question(question).encode()).hexdigest()[:16]


def normalise_answer(text: str) -> str:
    """SQuAD's normalisation (Rajpurkar et al. 2016): lower case, no punctuation, no articles.

    >>> normalise_answer("The  Beatles' \\"White\\" Album!")
    'beatles white album'
    """
    # In UTF-8 an ASCII mark is never a part of another character. A model may write half of one.
    encoded = text.lower().encode(errors="surrogatepass").translate(None, _PUNCTUATION)
    bare = encoded.decode(errors="surrogatepass")
    return " ".join(_ARTICLES.sub(" ", bare).split())


def spaced_words(text: str) -> str:
    """The words of a text in lower case without articles, parted by every mark of any script.

    >>> spaced_words("The X-ray: Röntgen’s discovery")
    'x ray röntgen s discovery'
    """
    bare = _NOT_A_WORD.sub(" ", text.lower())
    return " ".join(_ARTICLES.sub(" ", bare).split())
