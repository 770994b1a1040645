"""The ladder that ends a running attempt: a flag that user code may read, SIGTERM, SIGKILL.

In place of SIGTERM an attempt that runs beside others is interrupted alone; SIGKILL ends them all.

Rules of this file: decides when a step is due, for cancel, run timeout and deadline alike. The
result that comes of it is stated by the worker, or by the core when the worker had to be killed.
"""

from __future__ import annotations

from evener_wire import messages as m
from evener_wire.limits import MILLISECOND_NS
from evener_worker.attempts import Attempt
from evener_worker.effects import Flag, Interrupt, Kill, Terminate
from evener_worker.events import Page
from evener_worker.ledger import Ledger
from evener_worker.limits import KILL_AFTER_NS, TERMINATE_AFTER_NS


class Stopping:
    """Caller: the core's step."""

    __slots__ = ("_ledger", "graces_ms")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        # Of functions that were registered with one: how long they have to end by themselves.
        self.graces_ms: dict[str, int] = {}

    def begin(self, attempt: Attempt, outcome: int, lane: int = 0) -> None:
        """The attempt runs, alone or on a lane, and shall end. A second reason changes nothing."""
        if attempt.step:
            return
        attempt.step = 1
        attempt.stop_outcome = outcome
        grace_ms = self.graces_ms.get(attempt.function)
        grace_ns = TERMINATE_AFTER_NS if grace_ms is None else grace_ms * MILLISECOND_NS
        attempt.escalate_at_ns = self._ledger.now_ns + grace_ns
        self._ledger.effects.append(Flag(attempt.slot, attempt.sequence, outcome, lane))

    def look(self, attempt: Attempt, page: Page, lane: int) -> int | None:
        """Judge what a worker runs. When to look again, if before the next watch."""
        if page.started < attempt.sequence:
            return None
        if not attempt.step:
            due_ns = _due(attempt, page)
            if due_ns is None or due_ns > self._ledger.now_ns:
                return due_ns
            self.begin(attempt, m.TIMED_OUT, lane)
        while attempt.escalate_at_ns <= self._ledger.now_ns and attempt.step < 3:
            self._escalate(attempt, lane)
        return attempt.escalate_at_ns if attempt.step < 3 else None

    def _escalate(self, attempt: Attempt, lane: int) -> None:
        attempt.step += 1
        if attempt.step == 2:
            attempt.escalate_at_ns += KILL_AFTER_NS
            soft = Interrupt(attempt.slot, attempt.sequence) if lane else Terminate(attempt.slot)
            self._ledger.effects.append(soft)
        else:
            self._ledger.effects.append(Kill(attempt.slot))


def _due(attempt: Attempt, page: Page) -> int | None:
    ends: list[int] = []
    if attempt.timeout_ns:
        # Each item of a chunk has the time for itself: the worker notes the start of each.
        ends.append(page.started_ns + attempt.timeout_ns)
    if attempt.deadline_ns:
        ends.append(attempt.deadline_ns)
    return min(ends) if ends else None
