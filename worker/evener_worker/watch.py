"""A look at what busy workers run: what they noted in their pages, and what follows from it.

Rules of this file: what waits behind a running attempt that takes long is taken back, what is late
is stopped, what runs for a while is told to the broker, and so is how far it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from evener_wire import messages as m
from evener_wire.limits import BATCH_ITEMS_MAX, MILLISECOND_NS, SLOTS_MAX
from evener_worker.attempts import Attempt, Key
from evener_worker.events import Page, Tick
from evener_worker.handout import HandOut
from evener_worker.ledger import Ledger
from evener_worker.limits import (
    SHARE_STUCK_NS,
    STARTED_NS,
    STUCK_NS,
    WATCH_BEHIND_NS,
    WATCH_NS,
    WATCH_SHARED_NS,
)
from evener_worker.pool import Pool
from evener_worker.reports import Reports
from evener_worker.session import Session
from evener_worker.slots import Shared, Slot
from evener_worker.stopping import Stopping


class Watch:
    """Caller: the core's step, when a look is due."""

    __slots__ = (
        "_handout",
        "_ledger",
        "_next_ns",
        "_pool",
        "_reports",
        "_session",
        "_started",
        "_stopping",
    )

    def __init__(
        self,
        ledger: Ledger,
        pool: Pool,
        handout: HandOut,
        stopping: Stopping,
        session: Session,
        reports: Reports,
    ) -> None:
        self._ledger = ledger
        self._pool = pool
        self._handout = handout
        self._stopping = stopping
        self._session = session
        self._reports = reports
        self._started: list[Key] = []  # of this look
        self._next_ns: int | None = None

    def look(self, event: Tick) -> int | None:
        """Look at all of them. When to look again, if anything runs."""
        self._next_ns = None
        for slot in self._pool.busy():
            page = event.pages.get(slot.number)
            if page is None:
                continue
            if slot.shared:
                self._look_at_shared(slot, page)
            else:
                self._look_at_head(slot, page)
        started, self._started = self._started, []
        for first in range(0, len(started), BATCH_ITEMS_MAX):
            self._session.send(m.Started(started[first : first + BATCH_ITEMS_MAX]))
        self._reports.flush()
        return self._next_ns

    def _again(self, at_ns: int | None) -> None:
        if at_ns is not None and (self._next_ns is None or at_ns < self._next_ns):
            self._next_ns = at_ns

    def _look_at_head(self, slot: Slot, page: Page) -> None:
        now_ns, head = self._ledger.now_ns, slot.handed[0]
        slot.stuck = now_ns - slot.head_since_ns > STUCK_NS
        behind = len(slot.handed) > 1
        if behind and (slot.stuck or self._session.fenced):
            self._handout.ask_all_back(slot)
        self._look_at(head, slot.head_since_ns, page, 0)
        self._again(now_ns + (WATCH_BEHIND_NS if behind else WATCH_NS))

    def _look_at_shared(self, slot: Slot, page: Page) -> None:
        now_ns, lanes = self._ledger.now_ns, page.lanes or {}
        late: list[Shared] = []
        for number, shared in slot.shared.items():
            own = lanes.get(shared.lane)
            if own is None:
                continue
            if own.started == number:
                self._look_at(shared.attempt, shared.since_ns, own, shared.lane)
            elif self._session.fenced or now_ns - shared.since_ns > SHARE_STUCK_NS:
                late.append(shared)
        if late and self._session.fenced:
            slot.taking = max(slot.taking, len(late))
        elif late:
            self._handout.ask_late_back(slot, late[0], len(late))
        self._again(now_ns + WATCH_SHARED_NS)

    def _look_at(self, attempt: Attempt, since_ns: int, page: Page, lane: int) -> None:
        """At one that runs, or is about to."""
        age_ns = self._ledger.now_ns - since_ns
        if not attempt.started_told and age_ns > STARTED_NS and page.started >= attempt.sequence:
            attempt.started_told = True
            self._started.append(attempt.key)
        self._reports.look(attempt, page)
        self._again(self._stopping.look(attempt, page, lane))


def running(slots: Iterable[Slot], now_ns: int) -> list[tuple[bytes, int, int]]:
    """What runs, for a heartbeat; of what runs side by side only what is known to have started."""

    def each() -> Iterable[tuple[bytes, int, int]]:
        for slot in slots:
            if slot.handed:
                yield *slot.handed[0].key, (now_ns - slot.head_since_ns) // MILLISECOND_NS
            for it in slot.shared.values():
                if it.attempt.started_told:
                    yield *it.attempt.key, (now_ns - it.since_ns) // MILLISECOND_NS

    return [*islice(each(), SLOTS_MAX)]
