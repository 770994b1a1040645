"""The one ZeroMQ socket of the agent: a DEALER to the broker.

Rules of this file: bytes only, never blocks, decides nothing. The socket's descriptor is edge
triggered: after any send or receive its events are asked for again before anybody waits on it.
"""

from __future__ import annotations

import random
from typing import Final

import msgpack
import zmq

from evener_wire import codec
from evener_wire import messages as m
from evener_wire.backoff import retry_interval_ns
from evener_wire.errors import PeerError, UsageError
from evener_wire.limits import (
    FRAME_BYTES_MAX,
    FRAMES_MAX,
    INLINE_BYTES_MAX,
    MILLISECOND_NS,
    RECONNECT_MAX_NS,
    RECONNECT_MIN_NS,
)
from evener_worker.effects import Send, SendResults
from evener_worker.events import Event, Malformed, Received
from evener_worker.limits import RECEIVE_MESSAGES_MAX

_PACKER: Final = msgpack.Packer(autoreset=False)

# As plain integers: each operation on pyzmq's enums costs as much as a small send.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_POLLIN: Final = int(zmq.POLLIN)
_POLLOUT: Final = int(zmq.POLLOUT)
_EVENTS: Final = int(zmq.EVENTS)


class Link:
    """Caller: the agent's loop. A `context` that is handed in stays its owner's to end."""

    def __init__(
        self,
        address: str,
        rng: random.Random,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self._address = address
        self._rng = rng
        self._owns_context = context is None
        self._context = context or zmq.Context(io_threads=1)
        self._socket = self._open(RECONNECT_MAX_NS)
        self._unwritable = False

    def _open(self, window_ns: int) -> zmq.Socket[bytes]:
        dealer = self._context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.IMMEDIATE, 1)  # nothing queues for a broker that comes later
        dealer.setsockopt(zmq.SNDHWM, 100_000)
        dealer.setsockopt(zmq.RCVHWM, 100_000)
        dealer.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        interval_ns = retry_interval_ns(window_ns, RECONNECT_MIN_NS, self._rng)
        dealer.setsockopt(zmq.RECONNECT_IVL, interval_ns // MILLISECOND_NS)
        dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 0)  # anything else turns the jitter off
        dealer.setsockopt(zmq.CONNECT_TIMEOUT, 5_000)
        dealer.setsockopt(zmq.TCP_KEEPALIVE, 1)
        dealer.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
        dealer.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
        dealer.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        dealer.setsockopt(zmq.TCP_MAXRT, 30_000)
        dealer.setsockopt(zmq.IPV6, 1)
        try:
            dealer.connect(self._address)
        except zmq.ZMQError as error:
            dealer.close()
            raise UsageError(
                f"{self._address!r} is no address of a broker ({error}); give tcp://host:port"
            ) from error
        self.fd: int = int(dealer.getsockopt(zmq.FD))
        return dealer

    def reopen(self, window_ns: int) -> None:
        """Close the connection and make a new one, which tries again within this window."""
        self._socket.close(linger=0)
        self._socket = self._open(window_ns)
        self._unwritable = False

    def close(self, linger_ms: int) -> None:
        """Close; what was sent last has `linger_ms` to leave."""
        self._socket.close(linger=linger_ms)
        if self._owns_context:
            self._context.term()

    # --- Receiving --------------------------------------------------------------------------------

    def look(self) -> tuple[bool, bool]:
        """Whether something can be received, and whether sending works again after a failure."""
        events = self._socket.getsockopt(_EVENTS)
        assert isinstance(events, int)
        if self._unwritable and events & _POLLOUT:
            self._unwritable = False
            return bool(events & _POLLIN), True
        return bool(events & _POLLIN), False

    def receive(self, events: list[Event]) -> None:
        """Append what has come, up to a bound. Only after `look` said that something did."""
        receive, ask = self._socket.recv, self._socket.getsockopt
        for _ in range(RECEIVE_MESSAGES_MAX):
            frame = receive(_NOBLOCK, copy=False)
            if not frame.more:
                frames: list[m.Buffer] = [frame.buffer]
            else:
                frames = self._rest(frame)
            try:
                events.append(Received(codec.decode(frames)))
            except PeerError as error:
                events.append(Malformed(str(error)))
            # Asking costs less than the exception of a receive in vain.
            if not int(ask(_EVENTS)) & _POLLIN:
                return

    def _rest(self, first: zmq.Frame) -> list[m.Buffer]:
        frames: list[m.Buffer] = [first.buffer]
        frame = first
        while frame.more:
            frame = self._socket.recv(_NOBLOCK, copy=False)
            if len(frames) <= FRAMES_MAX:
                frames.append(frame.buffer)
        return frames

    # --- Sending ----------------------------------------------------------------------------------

    def send(self, effect: Send) -> bool:
        """Whether the connection took the message."""
        return self._send(codec.encode(effect.message, effect.session, effect.number))

    def send_results(self, effect: SendResults) -> bool:
        """The same for a RESULT, whose items are packed already."""
        return self._send(encode_results(effect))

    def _send(self, frames: list[m.Buffer]) -> bool:
        send = self._socket.send
        last = len(frames) - 1
        try:
            for index, frame in enumerate(frames):
                flags = _NOBLOCK if index == last else _MORE
                send(frame, flags, copy=index == 0 or memoryview(frame).nbytes <= INLINE_BYTES_MAX)
        except zmq.Again:
            self._unwritable = True
            return False
        return True


def encode_results(effect: SendResults) -> list[m.Buffer]:
    """The frames of a RESULT, as `codec.encode` would make them of the unpacked items."""
    attempts = effect.attempts
    _PACKER.reset()
    _PACKER.pack_array_header(4)
    _PACKER.pack(m.Result.KIND)
    _PACKER.pack(effect.session)
    _PACKER.pack(effect.number)
    _PACKER.pack_array_header(len(attempts))
    head = b"".join([_PACKER.bytes(), *[attempt.packed for attempt in attempts]])
    frames: list[m.Buffer] = [head]
    for attempt in attempts:
        if attempt.buffers:
            frames.extend(attempt.buffers)
    return frames
