"""The page in Gradio: what stands where, and what happens when something is touched.

What is shown is drawn by `panes`, `strip` and `chart`; what is asked goes through `asking`.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from random import randrange
from typing import Any

import gradio as gr
from markupsafe import Markup

from scratchpad_rag.app.web.asking import Desk, Run
from scratchpad_rag.app.web.chart import chart
from scratchpad_rag.app.web.choice import Choice
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
        defaults = self.defaults
        choice = Choice(self.source.questions, first, "", defaults.documents, defaults.position)
        most = choice.most_documents(self._most)
        documents = min(defaults.documents, most)
        choice = replace(choice, documents=documents)
        enabled = gr.update(interactive=True)
        return [
            gr.update(
                choices=[(label, n) for n, label in enumerate(labels)],
                value=first,
                interactive=bool(labels),
            ),
            gr.update(interactive=True),
            gr.update(maximum=max(1, most), value=documents, interactive=True),
            _position_update(choice),
            *[enabled] * 4,
            strip(_preview_of(choice)),
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
        choice = Choice(self.source.questions, sample, typed, documents, position)
        most = choice.most_documents(self._most)
        fewer: dict[str, Any] = {"value": most} if documents > most else {}
        choice = replace(choice, documents=min(documents, most))
        busy = self.desk.is_busy(str(request.session_hash))
        return [
            gr.update(maximum=max(1, most), **fewer),
            _position_update(choice),
            gr.skip() if busy or choice.is_typed else strip(_preview_of(choice)),
            chart(points, max(1, choice.documents)),
        ]

    @property
    def _most(self) -> int:
        """Of documents, for a typed question."""
        return max(20, self.defaults.documents)

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
        choice = Choice(self.source.questions, sample, typed, documents, position)
        run = self._reading(choice.asked, room)
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
        choice = Choice(self.source.questions, sample, typed, documents, position)
        run = self._reading(choice.walked, room)
        async with aclosing(self._run(run, documents, points, request)) as shown:
            async for outputs in shown:
                yield outputs

    def _reading(self, examples: Callable[[], Iterator[Example]], room: int) -> Run:
        def run() -> Iterator[RunView]:
            for example in examples():
                yield from self.follow(self.source.readers, example, self.defaults.asked(room))

        return run

    async def _run(
        self, run: Run, documents: int, points: tuple[Point, ...], request: gr.Request
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


def _preview_of(choice: Choice) -> RunView | None:
    example = choice.previewed()
    return None if example is None else RunView(example, ())


def _position_update(choice: Choice) -> dict[str, Any]:
    """The slider of the gold passage as it must be, which may be out of use with the reason."""
    last, info = choice.last_position, choice.why_no_position
    lower: dict[str, Any] = {"value": last} if choice.position > last else {}
    update: dict[str, Any] = gr.update(
        maximum=max(2, last), interactive=not info and last > 1, info=info, **lower
    )
    return update
