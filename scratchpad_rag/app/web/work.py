"""An iterator worked through in a thread of its own, and looked at from an event loop.

A forward pass blocks the thread that asks for it, and a page must go on answering meanwhile. The
iterator is closed in the thread that runs it, so whoever made it may hold locks across a `yield`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
_LOOK_SECONDS = 0.15  # between two looks at what is new; what changes faster is drawn together
_IDLE_SECONDS = 0.5  # with nothing new, after which an empty batch says that it still goes on


class Work(Generic[T]):
    """Items of an iterator, as they are made by a thread that starts at once.

    `ended` is called in that thread when the iterator is exhausted, closed or has failed; a next
    piece of work that shares its means may start only then.
    """

    def __init__(self, iterator: Iterator[T], ended: Callable[[], None] = lambda: None) -> None:
        self._iterator = iterator
        self._ended = ended
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._stop = Event()
        self._thread = Thread(target=self._run, name="reading", daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._stop.is_set()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ask it to stop: the iterator is closed as soon as it has made the item that it is at."""
        self._stop.set()

    def join(self, seconds: float) -> None:
        """Wait until it has ended, but no longer than this."""
        self._thread.join(seconds)

    async def batches(self) -> AsyncGenerator[list[T]]:
        """What was made since the last batch, in its order; an empty list where nothing was for
        half a second. Ends with the work, or at once when it is stopped; then raises what the
        iterator raised. Leaving it early stops the work."""
        idle = 0.0
        try:
            while True:
                over = self.stopped or not self.running  # before looking: nothing comes after it
                batch = [self._items.popleft() for _ in range(len(self._items))]
                if batch or idle >= _IDLE_SECONDS:
                    idle = 0.0
                    yield batch
                if over:
                    break
                await asyncio.sleep(_LOOK_SECONDS)
                idle += _LOOK_SECONDS
        finally:
            self.stop()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            for item in self._iterator:
                if self.stopped:
                    break
                self._items.append(item)
        except BaseException as error:  # noqa: BLE001  raised again where the items are looked at
            self._error = error
        finally:
            close = getattr(self._iterator, "close", None)
            if close is not None:
                close()
            self._ended()
