"""Total deadlines of tasks, kept where the caller is, should no broker be there to keep them. Pure.

Rules of this file: no I/O, no clock. Tasks without a deadline never come here. What has ended since
is found out when its moment comes, or when such entries are most of what is kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Final

from evener.deadlines import NEVER
from evener.session_records import TerminalItem, Ticket
from evener_wire.limits import MILLISECOND_NS, SECOND_NS
from evener_wire.messages import TERMINAL_EXPIRED

# The broker has the first word: it knows how the task ends, if in time. Longer: callers hear later
# that nobody keeps their deadline. Shorter: a busy broker's word comes too late.
GRACE_NS: Final = 2 * SECOND_NS

_SPARE: Final = 1_024  # entries of ended tasks that are not worth looking for


class Expiry:
    """Caller: the session's work, within a step."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, bytes, int]] = []  # when, task, its deadline in ms

    def next_at(self) -> int:
        """When the next one is due; may be that of a task that has ended."""
        return self._heap[0][0] if self._heap else NEVER

    def add(self, tickets: Iterable[Ticket], now_ns: int) -> None:
        """Tasks with a deadline, which begins now."""
        for ticket in tickets:
            task_id, _, _, options = ticket.item
            assert options is not None
            at_ns = now_ns + options.deadline_ms * MILLISECOND_NS + GRACE_NS
            heapq.heappush(self._heap, (at_ns, task_id, options.deadline_ms))

    def prune(self, is_open: Callable[[bytes], bool], count: int) -> None:
        """Forgets what has ended, if that is most of what is kept; `count` tasks are open."""
        if len(self._heap) > 2 * count + _SPARE:
            self._heap = [entry for entry in self._heap if is_open(entry[1])]
            heapq.heapify(self._heap)

    def due(self, now_ns: int) -> list[TerminalItem]:
        """The ends of those whose time is over; for tasks that have ended before, they are none."""
        found: list[TerminalItem] = []
        while self._heap and self._heap[0][0] <= now_ns:
            _, task_id, deadline_ms = heapq.heappop(self._heap)
            facts = {"limit": "total", "ms": deadline_ms, "told_by": "client"}
            found.append((task_id, TERMINAL_EXPIRED, b"", facts))
        return found

    def clear(self) -> None:
        """Forgets them all."""
        self._heap.clear()

    def check(self) -> None:
        """Raises AssertionError if the first one were not the earliest."""
        assert self.next_at() == min((entry[0] for entry in self._heap), default=NEVER)
