"""Moments the core waits for: a heap of (time, order, what, whom). No clock: the time comes in.

A timer is not cancelled. Whoever set it looks, when it fires, whether it still matters; who knows
that timers were outlived says so, and they go when they are many.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

# Outlived timers that may lie around. More: more memory. Fewer: more walks over the heap.
_OUTLIVED_MAX: Final = 1_000

Handler: TypeAlias = Callable[[Any], None]


class Timers:
    """Caller: the core's step. Order among equal times is the order of setting."""

    __slots__ = ("_heap", "_order", "_outlived")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Handler, Any]] = []
        self._order = 0
        self._outlived = 0

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, at_ns: int, handler: Handler, subject: Any) -> None:
        """Call `handler(subject)` in the first step at or after `at_ns`."""
        self._order += 1
        heapq.heappush(self._heap, (at_ns, self._order, handler, subject))

    def outlived(self, most: int, is_outlived: Callable[[object], bool]) -> None:
        """Up to so many timers matter no more; `is_outlived` tells which, by their subject."""
        self._outlived += most
        if self._outlived > _OUTLIVED_MAX and 2 * self._outlived > len(self._heap):
            self._outlived = 0
            self._heap = [entry for entry in self._heap if not is_outlived(entry[3])]
            heapq.heapify(self._heap)

    def next_at(self) -> int | None:
        """When the next timer is due, if there is one."""
        return self._heap[0][0] if self._heap else None

    def due(self, now_ns: int) -> Iterator[tuple[Handler, Any]]:
        """Take out what is due, earliest first; timers set meanwhile for the past come too."""
        while self._heap and self._heap[0][0] <= now_ns:
            _, _, handler, subject = heapq.heappop(self._heap)
            yield handler, subject
