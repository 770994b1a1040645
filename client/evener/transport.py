"""One DEALER socket, and messages through it. No decisions.

Rules of this file: only the holder of the connection's lock calls these. The descriptor `fd` is
edge-triggered by nature: after any call that sends or receives, `poll` must be asked again before
anybody waits on it.
"""

from __future__ import annotations

import random

import zmq

from evener.session_records import Connected, Disconnected, Event, Malformed, Received
from evener_wire import codec
from evener_wire.backoff import retry_interval_ns
from evener_wire.errors import PeerError
from evener_wire.limits import (
    FRAME_BYTES_MAX,
    FRAMES_MAX,
    GOODBYE_LINGER_NS,
    INLINE_BYTES_MAX,
    MILLISECOND_NS,
    RECONNECT_MAX_NS,
    RECONNECT_MIN_NS,
)
from evener_wire.messages import Buffer, Message

POLLIN = int(zmq.POLLIN)
POLLOUT = int(zmq.POLLOUT)
_EVENTS = int(zmq.EVENTS)
_NOBLOCK = int(zmq.NOBLOCK)
_SNDMORE = int(zmq.SNDMORE)

# Messages taken in before what they say is acted on.
_DRAIN_MAX = 64

# Options of a DEALER, each for a reason: with IMMEDIATE a message never waits for the next broker;
# no LINGER but at the end, because what matters is kept above; high-water marks that credit never
# reaches; and no ZMTP heartbeats, which abort the process when the application does not read in
# time (libzmq #3937).
_OPTIONS: dict[int, int] = {
    zmq.IMMEDIATE: 1,
    zmq.LINGER: 0,
    zmq.SNDHWM: 10_000,
    zmq.RCVHWM: 10_000,
    zmq.RECONNECT_IVL_MAX: 0,  # anything else turns the jitter off
    zmq.CONNECT_TIMEOUT: 5_000,
    zmq.HANDSHAKE_IVL: 10_000,
    zmq.MAXMSGSIZE: FRAME_BYTES_MAX,
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 30,
    zmq.TCP_KEEPALIVE_INTVL: 10,
    zmq.TCP_KEEPALIVE_CNT: 3,
    zmq.TCP_MAXRT: 30_000,
    zmq.IPV6: 1,
}


class Transport:
    """A socket that connects, and connects again, to one address.

    A `context` that is handed in stays its owner's to end.
    """

    def __init__(
        self,
        address: str,
        rng: random.Random,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self._address = address
        self._rng = rng
        self._owns_context = context is None
        self._context: zmq.Context[zmq.Socket[bytes]] = context or zmq.Context()
        self._socket = self._open(RECONNECT_MAX_NS)
        self.fd = self._fd_of(self._socket)

    def _open(self, window_ns: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        for option, value in _OPTIONS.items():
            socket.setsockopt(option, value)
        interval_ns = retry_interval_ns(window_ns, RECONNECT_MIN_NS, self._rng)
        socket.setsockopt(zmq.RECONNECT_IVL, interval_ns // MILLISECOND_NS)
        socket.connect(self._address)
        return socket

    def reopen(self, window_ns: int) -> None:
        """A new socket instead of the old one, which tries within this window. `fd` changes."""
        self._socket.close(0)
        self._socket = self._open(window_ns)
        self.fd = self._fd_of(self._socket)

    def poll(self) -> int:
        """Whether a message came (POLLIN), and whether one could leave (POLLOUT)."""
        flags = self._socket.getsockopt(_EVENTS)
        assert isinstance(flags, int)
        return flags

    def send(self, message: Message, session: int, number: int) -> bool:
        """Hands over one message; False when there is no connection to take it."""
        frames = codec.encode(message, session, number)
        send = self._socket.send
        try:
            if len(frames) == 1:
                send(frames[0], _NOBLOCK)
                return True
            last = len(frames) - 1
            for index, frame in enumerate(frames):
                more = _SNDMORE if index < last else 0
                # Not worth it for small ones: a frame that is not copied costs a message of its
                # own.
                copy = memoryview(frame).nbytes < INLINE_BYTES_MAX
                send(frame, _NOBLOCK | more, copy=copy)
        except zmq.Again:
            return False
        return True

    def receive(self, events: list[Event]) -> int:
        """Takes in what is there, up to a bound; returns what `poll` says afterwards."""
        for _ in range(_DRAIN_MAX):
            flags = self.poll()
            if not flags & POLLIN:
                return flags
            event = self._next()
            if event is not None:
                events.append(event)
        return POLLIN | POLLOUT

    @staticmethod
    def _fd_of(socket: zmq.Socket[bytes]) -> int:
        fd = socket.getsockopt(zmq.FD)
        assert isinstance(fd, int)
        return fd

    def _next(self) -> Event | None:
        recv = self._socket.recv
        try:
            frame = recv(_NOBLOCK, copy=False)
        except zmq.Again:
            return None
        frames: list[Buffer] = [frame.buffer]
        too_many = False
        while frame.more:
            frame = recv(_NOBLOCK, copy=False)
            if len(frames) <= FRAMES_MAX:
                frames.append(frame.buffer)
            else:
                too_many = True
        if too_many:
            return Malformed("too many frames")
        try:
            return Received(codec.decode(frames))
        except PeerError as error:
            return Malformed(str(error))

    def close(self) -> None:
        """Closes the socket; what was sent last has `GOODBYE_LINGER_NS` to leave."""
        self._socket.close(GOODBYE_LINGER_NS // MILLISECOND_NS)
        if self._owns_context:
            self._context.term()


def connection_events(flags: int, waits_for_connection: bool) -> list[Event]:
    """What the state of the socket says about the connection."""
    if waits_for_connection:
        return [Connected()] if flags & POLLOUT else []
    return [] if flags & POLLOUT else [Disconnected("connection closed")]
