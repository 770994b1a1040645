"""Peers that speak ZeroMQ properly and evener badly: they send what a test wants, and listen.

Rules of this file: nothing waits without a deadline. A peer that has a session can leave properly,
so that the broker is as before when a test ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pytest
import zmq

from evener_wire import messages as m
from evener_wire.codec import Envelope, decode, encode

M = TypeVar("M", bound=m.Message)

DEADLINE_MS = 10_000


class Attacker:
    """A DEALER with or without a session."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, identity: bytes):
        self.instance = os.urandom(16)
        self.session = 0
        self.number = 0
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.SNDTIMEO, DEADLINE_MS)
        if identity:
            self.socket.setsockopt(zmq.ROUTING_ID, identity)
        self.socket.connect(address)

    # --- Sending ----------------------------------------------------------------------------------

    def frames(self, *frames: m.Buffer) -> None:
        """Any frames at all."""
        self.socket.send_multipart(list(frames))

    def outside(self, message: m.Message, session: int = 0, number: int = 0) -> None:
        """A message with any session and any number."""
        self.frames(*encode(message, session, number))

    def say(self, *messages: m.Message) -> None:
        """Messages in the session, numbered as they should be."""
        for message in messages:
            self.number += 1
            self.frames(*encode(message, self.session, self.number))

    def say_head(self, head: bytes) -> None:
        """A head made by hand, where session and number matter not."""
        self.frames(head)

    # --- Receiving --------------------------------------------------------------------------------

    def expect(self, kind: type[M]) -> M:
        """The next message of this kind; others before it are passed over."""
        while True:
            message = self.hear().message
            if isinstance(message, kind):
                return message

    def hear(self) -> Envelope:
        """The next message."""
        if not self.socket.poll(DEADLINE_MS):
            pytest.fail("the broker said nothing")
        return decode(self.socket.recv_multipart())

    def heard(self) -> list[m.Message]:
        """What came until now."""
        found: list[m.Message] = []
        while self.socket.poll(0):
            found.append(self.hear().message)
        return found

    # --- Sessions ---------------------------------------------------------------------------------

    def hello(self, role: m.Role = "client", name: str = "stranger", **facts: object) -> m.Welcome:
        """Ask for a session, and get it."""
        hello = m.Hello(1, 1, role, self.instance, name, 0, bytes(16), facts)
        self.outside(hello)
        while True:
            envelope = self.hear()
            if isinstance(envelope.message, m.Welcome):
                self.session, self.number = envelope.session, 0
                return envelope.message
            if isinstance(envelope.message, m.Refused):
                # Where many say HELLO, some are told when to come again.
                time.sleep(getattr(envelope.message, "wait_ms", 100) / 1_000)
                self.outside(hello)

    def offer(self, *functions: str, queue: str = "evil", slots: int = 1) -> None:
        """As an agent: this is what I can run."""
        self.say(m.Offer(slots, False, (queue,), [(name, None) for name in functions], ()))

    def sync(self, role: m.Role = "client") -> None:
        """Until the broker took in all that was said: only a client can ask."""
        assert role == "client"
        self.say(m.Query(4_711, "ls", {"kind": "queues", "limit": 1}))
        while self.expect(m.Answer).number != 4_711:
            pass

    def leave(self) -> None:
        """End the session, if there is one."""
        if self.session:
            self.say(m.Goodbye("done"))
            self.session = 0

    def close(self) -> None:
        """The connection ends as soon as all was sent."""
        self.socket.close(linger=DEADLINE_MS)


@contextmanager
def attackers(address: str) -> Iterator[AttackerMaker]:
    """Makes attackers; whoever is left leaves when the block ends."""
    with zmq.Context() as context:
        made = AttackerMaker(context, address)
        try:
            yield made
        finally:
            for attacker in made.made:
                attacker.close()


class AttackerMaker:
    """Makes as many as a test wants."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self._context = context
        self._address = address
        self.made: list[Attacker] = []

    def __call__(self, identity: bytes = b"") -> Attacker:
        attacker = Attacker(self._context, self._address, identity)
        self.made.append(attacker)
        return attacker

    def several(self, count: int) -> Sequence[Attacker]:
        return [self() for _ in range(count)]
