"""A peer of the broker that speaks the wire and nothing more: it reads when it is told to.

Rules of this file: one DEALER, no thread. Whoever uses it decides what it says, what it leaves
unread, and what it never acknowledges.
"""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import zmq

from evener.payload import encode_call
from evener_wire import codec
from evener_wire import messages as m
from evener_wire.errors import PeerError
from evener_wire.session import Sequence, Verdict

if TYPE_CHECKING:
    from typing import Self

M = TypeVar("M", bound=m.Message)

DEADLINE_S = 20.0

# How often a peer that waits says that it lives: well within any session's heartbeat timeout.
BEAT_S = 0.5


def call(*args: object) -> m.Payload:
    """The payload of a call, as a client makes it."""
    return encode_call("raw", args)


class RawPeer:
    """`window`: what the kernel takes in for a peer that does not read, about, in bytes."""

    def __init__(
        self, address: str, role: m.Role, *, instance: bytes | None = None, window: int = 0
    ) -> None:
        self.role: m.Role = role
        self.instance = instance or os.urandom(16)
        self.sequence: Sequence | None = None
        self.welcome: m.Welcome | None = None
        self.out_of_step = 0
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 8)
        self.socket.setsockopt(zmq.SNDTIMEO, int(DEADLINE_S * 1_000))
        if window:
            self.socket.setsockopt(zmq.RCVHWM, 1)
            self.socket.setsockopt(zmq.RCVBUF, window)
        self.socket.connect(address)

    # --- Saying -----------------------------------------------------------------------------------

    def hello(self) -> None:
        """Ask for a session until there is one, each time as late as the broker wants."""
        while (refused := self.ask()) is not None:
            assert refused.code == "retry_after", refused
            time.sleep(refused.wait_ms / 1_000)

    def ask(self) -> m.Refused | None:
        """Say HELLO; the answer if that is a refusal."""
        self.sequence = None
        self.send(m.Hello(1, 1, self.role, self.instance, "raw", 0, bytes(16), {}))
        while True:
            message = self.receive()
            assert message is not None, "no answer to HELLO"
            if isinstance(message, m.Welcome):
                return None
            if isinstance(message, m.Refused):
                return message

    def send(self, message: m.Message) -> int:
        """In the session if there is one; waits while the connection takes nothing."""
        number = session = 0
        if self.sequence is not None:
            number, session = self.sequence.next_number(), self.sequence.session
        self.socket.send_multipart(codec.encode(message, session, number))
        return number

    def send_bytes(self, *frames: bytes) -> None:
        """Anything at all."""
        self.socket.send_multipart(frames)

    def submit(self, function: str, count: int, *args: object) -> list[bytes]:
        """Tasks of one function, all alike, in one message; returns their ids."""
        ids = [os.urandom(16) for _ in range(count)]
        payload = call(*args)
        self.send(m.Submit([(task_id, function, payload, None) for task_id in ids]))
        return ids

    def offer(self, slots: int, *functions: str, queue: str = "default") -> None:
        """As the first OFFER of an agent."""
        names = [(name, None) for name in functions]
        self.send(m.Offer(slots, False, (queue,), names, ()))

    # --- Reading ----------------------------------------------------------------------------------

    def receive(self, seconds: float = DEADLINE_S) -> m.Message | None:
        """The next message, or None if none came in time."""
        if not self.socket.poll(int(seconds * 1_000)):
            return None
        try:
            session, number, message = codec.decode(self.socket.recv_multipart())
        except PeerError as error:
            raise AssertionError("the broker sent no message") from error
        if isinstance(message, m.Welcome):
            self.sequence, self.welcome = Sequence(session), message
        if session and self.sequence is not None:
            self.out_of_step += self.sequence.judge(session, number) is Verdict.RESYNC
        return message

    def expect(self, kind: type[M], seconds: float = DEADLINE_S) -> M:
        """The next message of a kind; others before it are passed over.

        It goes on saying that it lives: what is waited for may take as long as the verdict on a
        silent peer, and the broker must not find this one silent first.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            message = self.receive(min(left, BEAT_S))
            if isinstance(message, kind):
                return message
            if message is None and self.sequence is not None:
                self.send(m.Heartbeat())
        raise AssertionError(f"no {kind.__name__} in {seconds:g} s")

    def acknowledge(self) -> None:
        """All that was read so far is taken."""
        assert self.sequence is not None
        self.send(m.Ack(self.sequence.received))

    def close(self) -> None:
        """Be gone."""
        self.socket.close(0)
        self.context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
