"""Lives of the processes of a pool: starts, READY, deaths, restarts, replacements, farewells.

Rules of this file: no I/O. The states and the restart policy are those of `slots.py`. Subscribers
are told `spawning` before there is a process, and `killing` before anything is done to it.
"""

from __future__ import annotations

import random
from typing import Final

from evener_worker.limits import POOL_DRAINING_MAX
from evener_worker.local.desk import Desk, seconds_text
from evener_worker.local.errors import PoolError, WorkerDied, WorkerStartError, ended_text
from evener_worker.local.ledger import Ledger, Settings
from evener_worker.local.seats import Place, Seat
from evener_worker.local.stimuli import (
    Died,
    EventKind,
    Kill,
    Leave,
    Ready,
    Spawn,
    Spawned,
    StartFailed,
    Tell,
    WorkerEvent,
)
from evener_worker.local.waits import Waits
from evener_worker.slots import SlotState


class Lives:
    """Caller: the machine's step."""

    def __init__(
        self, ledger: Ledger, desk: Desk, waits: Waits, settings: Settings, rng: random.Random
    ) -> None:
        self._ledger: Final = ledger
        self._desk: Final = desk
        self._waits: Final = waits
        self._settings: Final = settings
        self._rng: Final = rng
        self.places: Final[dict[int, Place]] = {}

    def _tell(self, kind: EventKind, place: Place, reason: str = "") -> None:
        event = WorkerEvent(kind, place.seat.id, place.slot.pid, reason=reason)
        self._ledger.effects.append(Tell(event))

    # --- Starting ---------------------------------------------------------------------------------

    def start(self, seat: Seat) -> Place:
        """The place of a seat, with a process now or soon."""
        place = seat.place
        if place is None or place.slot.state is SlotState.STOPPED:
            if place is not None:
                del self.places[place.number]
            place = seat.place = self._new_place(seat)
        if place.slot.state is SlotState.WAITING:
            self._spawn(place)
        return place

    def _new_place(self, seat: Seat) -> Place:
        place = Place(self._ledger.number(self.places.__contains__), seat)
        self.places[place.number] = place
        return place

    def _spawn(self, place: Place) -> None:
        place.slot.move(SlotState.STARTING)
        place.alive = True
        place.slot.spawned_ns = self._ledger.now_ns
        place.ready_until_ns = self._ledger.now_ns + self._settings.ready_ns
        self._ledger.remind(place.ready_until_ns, place)
        self._tell("spawning", place)
        self._ledger.effects.append(Spawn(place.number, place.seat.id))

    def on_spawned(self, event: Spawned, place: Place) -> None:
        """The process exists."""
        place.slot.pid = event.pid

    def on_ready(self, event: Ready, place: Place) -> None:
        """It can take calls."""
        if place.slot.state is not SlotState.STARTING:
            return
        slot, seat = place.slot, place.seat
        slot.move(SlotState.READY)
        slot.ready_ns = self._ledger.now_ns
        slot.start_failures = 0
        place.concurrency = event.concurrency
        old = None
        if place is seat.successor:
            old, seat.place, seat.successor = seat.place, place, None
        self._tell("online", place)
        self._waits.on_ready(place.number)
        if old is not None:
            self._drain(old)
        self._desk.feed(place)

    def _drain(self, old: Place) -> None:
        if old.slot.state is SlotState.STOPPED:
            del self.places[old.number]
            return
        old.seat.draining.append(old)
        if old.slot.state is SlotState.WAITING:
            self._stop_place(old)
            return
        old.again = False
        self.leave(old, "was replaced")

    def on_start_failed(self, event: StartFailed, place: Place) -> None:
        """It says why it cannot start, and ends itself."""
        place.start_text = event.text

    # --- Ending -----------------------------------------------------------------------------------

    def leave(self, place: Place, reason: str) -> None:
        """Ask it to end when what it has is done; kill it if that takes too long."""
        slot = place.slot
        if slot.state not in (SlotState.STARTING, SlotState.READY):
            return
        self._tell_killing(place, reason)
        slot.move(SlotState.LEAVING)
        place.leave_until_ns = self._ledger.now_ns + self._settings.stop_ns
        self._ledger.remind(place.leave_until_ns, place)
        self._ledger.effects.append(Leave(place.number))

    def kill(self, place: Place, reason: str, *, again: bool = False) -> None:
        """End it now. `again`: it is started anew, as the policy for deaths says."""
        slot = place.slot
        if slot.state is SlotState.WAITING:
            self._stop_place(place)
        if not place.living:
            return
        place.note = place.note or reason
        self._tell_killing(place, reason)
        if not again and slot.state is not SlotState.LEAVING:
            slot.move(SlotState.LEAVING)
        self._ledger.effects.append(Kill(place.number))

    def _tell_killing(self, place: Place, reason: str) -> None:
        if not place.kill_told:
            place.kill_told = True
            self._tell("killing", place, reason)

    def restart(self, seat: Seat) -> Place:
        """End the process when it is done with what it has, and start a new one."""
        if seat.successor is not None:
            return seat.successor  # it is being replaced, which is more
        place = seat.place
        if place is None or place.slot.state in (SlotState.STOPPED, SlotState.WAITING):
            return self.start(seat)
        if place.slot.state is SlotState.READY:
            self.leave(place, "is restarted")
        if place.slot.state is SlotState.LEAVING:
            place.again = True
        return place

    def replace(self, seat: Seat) -> Place:
        """The place of the new process."""
        if seat.successor is not None:
            return seat.successor
        if seat.state is not SlotState.READY:
            return self.restart(seat)
        if len(seat.draining) >= POOL_DRAINING_MAX:
            text = f"worker {seat.id} was replaced {len(seat.draining)} times, and all those still"
            raise PoolError(f"{text} work on what they have")
        seat.successor = self._new_place(seat)
        self._spawn(seat.successor)
        return seat.successor

    # --- Deaths -----------------------------------------------------------------------------------

    def on_died(self, event: Died, place: Place) -> None:
        """The process ended: tell, fail what it had, and start the next if there shall be one."""
        slot, seat = place.slot, place.seat
        place.alive = False
        note = place.note or event.note
        how = ended_text(event.exit_code, event.signal, note)
        facts = (event.exit_code, event.signal)
        told = WorkerEvent("exit", seat.id, slot.pid, *facts, reason=how, lines=event.lines)
        self._ledger.effects.append(Tell(told))
        died = WorkerDied(seat.id, *facts, event.lines, note)
        self._desk.on_died(place, died)
        error: PoolError = died
        if not slot.ready_ns:
            error = WorkerStartError(seat.id, place.start_text or f"it {how}", event.lines)
        left, again = slot.state is SlotState.LEAVING, place.again
        delay_ns = slot.restart_delay_ns(self._ledger.now_ns, self._rng)
        place.renew()
        if again and not self._desk.stopping:
            slot.deaths = 0  # somebody wanted it
            slot.move(SlotState.WAITING)
            self._spawn(place)
        elif left or delay_ns is None or not self._goes_on(place):
            self._stop_place(place, error)
        else:
            slot.move(SlotState.WAITING)
            slot.restarts += 1
            slot.start_at_ns = self._ledger.now_ns + delay_ns
            self._waits.on_failed(place.number, error)
            if delay_ns:
                self._ledger.remind(slot.start_at_ns, place)
            else:
                self._spawn(place)
        self._waits.on_ended(place.number)

    def _goes_on(self, place: Place) -> bool:
        return (
            self._settings.restart
            and not self._desk.stopping
            and place is place.seat.place  # where a successor fails, the old one stays
        )

    def _stop_place(self, place: Place, error: PoolError | None = None) -> None:
        """No process will come here."""
        seat = place.seat
        place.slot.move(SlotState.STOPPED)
        error = error or WorkerDied(seat.id, note="was ended before its process was started again")
        self._waits.on_failed(place.number, error)
        self._waits.on_ended(place.number)
        if place is seat.place:
            self._desk.fail_seat(seat, error)
            return
        if place is seat.successor:
            seat.successor = None
        else:
            seat.draining.remove(place)
        del self.places[place.number]

    # --- Time -------------------------------------------------------------------------------------

    def on_time(self, place: Place) -> None:
        """A moment of a process has come: its start, the end of our patience."""
        now_ns, slot = self._ledger.now_ns, place.slot
        if slot.state is SlotState.WAITING and slot.start_at_ns <= now_ns:
            self._spawn(place)
        elif slot.state is SlotState.STARTING and place.ready_until_ns <= now_ns:
            self.too_late(place, seconds_text(self._settings.ready_ns))
        elif slot.state is SlotState.LEAVING and 0 < place.leave_until_ns <= now_ns:
            place.leave_until_ns = 0
            self.kill(place, f"did not end within {seconds_text(self._settings.stop_ns)}")

    def too_late(self, place: Place, after: str) -> None:
        """It does not get ready: end it. The policy for deaths decides what is next."""
        if place.slot.state is SlotState.STARTING and not place.note:
            self.kill(place, f"was not ready within {after} and was killed", again=True)
