"""A bench for the machine of a pool in a program: events in, effects out, and the books checked."""

from __future__ import annotations

import random
from typing import Any, TypeVar

from evener_wire.limits import SECOND_NS
from evener_wire.messages import Payload
from evener_worker.channel import EXECUTE
from evener_worker.local import stimuli as s
from evener_worker.local.calls import Call, Wait
from evener_worker.local.ledger import Settings
from evener_worker.local.machine import PoolMachine

E = TypeVar("E")

START_NS = 5 * SECOND_NS


class Nobody:
    """A waiter who must not be told by the machine itself."""

    def admitted(self) -> None:
        raise AssertionError("the machine tells nobody itself")

    def answered(self, outcome: int, payload: Payload) -> None:
        raise AssertionError("the machine tells nobody itself")

    def failed(self, error: Exception) -> None:
        raise AssertionError("the machine tells nobody itself")


class Bench:
    """A machine, its time, and what it wants done."""

    def __init__(self, size: int = 2, **settings: Any) -> None:
        self.machine = PoolMachine(Settings(size, **settings), random.Random(1))
        self.now_ns = START_NS
        self.pids = 100
        self.running: dict[int, int] = {}  # place to seat

    def step(self, *events: s.Event, after_s: float = 0.0) -> list[s.Effect]:
        self.now_ns += round(after_s * SECOND_NS)
        effects = self.machine.step(self.now_ns, events)
        spawned: list[s.Event] = []
        for spawn in only(effects, s.Spawn):
            self.pids += 1
            self.running[spawn.place] = spawn.seat
            spawned.append(s.Spawned(spawn.place, self.pids))
        if spawned:
            effects += self.machine.step(self.now_ns, spawned)
        self.check()
        return effects

    def check(self) -> None:
        """Rooms hold what is open, and no more; nothing waits where there is room."""
        rooms = {id(self.machine._desk.room): self.machine._desk.room}
        rooms |= {id(seat.room): seat.room for seat in self.machine.seats.values()}
        counts = dict.fromkeys(rooms, 0)
        for call in self.machine._desk.open.values():
            if not call.parked:
                counts[id(self.machine._desk._room_of(call))] += 1
        assert counts == {key: room.count for key, room in rooms.items()}
        for room in rooms.values():
            assert not (room.parked and room.fits(room.parked[0].nbytes))

    def start(self, **reply: int) -> Bench:
        """All workers are ready."""
        self.step(s.StartAll(Wait(Nobody(), "the start")))
        self.ready(*self.running, **reply)
        return self

    def ready(self, *places: int, concurrency: int = 1) -> list[s.Effect]:
        return self.step(*(s.Ready(place, concurrency) for place in places))

    def dies(self, place: int, code: int | None = 1) -> list[s.Effect]:
        del self.running[place]
        lines = ("last words",)
        return self.step(s.Died(place, code, None, lines, ""))

    def place(self, seat: int) -> int:
        place = self.machine.seats[seat].place
        assert place is not None
        return place.number

    def ask(self, kind: int = EXECUTE, seat: int = 1, **terms: Any) -> Call:
        made = call(kind, seat, **terms)
        self.effects = self.step(s.Asked(made))
        return made


def call(
    kind: int = EXECUTE,
    seat: int = 1,
    *,
    nbytes: int = 10,
    deadline_s: float | None = None,
    at_once: bool = False,
) -> Call:
    return Call(
        kind,
        b"x" * nbytes,
        Nobody(),
        seat=seat,
        timeout_s=deadline_s,
        deadline_ns=None if deadline_s is None else at_ns(deadline_s),
        at_once=at_once,
    )


def at_ns(seconds: float) -> int:
    return START_NS + round(seconds * SECOND_NS)


def only(effects: list[s.Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def told(effects: list[s.Effect]) -> list[tuple[str, int]]:
    events = [tell.event for tell in only(effects, s.Tell)]
    return [(e.kind, e.worker) for e in events if isinstance(e, s.WorkerEvent)]


def handed(effects: list[s.Effect]) -> list[tuple[int, Call]]:
    return [(hand.place, hand.call) for hand in only(effects, s.Hand)]


def failures(effects: list[s.Effect]) -> list[type[Exception]]:
    return [type(fail.error) for fail in only(effects, s.Fail)]
