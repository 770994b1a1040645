"""The ladder that ends a running attempt: a flag that user code may read, SIGTERM, SIGKILL.

Rules of this file: decides when a step is due, for cancel, run timeout and deadline alike. The
result that comes of it is stated by the worker, or by the core when the worker had to be killed.
"""

from __future__ import annotations

from evener_wire import messages as m
from evener_worker.attempts import Attempt
from evener_worker.effects import Flag, Kill, Terminate
from evener_worker.events import Page
from evener_worker.ledger import Ledger
from evener_worker.limits import KILL_AFTER_NS, TERMINATE_AFTER_NS
from evener_worker.slots import Slot


class Stopping:
    """Caller: the core's step."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def begin(self, attempt: Attempt, outcome: int) -> None:
        """The attempt runs and shall end. A second reason changes nothing."""
        if attempt.step:
            return
        attempt.step = 1
        attempt.stop_outcome = outcome
        attempt.escalate_at_ns = self._ledger.now_ns + TERMINATE_AFTER_NS
        self._ledger.effects.append(Flag(attempt.slot, attempt.sequence, outcome))

    def look(self, slot: Slot, page: Page) -> int | None:
        """Judge what the slot runs. When to look again, if before the next watch."""
        attempt = slot.handed[0]
        if page.started < attempt.sequence:
            return None
        if not attempt.step:
            due_ns = _due(attempt, page)
            if due_ns is None or due_ns > self._ledger.now_ns:
                return due_ns
            self.begin(attempt, m.TIMED_OUT)
        while attempt.escalate_at_ns <= self._ledger.now_ns and attempt.step < 3:
            self._escalate(slot, attempt)
        return attempt.escalate_at_ns if attempt.step < 3 else None

    def _escalate(self, slot: Slot, attempt: Attempt) -> None:
        attempt.step += 1
        if attempt.step == 2:
            attempt.escalate_at_ns += KILL_AFTER_NS
            self._ledger.effects.append(Terminate(slot.number))
        else:
            self._ledger.effects.append(Kill(slot.number))


def _due(attempt: Attempt, page: Page) -> int | None:
    ends: list[int] = []
    if attempt.timeout_ns:
        # Each item of a chunk has the time for itself: the worker notes the start of each.
        ends.append(page.started_ns + attempt.timeout_ns)
    if attempt.deadline_ns:
        ends.append(attempt.deadline_ns)
    return min(ends) if ends else None
