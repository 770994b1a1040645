"""The broker in the simulation: the shipped core, and what its shell does, on simulated sockets.

Rules of this file: it does what `evener_broker/shell.py` does, in the same order. Checkers look at
what goes in and what leaves; they change nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from evener_broker.core import BrokerCore
from evener_broker.effects import Append, Effect, NoteAgent, Send
from evener_broker.events import Event, Malformed, PeerGone, Received, WallClock
from evener_broker.journaling import Contents
from evener_broker.records import Task
from evener_broker.roster import Notes, Roster
from evener_broker.tables import Bounds
from evener_broker.transitions import Cause, State
from evener_wire import codec
from evener_wire.errors import PeerError
from tests.simulation.disk import Disk
from tests.simulation.network import Conn, Frames, Network
from tests.simulation.node import Node
from tests.simulation.timetable import wall_of
from tests.simulation.world import MS, SECOND, World

_DRAIN_MAX: Final = 1_000
_PARKED_MAX: Final = 1_000
_PARKED_RETRY_NS: Final = 20 * MS


class Watcher(Protocol):
    """Sees every turn of the broker."""

    def began(self, broker: BrokerNode) -> None:
        """A new broker process."""

    def turned(self, broker: BrokerNode, events: list[Event], effects: list[Effect]) -> None:
        """A step: what went in, and what the core wants."""

    def performed(self, broker: BrokerNode, effect: Effect) -> None:
        """An effect was really performed."""


class BrokerNode(Node):
    """The place where brokers run, one after the other."""

    def __init__(
        self,
        world: World,
        network: Network,
        watcher: Watcher,
        bounds: Bounds,
        check_every: int,
        disk: Disk | None,
        *,
        has_wall: bool = False,
    ) -> None:
        super().__init__(world, "broker")
        self._has_wall = has_wall
        self.wall_most_ns = 0  # the latest moment that its wall ever showed
        self._wall_at_ns = 0
        self._network = network
        self._watcher = watcher
        self._bounds = bounds
        self._check_every = check_every
        self._disk = disk
        self._turns = 0
        self.inbox: deque[tuple[Conn, Frames]] = deque()
        self.epoch = 0
        # What brokers without a journal noted, until their host is gone.
        self._notes: Notes | None = None
        self._noted: dict[bytes, None] = {}
        self.peers: dict[bytes, Conn] = {}
        self._parked: dict[bytes, deque[list[bytes]]] = {}
        self._events: list[Event] = []
        self._news: list[Event] = []  # of the journal
        self.moves: Final[list[tuple[Task, State, Cause]]] = []  # of this turn
        self._peer_number = 0
        self.parked_max = _PARKED_MAX
        network.router = self
        self.core = self._new_core(None)

    def _new_core(self, contents: Contents | None) -> BrokerCore:
        rng = self.world.stream(f"broker/{self.life}")
        epoch = max(1, self.epoch)
        broker, before = rng.randbytes(16), self._notes
        roster = Roster(before) if contents is None else None
        self._noted = dict.fromkeys(before.agents if before is not None else ())
        self._notes = Notes(broker, self._noted)
        return BrokerCore(broker, epoch, rng, self._bounds, contents=contents, roster=roster)

    def start(self) -> None:
        """A new process knows what is in its journal, or nothing. The epoch grows in any case."""
        contents: Contents | None = None
        if self._disk is None:
            self.epoch += 1
        else:
            # The file with the host's epoch may know of a broker that had no journal.
            at_least = self.epoch + self.rng.choice((0, 0, 1, 5))
            self.epoch, contents = self._disk.open(at_least, self._on_journal)
        self.core = self._new_core(contents)
        self._watch_moves()
        self.inbox.clear()
        self.peers.clear()
        self._parked.clear()
        self._events.clear()
        self._news.clear()
        self._peer_number = self.rng.randrange(1 << 31)
        self._wall_at_ns = 0
        super().start()
        self._watcher.began(self)

    def crash(self, *, host: bool) -> None:
        """The process, or its host, is gone."""
        super().crash(host=host)
        if host:
            self._notes = None
        if self._disk is not None:
            self._disk.crash()
        self._network.broker_died(host=host)

    def new_peer(self, conn: Conn) -> bytes:
        """As a ROUTER names its connections."""
        self._peer_number += 1
        peer = b"\0" + self._peer_number.to_bytes(4, "big")
        self.peers[peer] = conn
        return peer

    def _on_journal(self, event: Event) -> None:
        self._news.append(event)
        self.wake(self.world.now)

    def _watch_moves(self) -> None:
        """See each step of each task, which the core itself keeps for people alone."""
        tables, moves = self.core.tables, self.moves
        move = tables.move

        def watched(task: Task, cause: Cause) -> None:
            moves.append((task, task.state, cause))
            move(task, cause)

        setattr(tables, "move", watched)  # noqa: B010

    # --- The loop ---------------------------------------------------------------------------------

    def turn(self) -> None:
        """Drain, decide, send; as in the shell."""
        self._events += self._news
        self._news.clear()
        if self._has_wall and self.local() >= self._wall_at_ns:
            self._wall_at_ns = self.local() + SECOND
            self._events.insert(0, WallClock(wall_of(self)))
            self.wall_most_ns = max(self.wall_most_ns, wall_of(self))
        self._drain()
        if self._parked:
            self._retry_parked()
        events, self._events = self._events, []
        self.moves.clear()
        effects = self.core.step(self.local(), events)
        self._turns += 1
        if self._turns % self._check_every == 0:
            self.core.check()
        self._watcher.turned(self, events, effects)
        for effect in effects:
            self.boundary()
            self._watcher.performed(self, effect)
            if isinstance(effect, Append):
                assert self._disk is not None
                self._disk.append(self.epoch, effect)
            elif isinstance(effect, NoteAgent):
                self._note(effect)
            elif isinstance(effect, Send):
                assert self._disk is None or effect.after <= self._disk.committed, effect
                frames = [
                    bytes(f) for f in codec.encode(effect.message, effect.session, effect.number)
                ]
                kind = type(effect.message).__name__
                to = self.peers[effect.peer].socket.host if effect.peer in self.peers else "?"
                self.world.note(self.who, f"{kind} to {to}", frames[0])
                self._send(effect.peer, frames)
        self.world.peak("tasks at the broker", len(self.core.tables.tasks))
        if self._parked:
            self.world.peak("messages parked", max(map(len, self._parked.values())))
        if self._events or self._news or self.inbox:
            self.wake(self.world.now)
        elif self._parked:
            self.wake(self.world.now + _PARKED_RETRY_NS)
        self.wake_local(self.core.wake_at())

    def _note(self, effect: NoteAgent) -> None:
        if effect.gone:
            self._noted.pop(effect.instance, None)
        else:
            self._noted[effect.instance] = None

    def _drain(self) -> None:
        for _ in range(min(len(self.inbox), _DRAIN_MAX)):
            conn, frames = self.inbox.popleft()
            conn.up.count -= 1
            try:
                self._events.append(Received(conn.peer, codec.decode(frames)))
            except PeerError as error:
                self._events.append(Malformed(conn.peer, str(error)))

    def _send(self, peer: bytes, frames: list[bytes]) -> None:
        parked = self._parked.get(peer)
        if parked is None:
            if self._try_send(peer, frames):
                return
            parked = self._parked[peer] = deque()
            self.world.hit("broker parks messages for a full peer")
        parked.append(frames)
        if len(parked) > self.parked_max:
            del self._parked[peer]
            self._events.append(PeerGone(peer))
            self.world.hit("broker gives up a peer that does not read")
            if peer in self.peers:  # buffers of this size are a fault of the way
                self._network.link(self.peers[peer].socket.host).disturb(self.world.now)

    def _try_send(self, peer: bytes, frames: list[bytes]) -> bool:
        conn = self.peers.get(peer)
        if conn is None or not conn.router_open:
            self._parked.pop(peer, None)
            self.peers.pop(peer, None)
            self._events.append(PeerGone(peer))
            self.world.hit("broker's send fails: the peer is gone")
            return True
        if conn.down.count >= self._network.hwm_down:
            return False
        self._network.send_down(conn, frames)
        return True

    def _retry_parked(self) -> None:
        for peer, parked in list(self._parked.items()):
            while parked and self._try_send(peer, parked[0]):
                parked.popleft()
            if not parked:
                self._parked.pop(peer, None)

    def unread_of(self, host: str) -> int:
        """Messages of a host that lie in the socket and were not read."""
        return sum(conn.socket.host == host for conn, _ in self.inbox)
