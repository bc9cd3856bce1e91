"""Who reads now and who waits: one run at a time, the others in the order in which they came."""

from __future__ import annotations

from threading import Lock
from types import TracebackType

from scratchpad_rag.errors import UserError


class LineFullError(UserError):
    """So many wait that one more would not be served within a patient person's time."""


class Ticket:
    """A place in a line. Whoever has it must leave, best with `with`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def ahead(self) -> int:
        """How many are before this one, the one that is being served included; 0: it is its turn.

        Raises ValueError after `leave`.
        """
        return self._line.place_of(self)

    def leave(self) -> None:
        """Make room for the next; a second time it does nothing."""
        self._line.remove(self)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()


class Line:
    """A line of at most `room` that wait besides the one that is served. Threads may share it.

    >>> line = Line(room=1)
    >>> first, second = line.join(), line.join()
    >>> first.ahead, second.ahead
    (0, 1)
    >>> first.leave()
    >>> second.ahead
    0
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._tickets: list[Ticket] = []
        self._lock = Lock()

    def join(self) -> Ticket:
        """A ticket at the end of the line. Raises LineFullError."""
        with self._lock:
            if len(self._tickets) > self.room:
                raise LineFullError(
                    f"{len(self._tickets)} questions are being answered or wait already; "
                    "try again in a minute"
                )
            ticket = Ticket(self)
            self._tickets.append(ticket)
            return ticket

    def place_of(self, ticket: Ticket) -> int:
        with self._lock:
            return self._tickets.index(ticket)

    def remove(self, ticket: Ticket) -> None:
        with self._lock:
            if ticket in self._tickets:
                self._tickets.remove(ticket)

    def __len__(self) -> int:
        return len(self._tickets)
