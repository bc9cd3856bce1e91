"""A page without a model: questions about lamps, and readers whose steps are counted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from scratchpad_rag.app.web.views import Cost, LiveQuote, ReaderView, RunView, Stage
from scratchpad_rag.data.place import place, show
from scratchpad_rag.reader import make_example
from scratchpad_rag.records import Example, Passage

EVIL = "<script>window.harmed = true</script><img src=x onerror='window.harmed = true'>"


def lamp(number: int, documents: int = 12) -> Example:
    """Who lit lamp `number`; the first passage says so, the last one is harmful if it is run."""
    gold = Passage(
        f"Lamp {number}", f"Lamp {number} was lit by Ida Holm in 18{number:02d}. It burns."
    )
    others = [
        Passage(f"Town {n}", f"Town {n} lies by the river and has a market on every Monday. " * 3)
        for n in range(documents - 2)
    ]
    return Example(
        f"q{number}",
        f"who lit lamp {number}",
        ("Ida Holm",),
        (gold, *others, Passage(f"Evil {EVIL}", EVIL)),
        gold=(0,),
    )


@dataclass
class Lamps:
    """Sample questions, as `questions.Questions` has them."""

    examples: list[Example] = field(default_factory=lambda: [lamp(n) for n in range(3)])

    @property
    def labels(self) -> list[str]:
        return [example.question for example in self.examples]

    def example(self, index: int) -> Example:
        return self.examples[index]

    def shown(self, index: int, total_docs: int, position: int | None) -> Example:
        if total_docs == 0:
            return show(self.examples[index], "val_closed_book")
        return place(self.examples[index], total_docs, position)

    def typed(self, question: str, total_docs: int) -> Example:
        return make_example(question, self.examples[0].passages[:total_docs])


@dataclass
class Show:
    """What a page needs, as `loading.Loading` has it; `passes` counts every step of every run."""

    state: Any = field(
        default_factory=lambda: SimpleNamespace(
            message="Ready", done=True, failed=False, seconds=0.0
        )
    )
    questions: Any = field(default_factory=Lamps)
    seconds: float = 0.03  # of a step
    passes: list[float] = field(default_factory=list)
    readers: list[Any] = field(
        default_factory=lambda: [
            SimpleNamespace(name="Scratchpad", quoting=True),
            SimpleNamespace(name="Zero-shot", quoting=False),
        ]
    )

    def follow(
        self, readers: Sequence[Any], example: Example, max_new_tokens: int | None
    ) -> Iterator[RunView]:
        """Quotes the first gold passage word by word; without one, or closed-book, answers only."""
        views = [ReaderView(r.name, Stage.WAITING, r.quoting) for r in readers]
        if not example.passages:
            failed = replace(views[0], stage=Stage.FAILED, error="there is nothing to quote")
            plain = replace(views[1], stage=Stage.DONE, answer="nobody", right=False)
            yield RunView(example, (failed, plain))
            return
        source = min(example.gold, default=0)
        passage = example.passages[source]
        ends = [n for n, letter in enumerate(passage.text) if letter == " "] + [len(passage.text)]
        for end in ends:
            self._step()
            quote = LiveQuote(1, passage.title, passage.text[:end], source, 0, end, verbatim=True)
            cost = Cost(100, end, len(self.passes), 0.1)
            views[0] = replace(views[0], stage=Stage.QUOTING, quotes=(quote,), cost=cost)
            yield RunView(example, tuple(views))
        right = True if example.answers else None
        views[0] = replace(views[0], stage=Stage.DONE, answer="Ida Holm", cited=(1,), right=right)
        views[1] = replace(views[1], stage=Stage.READING)
        yield RunView(example, tuple(views))
        self._step()
        wrong = None if right is None else False
        views[1] = replace(views[1], stage=Stage.DONE, answer="Nobody knows", right=wrong)
        yield RunView(example, tuple(views))

    def _step(self) -> None:
        time.sleep(self.seconds)
        self.passes.append(time.time())
