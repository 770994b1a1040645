"""Moments the core waits for: a heap of (time, order, what, whom). No clock: the time comes in.

A timer is never cancelled. Whoever set it looks, when it fires, whether it still matters.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[Any], None]


class Timers:
    """Caller: the core's step. Order among equal times is the order of setting."""

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Handler, Any]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, at_ns: int, handler: Handler, subject: Any) -> None:
        """Call `handler(subject)` in the first step at or after `at_ns`."""
        self._order += 1
        heapq.heappush(self._heap, (at_ns, self._order, handler, subject))

    def next_at(self) -> int | None:
        """When the next timer is due, if there is one."""
        return self._heap[0][0] if self._heap else None

    def due(self, now_ns: int) -> Iterator[tuple[Handler, Any]]:
        """Take out what is due, earliest first; timers set meanwhile for the past come too."""
        while self._heap and self._heap[0][0] <= now_ns:
            _, _, handler, subject = heapq.heappop(self._heap)
            yield handler, subject
