"""Who gets which attempt: handing out to workers in small batches, and taking back.

Rules of this file: the line is first in, first out; a worker is handed about a millisecond of work
by measured run time, an unmeasured function one attempt at a time; nothing waits behind a running
attempt that takes longer than estimated. Attempts with a share of a worker go where others are, as
long as there is room, so that whole workers stay free for those that need one (`shares.py`); where
the head of the line has no room, nothing behind it is handed out, so it has its turn. Taking back
is asked of the shell, because only the kernel knows who was first, and answered within the same
turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from evener_wire import messages as m
from evener_worker.attempts import Attempt, Wish
from evener_worker.channel import Frame
from evener_worker.effects import Hand, TakeBack
from evener_worker.estimates import Estimates
from evener_worker.ledger import Ledger
from evener_worker.limits import HANDOUT_BYTES_MAX, HANDOUT_NS, HANDOUT_TASKS_MAX
from evener_worker.shares import fullest, has_room, in_hand, last_shared
from evener_worker.slots import Shared, Slot, SlotState

_REFILL_NS: Final = HANDOUT_NS // 2


class HandOut:
    """Caller: the core's step. Affects: the ledger's line, and what slots have in hand."""

    __slots__ = ("_ledger", "_rotation", "estimates", "spent", "units")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.estimates = Estimates()
        # Ready slots, in the order in which they get work.
        self._rotation: deque[Slot] = deque()
        self.spent: list[Slot] = []  # they ran as many tasks as one process may; for `Care`
        # What an attempt takes of a worker, by function, of those that run side by side.
        self.units: dict[str, int] = {}

    def add(self, slot: Slot) -> None:
        """A worker is ready."""
        self._rotation.append(slot)

    def remove(self, slot: Slot) -> None:
        """A worker is ready no more."""
        if slot in self._rotation:
            self._rotation.remove(slot)

    def ready(self) -> int:
        """How many workers are ready."""
        return len(self._rotation)

    def knows(self, slot: Slot) -> bool:
        """Whether the slot is among the ready ones."""
        return slot in self._rotation

    # --- Handing out ------------------------------------------------------------------------------

    def hand_out(self) -> None:
        """Give waiting attempts to workers that have little in hand, free ones first."""
        waiting = self._ledger.waiting
        if not self.units:
            self._hand_alone(waiting)
            return
        before = -1
        while waiting and len(waiting) != before:
            before = len(waiting)
            if waiting[0].function in self.units:
                self._hand_shared(waiting)
            else:
                self._hand_alone(waiting)

    def _hand_alone(self, waiting: deque[Attempt]) -> None:
        """What takes a whole worker, up to the first that does not."""
        if not waiting:
            return
        takers = self._takers(len(waiting))
        for position, slot in enumerate(takers):
            if not waiting:
                return
            share = -(-len(waiting) // (len(takers) - position))
            in_hand = len(slot.handed)
            room = min(HANDOUT_TASKS_MAX - in_hand, slot.tasks_limit + 1 - slot.first - in_hand)
            batch = self._batch(slot, min(share, room))
            if batch:
                self._hand(slot, batch)

    def _takers(self, wanted: int) -> list[Slot]:
        takers: list[Slot] = []
        for slot in self._rotation:
            if not slot.handed and _may_take(slot):
                takers.append(slot)
                if len(takers) >= wanted:
                    return takers
        takers += [slot for slot in self._rotation if slot.handed and _may_take(slot)]
        return takers

    def _batch(self, slot: Slot, count_max: int) -> list[Attempt]:
        waiting = self._ledger.waiting
        estimates, units = self.estimates, self.units
        batch: list[Attempt] = []
        in_hand_ns = slot.in_hand_ns
        in_hand_bytes = slot.in_hand_bytes
        alone = not slot.handed
        while waiting and len(batch) < count_max:
            attempt = waiting[0]
            assert attempt.item is not None
            if units and attempt.item[2] in units:
                break
            # An unmeasured function may take for ever: nothing else beside it.
            estimate_ns = estimates.get(attempt.item[2])
            if estimate_ns is None:
                estimate_ns = HANDOUT_NS
            size = len(attempt.item[3])
            if not alone and (
                in_hand_ns + estimate_ns > HANDOUT_NS or in_hand_bytes + size > HANDOUT_BYTES_MAX
            ):
                break
            alone = False
            in_hand_ns += estimate_ns
            in_hand_bytes += size
            attempt.estimate_ns = estimate_ns
            batch.append(waiting.popleft())
        slot.in_hand_ns = in_hand_ns
        slot.in_hand_bytes = in_hand_bytes
        return batch

    def _hand(self, slot: Slot, batch: list[Attempt]) -> None:
        ledger = self._ledger
        now_ns = ledger.now_ns
        if not slot.handed:
            slot.head_since_ns = now_ns
        first = sequence = slot.first + len(slot.handed)
        number = slot.number
        for attempt in batch:
            attempt.slot = number
            attempt.sequence = sequence
            sequence += 1
            ledger.hand(attempt)
        slot.handed.extend(batch)
        ledger.effects.append(Hand(number, first, batch))
        # Round-robin: who got something now stands at the end.
        self._rotation.remove(slot)
        self._rotation.append(slot)

    def _hand_shared(self, waiting: deque[Attempt]) -> None:
        """What takes a share of a worker, up to the first that does not, or that has no room."""
        while waiting:
            units = self.units.get(waiting[0].function)
            slot = units and fullest(self._rotation, units)
            if not slot:
                return
            ledger, first = self._ledger, slot.first
            batch: list[Attempt] = []
            lanes: list[int] = []
            while units and has_room(slot, units):
                attempt = waiting.popleft()
                lanes.append(slot.share(attempt, units, ledger.now_ns).lane)
                ledger.hand(attempt)
                batch.append(attempt)
                units = self.units.get(waiting[0].function) if waiting else None
            ledger.effects.append(Hand(slot.number, first, batch, lanes))
            if slot.first > slot.tasks_limit and not slot.due:
                self.spent.append(slot)
            self._rotation.remove(slot)
            self._rotation.append(slot)

    # --- Ends -------------------------------------------------------------------------------------

    def finished(self, slot: Slot, results: Sequence[Frame]) -> bool:
        """A worker ended its first attempts. Whether they are those it was handed."""
        if slot.shared:
            return self._finished_shared(slot, results)
        ledger = self._ledger
        handed = slot.handed
        observe = self.estimates.observe
        for ended in results:
            if not handed or handed[0].sequence != ended.sequence:
                return False
            attempt = handed.popleft()
            item = attempt.item
            assert item is not None
            slot.in_hand_ns -= attempt.estimate_ns
            slot.in_hand_bytes -= len(item[3])
            if ended.outcome <= m.FAILED:
                observe(item[2], ended.run_us)
            attempt.packed = ended.body
            attempt.buffers = ended.buffers
            ledger.close(attempt, ended.outcome)
            slot.first += 1
        # What was to be taken back in this very step may have ended first.
        slot.taking = min(slot.taking, len(handed))
        slot.tasks += len(results)
        if slot.first > slot.tasks_limit and not slot.due:
            self.spent.append(slot)
        slot.head_since_ns = ledger.now_ns
        slot.stuck = False
        return True

    def _finished_shared(self, slot: Slot, results: Sequence[Frame]) -> bool:
        """The same for attempts side by side, which end in any order."""
        for ended in results:
            attempt = slot.unshare(ended.sequence)
            if attempt is None:
                return False
            if ended.outcome <= m.FAILED:
                self.estimates.observe(attempt.function, ended.run_us)
            attempt.packed = ended.body
            attempt.buffers = ended.buffers
            self._ledger.close(attempt, ended.outcome)
        slot.taking = min(slot.taking, len(slot.shared))
        slot.tasks += len(results)
        return True

    def died(self, slot: Slot) -> list[Attempt]:
        """A worker ended: what it had, first one first."""
        lost = [*slot.handed, *(shared.attempt for shared in slot.shared.values())]
        slot.handed.clear()
        slot.shared.clear()
        slot.load = slot.lanes = 0
        slot.in_hand_ns = slot.in_hand_bytes = 0
        return lost

    # --- Taking back ------------------------------------------------------------------------------

    def ask_back(self, slot: Slot, attempt: Attempt, wish: Wish) -> None:
        """Take back an attempt, and so everything behind it, unless it has started."""
        attempt.wish = wish
        if slot.shared:  # they start in the order of their numbers
            behind = sum(number >= attempt.sequence for number in slot.shared)
        else:
            behind = slot.first + len(slot.handed) - attempt.sequence
        slot.taking = max(slot.taking, behind)

    def ask_all_back(self, slot: Slot, wish: Wish | None = None) -> None:
        """Take back whatever has not started; `wish` says what becomes of it."""
        if wish is not None:
            for attempt in in_hand(slot):
                attempt.wish = attempt.wish or wish
        slot.taking = slot.held()

    def ask_late_back(self, slot: Slot, late: Shared, count: int) -> None:
        """Take back the last `count`, which wait for a busy loop, if there is room elsewhere."""
        if any(other is not slot and has_room(other, late.units) for other in self._rotation):
            slot.taking = max(slot.taking, count)

    def request(self, slot: Slot) -> None:
        """Ask the shell for the permits that are wanted back."""
        if slot.taking:
            self._ledger.effects.append(TakeBack(slot.number, slot.taking))

    def taken_back(self, slot: Slot, count: int) -> tuple[list[Attempt], list[Attempt]]:
        """The answer: attempts with a wish that never start, and those with one that did.

        The rest of what was taken back stands at the front of the line again.
        """
        slot.taking = 0
        if count:
            # Until the worker dropped all it was sent, new permits would let it run those again.
            last = slot.first - 1 if slot.shared else slot.first + len(slot.handed) - 1
            slot.dirty_until = max(slot.dirty_until, last)
        granted: list[Attempt] = []
        for _ in range(count):
            if slot.shared:
                attempt = last_shared(slot)
            else:
                attempt = slot.handed.pop()
                assert attempt.item is not None
                slot.in_hand_ns -= attempt.estimate_ns
                slot.in_hand_bytes -= len(attempt.item[3])
            if attempt.wish is None:
                self._ledger.put_back(attempt)
            else:
                granted.append(attempt)
        if not slot.handed:
            slot.stuck = False  # nothing is left of what it was stuck in
        started = [attempt for attempt in in_hand(slot) if attempt.wish is not None]
        granted.reverse()
        return granted, started

    def dropped(self, slot: Slot, last: int) -> None:
        """The worker dropped what it had up to number `last`."""
        if last >= slot.dirty_until:
            slot.dirty_until = 0


def _may_take(slot: Slot) -> bool:
    return (
        slot.state is SlotState.READY
        and not slot.dirty_until
        and not slot.taking
        and not slot.stuck
        and not slot.shared
        and (not slot.handed or slot.in_hand_ns <= _REFILL_NS)
        and len(slot.handed) < HANDOUT_TASKS_MAX
        and slot.first + len(slot.handed) <= slot.tasks_limit
    )
