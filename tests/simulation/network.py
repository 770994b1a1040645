"""The simulated network: connections as ZeroMQ makes them between DEALERs and one ROUTER.

Rules of this file: bytes only, no decision of evener. Inside one connection messages keep their
order; a connection that is cut loses its tail, may deliver late what it had (ghosts), and its two
ends may notice at different times or not at all. A new connection is a new peer to the ROUTER.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

from tests.simulation.hostility import Hostility
from tests.simulation.link import Link
from tests.simulation.world import MS, SECOND, World

Frames: TypeAlias = Sequence[Any]

UNANSWERED_NS: Final = 30 * SECOND  # until the kernel gives up (TCP_MAXRT, keepalive)

# A message that takes so long holds up all that follow it.
_LATE_NS: Final = 200 * MS


class Endpoint(Protocol):
    """What a node lends to the network."""

    @property
    def name(self) -> str:
        """Of the host."""
        ...

    @property
    def life(self) -> int:
        """Which process it is now."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        ...

    def wake(self, at_ns: int) -> None:
        """Something is there to be taken in."""


class RouterEnd(Endpoint, Protocol):
    """The broker's node."""

    @property
    def inbox(self) -> deque[tuple[Conn, Frames]]:
        """What came and was not taken in."""
        ...

    def new_peer(self, conn: Conn) -> bytes:
        """A connection stands: the name that the ROUTER gives it."""
        ...


class Pipe:
    """One direction of a connection."""

    __slots__ = ("count", "held", "kept", "last_at", "late_ns", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.count = 0  # sent and not yet taken in by the other end
        self.kept: int | None = None  # after a cut: how many of those sent still arrive
        self.late_ns = 0  # after a cut: how much later they do
        self.last_at = 0
        self.held: list[tuple[int, Frames]] = []  # while the path is blocked


class Conn:
    """One connection of a DEALER with a broker process."""

    __slots__ = (
        "broker_life",
        "closed",
        "dealer_open",
        "down",
        "peer",
        "router_open",
        "socket",
        "up",
    )

    def __init__(self, socket: Socket, broker_life: int) -> None:
        self.socket: Final = socket
        self.broker_life: Final = broker_life
        self.up: Final = Pipe()
        self.down: Final = Pipe()
        self.peer = b""
        self.dealer_open = True
        self.router_open = True
        self.closed = False  # the DEALER is gone, and what comes for it as well


class Network:
    """All links and connections. One broker."""

    def __init__(self, world: World) -> None:
        self.world: Final = world
        self.links: Final[dict[str, Link]] = {}
        self.hostility: Hostility | None = None
        self.router: RouterEnd | None = None
        self.hwm_down = 1_000
        self.hwm_up = 10_000
        self.conns: dict[Conn, None] = {}

    def link(self, name: str) -> Link:
        """The way between a host and the broker."""
        link = self.links.get(name)
        if link is None:
            link = self.links[name] = Link(self.world.stream(f"link/{name}"))
        return link

    # --- Connections come and go ------------------------------------------------------------------

    def try_connect(self, socket: Socket) -> Conn | None:
        """A handshake: works if the broker listens and both directions are free."""
        link, router = self.link(socket.host), self.router
        assert router is not None
        if not router.alive or link.blocked_up or link.blocked_down:
            return None
        if self.world.now < link.unnamed_until:
            self.world.hit("no name server answers a peer that connects")
            return None
        conn = Conn(socket, router.life)
        conn.peer = router.new_peer(conn)
        link.disturb(self.world.now)
        self.conns[conn] = None
        self.world.note(socket.host, "connected")
        return conn

    def cut(
        self,
        conn: Conn,
        *,
        dealer_ns: int = 0,
        router_ns: int = 0,
        tail: bool = True,
        ghost_ns: int = 0,
    ) -> None:
        """A connection breaks. Its ends notice after so long; what was on the way may be lost."""
        world, rng = self.world, self.link(conn.socket.host).rng
        if conn not in self.conns:
            return
        del self.conns[conn]
        self.link(conn.socket.host).disturb(world.now)
        for pipe in (conn.up, conn.down):
            arriving = pipe.sent if not tail else pipe.sent - rng.randint(0, pipe.count)
            pipe.kept = arriving
            pipe.late_ns = ghost_ns
        if ghost_ns:
            for number, frames in conn.up.held:
                world.after(ghost_ns, "", self._arrive_up, (conn, number, frames, True))
        host = conn.socket.host
        world.at(world.now + dealer_ns, host, self._dealer_notices, conn)
        world.at(world.now + router_ns, host, self._router_notices, conn)

    def cut_half(self, conn: Conn, *, dealer: bool, router: bool) -> None:
        """A cut that one end, or neither, notices soon."""
        slow, quick = UNANSWERED_NS, 1 * MS
        self.cut(conn, dealer_ns=quick if dealer else slow, router_ns=quick if router else slow)

    def _dealer_notices(self, conn: Conn) -> None:
        if conn.dealer_open:
            conn.dealer_open = False
            conn.socket.lost(conn)

    def _router_notices(self, conn: Conn) -> None:
        conn.router_open = False

    def connections_of(self, host: str) -> list[Conn]:
        """Those that stand."""
        return [conn for conn in self.conns if conn.socket.host == host]

    def broker_died(self, *, host: bool) -> None:
        """All its connections break; the other ends are told only if its host lives."""
        for conn in list(self.conns):
            conn.router_open = False
            delay = UNANSWERED_NS if host else self.link(conn.socket.host).latency_ns()
            self.cut(conn, dealer_ns=delay)

    # --- Blocked ways -----------------------------------------------------------------------------

    def block(self, host: str, *, up: bool, down: bool) -> None:
        """What is sent waits (TCP sends it again) until the way is free or the connection cut."""
        link = self.link(host)
        link.blocked_up += up
        link.blocked_down += down

    def unblock(self, host: str, *, up: bool, down: bool) -> None:
        """The way is free again, unless somebody else blocks it, too."""
        link = self.link(host)
        link.blocked_up = max(0, link.blocked_up - up)
        link.blocked_down = max(0, link.blocked_down - down)
        link.disturb(self.world.now)
        for conn in self.connections_of(host):
            self._release(conn)

    def _release(self, conn: Conn) -> None:
        link = self.link(conn.socket.host)
        for pipe, blocked, arrive in (
            (conn.up, link.blocked_up, self._arrive_up),
            (conn.down, link.blocked_down, self._arrive_down),
        ):
            if blocked or not pipe.held:
                continue
            held, pipe.held = pipe.held, []
            for number, frames in held:
                arrive((conn, number, frames, False))

    def stall_names(self, host: str, for_ns: int) -> None:
        """No name server answers the host: what stands stands, and nothing new comes to be."""
        link = self.link(host)
        link.unnamed_until = max(link.unnamed_until, self.world.now + for_ns)
        link.disturb(link.unnamed_until)

    # --- Messages ---------------------------------------------------------------------------------

    def send_up(self, conn: Conn, frames: Frames) -> None:
        """From a DEALER to the broker."""
        self._transmit(conn, conn.up, frames, up=True)

    def send_down(self, conn: Conn, frames: Frames) -> None:
        """From the broker to a DEALER."""
        self._transmit(conn, conn.down, frames, up=False)

    def _transmit(self, conn: Conn, pipe: Pipe, frames: Frames, *, up: bool) -> None:
        copies = [(frames, 0)]
        if self.hostility is not None:
            history = conn.socket.told_up if up else conn.socket.told_down
            copies = self.hostility.mangle(frames, history, conn.socket.host)
        link = self.link(conn.socket.host)
        host = conn.socket.host
        arrive = self._arrive_up if up else self._arrive_down
        for copy, extra_ns in copies:
            pipe.sent += 1
            pipe.count += 1
            latency_ns = link.latency_ns()
            at_ns = self.world.now + latency_ns
            if latency_ns > _LATE_NS:
                link.disturb(at_ns)
            if extra_ns:
                at_ns += extra_ns  # out of order
            else:
                at_ns = pipe.last_at = max(at_ns, pipe.last_at + 1)
            self.world.at(at_ns, host, arrive, (conn, pipe.sent, copy, False))

    def _arrive_up(self, what: tuple[Conn, int, Frames, bool]) -> None:
        conn, _, frames, late = what
        if not self._arrives(conn, conn.up, what, self._arrive_up, up=True):
            return
        router = self.router
        assert router is not None
        if not router.alive or router.life != conn.broker_life:
            conn.up.count -= 1
            return
        if late:
            self.world.hit("ghost message of a dead connection")
        router.inbox.append((conn, frames))
        router.wake(self.world.now)

    def _arrive_down(self, what: tuple[Conn, int, Frames, bool]) -> None:
        conn, _, frames, _ = what
        if not self._arrives(conn, conn.down, what, self._arrive_down, up=False):
            return
        if conn.closed:
            conn.down.count -= 1
        else:
            conn.socket.deliver(conn, frames)

    def _arrives(self, conn: Conn, pipe: Pipe, what: Any, again: Any, *, up: bool) -> bool:
        _, number, frames, late = what
        if pipe.kept is not None:
            if number > pipe.kept:
                pipe.count -= 1
                self.world.hit("message lost with the tail of a connection")
                return False
            if pipe.late_ns and not late:
                self.world.after(
                    pipe.late_ns, conn.socket.host, again, (conn, number, frames, True)
                )
                return False
            return True
        link = self.link(conn.socket.host)
        if link.blocked_up if up else link.blocked_down:
            pipe.held.append((number, frames))
            return False
        return True


class Socket:
    """A DEALER that connects, and connects again. Belongs to one process."""

    def __init__(self, network: Network, node: Endpoint) -> None:
        self._network: Final = network
        self._node: Final = node
        self._life = node.life
        self.host: Final = node.name
        self._rng = network.world.stream(f"socket/{node.name}/{node.life}")
        self.conn: Conn | None = None
        self.inbox: deque[tuple[Conn, Frames]] = deque()
        self.stale: list[Frames] = []  # what a new connection sends first, if that fault strikes
        self.recent: deque[Frames] = deque(maxlen=8)
        self.told_up: deque[Frames] = deque(maxlen=40)
        self.told_down: deque[Frames] = deque(maxlen=40)
        self._token = 0
        self._interval_ns = self._rng.randint(100, 500) * MS
        self._connect_in(0)

    def _connect_in(self, delay_ns: int) -> None:
        self._token += 1
        link = self._network.link(self.host)
        at_ns = self._network.world.now + delay_ns + 2 * link.latency_ns()
        self._network.world.at(at_ns, self.host, self._connect, self._token)

    def _connect(self, token: int) -> None:
        if token != self._token or not self._belongs() or self.conn is not None:
            return
        self.conn = self._network.try_connect(self)
        if self.conn is None:
            self._connect_in(self._interval_ns)
            return
        stale, self.stale = self.stale, []
        for frames in stale:
            self._network.send_up(self.conn, frames)
        self._node.wake(self._network.world.now)

    def _belongs(self) -> bool:
        return self._node.alive and self._node.life == self._life

    def lost(self, conn: Conn) -> None:
        """This end of the connection notices that it is gone."""
        if conn is self.conn and self._belongs():
            self.conn = None
            self._connect_in(self._interval_ns)
            self._node.wake(self._network.world.now)

    def deliver(self, conn: Conn, frames: Frames) -> None:
        """A message came."""
        if self._belongs():
            self.inbox.append((conn, frames))
            self._node.wake(self._network.world.now)

    def stands(self) -> bool:
        """Whether the connection is one, not only in the eyes of this end."""
        return self.conn in self._network.conns

    # --- For the node -----------------------------------------------------------------------------

    def writable(self) -> bool:
        """Whether a message could leave."""
        return self.conn is not None and self.conn.up.count < self._network.hwm_up

    def send(self, frames: Frames) -> bool:
        """Hand over one message; False when there is no connection that takes it."""
        if not self.writable():
            return False
        assert self.conn is not None
        self.recent.append(frames)
        self._network.send_up(self.conn, frames)
        return True

    def receive(self, most: int) -> list[Frames]:
        """What has come, up to so many messages."""
        taken: list[Frames] = []
        while self.inbox and len(taken) < most:
            conn, frames = self.inbox.popleft()
            conn.down.count -= 1
            taken.append(frames)
        return taken

    def reopen(self) -> None:
        """A new socket instead of this one."""
        self.close()
        self._connect_in(0)

    def close(self) -> None:
        """Nothing that came and was not read is read any more."""
        conn, self.conn = self.conn, None
        self._token += 1
        self.inbox.clear()
        if conn is not None:
            conn.dealer_open = False
            conn.closed = True
            link = self._network.link(self.host)
            notice = UNANSWERED_NS if link.blocked_up else link.latency_ns()
            self._network.cut(conn, router_ns=notice)
