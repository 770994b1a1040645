"""A client's session on a bench: its clock and its broker are moved by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from evener.session import ClientSession
from evener.session_records import (
    Connected,
    Effect,
    Event,
    Item,
    Received,
    Resolve,
    Send,
)
from evener_wire import messages as m
from evener_wire.codec import Envelope
from evener_wire.limits import SECOND_NS

INSTANCE = b"i" * 16
BROKER = b"b" * 16
OTHER_BROKER = b"c" * 16
START_NS = 1_000 * SECOND_NS


@dataclass(eq=False)
class Task:
    """A ticket that is nothing else."""

    item: Item


@dataclass
class Bench:
    """A session with a clock and a broker that are moved by hand."""

    session: ClientSession = field(
        default_factory=lambda: ClientSession(INSTANCE, "test", {}, random.Random(1))
    )
    now_ns: int = START_NS
    session_number: int = 77
    number: int = 0
    ids: Iterator[int] = field(default_factory=lambda: count(1))

    def step(self, *events: Event, after_ns: int = 0) -> list[Effect]:
        self.now_ns += after_ns
        effects = self.session.step(self.now_ns, events)
        self.session.check()
        return effects

    def hear(self, *messages: m.Message) -> list[Effect]:
        """The broker says this in the session."""
        events: list[Event] = []
        for message in messages:
            self.number += 1
            events.append(Received(Envelope(self.session_number, self.number, message)))
        return self.step(*events)

    def hear_outside(self, message: m.Message) -> list[Effect]:
        return self.step(Received(Envelope(0, 0, message)))

    def welcome(self, broker: bytes = BROKER, epoch: int = 5, **limits: int) -> list[Effect]:
        """A new session."""
        self.session_number += 1
        self.number = 0
        return self.hear(welcome(broker, epoch, **limits))

    def open(self) -> Bench:
        self.step(Connected())
        self.welcome()
        return self

    def task(self, payload: m.Payload = b"p", function: str = "demo.add") -> Task:
        return Task((next(self.ids).to_bytes(16, "big"), function, payload, None))

    def tasks(self, number: int) -> list[Task]:
        return [self.task() for _ in range(number)]


def welcome(
    broker: bytes = BROKER, epoch: int = 5, tasks_max: int = 1_000_000, bytes_max: int = 1 << 30
) -> m.Welcome:
    return m.Welcome(1, epoch, broker, 1_000, 4_000, tasks_max, bytes_max, False, {})


def sent(effects: list[Effect]) -> list[m.Message]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def submits(effects: list[Effect]) -> list[tuple[list[Item], bool]]:
    return [(list(s.items), s.again) for s in sent(effects) if isinstance(s, m.Submit)]


def resolved(effects: list[Effect]) -> list[tuple[object, int]]:
    return [
        (ticket, item[1])
        for effect in effects
        if isinstance(effect, Resolve)
        for ticket, item in effect.endings
    ]


def done(*tasks: Task) -> m.Terminal:
    return m.Terminal([(task.item[0], m.TERMINAL_DONE, b"r", None) for task in tasks])
