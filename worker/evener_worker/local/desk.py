"""Calls: admitted where there is room, handed to a process that is free, answered or failed.

Rules of this file: no I/O, and nothing about the life of processes; `lives.py` tells when a place
can take calls and when it ended. A call that was not handed survives the process. Items are handed
one by one, so the death of a process fails what it ran and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from evener_wire.limits import SECOND_NS
from evener_worker.channel import EXECUTE, MESSAGE
from evener_worker.limits import POOL_HANDED_MAX
from evener_worker.local.calls import Call, Room
from evener_worker.local.errors import PoolClosed, PoolError, PoolFull, RequestTimeout
from evener_worker.local.ledger import Ledger, Settings
from evener_worker.local.seats import Place, Seat
from evener_worker.local.stimuli import Admit, Answer, Asked, Fail, Forget, GaveUp, Hand, Replied
from evener_worker.slots import SlotState


class Desk:
    """Caller: the machine's step."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger: Final = ledger
        room = (settings.calls_max, settings.bytes_max)
        self.seats: Final = {n: Seat(n, Room(*room)) for n in range(1, settings.size + 1)}
        self.room: Final = Room(room[0] * settings.size, room[1] * settings.size)
        self.items: Final[deque[Call]] = deque()  # for any worker, admitted
        self.open: Final[dict[int, Call]] = {}
        self.stopping = False
        self._turn = 0  # whom an item for any was handed to last

    # --- Asking -----------------------------------------------------------------------------------

    def on_asked(self, event: Asked) -> None:
        """A call: take it in, let its caller wait, or refuse it."""
        call = event.call
        if self.stopping:
            return self._refuse(call, PoolClosed())
        text = self._why_nobody(call.seat)
        if text:
            return self._refuse(call, PoolError(text))
        call.number = self._ledger.number(self.open.__contains__)
        self.open[call.number] = call
        if call.deadline_ns is not None:
            self._ledger.remind(call.deadline_ns, call)
        room = self._room_of(call)
        if not room.parked and room.fits(call.nbytes):
            self._admit(call, room)
        elif call.at_once:
            self._end(call)
            self._refuse(call, PoolFull(f"no room for {call.text}: {_room_text(room)}"))
        else:
            call.parked = True
            room.parked.append(call)
        return None

    def _why_nobody(self, seat: int) -> str:
        """Why a call could wait for ever. Empty: it cannot."""
        if seat:
            stopped = self.seats[seat].state is SlotState.STOPPED
            return f"worker {seat} is stopped; restart() starts it again" if stopped else ""
        stopped = all(seat.state is SlotState.STOPPED for seat in self.seats.values())
        return (
            "all workers are stopped; restart() or spawn_all() start them again" if stopped else ""
        )

    def _refuse(self, call: Call, error: PoolError) -> None:
        self._ledger.effects.append(Fail(call, error))

    def _room_of(self, call: Call) -> Room:
        return self.seats[call.seat].room if call.seat else self.room

    def _admit(self, call: Call, room: Room) -> None:
        call.parked = False
        room.take(call.nbytes)
        self._ledger.effects.append(Admit(call))
        if not call.seat:
            self.items.append(call)
            self._feed_any()
            return
        seat = self.seats[call.seat]
        (seat.items if call.kind == EXECUTE else seat.messages).append(call)
        if seat.place is not None:
            self.feed(seat.place)

    # --- Handing ----------------------------------------------------------------------------------

    def _feed_any(self) -> None:
        """Give what is for any worker to the next free one, in turn."""
        numbers = len(self.seats)
        for step in range(numbers):
            if not self.items:
                return
            number = (self._turn + step) % numbers + 1
            place = self.seats[number].place
            if place is not None and _is_free(place):
                self._turn = number
                self.feed(place)

    def feed(self, place: Place) -> None:
        """Hand a place what it may have, if it can take calls."""
        seat = place.seat
        if place is not seat.place or not place.alive or place.slot.state is not SlotState.READY:
            return
        while seat.messages and place.messages < POOL_HANDED_MAX:
            place.messages += 1
            self._hand(place, seat.messages.popleft())
        while place.executing < place.concurrency and (seat.items or self.items):
            place.executing += 1
            self._hand(place, (seat.items or self.items).popleft())

    def _hand(self, place: Place, call: Call) -> None:
        call.place = place.number
        place.calls[call.number] = call
        self._ledger.effects.append(Hand(place.number, call))

    # --- Ends -------------------------------------------------------------------------------------

    def on_replied(self, event: Replied, place: Place) -> None:
        """The worker is done with a call."""
        call = place.calls.pop(event.number, None)
        if call is None:
            return
        if call.kind == EXECUTE:
            place.executing -= 1
        else:
            place.messages -= 1
        if call.kind != MESSAGE and not call.gone:
            self._ledger.effects.append(Answer(call, event.outcome, event.payload))
        self._close(call)
        self.feed(place)

    def on_died(self, place: Place, error: PoolError) -> None:
        """The process ended with calls in its hands."""
        calls = [*place.calls.values()]
        place.calls.clear()
        for call in calls:
            if call.kind != MESSAGE and not call.gone:
                self._refuse(call, error)
            self._close(call)

    def fail_seat(self, seat: Seat, error: PoolError) -> None:
        """No process of this seat will come: fail what waits for it, and for any if all are so."""
        # Who is parked first: what is withdrawn after it makes room for nobody.
        self._fail([*seat.room.parked, *seat.messages, *seat.items], error)
        if all(other.state is SlotState.STOPPED for other in self.seats.values()):
            self._fail([*self.room.parked, *self.items], error)

    def fail_parked(self, error: PoolError) -> None:
        """The pool is being stopped: who waits for room gets none."""
        rooms = [self.room, *(seat.room for seat in self.seats.values())]
        self._fail([call for room in rooms for call in room.parked], error)

    def _fail(self, calls: Sequence[Call], error: PoolError) -> None:
        for call in calls:
            if call.kind != MESSAGE or call.parked:
                self._refuse(call, error)
            self._withdraw(call)

    def on_gave_up(self, event: GaveUp) -> None:
        """The caller went away."""
        if self.open.get(event.call.number) is event.call:
            self._let_go(event.call)

    def on_time(self, call: Call) -> None:
        """The deadline of a call."""
        if self.open.get(call.number) is not call or call.gone:
            return
        seconds = call.timeout_s or 0.0
        if call.parked:
            text = (
                f"no room for {call.text} within {seconds:g} s: {_room_text(self._room_of(call))}"
            )
            self._refuse(call, PoolFull(text))
        elif call.kind == MESSAGE:
            return  # it was admitted, and nobody waits for more
        else:
            self._refuse(call, RequestTimeout(call.text, seconds))
        self._let_go(call)

    def _let_go(self, call: Call) -> None:
        """Nobody waits for it any more. What a process has, it has until it says so."""
        if not call.place:
            self._withdraw(call)
            return
        call.gone = True
        call.payload = b""
        self._ledger.effects.append(Forget(call.place, call.number))

    def _withdraw(self, call: Call) -> None:
        room = self._room_of(call)
        if call.parked:
            room.parked.remove(call)
            call.parked = False
            self._end(call)
            return
        if not call.seat:
            self.items.remove(call)
        else:
            seat = self.seats[call.seat]
            (seat.items if call.kind == EXECUTE else seat.messages).remove(call)
        self._close(call)

    def _close(self, call: Call) -> None:
        """It is over: room for the next."""
        self._end(call)
        room = self._room_of(call)
        room.give_back(call.nbytes)
        while room.parked and room.fits(room.parked[0].nbytes):
            self._admit(room.parked.popleft(), room)

    def _end(self, call: Call) -> None:
        del self.open[call.number]
        call.payload = b""


def _is_free(place: Place) -> bool:
    ready = place.alive and place.slot.state is SlotState.READY
    return ready and place.executing < place.concurrency


def _room_text(room: Room) -> str:
    return f"{room.count:,} calls with {room.nbytes:,} bytes are open"


def seconds_text(nanoseconds: int) -> str:
    """A time as errors tell it."""
    return f"{nanoseconds / SECOND_NS:g} s"
