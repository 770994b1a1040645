"""Care of workers: whose process is replaced, how many there shall be, whether work is taken.

Rules of this file: decides whose turn it is to leave; how a process leaves and starts stands in
`pool.py`. A worker never leaves while it runs something. Of workers that are recycled so few are
away at a time that capacity stays at all but one (or nine tenths); a limit that is reached waits
for its turn, and the worker goes on meanwhile.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from evener_wire.limits import KIB
from evener_worker.events import Measured, RestartAsked
from evener_worker.handout import HandOut
from evener_worker.health import Health
from evener_worker.ledger import Ledger
from evener_worker.limits import AWAY_DIVISOR, TURN_NS
from evener_worker.pool import Pool
from evener_worker.rolling import Rolling
from evener_worker.slots import NO_LIMIT, Slot, SlotState


class Care:
    """Caller: the core's step."""

    __slots__ = ("_due", "_handout", "_ledger", "_pool", "health", "paused", "recycled", "rolling")

    def __init__(self, ledger: Ledger, pool: Pool, handout: HandOut, ping_timeout_ns: int) -> None:
        self._ledger = ledger
        self._pool = pool
        self._handout = handout
        self._due: set[int] = set()  # slots that wait for their turn
        self.rolling: Final = Rolling(ledger, pool)
        self.health: Final = Health(ledger, pool, ping_timeout_ns)
        self.paused = False  # nothing new is taken, until somebody says so
        self.recycled: Counter[str] = Counter()  # by the limit that was reached

    # --- Limits that are reached ------------------------------------------------------------------

    def on_measured(self, event: Measured) -> None:
        """Who has too much memory now? And who answers?"""
        pool = self._pool
        pool.on_measured(event)
        self.health.look()
        if pool.limits.memory_bytes:
            for number in event.usage:
                slot = pool.slots[number]
                if not slot.due and slot.ready_ns and pool.limits.too_large(slot):
                    self._note(slot, "memory")

    def _look_at_ages(self) -> None:
        now_ns = self._ledger.now_ns
        for slot in self._pool.slots.values():
            if 0 < slot.age_at_ns <= now_ns and not slot.due:
                self._note(slot, "age")

    def _note(self, slot: Slot, why: str) -> None:
        slot.due = why
        slot.tasks_limit = NO_LIMIT  # until its turn it goes on
        slot.age_at_ns = 0
        self._due.add(slot.number)
        self.recycled[why] += 1
        size = f"{slot.rss_bytes // KIB:,} KiB, {slot.first - 1:,} tasks"
        text = f"worker {slot.worker} has reached its limit of {why} ({size}) and will be replaced"
        self._ledger.say("debug", text)

    # --- Turns ------------------------------------------------------------------------------------

    def proceed(self) -> None:
        """In each step, before work is handed out: whoever can leave leaves."""
        pool = self._pool
        if pool.stopping:
            return
        while self._handout.spent:
            self._note(self._handout.spent.pop(), "tasks")
        if pool.limits.age_ns:
            self._look_at_ages()
        if not self._due and not self.rolling.active and pool.all_ready():
            return
        pool.kill_late()
        self.rolling.proceed()
        if self._due and not self.rolling.active:  # which replaces everybody
            self._take_turns()
        for slot in list(pool.slots.values()):
            if slot.state is SlotState.RETIRING and not slot.busy:
                if slot.gone or self._away() < self.away_max():
                    pool.let_go(slot)
                else:
                    pool.keep(slot)

    def _take_turns(self) -> None:
        slots = self._pool.slots
        self._due = {number for number in self._due if number in slots and slots[number].due}
        ready = [slots[n] for n in sorted(self._due) if slots[n].state is SlotState.READY]
        room = self.away_max() - self._away() - self._about_to_leave()
        if ready and room > 0:
            # Those that run nothing leave at once.
            ready.sort(key=_is_busy)
            for slot in ready[:room]:
                self._pool.retire(slot)

    def away_max(self) -> int:
        """How many may be away at a time."""
        return max(1, self._pool.size // AWAY_DIVISOR)

    def _away(self) -> int:
        """Processes that are going or coming. One that waits out its back-off may never come."""
        now_ns = self._ledger.now_ns
        return sum(
            slot.state in (SlotState.STARTING, SlotState.LEAVING)
            or (slot.state is SlotState.WAITING and slot.start_at_ns <= now_ns)
            for slot in self._pool.slots.values()
        )

    def _about_to_leave(self) -> int:
        """Those that run their last attempt, but for long ones, which nobody waits for."""
        since_ns = self._ledger.now_ns - TURN_NS
        return sum(
            slot.state is SlotState.RETIRING and slot.retired_ns > since_ns
            for slot in self._pool.slots.values()
        )

    def on_restart_asked(self, event: RestartAsked) -> None:
        """A signal, or files that changed."""
        if not self._pool.stopping:
            self.rolling.ask(event.why)

    # --- How many ---------------------------------------------------------------------------------

    def scale(self, size: int) -> None:
        """So many workers from now on. Those above finish what they run; new ones start at once."""
        pool = self._pool
        self._ledger.say("info", f"{pool.size} workers become {size}")
        pool.size = size
        pool.changed = True
        for slot in list(pool.slots.values()):
            if slot.index > size or (slot.state is SlotState.STOPPED and not slot.trial):
                pool.dismiss(slot)
        by_index = {slot.index: slot for slot in pool.slots.values() if not slot.trial}
        for index in range(1, size + 1):
            there = by_index.get(index)
            if there is None or (there.gone and there.state is not SlotState.RETIRING):
                pool.add(index)
            elif there.gone:
                pool.keep(there)  # it was to leave, and runs its last attempt

    # --- Whether new work is taken ----------------------------------------------------------------

    def pause(self) -> None:
        """Take nothing new, and give back what has not started; what runs goes on."""
        if self.paused:
            return
        self.paused = self._pool.changed = True
        for slot in self._pool.busy():
            slot.taking = slot.held()
        self._ledger.say("info", "draining: nothing new is taken, until it is undone")

    def resume(self) -> None:
        """Take new work again."""
        if self.paused:
            self.paused = False
            self._pool.changed = True
            self._ledger.say("info", "draining is undone: new work is taken")

    # --- Looking ----------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Where everything of this file stands."""
        pool = self._pool
        running = sum(max(1, len(slot.shared)) for slot in pool.busy())
        return {
            "workers": pool.size,
            "ready": self._handout.ready(),
            "processes": sum(1 for slot in pool.slots.values() if slot.pid),
            "running": running,
            "waiting": len(self._ledger.waiting),
            "untold": len(self._ledger.ended),
            "paused": self.paused,
            "stopping": pool.stopping,
            "recycled": dict(self.recycled),
            "restart": self.rolling.facts(),
        }

    def wake_at(self) -> int | None:
        """When an age is reached, or the next turn begins."""
        pool = self._pool
        if not pool.limits.age_ns and pool.all_ready():
            return None
        times: list[int] = []
        if pool.limits.age_ns:
            times += [slot.age_at_ns for slot in pool.slots.values() if slot.age_at_ns]
        times += [
            at_ns
            for slot in pool.slots.values()
            if slot.state is SlotState.RETIRING
            and (at_ns := slot.retired_ns + TURN_NS) > self._ledger.now_ns
        ]
        return min(times, default=None)


def _is_busy(slot: Slot) -> bool:
    return slot.busy
