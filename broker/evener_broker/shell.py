"""The broker's I/O: one ROUTER, one thread, one loop that drains, decides and sends.

Rules of this file: nothing here decides about work. Handlers of signals only write to a pipe,
because an exception inside a ZeroMQ call would lose messages. Every send is non-blocking and goes
through `_send`, where a vanished peer becomes an event and a full one waits in a bounded line of
its own.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final, assert_never

import zmq

from evener_broker.core import BrokerCore
from evener_broker.effects import Effect, Log, Send
from evener_broker.events import Event, Malformed, Peer, PeerGone, Received
from evener_wire import codec
from evener_wire import messages as m
from evener_wire.errors import PeerError
from evener_wire.limits import FRAME_BYTES_MAX, FRAMES_MAX, SECOND_NS

_log = logging.getLogger("evener.broker")

# One turn takes in at most so many messages before it decides. More: better batches under load.
# Fewer: quicker answers for everybody else.
_DRAIN_MAX: Final = 1_000

# Messages that wait for a peer that does not read, beyond what ZeroMQ itself holds.
_PARKED_MAX: Final = 1_000

# How soon a full peer is tried again.
_PARKED_RETRY_MS: Final = 20

_HWM: Final = 1_000

# As plain integers: each operation on pyzmq's enums costs as much as a small send.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)


def now_ns() -> int:
    """The broker's clock: goes on during suspend, never steps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def router(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """The broker's socket with all its options, not yet bound."""
    socket = context.socket(zmq.ROUTER)
    # A send to a vanished or full peer must be an error, never a silent loss.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, _HWM)
    socket.setsockopt(zmq.RCVHWM, _HWM)
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.setsockopt(zmq.BACKLOG, 4_096)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5_000)
    # ZMTP heartbeats stay off: with a finite RCVHWM they abort the process (libzmq 3937).
    socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
    # The kernel reaps connections of vanished hosts; verdicts do not wait for it.
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    socket.setsockopt(zmq.TCP_MAXRT, 30_000)
    socket.setsockopt(zmq.IPV6, 1)
    return socket


class Shell:
    """Runs a `BrokerCore` on a bound ROUTER until `stop` says so.

    `wakers` are file descriptors that end the wait; for each readable one its function is called.
    """

    def __init__(
        self,
        core: BrokerCore,
        socket: zmq.Socket[bytes],
        wakers: dict[int, Callable[[], None]],
    ) -> None:
        self._core = core
        self._socket = socket
        self._wakers = wakers
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        for fd in wakers:
            self._poller.register(fd, zmq.POLLIN)
        self._parked: dict[Peer, deque[list[m.Buffer]]] = {}
        self._events: list[Event] = []
        self._stopping = False

    def stop(self) -> None:
        """End `run` after the current turn."""
        self._stopping = True

    def run(self) -> None:
        """Turn after turn: wait, drain, decide, send."""
        core = self._core
        more = False
        while not self._stopping:
            for ready, _ in self._poller.poll(0 if more else self._wait_ms()):
                waker = self._wakers.get(ready) if type(ready) is int else None
                if waker is not None:
                    waker()
            more = self._drain()
            if self._parked:
                self._retry_parked()
            events, self._events = self._events, []
            self._perform(core.step(now_ns(), events))

    def _wait_ms(self) -> int:
        if self._events:
            return 0
        wake_at = self._core.wake_at()
        if wake_at is None:
            wait_ms = SECOND_NS // 1_000_000
        else:
            # Rounded up: a timer that is not yet due would make the loop spin.
            wait_ms = max(0, -((now_ns() - wake_at) // 1_000_000))
        return min(wait_ms, _PARKED_RETRY_MS) if self._parked else wait_ms

    # --- Receiving --------------------------------------------------------------------------------

    def _drain(self) -> bool:
        """Take in what lies in the socket, up to a bound; True if there may be more."""
        recv, ask = self._socket.recv, self._socket.getsockopt
        for _ in range(_DRAIN_MAX):
            # Asking costs less than the exception of a receive in vain, which would end each turn.
            if not int(ask(_EVENTS)) & _POLLIN:
                return False
            peer = recv(_NOBLOCK)
            frame = recv(_NOBLOCK, copy=False)
            if frame.more:
                self._take(peer, self._rest(frame))
            else:
                self._take(peer, [frame.buffer])
        return True

    def _rest(self, frame: zmq.Frame) -> list[m.Buffer]:
        frames: list[m.Buffer] = [frame.buffer]
        while frame.more:
            frame = self._socket.recv(_NOBLOCK, copy=False)
            if len(frames) <= FRAMES_MAX:
                frames.append(frame)
        return frames

    def _take(self, peer: Peer, frames: list[m.Buffer]) -> None:
        try:
            self._events.append(Received(peer, codec.decode(frames)))
        except PeerError as error:
            self._events.append(Malformed(peer, str(error)))

    # --- Sending ----------------------------------------------------------------------------------

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    frames = codec.encode(effect.message, effect.session, effect.number)
                    self._send(effect.peer, frames)
                case Log():
                    _log.log(_LEVELS[effect.level], "%s", effect.text)
                case _:
                    assert_never(effect)

    def _send(self, peer: Peer, frames: list[m.Buffer]) -> None:
        parked = self._parked.get(peer)
        if parked is None:
            if self._try_send(peer, frames):
                return
            parked = self._parked[peer] = deque()
        parked.append(frames)
        if len(parked) > _PARKED_MAX:
            # It does not read: its session ends, and what it is owed waits for its return.
            del self._parked[peer]
            self._events.append(PeerGone(peer))

    def _try_send(self, peer: Peer, frames: list[m.Buffer]) -> bool:
        """True when the message is on its way, or its peer is gone; False when the peer is full."""
        send = self._socket.send
        try:
            send(peer, _MORE)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                _log.warning("cannot send to %s: %s", peer.hex(), error)
            self._parked.pop(peer, None)
            self._events.append(PeerGone(peer))
            return True
        last = len(frames) - 1
        for index, frame in enumerate(frames):
            flags = _NOBLOCK if index == last else _MORE
            send(frame, flags, copy=index == 0 or len(frame) < zmq.COPY_THRESHOLD)
        return True

    def _retry_parked(self) -> None:
        for peer, parked in list(self._parked.items()):
            while parked and self._try_send(peer, parked[0]):
                parked.popleft()
            if not parked:
                self._parked.pop(peer, None)


_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
