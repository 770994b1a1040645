"""What the death of a worker process means for what it had in hand.

Rules of this file: only what had started is charged, and the page says what that is: of attempts
that ran one after the other the number of the last, of those side by side their lanes. What was
being stopped ends as that. Whatever else ran goes back to the broker as lost, also what only ran
beside the one that brought the process down: nobody can tell the two apart.
"""

from __future__ import annotations

from evener_wire import messages as m
from evener_worker.attempts import Attempt
from evener_worker.certificates import certificate_of
from evener_worker.ending import Ending
from evener_worker.events import Died
from evener_worker.handout import HandOut
from evener_worker.ledger import Ledger
from evener_worker.pool import Pool
from evener_worker.slots import Slot

_KILLED = 3  # the step of the ladder at which the process was killed


class Losses:
    """Caller: the core's step. Affects: the ledger, and what the slot has in hand."""

    __slots__ = ("_ending", "_handout", "_ledger", "_pool")

    def __init__(self, ledger: Ledger, pool: Pool, handout: HandOut, ending: Ending) -> None:
        self._ledger = ledger
        self._pool = pool
        self._handout = handout
        self._ending = ending

    def on_died(self, event: Died) -> None:
        """A process ended."""
        ledger, slot = self._ledger, self._pool.slots[event.slot]
        now_ns, why = ledger.now_ns, self._ending.why or _killed_for(slot)
        shared = dict(slot.shared)
        lost: list[str] = []
        for attempt in self._handout.died(slot):
            beside = shared.get(attempt.sequence)
            if beside is None:
                started, since_ns = attempt.sequence <= event.started, slot.head_since_ns
            else:
                started = event.lanes.get(beside.lane) == attempt.sequence
                since_ns = beside.since_ns
            if not started:
                ledger.end(attempt, m.RETURNED)
                continue
            certificate = certificate_of(slot, event, now_ns, now_ns - since_ns, why)
            if attempt.stop_outcome is not None:
                run_us = (now_ns - since_ns) // 1_000
                ledger.end(attempt, attempt.stop_outcome, run_us, certificate)
            else:
                lost.append(_named(attempt))
                self._ending.stopped += bool(self._ending.why)
                ledger.end(attempt, m.LOST, 0, certificate)
        self._pool.on_died(event, _went_back(lost))


def _named(attempt: Attempt) -> str:
    return f"{attempt.function}[{attempt.key[0].hex()[:8]}]"


def _went_back(lost: list[str]) -> str:
    if not lost:
        return ""
    if len(lost) == 1:
        return f" while running {lost[0]}, which goes back to the broker"
    return f" while running {lost[0]} and {len(lost) - 1} more, which go back to the broker"


def _killed_for(slot: Slot) -> str:
    """Whose stubbornness the others died of."""
    stubborn = [it.attempt for it in slot.shared.values() if it.attempt.step == _KILLED]
    return f"{_named(stubborn[0])} did not stop when it was told to" if stubborn else ""
