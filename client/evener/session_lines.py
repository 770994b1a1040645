"""Which lines of which tasks came. Pure.

Rules of this file: part of the session; no I/O, no clock. All lines of an attempt have numbers:
what came before is passed over, what is missing is counted, and an attempt that is over is not
listened to.
"""

from __future__ import annotations

from evener.session_records import Part, Ticket


class Lines:
    """Caller: the session's work, within a step."""

    def __init__(self) -> None:
        # Of open tasks that wrote something: the fence, and the number of the line to come.
        self._open: dict[bytes, tuple[int, int]] = {}

    def came(self, ticket: Ticket, item: tuple[bytes, int, int, int, str, str]) -> Part | None:
        """What of it is news."""
        task_id, fence, first, stream, worker, text = item
        known, due = self._open.get(task_id, (0, 0))
        if fence < known:
            return None
        if fence > known:
            due = 0
        lines = text.split("\n")[:-1]
        news = lines[due - first :] if first < due else lines
        missing = max(0, first - due)
        if not news and not missing:
            return None
        self._open[task_id] = fence, max(due, first + len(lines))
        return ticket, fence, worker, missing, stream, news

    def ended(self, task_id: bytes) -> None:
        """The task has ended."""
        self._open.pop(task_id, None)

    def clear(self) -> None:
        """All have."""
        self._open.clear()

    def __bool__(self) -> bool:
        return bool(self._open)
