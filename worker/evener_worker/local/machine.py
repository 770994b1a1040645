"""The machine of a pool: events in, effects out. It decides everything, and does nothing.

Rules of this file: no I/O, no clock, no threads. `step` handles events in order, then what is due.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from evener_worker.local.calls import Call, Wait
from evener_worker.local.desk import Desk
from evener_worker.local.errors import PoolClosed, PoolError
from evener_worker.local.ledger import Ledger, Settings, Timed
from evener_worker.local.lives import Lives
from evener_worker.local.seats import Place, Seat
from evener_worker.local.stimuli import (
    Asked,
    AwaitReady,
    Died,
    Effect,
    End,
    Event,
    Fail,
    FromWorker,
    GaveUp,
    Heard,
    KillWorker,
    Ready,
    Replace,
    Replied,
    Restart,
    Spawned,
    StartAll,
    StartFailed,
    Stop,
    Tell,
)
from evener_worker.local.waits import Waits
from evener_worker.slots import SlotState


class PoolMachine:
    """Caller: the pool's loop. `seats` may be looked at from anywhere."""

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        self._ledger = Ledger()
        self._desk = Desk(self._ledger, settings)
        self._waits = Waits(self._ledger)
        self._lives = Lives(self._ledger, self._desk, self._waits, settings, rng)
        self._stop_wait: Wait | None = None
        self._ended = False
        self.seats: Final = self._desk.seats
        self._handlers: dict[type, Callable[[Any], None]] = {
            StartAll: self._on_start_all,
            Restart: self._on_restart,
            Replace: self._on_replace,
            KillWorker: self._on_kill,
            AwaitReady: self._on_await_ready,
            Stop: self._on_stop,
            Asked: self._desk.on_asked,
            GaveUp: self._desk.on_gave_up,
            Spawned: self._for_place(self._lives.on_spawned),
            Ready: self._for_place(self._lives.on_ready),
            StartFailed: self._for_place(self._lives.on_start_failed),
            Replied: self._for_place(self._desk.on_replied),
            Heard: self._for_place(self._on_heard),
            Died: self._for_place(self._lives.on_died),
        }

    def _for_place(self, handler: Callable[[Any, Place], None]) -> Callable[[Any], None]:
        def on_event(event: Any) -> None:
            handler(event, self._lives.places[event.place])

        return on_event

    # --- The step ---------------------------------------------------------------------------------

    def step(self, now_ns: int, events: Sequence[Event]) -> list[Effect]:
        """Handle these events, and what is due."""
        ledger = self._ledger
        ledger.now_ns = now_ns
        ledger.effects = []
        for event in events:
            self._handlers[type(event)](event)
        for target in ledger.due():
            self._on_time(target)
        if self._desk.stopping:
            self._leave_idle()
        ledger.tidy(self._counts, len(self._desk.open) + len(self._lives.places))
        return ledger.effects

    def wake_at(self) -> int | None:
        """When something is due."""
        return self._ledger.next_ns()

    def _on_time(self, target: Timed) -> None:
        if isinstance(target, Call):
            self._desk.on_time(target)
        elif isinstance(target, Place):
            if self._lives.places.get(target.number) is target:
                self._lives.on_time(target)
        elif target is self._stop_wait:
            self._kill_all("the pool was shut down, and it was not done in time")
        elif self._waits.open.get(target.number) is target:
            self._on_late_wait(target)

    def _on_late_wait(self, wait: Wait) -> None:
        places = [self._lives.places[number] for number in wait.places]
        late = [place for place in places if place.slot.state is SlotState.STARTING]
        if not late or not wait.kills or wait.ended:
            self._waits.time_out(wait)
        for place in late if wait.kills else ():
            self._lives.too_late(place, f"{wait.timeout_s or 0.0:g} s")

    def _counts(self, target: Timed) -> bool:
        if isinstance(target, Call):
            return self._desk.open.get(target.number) is target and not target.gone
        if isinstance(target, Place):
            return self._lives.places.get(target.number) is target
        return target is self._stop_wait or target.number in self._waits.open

    def all_open(self) -> list[Call | Wait]:
        """Everything that somebody waits for."""
        return [*self._desk.open.values(), *self._waits.open.values()]

    # --- Processes --------------------------------------------------------------------------------

    def _refused(self, wait: Wait) -> bool:
        if self._desk.stopping:
            self._ledger.effects.append(Fail(wait, PoolClosed()))
        return self._desk.stopping

    def _on_start_all(self, event: StartAll) -> None:
        if not self._refused(event.wait):
            places = [self._lives.start(seat) for seat in self.seats.values()]
            self._await(event.wait, places)

    def _on_await_ready(self, event: AwaitReady) -> None:
        if not self._refused(event.wait):
            self._await(event.wait, [self._lives.start(self.seats[event.seat])])

    def _await(self, wait: Wait, places: Sequence[Place]) -> None:
        waiting = [place for place in places if place.slot.state is not SlotState.READY]
        self._waits.begin(wait, [place.number for place in waiting])

    def _on_restart(self, event: Restart) -> None:
        if not self._refused(event.wait):
            self._await(event.wait, [self._lives.restart(self.seats[event.seat])])

    def _on_replace(self, event: Replace) -> None:
        if self._refused(event.wait):
            return
        try:
            place = self._lives.replace(self.seats[event.seat])
        except PoolError as error:
            self._ledger.effects.append(Fail(event.wait, error))
        else:
            self._await(event.wait, [place])

    def _on_kill(self, event: KillWorker) -> None:
        seat = self.seats[event.seat]
        places = seat.places()
        living = [place.number for place in places if place.living]
        for place in places:
            place.again = False
            self._lives.kill(place, "was killed by the program")
        self._waits.begin(event.wait, living, ended=True)

    def _on_heard(self, event: Heard, place: Place) -> None:
        told = FromWorker(event.place, place.seat.id, event.number, event.kind, event.payload)
        self._ledger.effects.append(Tell(told))

    # --- The end ----------------------------------------------------------------------------------

    def _on_stop(self, event: Stop) -> None:
        if self._stop_wait is not None:
            self._join_stop(event)
            return
        self._desk.stopping = True
        self._stop_wait = event.wait
        self._desk.fail_parked(PoolClosed())
        if event.at_once:
            self._kill_all("the pool was shut down")
        elif event.wait.deadline_ns is not None:
            self._ledger.remind(event.wait.deadline_ns, event.wait)
        self._waits.begin(event.wait, self._living(), ended=True)

    def _join_stop(self, event: Stop) -> None:
        if event.at_once:
            self._kill_all("the pool was shut down")
        self._waits.begin(event.wait, self._living(), ended=True)

    def _living(self) -> list[int]:
        return [place.number for place in self._lives.places.values() if place.living]

    def _kill_all(self, reason: str) -> None:
        for place in [*self._lives.places.values()]:
            place.again = False
            self._lives.kill(place, reason)

    def _leave_idle(self) -> None:
        """While stopping: let processes go for which nothing is left to do."""
        for seat in self.seats.values():
            if seat.idle and not self._desk.items:
                self._let_go(seat)
        if not self._ended and not self._living():
            for seat in self.seats.values():
                self._let_go(seat)
            self._ended = True
            self._ledger.effects.append(End())

    def _let_go(self, seat: Seat) -> None:
        for place in seat.places():
            if place.slot.state is SlotState.READY:
                self._lives.leave(place, "the pool is shut down")
            elif place.slot.state in (SlotState.WAITING, SlotState.STARTING):
                self._lives.kill(place, "the pool is shut down")
