"""A client without a thread: the shipped session and transport, a program that keeps tasks open.

Rules of this file: it does what `evener/connection.py` does, in the same order.
"""

from __future__ import annotations

import os
import random
from typing import Any, Final

import msgpack
import zmq

from evener import session_records as r
from evener.session import ClientSession
from evener.transport import POLLIN, Transport, connection_events
from evener_wire import messages as m
from tests.recovery.agents import CALL, FUNCTION
from tests.recovery.books import Books

_QUESTION_NS: Final = 10_000_000_000


class Ticket:
    """A task that waits for its end."""

    __slots__ = ("item",)

    def __init__(self, item: r.Item) -> None:
        self.item = item


class RealClient:
    """One client of the crowd. Caller: the loop.

    It keeps `tasks` tasks open, each of a random length up to `most_us`, until it is `resting`.
    """

    def __init__(
        self,
        number: int,
        address: str,
        context: zmq.Context[zmq.Socket[bytes]],
        books: Books,
        tasks: int,
        most_us: int,
    ) -> None:
        self._books = books
        self._tasks = tasks
        self._most_us = most_us
        self._rng = random.Random(os.urandom(8))
        self._transport = Transport(address, self._rng, context)
        self.session = ClientSession(os.urandom(16), f"client{number}", {}, self._rng)
        self.resting = False
        self.open = 0
        self.answers: list[Any] = []
        self._asks: list[r.Event] = []
        self._now_ns = 0

    @property
    def fd(self) -> int:
        """Of its socket."""
        return self._transport.fd

    def epoch(self) -> int:
        """Of the broker that it has a session with; 0 while it has none."""
        welcome = self.session.welcome
        return welcome.epoch if welcome is not None and self.session.state is r.State.OPEN else 0

    def ask(self, what: str) -> None:
        """A question to the broker, to be sent with the next turn."""
        self._asks.append(r.Asked(1, what, {}, _QUESTION_NS))

    def turn(self, now_ns: int) -> None:
        """As `Connection._work`, until nothing is left to read."""
        self._now_ns = now_ns
        events: list[r.Event] = []
        while True:
            events += self._asks
            self._asks.clear()
            if not self.resting and self.open < self._tasks:
                events.append(r.Submitted([self._call() for _ in range(self._tasks - self.open)]))
            flags = self._transport.receive(events)
            connecting = self.session.state is r.State.CONNECTING
            events += connection_events(flags, connecting)
            if not events and now_ns < self.session.wake_at() and not flags & POLLIN:
                return
            while events or now_ns >= self.session.wake_at():
                events = self._perform(self.session.step(now_ns, events))

    def _call(self) -> Ticket:
        self.open += 1
        self._books.submitted += 1
        payload = CALL.pack(self._rng.randrange(self._most_us), self._books.submitted)
        return Ticket((self._rng.randbytes(16), FUNCTION, payload, None))

    def _perform(self, effects: list[r.Effect]) -> list[r.Event]:
        failed: list[r.Event] = []
        for effect in effects:
            match effect:
                case r.Send():
                    if type(effect.message) is m.Hello:
                        self._books.hellos.append(self._now_ns)
                    sent = not failed and self._transport.send(
                        effect.message, effect.session, effect.number
                    )
                    if not sent and not failed:
                        failed.append(r.Disconnected("connection closed"))
                case r.Resolve():
                    for ticket, (_, state, payload, _) in effect.endings:
                        self._end(ticket, state == m.TERMINAL_DONE and payload == ticket.item[2])
                case r.Reject():
                    for ticket, code, text, _ in effect.tickets:
                        self._books.wrong.append(f"rejected: {code} {text}")
                        self._end(ticket, False)
                case r.Abandon():
                    self._books.wrong.append(f"abandoned: {effect.refusal}")
                case r.Reopen():
                    self._transport.reopen(effect.window_ns)
                case r.Answered():
                    body = effect.body
                    assert body is not None, "the broker did not answer"
                    stream = body.buffers[0] if isinstance(body, m.Frames) else body
                    self.answers.append(msgpack.unpackb(stream, strict_map_key=False))
                case r.Log() | r.StateChanged():
                    pass
        return failed

    def _end(self, ticket: r.Ticket, right: bool) -> None:
        self.open -= 1
        self._books.end(ticket.item[0], right)

    def wake_at(self) -> int:
        """A timer of the session."""
        return self.session.wake_at()

    def close(self) -> None:
        """As if it had been killed."""
        self._transport.close()
