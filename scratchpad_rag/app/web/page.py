"""The page in Gradio: what stands where, and what happens when something is touched.

What is shown is drawn by `panes`, `strip` and `chart`; what is asked goes through `asking`.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from random import randrange
from typing import Any

import gradio as gr
from markupsafe import Markup

from scratchpad_rag.app.web.asking import (
    Desk,
    checked_question,
    walk_positions,
)
from scratchpad_rag.app.web.chart import chart
from scratchpad_rag.app.web.panes import empty_pane, pane
from scratchpad_rag.app.web.source import Follow, Source
from scratchpad_rag.app.web.strip import strip
from scratchpad_rag.app.web.views import Point, RunView
from scratchpad_rag.app.web.waiting import loading_panel, queue_line, sentence
from scratchpad_rag.errors import UserError
from scratchpad_rag.reader import default_max_new_tokens
from scratchpad_rag.records import Example, Method

MAX_POINTS = 2000  # of a session's chart; the oldest go first
_LOADING_SECONDS = 0.25  # between two looks at how far the loading is
_TITLE = "Scratchpad-RAG"
_HEAD = Markup(
    '<header class="sp sp-head"><h1>{title}</h1><p>A reader that quotes the passages it answers '
    "from. Watch where its quotes come from.</p></header>"
)
_ALERT = Markup('<p class="sp sp-alert" role="alert">{}</p>')


def _html(value: str, elem_id: str) -> gr.HTML:
    """A part that is drawn here: Gradio's own styles for text would meddle with it."""
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the controls show at first. `max_new_tokens` None: each reader's own room."""

    documents: int = 20
    max_new_tokens: int | None = None

    @property
    def position(self) -> int:
        """In the middle, where readers get lost."""
        return max(1, (self.documents + 1) // 2)

    @property
    def room(self) -> int:
        """Where the slider of the tokens stands."""
        return self.max_new_tokens or default_max_new_tokens(Method.SCRATCHPAD)

    def asked(self, room: int) -> int | None:
        """What a place of that slider asks of the readers."""
        return self.max_new_tokens if room == self.room else room


class Page:
    """One page for all who look at it; what is a session's own lies in its components."""

    def __init__(
        self,
        source: Source,
        follow: Follow,
        desk: Desk,
        defaults: Defaults = Defaults(),
    ) -> None:
        self.source = source
        self.desk = desk
        self.defaults = defaults
        self.follow = follow

    def build(self) -> gr.Blocks:
        """The page's parts in their places, and what they do."""
        blocks = gr.Blocks(title=_TITLE, analytics_enabled=False, fill_width=True)
        with blocks:
            _html(str(_HEAD.format(title=_TITLE)), "head")
            with gr.Row(elem_id="controls"):
                self._place_controls()
            self.notice = _html(loading_panel("Starting", 0.0), "notice")
            with gr.Row(elem_id="results"):
                with gr.Column(scale=5, min_width=320):
                    self.strip = _html(strip(None), "strip")
                with gr.Column(scale=6, min_width=320), gr.Row(elem_id="panes"):
                    with gr.Column(scale=3, min_width=230):
                        scratchpad = _html(empty_pane("Scratchpad", quoting=True), "pane-0")
                    with gr.Column(scale=2, min_width=230):
                        zero_shot = _html(empty_pane("Zero-shot", quoting=False), "pane-1")
                    self.panes = [scratchpad, zero_shot]
            with gr.Column(elem_id="curve"):
                self.chart = _html(chart((), self.defaults.documents), "chart")
                self.clear = gr.Button(
                    "Clear the chart", size="sm", interactive=False, elem_id="clear"
                )
            self.points = gr.State(())
            self._connect(blocks)
        return blocks

    def _place_controls(self) -> None:
        """Question and buttons on the left, what is shown with it on the right."""
        off: dict[str, Any] = {"interactive": False}  # until there is something to ask
        whole: dict[str, Any] = {"step": 1, "precision": 0, "buttons": [], **off}
        with gr.Column(scale=5, min_width=320):
            with gr.Row(elem_id="samples"):
                self.sample = gr.Dropdown(
                    [], value=None, label="Sample question", min_width=230, **off
                )
                self.another = gr.Button("Another one", scale=0, min_width=110, **off)
            self.typed = gr.Textbox(
                label="Or your own question",
                placeholder="Asked of the passages that match it best",
                max_lines=4,
                **off,
            )
            with gr.Row(elem_id="buttons"):
                self.ask = gr.Button(
                    "Ask", variant="primary", scale=0, min_width=110, elem_id="ask", **off
                )
                self.stop = gr.Button("Stop", scale=0, min_width=90, **off)
                self.walk = gr.Button(
                    "Ask with the answer at every place",
                    scale=0,
                    min_width=110,
                    elem_id="walk",
                    **off,
                )
        with gr.Column(scale=4, min_width=320):
            documents = self.defaults.documents
            # As they will be for most questions: Gradio lets no value pass its end, and a value
            # that comes with a new end may come first.
            self.documents = gr.Slider(
                0, max(1, documents), documents, label="Documents shown", **whole
            )
            self.position = gr.Slider(
                1,
                max(2, documents),
                self.defaults.position,
                label="Which of them holds the answer",
                **whole,
            )
            with gr.Accordion("More", open=False, elem_id="more"):
                self.room = gr.Slider(
                    16,
                    1024,
                    self.defaults.room,
                    label="Tokens to generate at most",
                    **{**whole, "step": 16},
                )

    def _connect(self, blocks: gr.Blocks) -> None:
        quietly: dict[str, Any] = {
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,
        }
        asked = [self.sample, self.typed, self.documents, self.position]
        controls = [*asked, self.another, self.ask, self.walk, self.room]
        looks = [self.strip, *self.panes, self.chart]
        blocks.load(self._open, None, [self.notice, *controls, *looks], **quietly)
        preview: dict[str, Any] = {
            "fn": self._preview,
            "inputs": [*asked, self.points],
            "outputs": [self.documents, self.position, self.strip, self.chart],
            "trigger_mode": "always_last",
            **quietly,
        }
        self.sample.change(**preview)
        self.typed.change(**preview)
        # Not `change`: what the preview itself moves must not be answered again, or a slider would
        # jump back under a hand that moves on.
        self.documents.input(**preview)
        self.position.input(**preview)
        run: dict[str, Any] = {
            "inputs": [*asked, self.room, self.points],
            "outputs": [
                self.notice,
                *looks,
                self.points,
                self.ask,
                self.stop,
                self.walk,
                self.clear,
            ],
            "trigger_mode": "multiple",  # another click would only stop what runs
            **quietly,
        }
        self.ask.click(self._ask, **run)
        self.typed.submit(self._ask, **run)
        self.walk.click(self._walk, **run)
        self.another.click(self._draw, None, [self.sample, self.typed], **quietly)
        self.stop.click(self._stop, None, None, **quietly)
        self.clear.click(
            self._clear, [self.documents], [self.points, self.chart, self.clear], **quietly
        )

    async def _open(self) -> AsyncGenerator[list[Any]]:
        """Says how far the loading is; then the controls come to life."""
        skips = [gr.skip()] * 12
        while not ((state := self.source.state).done or state.failed):
            yield [loading_panel(state.message, state.seconds), *skips]
            await asyncio.sleep(_LOADING_SECONDS)
        if state.failed:
            yield [loading_panel(state.message, state.seconds, failed=True), *skips]
            return
        yield ["", *self._ready()]

    def _ready(self) -> list[Any]:
        labels = list(self.source.questions.labels)
        first = 0 if labels else None
        most = self._most_documents(first)
        documents = min(self.defaults.documents, most)
        enabled = gr.update(interactive=True)
        return [
            gr.update(
                choices=[(label, n) for n, label in enumerate(labels)],
                value=first,
                interactive=bool(labels),
            ),
            gr.update(interactive=True),
            gr.update(maximum=max(1, most), value=documents, interactive=True),
            self._position_update(first, "", documents, self.defaults.position),
            *[enabled] * 4,
            strip(self._previewed(first, "", documents, self.defaults.position)),
            *self._empty_panes(),
            chart((), max(1, documents)),
        ]

    def _empty_panes(self) -> list[Any]:
        readers = self.source.readers
        shown = [gr.update(value=empty_pane(r.name, quoting=r.quoting)) for r in readers]
        return shown[:2] + [gr.update(visible=False)] * (2 - len(shown))

    def _draw(self) -> list[Any]:
        """Another sample question; what was typed goes."""
        return [randrange(len(self.source.questions.labels)), ""]

    def _preview(
        self,
        sample: int | None,
        typed: str,
        documents: int,
        position: int,
        points: tuple[Point, ...],
        request: gr.Request,
    ) -> list[Any]:
        """The sliders' ends fit the question, and the strip shows what will be read."""
        if not self.source.state.done:
            return [gr.skip()] * 4
        typed = typed.strip()
        most = self._most_documents(None if typed else sample)
        fewer: dict[str, Any] = {"value": most} if documents > most else {}
        documents = min(documents, most)
        busy = self.desk.is_busy(str(request.session_hash))
        view = self._previewed(sample, typed, documents, position)
        return [
            gr.update(maximum=max(1, most), **fewer),
            self._position_update(sample, typed, documents, position),
            gr.skip() if busy or typed else strip(view),
            chart(points, max(1, documents)),
        ]

    def _previewed(
        self, sample: int | None, typed: str, documents: int, position: int
    ) -> RunView | None:
        if typed or sample is None:
            return None
        return RunView(self._shown(sample, documents, position), ())

    def _position_update(
        self, sample: int | None, typed: str, documents: int, position: int
    ) -> dict[str, Any]:
        """The slider of the gold passage as it must be, which may be out of use with the reason."""
        last = self._last_position(sample, typed, documents)
        info = ""
        if typed:
            info = "Nobody knows which passage answers a typed question."
        elif not self._gold(sample, typed):
            info = "No passage is known to answer this question."
        elif documents == 0:
            info = "No passage is shown."
        lower: dict[str, Any] = {"value": last} if position > last else {}
        update: dict[str, Any] = gr.update(
            maximum=max(2, last), interactive=not info and last > 1, info=info, **lower
        )
        return update

    def _gold(self, sample: int | None, typed: str) -> int:
        return 0 if typed or sample is None else len(self.source.questions.example(sample).gold)

    def _last_position(self, sample: int | None, typed: str, documents: int) -> int:
        """Where the first gold passage can stand at the latest, from 1."""
        return max(1, documents - max(1, self._gold(sample, typed)) + 1)

    def _most_documents(self, sample: int | None) -> int:
        if sample is None:
            return max(20, self.defaults.documents)
        return len(self.source.questions.example(sample).passages)

    def _shown(self, sample: int, documents: int, position: int) -> Example:
        """All gold passages are shown, or none: of several, the first stands at the position."""
        gold = self._gold(sample, "")
        documents = max(documents, gold) if documents else 0
        last = self._last_position(sample, "", documents)
        place = min(position, last) - 1 if gold and documents else None
        return self.source.questions.shown(sample, documents, place)

    async def _ask(
        self,
        sample: int | None,
        typed: str,
        documents: int,
        position: int,
        room: int,
        points: tuple[Point, ...],
        request: gr.Request,
    ) -> AsyncGenerator[list[Any]]:
        def run() -> Iterator[RunView]:
            if typed.strip():
                example = self.source.questions.typed(checked_question(typed), documents)
            elif sample is None or typed:
                raise UserError("there is no question: choose one, or type your own")
            else:
                example = self._shown(sample, documents, position)
            yield from self.follow(self.source.readers, example, self.defaults.asked(room))

        async with aclosing(self._run(run, documents, points, request)) as shown:
            async for outputs in shown:
                yield outputs

    async def _walk(
        self,
        sample: int | None,
        typed: str,
        documents: int,
        position: int,
        room: int,
        points: tuple[Point, ...],
        request: gr.Request,
    ) -> AsyncGenerator[list[Any]]:
        """The same question with the answer at the first place, the last, and between them."""

        def run() -> Iterator[RunView]:
            if typed.strip() or sample is None or not documents:
                raise UserError(
                    "only a sample question has a passage that is known to hold the answer"
                )
            gold = self._gold(sample, "")
            for place in walk_positions(documents, gold):
                example = self._shown(sample, documents, place + 1)
                yield from self.follow(self.source.readers, example, self.defaults.asked(room))

        async with aclosing(self._run(run, documents, points, request)) as shown:
            async for outputs in shown:
                yield outputs

    async def _run(
        self, run: Any, documents: int, points: tuple[Point, ...], request: gr.Request
    ) -> AsyncGenerator[list[Any]]:
        running = [gr.update(interactive=on) for on in (False, True, False, False)]
        idle = [gr.update(interactive=on) for on in (True, False, True)]
        unchanged: list[Any] = [gr.skip()] * 4
        notice: Any = ""
        looks = unchanged
        try:
            async with aclosing(self.desk.ask(str(request.session_hash), run)) as moments:
                yield ["", *unchanged, gr.skip(), *running]
                async for moment in moments:
                    notice = queue_line(moment.ahead)
                    if moment.points:
                        points = (*points, *moment.points)[-MAX_POINTS:]
                    looks = [*self._looks(moment.view), gr.skip()]
                    if moment.points:
                        looks[-1] = chart(points, max(1, documents))
                    yield [
                        notice,
                        *looks,
                        points if moment.points else gr.skip(),
                        *[gr.skip()] * 4,
                    ]
        except UserError as error:
            notice = str(_ALERT.format(sentence(str(error))))
        except Exception as error:  # noqa: BLE001  the page must come back to life; it is told
            traceback.print_exc()
            notice = str(_ALERT.format(f"It failed, and the terminal says where: {error!r}"))
        yield [notice, *unchanged, gr.skip(), *idle, gr.update(interactive=bool(points))]

    def _looks(self, view: RunView | None) -> list[Any]:
        if view is None:
            return [gr.skip()] * 3
        panes: list[Any] = [pane(reader, view.example.answers) for reader in view.readers[:2]]
        return [strip(view), *panes, *[gr.skip()] * (2 - len(panes))]

    def _stop(self, request: gr.Request) -> None:
        self.desk.stop(str(request.session_hash))

    def _clear(self, documents: int) -> list[Any]:
        return [(), chart((), max(1, documents)), gr.update(interactive=False)]
