"""When a worker process is old enough to be replaced: after so many tasks, so long, so much memory.

Rules of this file: limits and what they say of one slot; whose turn it is, is decided in `care.py`.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from evener_worker.limits import LEAVE_NS, STAGGER_PERCENT
from evener_worker.slots import NO_LIMIT, Slot, SlotState


class Limits(NamedTuple):
    """Of one worker process, and of the time it has to get ready and to leave; 0 means none."""

    tasks: int = 0
    age_ns: int = 0
    memory_bytes: int = 0
    start_ns: int = 0
    leave_ns: int = LEAVE_NS

    def draw(self, slot: Slot, now_ns: int, rng: random.Random) -> None:
        """A process got ready: its own limits, never above those that were asked for."""
        if self.tasks:
            slot.tasks_limit = _staggered(self.tasks, rng)
        else:
            slot.tasks_limit = NO_LIMIT
        if self.age_ns:
            slot.age_at_ns = now_ns + _staggered(self.age_ns, rng)

    def too_large(self, slot: Slot) -> bool:
        """Whether it takes more memory than it may, as measured last."""
        return 0 < self.memory_bytes < slot.rss_bytes


NO_LIMITS: Final = Limits()


TIMED: Final = {
    SlotState.STARTING: "was not ready in time",
    SlotState.LEAVING: "did not finish its stop hooks in time",
}
"""What a process that takes too long has failed to do."""


def lateness(slot: Slot, now_ns: int) -> str:
    """What it did not do in time; empty while it has time."""
    return TIMED.get(slot.state, "") if 0 < slot.leave_until_ns <= now_ns else ""


def _staggered(limit: int, rng: random.Random) -> int:
    """At least 1, at most the limit."""
    return limit - int(limit * STAGGER_PERCENT / 100 * rng.random())
