"""The agent's core on a bench: a made-up broker session, made-up workers, a clock turned by hand.

Rules of this file: no I/O. Each step is followed by `check()`. The bench answers `TakeBack` as the
kernel would: a worker that started `n` attempts leaves the rest to be taken.
"""

from __future__ import annotations

import random
from typing import Any, TypeVar

import msgpack

from evener_wire import messages as m
from evener_wire.codec import Envelope
from evener_wire.session import Sequence
from evener_worker import channel as c
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.config import AgentConfig
from evener_worker.core import AgentCore

MS = 1_000_000
SECOND = 1_000 * MS
INSTANCE = b"i" * 16
BROKER = b"b" * 16
T = TypeVar("T")


def key(number: int) -> tuple[bytes, int]:
    """Task id and fence of the task with this number."""
    return number.to_bytes(16, "big"), m.fence_of(3, 1)


def item(
    number: int, function: str = "t.f", timeout_ms: int = 0, deadline_ms: int = 0
) -> tuple[bytes, int, str, bytes, int, int]:
    """An item of RUN."""
    return (*key(number), function, b"x", timeout_ms, deadline_ms)


class Bench:
    """One core, its broker and its workers."""

    def __init__(self, workers: int = 2, **settings: Any) -> None:
        config = AgentConfig(
            "t:app", "tcp://127.0.0.1:1", workers=workers, name="n", drain_seconds=30, **settings
        )
        self.core = AgentCore(config, INSTANCE, random.Random(1), {})
        self.now_ns = 100 * SECOND
        self.sequence: Sequence | None = None
        self.started: dict[int, int] = {}
        self.handed: dict[int, int] = {}
        self.effects: list[f.Effect] = self.core.begin(self.now_ns)

    # --- Steps ------------------------------------------------------------------------------------

    def step(self, *events: e.Event) -> list[f.Effect]:
        """One step, and those that answer it at once; all effects."""
        effects = self.core.step(self.now_ns, events)
        self.core.check()
        done = list(effects)
        answers: list[e.Event] = []
        for effect in effects:
            if isinstance(effect, f.Hand):
                self.handed[effect.slot] = effect.first + len(effect.attempts) - 1
            elif isinstance(effect, f.TakeBack):
                left = self.handed.get(effect.slot, 0) - self.started.get(effect.slot, 0)
                count = min(effect.count, left)
                self.handed[effect.slot] = self.handed.get(effect.slot, 0) - count
                answers.append(e.TakenBack(effect.slot, count))
        if answers:
            done += self.step(*answers)
        self.effects += done
        return done

    def tick(self, after_ms: int) -> list[f.Effect]:
        """Time passes, and a timer is due."""
        self.now_ns += after_ms * MS
        pages = {
            slot.number: e.Page(self.started.get(slot.number, 0), slot.head_since_ns)
            for slot in self.core.pool.slots.values()
        }
        return self.step(e.Tick(pages))

    # --- The broker -------------------------------------------------------------------------------

    def say(self, message: m.Message) -> list[f.Effect]:
        """The broker says something within the session."""
        assert self.sequence is not None
        number = self.sequence.next_number()
        return self.step(e.Received(Envelope(self.sequence.session, number, message)))

    def welcome(self, broker: bytes = BROKER, session: int = 11) -> list[f.Effect]:
        """The broker answers HELLO."""
        self.sequence = Sequence(session)
        return self.say(m.Welcome(1, 3, broker, 1_000, 4_000, 1, 1, False, {}))

    def ready(self, slot: int) -> list[f.Effect]:
        """A worker gets ready."""
        self.started[slot] = self.handed[slot] = 0
        return self.step(e.Spawned(slot, 100 + slot), e.Ready(slot, [("t.f", None)]))

    def open(self) -> Bench:
        """Everything up: session open, all workers ready."""
        self.welcome()
        for slot in self.core.pool.slots:
            self.ready(slot)
        return self

    # --- The workers ------------------------------------------------------------------------------

    def start(self, slot: int, sequence: int) -> None:
        """A worker takes the permit of its attempt number `sequence`."""
        self.started[slot] = sequence

    def finish(self, slot: int, *numbers: int, run_us: int = 10) -> list[f.Effect]:
        """A worker ends these tasks, in the order in which it has them."""
        frames: list[c.Frame] = []
        for number in numbers:
            attempt = self.core.ledger.open[key(number)]
            body = msgpack.packb((*key(number), m.DONE, b"r", run_us, None))
            frames.append(c.Frame(c.RESULT, attempt.sequence, m.DONE, run_us, body))
            self.started[slot] = max(self.started[slot], attempt.sequence)
        return self.step(e.Finished(slot, frames))

    def die(self, slot: int, signal: int = 9) -> list[f.Effect]:
        """A worker process ends."""
        return self.step(e.Died(slot, self.started[slot], None, signal, ("last words",)))

    # --- What came of it --------------------------------------------------------------------------

    def slot_of(self, number: int) -> int:
        """Which worker has a task."""
        return self.core.ledger.open[key(number)].slot


def only(effects: list[f.Effect], kind: type[T]) -> list[T]:
    """The effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def sent(effects: list[f.Effect]) -> list[m.Message]:
    """The messages among effects, but for results."""
    return [effect.message for effect in effects if isinstance(effect, f.Send)]


def results(effects: list[f.Effect]) -> list[tuple[int, int]]:
    """Number of the task and outcome of each result that is sent."""
    return [
        (int.from_bytes(unpacked[0], "big"), unpacked[2])
        for effect in effects
        if isinstance(effect, f.SendResults)
        for unpacked in (msgpack.unpackb(attempt.packed) for attempt in effect.attempts)
    ]


def handed(effects: list[f.Effect]) -> dict[int, list[int]]:
    """Numbers of the tasks handed out, by slot."""
    out: dict[int, list[int]] = {}
    for effect in only(effects, f.Hand):
        out.setdefault(effect.slot, []).extend(
            int.from_bytes(attempt.key[0], "big") for attempt in effect.attempts
        )
    return out
