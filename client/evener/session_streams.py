"""Which values of which tasks came, and what of them the program took. Pure.

Rules of this file: part of the session; no I/O, no clock. Whatever is lost on the way is asked for
again, whatever comes twice is passed over, and an attempt that is over is not listened to.
"""

from __future__ import annotations

from evener.session_records import Readable
from evener_wire import messages as m


class _Stream:
    __slots__ = ("fence", "next", "taken")

    def __init__(self) -> None:
        self.fence = 0
        self.next = 0  # index of the value that is to come
        self.taken = 0


class Streams:
    """Caller: the session's work, within a step."""

    def __init__(self) -> None:
        self._open: dict[bytes, _Stream] = {}

    def came(
        self, ticket: Readable, item: tuple[bytes, int, int, bool, m.Payload]
    ) -> tuple[bool, bool]:
        """Take note of a value: whether it is to be handed on, and whether the broker hears of it.

        If so, `told` says what.
        """
        task_id, fence, index, more, _ = item
        stream = self._open.get(task_id)
        if stream is None:
            stream = self._open[task_id] = _Stream()
        if fence < stream.fence:
            return False, False
        if fence > stream.fence:
            stream.fence, stream.next, stream.taken = fence, 0, 0
        if index != stream.next:
            return False, True
        stream.next += 1
        if not ticket.unread:
            return True, False
        stream.taken = stream.next
        ticket.dropped = ticket.dropped or more
        return False, True

    def took(self, task_id: bytes, fence: int, upto: int | None) -> bool:
        """The program took values; whether the broker is to hear of it."""
        stream = self._open.get(task_id)
        if stream is None or (upto is not None and stream.fence != fence):
            return False
        taken = stream.next if upto is None else upto
        news, stream.taken = taken > stream.taken, max(taken, stream.taken)
        return news

    def told(self, task_id: bytes, gap: bool = False) -> tuple[bytes, int, int, bool]:
        """What TAKEN says of a task."""
        stream = self._open[task_id]
        return task_id, stream.fence, stream.taken, gap

    def is_gap(self, task_id: bytes, fence: int, index: int) -> bool:
        """Whether values before this one are missing."""
        stream = self._open[task_id]
        return fence == stream.fence and index > stream.next

    def ended(self, task_id: bytes) -> None:
        """The task has ended."""
        self._open.pop(task_id, None)

    def clear(self) -> None:
        """All have."""
        self._open.clear()

    def __bool__(self) -> bool:
        return bool(self._open)
