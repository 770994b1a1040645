"""The rolling restart: every worker is replaced by one that imported the code as it is now.

Rules of this file: the new process is ready before the old one is asked to leave, so capacity
never drops; that takes the memory of one more worker, and of one for each that still runs a long
task. New code that does not get ready stops it: the old workers go on, and so do those that were
replaced before.
"""

from __future__ import annotations

from typing import Any

from evener_worker.ledger import Ledger
from evener_worker.limits import TURN_NS
from evener_worker.pool import Pool
from evener_worker.slots import LIVING, Slot, SlotState

_MS = 1_000_000


class Rolling:
    """Caller: `Care`."""

    __slots__ = (
        "_error",
        "_last",
        "_ledger",
        "_pool",
        "_since_ns",
        "_took_ns",
        "_total",
        "_trial",
        "_victim",
        "active",
    )

    def __init__(self, ledger: Ledger, pool: Pool) -> None:
        self._ledger = ledger
        self._pool = pool
        self._last = 0  # how many were asked for
        self._total = 0
        self._since_ns = self._took_ns = 0
        self._error = ""
        self._trial = 0  # slot of the new process that is to get ready
        self._victim = 0  # slot of the one that leaves then
        self.active = False

    def ask(self, why: str) -> int:
        """Replace all that started before this moment. The number of this restart."""
        self._pool.generation += 1
        self._last += 1
        self._total = len(self._old())
        self._since_ns = self._ledger.now_ns
        self._error = ""
        self.active = True
        self._ledger.say("info", f"restart ({why}): {self._total} workers, one after the other")
        return self._last

    def proceed(self) -> None:
        """Whatever can happen next."""
        if not self.active or (self._trial and not self._judge()):
            return
        old = self._old()
        if not old:
            self._end()
            return
        if self._somebody_leaves():
            return
        choice = [slot for slot in old if not slot.gone and slot.state in _REPLACEABLE]
        if choice:
            # Those that run nothing first: with luck the others are free when their turn comes.
            victim = min(choice, key=_order)
            self._victim = victim.number
            self._pool.trial_text = ""
            self._trial = self._pool.add(victim.index, trial=True).number

    def _judge(self) -> bool:
        """Look at the new process. Whether the next one can have its turn."""
        pool = self._pool
        new = pool.slots.get(self._trial)
        victim = pool.slots.get(self._victim)
        if new is not None and new.trial:
            return False  # it still starts
        self._trial = self._victim = 0
        if new is None:
            self._fail()
            return False
        if victim is None or new.index > pool.size:
            pool.dismiss(victim or new)
            return True
        new.tasks, new.restarts = victim.tasks, victim.restarts
        new.recycled = victim.recycled + 1
        pool.dismiss(victim)
        return True

    def _fail(self) -> None:
        self.active = False
        self._took_ns = self._ledger.now_ns - self._since_ns
        self._error = self._pool.trial_text or "the new worker did not get ready"
        left = sum(slot.state in LIVING for slot in self._old())
        goes_on = f", {left} workers go on with the code that they have"
        if self._pool.waits_for_code:
            goes_on = "; no worker can start, waiting for its files to change"
        self._ledger.say("error", f"restart stopped{goes_on}: {self._error}")

    def _end(self) -> None:
        self.active = False
        self._took_ns = self._ledger.now_ns - self._since_ns
        self._ledger.say("info", f"restarted {self._total} workers in {self._took_ns / 1e9:.1f} s")

    def _old(self) -> list[Slot]:
        """Slots whose process imported older code."""
        wanted = self._pool.generation
        return [
            slot
            for slot in self._pool.slots.values()
            if slot.generation < wanted
            and (slot.state in LIVING or slot.state is SlotState.STOPPED)
            and not slot.trial
        ]

    def _somebody_leaves(self) -> bool:
        since_ns = self._ledger.now_ns - TURN_NS
        return any(
            slot.gone
            and (
                slot.state is SlotState.LEAVING
                or (slot.state is SlotState.RETIRING and slot.retired_ns > since_ns)
            )
            for slot in self._pool.slots.values()
        )

    def facts(self) -> dict[str, Any] | None:
        """How far it is; None if there was none yet."""
        if not self._last:
            return None
        took_ns = self._ledger.now_ns - self._since_ns if self.active else self._took_ns
        old = self._old()
        return {
            "number": self._last,
            "state": "running" if self.active else "failed" if self._error else "done",
            "total": self._total,
            "done": max(0, self._total - len(old)),
            "finishing": sum(1 for slot in old if slot.gone and slot.busy),
            "took_ms": took_ns // _MS,
            "error": self._error or None,
        }


_REPLACEABLE = frozenset({SlotState.READY, SlotState.RETIRING, SlotState.STOPPED})


def _order(slot: Slot) -> tuple[bool, int]:
    return slot.busy, slot.index
