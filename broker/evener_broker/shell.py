"""The broker's I/O: one ROUTER, one thread, one loop that drains, decides and sends.

Rules of this file: nothing here decides about work. Handlers of signals only write to a pipe,
because an exception inside a ZeroMQ call would lose messages. Every send is non-blocking and goes
through `_send`, where a vanished peer becomes an event and a full one waits in a bounded line of
its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol, assert_never

import zmq

from evener_broker.core import BrokerCore
from evener_broker.effects import Append, Effect, Log, NoteAgent, Send
from evener_broker.events import (
    Committed,
    Event,
    MemoryShort,
    Peer,
    PeerGone,
    WallClock,
)
from evener_broker.intake import Intake
from evener_broker.memory import TASK_BYTES, Gauge
from evener_broker.parking import Parking
from evener_wire import codec
from evener_wire import messages as m
from evener_wire.limits import (
    FRAME_BYTES_MAX,
    RECEIVE_MESSAGES_MAX,
    SECOND_NS,
    SEND_MESSAGES_MAX,
)

_log = logging.getLogger("evener.broker")

# How soon a full peer is tried again.
_PARKED_RETRY_MS: Final = 5

# How long the broker waits when all that it read is passed over. Longer: others wait until it
# looks for them. Shorter: a turn for each message of a flood, and less time for all others.
_PASSED_OVER_S: Final = 0.000_1

# For so many turns that end with something unread, who vanished may have said something else. More:
# beside a flood it is known later that somebody is gone. Fewer: GOODBYE is missed beside a flood.
_LAST_WORDS_TURNS: Final = 100

# How often the core hears what the wall clock says, at most.
_WALL_NS: Final = SECOND_NS

# As plain integers: each operation on pyzmq's enums costs as much as a small send.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS: Final = int(zmq.EVENTS)
_RCVMORE: Final = int(zmq.RCVMORE)
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
    socket.setsockopt(zmq.SNDHWM, SEND_MESSAGES_MAX)
    socket.setsockopt(zmq.RCVHWM, RECEIVE_MESSAGES_MAX)
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


class Writer(Protocol):
    """What the shell needs of a journal. `fd` is readable while `take_events` has something."""

    @property
    def fd(self) -> int: ...

    def append(self, effect: Append) -> None: ...

    def take_events(self) -> list[Event]: ...


class Noter(Protocol):
    """Where agents are noted for the broker after this one."""

    def note(self, effect: NoteAgent) -> None: ...


class Shell:
    """Runs a `BrokerCore` on a bound ROUTER until `stop` says so.

    `wakers` are file descriptors that end the wait; for each readable one its function is called.
    Without a `journal` or a `noter` the core must not ask for one.
    """

    def __init__(
        self,
        core: BrokerCore,
        socket: zmq.Socket[bytes],
        wakers: dict[int, Callable[[], None]],
        journal: Writer | None = None,
        gauge: Gauge | None = None,
        noter: Noter | None = None,
    ) -> None:
        self._core = core
        self._socket = socket
        self._journal = journal
        self._committed = 0  # the last transaction that is on disk
        self._wakers = dict(wakers)
        if journal is not None:
            self._wakers[journal.fd] = self._take_journal
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        for fd in self._wakers:
            self._poller.register(fd, zmq.POLLIN)
        self._parking = Parking()
        self._intake = Intake(core, socket)
        self._gauge = gauge
        self._noter = noter
        self._events: list[Event] = []
        # Who cannot be sent to any more, until what they said last is read: in how many turns.
        self._vanished: dict[Peer, int] = {}
        self._wall_at_ns = 0
        self._stopping = False

    def stop(self) -> None:
        """End `run` after the current turn."""
        self._stopping = True

    def run(self) -> None:
        """Turn after turn."""
        while not self._stopping:
            self.turn()

    def turn(self) -> None:
        """Wait, drain, decide, send."""
        core, intake = self._core, self._intake
        for ready, _ in self._poller.poll(0 if intake.more else self._wait_ms()):
            waker = self._wakers.get(ready) if type(ready) is int else None
            if waker is not None:
                waker()
        if self._parking:
            self._retry_parked()
        if self._gauge is not None:
            self._look_at_memory(self._gauge)
        at_ns = now_ns()
        if at_ns >= self._wall_at_ns:
            self._wall_at_ns = at_ns + _WALL_NS
            self._events.append(WallClock(time.time_ns()))
        if not intake.look() and intake.passed_over and self._wait_ms():
            time.sleep(_PASSED_OVER_S)
            return
        self._perform(core.step(at_ns, self._take_in()))
        intake.settle()

    def _take_in(self) -> Iterator[Event]:
        events, self._events = self._events, []
        yield from events
        yield from self._intake.take()
        if self._vanished:
            yield from self._take_vanished()

    def _take_vanished(self) -> list[Event]:
        """Those of whom nothing is left to be read, as far as anybody may wait for that."""
        self._vanished = {peer: turns - 1 for peer, turns in self._vanished.items()}
        if self._intake.more:
            gone = [peer for peer, turns in self._vanished.items() if turns <= 0]
        else:
            gone = list(self._vanished)
        for peer in gone:
            del self._vanished[peer]
        return [PeerGone(peer) for peer in gone]

    def _wait_ms(self) -> int:
        if self._events or self._vanished:
            return 0
        wake_at = self._core.wake_at()
        if wake_at is None:
            wait_ms = SECOND_NS // 1_000_000
        else:
            # Rounded up: a timer that is not yet due would make the loop spin.
            wait_ms = max(0, -((now_ns() - wake_at) // 1_000_000))
        put_off_ns = self._intake.wait_ns()
        if put_off_ns is not None:
            wait_ms = min(wait_ms, -(-put_off_ns // 1_000_000))
        return min(wait_ms, _PARKED_RETRY_MS) if self._parking else wait_ms

    def _look_at_memory(self, gauge: Gauge) -> None:
        tables = self._core.tables
        held = tables.bytes + TASK_BYTES * len(tables.tasks)
        if not gauge.look(now_ns(), held):
            return
        self._events.append(MemoryShort(gauge.text()))
        if gauge.is_short:
            # Whoever does not read pays first; what it is owed waits in the tables.
            self._events += [PeerGone(peer) for peer in self._parking]
            self._parking.clear()

    def _take_journal(self) -> None:
        assert self._journal is not None
        for event in self._journal.take_events():
            if type(event) is Committed:
                self._committed = event.txn
            self._events.append(event)

    # --- Sending ----------------------------------------------------------------------------------

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    # A promise may not leave before what it promises is on disk.
                    assert effect.after <= self._committed, effect
                    frames = codec.encode(effect.message, effect.session, effect.number)
                    self._send(effect.peer, frames)
                case Append():
                    assert self._journal is not None, "a core without a journal writes none"
                    self._journal.append(effect)
                case NoteAgent():
                    assert self._noter is not None, "a core without a roster notes nobody"
                    self._noter.note(effect)
                case Log():
                    _log.log(_LEVELS[effect.level], "%s", effect.text)
                case _:
                    assert_never(effect)

    def _send(self, peer: Peer, frames: list[m.Buffer]) -> None:
        if peer not in self._parking and self._try_send(peer, frames):
            return
        # Who does not read loses its session, and what it is owed waits for its return.
        self._events += [PeerGone(lost) for lost in self._parking.park(peer, frames)]

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
            self._parking.drop(peer)
            # What it said before it went, GOODBYE perhaps, can still be read.
            self._vanished.setdefault(peer, _LAST_WORDS_TURNS)
            return True
        last = len(frames) - 1
        for index, frame in enumerate(frames):
            flags = _NOBLOCK if index == last else _MORE
            send(frame, flags, copy=index == 0 or len(frame) < zmq.COPY_THRESHOLD)
        return True

    def _retry_parked(self) -> None:
        parking = self._parking
        for peer in parking:
            while (frames := parking.first(peer)) is not None and self._try_send(peer, frames):
                if peer in parking:
                    parking.sent(peer)


_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
