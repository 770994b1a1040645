"""A broker for clients that does what a test says: a real ROUTER socket in a thread of its own.

It welcomes whoever says HELLO and numbers what it sends; the rest is up to the test, which hears
what clients say through `expect` and answers through `say`. No sleeps: all waits are for messages.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import zmq

from evener.payload import decode_call, encode_value
from evener_wire import codec
from evener_wire import messages as m
from evener_wire.session import Sequence, Verdict

if TYPE_CHECKING:
    from typing import Self

M = TypeVar("M", bound=m.Message)

DEADLINE_S = 10.0


def echo(item: tuple[bytes, str, m.Payload, object]) -> bytes:
    """The result of a task that returns its argument."""
    args, _, _ = decode_call(item[2], True)
    payload = encode_value(args[0])
    assert type(payload) is bytes
    return payload


class ClientBroker:
    """For one client at a time. `mute`: hears everything and says nothing."""

    def __init__(
        self,
        port: int = 0,
        *,
        broker: bytes | None = None,
        limits: tuple[int, int] = (1_000_000, 1 << 30),
        beats: tuple[int, int] = (1_000, 4_000),
        refuse: m.Refused | None = None,
        durable: bool = False,
    ) -> None:
        self.durable = durable
        self.broker = broker or os.urandom(16)
        self.limits = limits
        self.beats = beats
        self.refuse = refuse
        self.mute = False
        self.accepts = True
        """Whether each SUBMIT is answered with ACCEPTED."""
        self.results: Callable[[tuple[bytes, str, m.Payload, object]], bytes] | None = None
        """What a task gives, once submitted; None: tasks stay open."""
        self.hellos = 0
        self.violations: list[str] = []
        self._heard: queue.SimpleQueue[m.Message] = queue.SimpleQueue()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.bind(f"tcp://127.0.0.1:{port or '*'}")
        endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.port = int(endpoint.rpartition(":")[2])
        self.address = f"tcp://127.0.0.1:{self.port}"
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._peer = b""
        self._sequence: Sequence | None = None
        self._running = True
        self._thread = threading.Thread(target=self._serve, name="fake-broker")
        self._thread.start()

    # --- For tests --------------------------------------------------------------------------------

    def expect(self, kind: type[M]) -> M:
        """The next message of this kind; others before it are passed over."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            left = deadline - time.monotonic()
            message = self._heard.get(timeout=max(0.001, left))
            if isinstance(message, kind):
                return message

    def said_nothing_but(self, *kinds: type[m.Message]) -> bool:
        """Whether nothing else was heard until now."""
        self._order(lambda: None)
        while not self._heard.empty():
            if not isinstance(self._heard.get(), kinds):
                return False
        return True

    def say(self, *messages: m.Message) -> None:
        """In the session."""

        def say_all() -> None:
            for message in messages:
                self._say(message)

        self._order(say_all)

    def say_outside(self, message: m.Message) -> None:
        """Outside of any session."""
        self._order(lambda: self._send(message, 0, 0))

    def say_bytes(self, *frames: bytes) -> None:
        """Anything at all."""
        self._order(lambda: self._router.send_multipart([self._peer, *frames]))

    def skip_number(self) -> None:
        """As if a message had been lost on the way."""

        def skip() -> None:
            assert self._sequence is not None
            self._sequence.next_number()

        self._order(skip)

    def finish(self, submit: m.Submit, value: object = "done") -> m.Terminal:
        """Tells that all tasks of a SUBMIT ended with this value."""
        payload = encode_value(value)
        terminal = m.Terminal([(item[0], m.TERMINAL_DONE, payload, None) for item in submit.items])
        self.say(terminal)
        return terminal

    def stop(self) -> None:
        """Goes away without a word, as a broker that is killed does."""
        if self._running:
            self._order(self._end)
            self._thread.join(DEADLINE_S)
            os.close(self._wake)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        assert not self.violations

    # --- The thread -------------------------------------------------------------------------------

    def _order(self, order: Callable[[], object]) -> None:
        done = threading.Event()

        def carry_out() -> None:
            try:
                order()
            finally:
                done.set()

        self._orders.put(carry_out)
        os.eventfd_write(self._wake, 1)
        assert done.wait(DEADLINE_S)

    def _end(self) -> None:
        self._running = False

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        try:
            while self._running:
                for source, _ in poller.poll():
                    if source == self._wake:
                        os.eventfd_read(self._wake)
                    else:
                        self._hear()
                while not self._orders.empty():
                    self._hear_all()
                    self._orders.get()()
        finally:
            self._router.close(0)
            self._context.term()

    def _hear_all(self) -> None:
        while self._router.poll(0):
            self._hear()

    def _hear(self) -> None:
        peer, *frames = self._router.recv_multipart()
        if self.mute:
            return
        session, number, message = codec.decode(frames)
        if isinstance(message, m.Hello):
            self._on_hello(peer)
        elif self._sequence is None or peer != self._peer:
            self._peer = peer
            self._send(m.Resync("unknown session"), 0, 0)
            return
        elif self._sequence.judge(session, number) is not Verdict.TAKE:
            self.violations.append(f"{message} as number {number} of session {session}")
        self._heard.put(message)
        if isinstance(message, m.Submit):
            if self.results is not None:
                ends = [(i[0], m.TERMINAL_DONE, self.results(i), None) for i in message.items]
                self._say(m.Terminal(ends))
            if self.accepts:
                self._say(m.Accepted(number))

    def _on_hello(self, peer: bytes) -> None:
        self.hellos += 1
        self._peer = peer
        if self.refuse is not None:
            self._send(self.refuse, 0, 0)
            return
        self._sequence = Sequence(int.from_bytes(os.urandom(7), "big") + 1)
        self._say(m.Welcome(1, 5, self.broker, *self.beats, *self.limits, self.durable, {}))

    def _say(self, message: m.Message) -> None:
        assert self._sequence is not None
        self._send(message, self._sequence.session, self._sequence.next_number())

    def _send(self, message: m.Message, session: int, number: int) -> None:
        self._router.send_multipart([self._peer, *codec.encode(message, session, number)])
