"""The broker in the simulation: the shipped core, and what its shell does, on simulated sockets.

Rules of this file: it does what `evener_broker/shell.py` does, in the same order. Checkers look at
what goes in and what leaves; they change nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from evener_broker.core import BrokerCore
from evener_broker.effects import Effect, Send
from evener_broker.events import Event, Malformed, PeerGone, Received
from evener_broker.tables import Bounds
from evener_wire import codec
from evener_wire.errors import PeerError
from tests.simulation.network import Conn, Frames, Network
from tests.simulation.node import Node
from tests.simulation.world import MS, World

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
        self, world: World, network: Network, watcher: Watcher, bounds: Bounds, check_every: int
    ) -> None:
        super().__init__(world, "broker")
        self._network = network
        self._watcher = watcher
        self._bounds = bounds
        self._check_every = check_every
        self._turns = 0
        self.inbox: deque[tuple[Conn, Frames]] = deque()
        self.epoch = 0
        self.peers: dict[bytes, Conn] = {}
        self._parked: dict[bytes, deque[list[bytes]]] = {}
        self._events: list[Event] = []
        self._peer_number = 0
        self.parked_max = _PARKED_MAX
        network.router = self
        self.core = self._new_core()

    def _new_core(self) -> BrokerCore:
        rng = self.world.stream(f"broker/{self.epoch}")
        return BrokerCore(rng.randbytes(16), max(1, self.epoch), rng, self._bounds)

    def start(self) -> None:
        """Memory mode: nothing of the last process is left, and the epoch grows."""
        self.epoch += 1
        self.core = self._new_core()
        self.inbox.clear()
        self.peers.clear()
        self._parked.clear()
        self._events.clear()
        self._peer_number = self.rng.randrange(1 << 31)
        super().start()
        self._watcher.began(self)

    def crash(self, *, host: bool) -> None:
        """The process, or its host, is gone."""
        super().crash(host=host)
        self._network.broker_died(host=host)

    def new_peer(self, conn: Conn) -> bytes:
        """As a ROUTER names its connections."""
        self._peer_number += 1
        peer = b"\0" + self._peer_number.to_bytes(4, "big")
        self.peers[peer] = conn
        return peer

    # --- The loop ---------------------------------------------------------------------------------

    def turn(self) -> None:
        """Drain, decide, send; as in the shell."""
        self._drain()
        if self._parked:
            self._retry_parked()
        events, self._events = self._events, []
        effects = self.core.step(self.local(), events)
        self._turns += 1
        if self._turns % self._check_every == 0:
            self.core.check()
        self._watcher.turned(self, events, effects)
        for effect in effects:
            self.boundary()
            self._watcher.performed(self, effect)
            if isinstance(effect, Send):
                frames = [
                    bytes(f) for f in codec.encode(effect.message, effect.session, effect.number)
                ]
                kind = type(effect.message).__name__
                to = self.peers[effect.peer].socket.host if effect.peer in self.peers else "?"
                self.world.note(self.who, f"{kind} to {to}", frames[0])
                self._send(effect.peer, frames)
        self.world.peak("tasks at the broker", len(self.core.tables.tasks))
        self.world.peak("messages parked", max(map(len, self._parked.values()), default=0))
        if self._events or self.inbox:
            self.wake(self.world.now)
        elif self._parked:
            self.wake(self.world.now + _PARKED_RETRY_NS)
        self.wake_local(self.core.wake_at())

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
