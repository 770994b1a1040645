"""A broker made of a script: a real ROUTER socket on which a test says what it wants said.

It answers HELLO, acknowledges results, and records everything; the rest is up to the test. No
sleeps: everything waits for a message, up to a deadline.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import zmq

from evener_wire import codec
from evener_wire import messages as m
from evener_wire.session import Sequence, Verdict

DEADLINE_S = 10.0
M = TypeVar("M", bound=m.Message)


class ScriptedBroker:
    """One agent at a time."""

    def __init__(self, port: int = 0) -> None:
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.LINGER, 0)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        if port:
            self.router.bind(f"tcp://127.0.0.1:{port}")
        self.port = port or self.router.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.instance = os.urandom(16)
        self.epoch = 7
        self.acking = True
        self.peer = b""
        self.sequence: Sequence | None = None
        self.log: list[m.Message] = []
        self.results: dict[tuple[bytes, int], tuple[int, Any, int, Any]] = {}
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Go away, as a broker that is killed does."""
        self.router.close(linger=0)
        self.context.term()

    # --- Saying -----------------------------------------------------------------------------------

    def say(self, message: m.Message) -> None:
        """Within the session."""
        assert self.sequence is not None
        self._send(message, self.sequence.session, self.sequence.next_number())

    def _answer(self, message: m.Message) -> None:
        """As `say`, if the peer is still there to hear it."""
        try:
            self.say(message)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise

    def _send(self, message: m.Message, session: int, number: int) -> None:
        frames = [self.peer, *codec.encode(message, session, number)]
        self.router.send_multipart(frames)

    def run(self, function: str, payload: m.Payload, **limits: int) -> tuple[bytes, int]:
        """Send one task; its key."""
        return self.run_many(function, [payload], **limits)[0]

    def run_many(
        self, function: str, payloads: list[Any], timeout_ms: int = 0, deadline_ms: int = 0
    ) -> list[tuple[bytes, int]]:
        """Send tasks in one message; their keys."""
        keys = [
            (next(self._numbers).to_bytes(16, "big"), m.fence_of(self.epoch, 1)) for _ in payloads
        ]
        self.say(
            m.Run(
                [
                    (*key, function, payload, timeout_ms, deadline_ms)
                    for key, payload in zip(keys, payloads, strict=True)
                ]
            )
        )
        return keys

    # --- Hearing ----------------------------------------------------------------------------------

    def turn(self, timeout_s: float) -> m.Message | None:
        """The next message, answered as far as every broker would."""
        if not self.router.poll(max(0, int(timeout_s * 1_000))):
            return None
        peer, *frames = self.router.recv_multipart()
        envelope = codec.decode(frames)
        message = envelope.message
        if isinstance(message, m.Hello):
            self.peer = peer
            self.sequence = Sequence(int.from_bytes(os.urandom(7), "big") + 1)
            self.say(m.Welcome(1, self.epoch, self.instance, 1_000, 4_000, 1, 1, False, {}))
        elif self.sequence is None or envelope.session != self.sequence.session:
            self.peer = peer
            self._send(m.Resync("who are you?"), 0, 0)
            return message
        else:
            assert self.sequence.judge(envelope.session, envelope.number) is Verdict.TAKE
            if isinstance(message, m.Result):
                for task_id, fence, outcome, payload, run_us, facts in message.items:
                    self.results[task_id, fence] = (outcome, payload, run_us, facts)
                if self.acking:
                    self._answer(m.Ack(envelope.number))
            elif isinstance(message, m.Heartbeat):
                self._answer(m.Heartbeat())
        self.log.append(message)
        return message

    def until(self, what: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
        """Hear messages until something holds."""
        end = time.monotonic() + deadline_s
        while not what():
            left = end - time.monotonic()
            if left <= 0:
                raise AssertionError(f"not within {deadline_s} s; heard {self.log[-10:]}")
            self.turn(min(left, 0.02))  # what is waited for may lie outside of the socket

    def heard(self, kind: type[M]) -> list[M]:
        """All messages of a kind, so far."""
        return [message for message in self.log if isinstance(message, kind)]

    def offered(self, slots: int) -> None:
        """Wait until the agent offers so many workers."""
        self.until(lambda: self.heard(m.Offer) and self.heard(m.Offer)[-1].slots == slots)

    def result(self, key: tuple[bytes, int]) -> tuple[int, Any, int, Any]:
        """Wait for the result of an attempt."""
        self.until(lambda: key in self.results)
        return self.results[key]

    def outcome(self, key: tuple[bytes, int]) -> int:
        """Wait for it; only how it ended."""
        return self.result(key)[0]
