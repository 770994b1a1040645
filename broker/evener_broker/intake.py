"""What a turn of the broker takes in: messages off the socket, each read when it can be handled.

ZeroMQ takes one message of each peer in turn, so whoever floods delays each message of others by
one of its own. Rules of this file: it reads and never sends; whose turn it is decides `shares.py`;
nothing of a peer in quarantine is looked at. A message costs the time from its decoding until the
core asks for the next event, and a part of what the turn does after that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import zmq

from evener_broker.core import BrokerCore
from evener_broker.events import Event, Flooding, Malformed, Peer, Received
from evener_broker.records import Agent
from evener_broker.shares import Shares
from evener_wire import codec
from evener_wire import messages as m
from evener_wire.errors import PeerError
from evener_wire.limits import FRAMES_MAX, TURN_BYTES_MAX, TURN_MESSAGES_MAX, TURN_NS

# Frames of a message with too many of them that are passed over in one turn; about 1 us each.
_SKIPPED_MAX: Final = 10_000

# Messages that are passed over in one turn, as their peers are put off or not heard.
_PASSED_OVER_MAX: Final = 16

# How much longer a turn takes in messages while nobody waits for the answers: larger batches.
_ALONE: Final = 50

# Events that wait for a step while there is nothing else to do.
_EVENTS_MAX: Final = 256

# As plain integers: each operation on pyzmq's enums costs as much as a small send.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_EVENTS: Final = int(zmq.EVENTS)
_RCVMORE: Final = int(zmq.RCVMORE)
_POLLIN: Final = int(zmq.POLLIN)

# What peers send by themselves: nobody waits for what comes of it.
_BY_ITSELF: Final = frozenset((m.Heartbeat, m.Offer, m.Goodbye))

_Message: TypeAlias = tuple[Peer, list[m.Buffer]]


class Intake:
    """Caller: the shell; each turn it calls `look`, `take` and `settle`."""

    def __init__(
        self,
        core: BrokerCore,
        socket: zmq.Socket[bytes],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._socket = socket
        self._clock = clock
        self._tables = core.tables
        self._sessions = core.tables.sessions
        self._quarantined = core.quarantined
        self._shares = Shares()
        self.more = False
        """There may be more in the socket: the next turn need not wait."""
        self.passed_over = 0
        """Messages of this turn whose peers are put off, or not heard."""
        # What `look` found, to be handled first.
        self._first: _Message | None = None
        # What the core has to hear of messages that were passed over.
        self._events: list[Event] = []
        # Who sent the message that is being passed over, as it has too many frames.
        self._overlong: Peer | None = None
        # Who took most of this turn, a peer and a time; and when the last message was handled.
        self._heaviest: tuple[Peer, int] = b"", 0
        self._handled_ns = 0
        # The last turn did nothing for those who are put off, as answers of others were to leave.
        self._put_off_next = False

    def wait_ns(self) -> int | None:
        """After how long there is something to handle though nothing comes; None if never."""
        return self._shares.wait_ns(self._clock())

    def look(self) -> bool:
        """Begin a turn: whether there is anything to take in."""
        self.passed_over = 0
        at_ns = self._clock()
        self._first = self._next(at_ns)
        if self._first is not None or len(self._events) >= _EVENTS_MAX:
            return True
        return self._shares.wait_ns(at_ns) == 0

    def take(self) -> Iterator[Event]:
        """What there is to handle, up to a bound in messages, bytes and time."""
        shares = self._shares
        self._tables.put_off = shares.waiting()
        at_ns = self._clock()
        until_ns = at_ns + (TURN_NS if shares.is_wanted(at_ns) else _ALONE * TURN_NS)
        room = TURN_BYTES_MAX
        for _ in range(TURN_MESSAGES_MAX):
            message = self._next(at_ns)
            if message is None:
                break
            if self._events:
                yield from self._take_events()
            works = self._is_at_work(message[0])
            event = _event(*message)
            yield event
            at_ns = self._charge(message[0], event, at_ns, works=works)
            room -= len(message[1][0])
            if room <= 0 or at_ns >= until_ns:
                break
        if shares.wait_ns(at_ns) == 0:
            is_for_others = room < TURN_BYTES_MAX and shares.is_wanted(at_ns)
            self._put_off_next = is_for_others and not self._put_off_next
            while not self._put_off_next and room > 0 and at_ns < until_ns:
                waited = shares.next(at_ns)
                if waited is None:
                    break
                works = self._is_at_work(waited[0])
                event = _event(*waited)
                yield event
                at_ns = self._charge(waited[0], event, at_ns, works=works)
                room -= len(waited[1][0])
        yield from self._take_events()

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def settle(self) -> None:
        """End a turn: for what it did beside handling messages, who gave it most to do pays."""
        peer, spent_ns = self._heaviest
        if spent_ns:
            at_ns = self._clock()
            self._shares.charge(peer, at_ns - self._handled_ns, at_ns, wants=False)
            self._heaviest = b"", 0

    def _is_at_work(self, peer: Peer) -> bool:
        """Whether it has to say what becomes of work that it was given, which was bounded."""
        session = self._sessions.get(peer)
        return session is not None and type(session.record) is Agent and bool(session.record.open)

    def _charge(self, peer: Peer, event: Event, since_ns: int, *, works: bool) -> int:
        """Note what handling a message took; returns the time."""
        at_ns = self._handled_ns = self._clock()
        if works:
            return at_ns
        spent_ns = at_ns - since_ns
        wants = type(event) is Received and type(event.envelope.message) not in _BY_ITSELF
        self._shares.charge(peer, spent_ns, at_ns, wants=wants)
        if spent_ns > self._heaviest[1]:
            self._heaviest = peer, spent_ns
        return at_ns

    # --- Reading ----------------------------------------------------------------------------------

    def _next(self, at_ns: int) -> _Message | None:
        """The next message that is to be handled now. Others go to where they belong."""
        if self._first is not None:
            found, self._first = self._first, None
            return found
        recv, ask, shares = self._socket.recv, self._socket.getsockopt, self._shares
        self.more = True
        if self._overlong is not None and not self._skip(self._overlong):
            return None
        while self.passed_over < _PASSED_OVER_MAX:
            # Asking costs less than the exception of a receive in vain, which would end each turn.
            if not int(ask(_EVENTS)) & _POLLIN:
                self.more = False
                return None
            peer = recv(_NOBLOCK)
            frame = recv(_NOBLOCK, copy=False)
            frames = self._rest_of(frame) if frame.more else [frame.buffer]
            if frames is None:
                self._overlong = peer
                return None
            if peer in self._quarantined:
                self._events.append(Malformed(peer, "not read"))
            elif shares.is_due(peer, at_ns):
                return peer, frames
            else:
                self._events += [Flooding(lost) for lost in shares.put_off(peer, frames)]
                if shares.is_enough(peer, at_ns):
                    return None
            self.passed_over += 1
        return None

    def _rest_of(self, frame: zmq.Frame) -> list[m.Buffer] | None:
        """All frames of a message; None if it has too many."""
        frames: list[m.Buffer] = [frame.buffer]
        while frame.more:
            if len(frames) == FRAMES_MAX:
                return None
            frame = self._socket.recv(_NOBLOCK, copy=False)
            frames.append(frame)
        return frames

    def _skip(self, peer: Peer) -> bool:
        """Pass over frames of a message that has too many; True if these were the last.

        It may have millions, and others wait for their turn.
        """
        recv, ask = self._socket.recv, self._socket.getsockopt
        for _ in range(_SKIPPED_MAX):
            recv(_NOBLOCK)
            if not ask(_RCVMORE):
                self._overlong = None
                text = f"message of more than {FRAMES_MAX} frames"
                self._events.append(Malformed(peer, text))
                return True
        return False


def _event(peer: Peer, frames: list[m.Buffer]) -> Event:
    try:
        return Received(peer, codec.decode(frames))
    except PeerError as error:
        return Malformed(peer, str(error))
