"""The wording of prompts and completions, and what a chat template puts around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from scratchpad_rag.errors import ModelError
from scratchpad_rag.records import Method, Passage, ScratchpadForm

SYSTEM_SENTENCE = (
    "Write a high-quality answer for the given question using only the provided context "
    "(some of which might be irrelevant)."
)
CONTEXT_LABEL = "Context:\n"
QUESTION_LABEL = "Question: "
ANSWER_LABEL = "Answer:"
SEPARATOR = "\n\n"
FIRST_WORD = "Document"
PASSAGE_START = f"{FIRST_WORD} (Title: "
# What a scratchpad holds in place of passages where none is of use, and the answer to it.
NO_SUPPORT = "None of the documents supports an answer."
UNANSWERABLE = "unanswerable"
PROMPT_FORMATS = ("auto", "plain", "chat")


def format_question(question: str) -> str:
    """The question with a capital first letter and exactly one question mark at its end.

    >>> format_question("who got the first nobel prize in physics")
    'Who got the first nobel prize in physics?'
    >>> format_question("Why? ")
    'Why?'
    """
    bare = question.strip().rstrip("?").rstrip()
    return bare[:1].upper() + bare[1:] + "?"


def passage_start(number: int | None = None) -> str:
    """What stands before a passage's title."""
    return PASSAGE_START if number is None else f"{FIRST_WORD} [{number}](Title: "


def title_line(passage: Passage, number: int | None = None) -> str:
    """What names a passage; with a number, counted from 1, as Lost in the Middle writes it.

    >>> title_line(Passage("Marren", "A town.")), title_line(Passage("Marren", "A town."), 7)
    ('Document (Title: Marren)', 'Document [7](Title: Marren)')
    """
    return f"{passage_start(number)}{passage.title})"


def passage_head(passage: Passage, number: int | None = None) -> str:
    """What stands before a passage's text.

    >>> passage_head(Passage("Marren", "A town."))
    'Document (Title: Marren) '
    """
    return title_line(passage, number) + " "


def format_passage(passage: Passage, number: int | None = None) -> str:
    """A passage as it stands in the context and in the scratchpad alike."""
    return passage_head(passage, number) + passage.text


def shown_number(index: int, form: ScratchpadForm) -> int | None:
    """The number that the passage at `index` shows, counted from 1; None where none is shown."""
    return index + 1 if form is ScratchpadForm.INDEX else None


def restated_question(question: str) -> str:
    """What a completion holds between the scratchpad and the answer, `Answer:` included."""
    return f"{SEPARATOR}{QUESTION_LABEL}{format_question(question)}{SEPARATOR}{ANSWER_LABEL}"


@dataclass(frozen=True, slots=True)
class ChatMarkers:
    """The text that a chat template puts around system, user and assistant turns.

    `between` is None where the template knows no system turn: the system sentence then
    opens the user turn.
    """

    before_system: str
    between: str | None
    before_completion: str
    end_of_turn: str


@dataclass(frozen=True, slots=True)
class Wording:
    """How prompts are worded: the system sentence, chat markers for chat models, and the form of
    the scratchpads that are written to them."""

    system: str = SYSTEM_SENTENCE
    chat: ChatMarkers | None = None
    form: ScratchpadForm = ScratchpadForm.PASSAGE

    def writing(self, method: Method | None, form: ScratchpadForm | None = None) -> Wording:
        """The wording for a method and, of its scratchpads, a form: without one the wording's own.

        A reader that writes no scratchpad is asked as ever.
        """
        if method is not Method.SCRATCHPAD:
            return replace(self, form=ScratchpadForm.PASSAGE)
        return self if form is None else replace(self, form=form)


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that is needed to read its chat template."""

    chat_template: Any
    eos_token: Any

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


def choose_wording(tokenizer: ChatTokenizer, prompt_format: str) -> Wording:
    """The wording for a tokenizer: `plain`, `chat`, or `auto` (chat where there is a template).

    Raises ModelError where `chat` is asked of a tokenizer without a chat template.
    """
    if prompt_format not in PROMPT_FORMATS:
        raise ModelError(
            f"unknown prompt_format {prompt_format!r}; choose from {', '.join(PROMPT_FORMATS)}"
        )
    has_template = bool(tokenizer.chat_template)
    if prompt_format == "chat" and not has_template:
        raise ModelError("prompt_format chat: this model's tokenizer has no chat template")
    if prompt_format == "plain" or not has_template:
        return Wording()
    return Wording(chat=read_chat_markers(tokenizer))


def read_chat_markers(tokenizer: ChatTokenizer) -> ChatMarkers:
    """Find what a chat template writes around each turn by rendering words that stand for them."""
    system, user, assistant = "SYSTEMTURN", "USERTURN", "ASSISTANTTURN"
    try:
        prompt = _apply(tokenizer, [("system", system), ("user", user)], prompt_only=True)
        if system not in prompt or prompt.index(system) > prompt.index(user):
            raise ValueError("no system turn")
        before_system, rest = prompt.split(system, 1)
        between, before_completion = rest.split(user, 1)
        turns = [("system", system), ("user", user), ("assistant", assistant)]
    except Exception:  # noqa: BLE001  templates refuse a system turn with errors of any class
        prompt = _apply(tokenizer, [("user", user)], prompt_only=True)
        before_system, before_completion = prompt.split(user, 1)
        between = None
        turns = [("user", user), ("assistant", assistant)]
    ending = _apply(tokenizer, turns, prompt_only=False).split(assistant, 1)[1].strip()
    return ChatMarkers(before_system, between, before_completion, ending or tokenizer.eos_token)


def _apply(tokenizer: ChatTokenizer, turns: Sequence[tuple[str, str]], *, prompt_only: bool) -> str:
    conversation = [{"role": role, "content": content} for role, content in turns]
    text = tokenizer.apply_chat_template(
        conversation,
        tokenize=False,
        add_generation_prompt=prompt_only,
        enable_thinking=False,  # templates that know no thinking ignore it
    )
    return str(text)
