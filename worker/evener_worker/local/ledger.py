"""What the parts of the machine share in one step: the time, the effects, numbers and timers.

Rules of this file: counting, no decisions.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from evener_worker.limits import POOL_BYTES_MAX, POOL_CALLS_MAX
from evener_worker.local.calls import Call, Wait
from evener_worker.local.seats import Place
from evener_worker.local.stimuli import Effect

_NUMBER_MAX: Final = (1 << 32) - 1  # what a frame can carry
_TIMERS_KEPT: Final = 64

Timed: TypeAlias = Call | Wait | Place


@dataclass(frozen=True, slots=True)
class Settings:
    """What a pool is told when it is made."""

    size: int
    restart: bool = True  # processes that end by themselves
    ready_ns: int = 30_000_000_000  # from the start of a process to its READY
    stop_ns: int = 30_000_000_000  # for the work in hand and `stop()` of a process that leaves
    calls_max: int = POOL_CALLS_MAX
    bytes_max: int = POOL_BYTES_MAX


class Ledger:
    """Caller: the parts of the machine."""

    __slots__ = ("_last", "_order", "_timers", "effects", "now_ns")

    def __init__(self) -> None:
        self.now_ns = 0
        self.effects: list[Effect] = []
        self._timers: list[tuple[int, int, Timed]] = []
        self._order = 0
        self._last = 0

    def number(self, taken: Callable[[int], bool]) -> int:
        """The next number that is not taken."""
        while True:
            self._last = self._last % _NUMBER_MAX + 1
            if not taken(self._last):
                return self._last

    # --- Timers -----------------------------------------------------------------------------------

    def remind(self, at_ns: int, target: Timed) -> None:
        """Have a look at the target then."""
        self._order += 1
        heapq.heappush(self._timers, (at_ns, self._order, target))

    def due(self) -> Iterator[Timed]:
        """What is to be looked at now. Some of it may have ended."""
        while self._timers and self._timers[0][0] <= self.now_ns:
            yield heapq.heappop(self._timers)[2]

    def next_ns(self) -> int | None:
        """When the next one is due."""
        return self._timers[0][0] if self._timers else None

    def tidy(self, counts: Callable[[Timed], bool], most: int) -> None:
        """Forget timers of what has ended, when these are many."""
        if len(self._timers) > 2 * most + _TIMERS_KEPT:
            self._timers = [timer for timer in self._timers if counts(timer[2])]
            heapq.heapify(self._timers)
