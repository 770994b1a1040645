"""Seats and places: a worker of a pool as its caller knows it, and the processes that it has.

Rules of this file: data. A seat is a worker with its id; a place is one line of processes behind
it, with the restart policy of `slots.py`. A seat has one place, while it is replaced two, and
besides the places that drain.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from evener_worker.local.calls import Call, Room
from evener_worker.slots import LIVING, Slot, SlotState


class Place:
    """One process at a time, and the calls that it has."""

    __slots__ = (
        "again",
        "alive",
        "calls",
        "concurrency",
        "executing",
        "kill_told",
        "leave_until_ns",
        "messages",
        "note",
        "ready_until_ns",
        "seat",
        "slot",
        "start_text",
    )

    def __init__(self, number: int, seat: Seat) -> None:
        self.seat: Final = seat
        self.slot: Final = Slot(number, f"worker-{seat.id}")
        self.calls: dict[int, Call] = {}
        self.executing = 0
        self.messages = 0  # and requests, that it has
        self.concurrency = 1
        self.alive = False  # from Spawn to the news of its end
        self.again = False  # start it anew when it ended: somebody asked for it
        self.kill_told = False
        self.note = ""  # why it is ended
        self.start_text = ""  # why it cannot start, in its words
        self.ready_until_ns = 0
        self.leave_until_ns = 0

    @property
    def number(self) -> int:
        """Unique in the pool."""
        return self.slot.number

    @property
    def living(self) -> bool:
        """Whether there is a process."""
        return self.slot.state in LIVING

    def renew(self) -> None:
        """Forget the process that ended."""
        assert not self.calls
        self.slot.renew()
        self.executing = self.messages = 0
        self.kill_told = self.again = False
        self.note = self.start_text = ""

    def __repr__(self) -> str:
        state = self.slot.state.value
        return f"<Place {self.number} of worker {self.seat.id}: {state}, {len(self.calls)} calls>"


class Seat:
    """A worker as its caller knows it."""

    __slots__ = ("draining", "id", "items", "messages", "place", "room", "successor")

    def __init__(self, number: int, room: Room) -> None:
        self.id: Final = number
        self.place: Place | None = None
        self.successor: Place | None = None
        self.draining: list[Place] = []
        self.items: deque[Call] = deque()  # admitted, not yet handed
        self.messages: deque[Call] = deque()
        self.room: Final = room

    @property
    def state(self) -> SlotState:
        """Of its current place; STOPPED if it has none."""
        return self.place.slot.state if self.place is not None else SlotState.STOPPED

    @property
    def pid(self) -> int:
        """Of its current process; 0 if there is none."""
        return self.place.slot.pid if self.place is not None else 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits for it, and nothing is in its hands."""
        return not (self.items or self.messages or (self.place is not None and self.place.calls))

    def places(self) -> list[Place]:
        """All that have or may get a process."""
        current = [place for place in (self.place, self.successor) if place is not None]
        return [*current, *self.draining]

    def __repr__(self) -> str:
        waiting = len(self.items) + len(self.messages)
        return f"<Seat {self.id}: {self.state.value}, {waiting} waiting>"
