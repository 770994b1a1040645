"""A client in the simulation: the shipped session, what its connection does, and a program.

Rules of this file: it does what `client/evener/connection.py` does, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from evener import session_records as r
from evener.deadlines import NEVER
from evener.session import ClientSession
from evener_wire import codec
from evener_wire import messages as m
from evener_wire.errors import PeerError
from tests.simulation.network import Network, Socket
from tests.simulation.node import Node
from tests.simulation.streams import Readers
from tests.simulation.tending import question
from tests.simulation.truth import Ticket, Truth
from tests.simulation.world import World

_DRAIN_MAX: Final = 64


class ClientNode(Node):
    """The place of one program that submits tasks."""

    def __init__(
        self,
        world: World,
        network: Network,
        truth: Truth,
        name: str,
        *,
        hold_when_full: bool,
        check_every: int,
    ) -> None:
        super().__init__(world, name)
        self._network = network
        self._truth = truth
        self._hold_when_full = hold_when_full
        self._check_every = check_every
        self._turns = 0
        self.asks: list[r.Event] = []
        self.copies: list[Ticket] = []  # to be submitted a second time, as they are
        self.session: ClientSession | None = None
        self.socket: Socket | None = None
        self.instance = b""
        self.hellos: list[int] = []
        self.over = False
        self._questions = 0
        self._asked: dict[int, Ticket] = {}
        self.readers = Readers(world, world.stream(f"readers/{name}"), self._want)
        self.on_answer: Callable[[ClientNode, Ticket, r.Answered], None] = lambda *_: None
        self.on_end: Callable[[ClientNode, Ticket], None] = lambda client, ticket: None

    # --- The process ------------------------------------------------------------------------------

    def start(self) -> None:
        """A new program: another instance, nothing submitted yet."""
        super().start()
        rng = self.world.stream(f"client/{self.who}")
        self.instance = rng.randbytes(16)
        self.asks.clear()
        self._asked.clear()
        self.copies.clear()
        self.hellos.clear()
        self.readers.begin()
        self.over = False
        self.socket = Socket(self._network, self)
        self.session = ClientSession(
            self.instance, self.who, {}, rng, hold_when_full=self._hold_when_full
        )

    def crash(self, *, host: bool) -> None:
        """The program is gone, and nobody waits for what it submitted."""
        super().crash(host=host)
        for ticket in self._truth.tickets:
            if ticket.owner == self.who:
                ticket.alarming = False
        assert self.socket is not None
        conn = self.socket.conn
        self.socket.conn = None
        if conn is not None:
            conn.closed = True
            conn.dealer_open = False
            self._network.cut(conn, router_ns=30_000_000_000 if host else 1_000_000, tail=host)

    def way_free_since(self) -> int:
        """Since when nothing disturbed its way to the broker."""
        link = self._network.link(self.name)
        return 1 << 62 if link.blocked_up or link.blocked_down else link.since_ns

    def _want(self, event: r.Event) -> None:
        if self.alive and not self.over:
            self.asks.append(event)
            self.wake(self.world.now)

    def submit(self, tickets: list[Ticket]) -> None:
        """The program submits tasks."""
        self.asks.append(r.Submitted(tickets))
        self.wake(self.world.now)

    def cancel(self, tickets: list[Ticket]) -> None:
        """The program wants some of its tasks stopped."""
        for ticket in tickets:
            ticket.cancel_asked = True
        self.asks.append(r.CancelAsked([ticket.id for ticket in tickets]))
        self.wake(self.world.now)

    def fetch(self, ticket: Ticket) -> None:
        """The program asks how a task of an earlier one ended."""
        self.ask("fetch", {"id": ticket.id.hex()})
        self._asked[self._questions] = ticket

    def ask(self, what: str, arguments: dict[str, Any]) -> None:
        """Somebody wants to know, or to have something done."""
        self._questions += 1
        self._want(question(self._questions, what, arguments))

    def close(self) -> None:
        """The program leaves in order."""
        self.asks.append(r.CloseAsked(2_000_000_000))
        self.wake(self.world.now)

    # --- The loop ---------------------------------------------------------------------------------

    def turn(self) -> None:
        """As `Connection._work` does."""
        session, socket = self.session, self.socket
        assert session is not None
        assert socket is not None
        if self.over:
            return
        events, self.asks = self.asks, []
        for frames in socket.receive(_DRAIN_MAX):
            try:
                events.append(r.Received(codec.decode(frames)))
            except PeerError as error:
                self.world.hit("client gets bytes that are no message")
                events.append(r.Malformed(str(error)))
        writable = socket.writable()
        if session.state is r.State.CONNECTING:
            if writable:
                events.append(r.Connected())
        elif not writable:
            events.append(r.Disconnected("connection closed"))
        self._submit_twice(session)
        while True:
            failed: list[r.Event] = []
            self._perform(session.step(self.local(), events), failed, socket)
            if not failed:
                break
            events = failed
        self._turns += 1
        if self._turns % self._check_every == 0:
            session.check()
        if socket.inbox or self.asks:
            self.wake(self.world.now)
        wake_at = session.wake_at()
        if not self.over and wake_at < NEVER:
            self.wake_local(wake_at)

    def _submit_twice(self, session: ClientSession) -> None:
        """Some transports and programs repeat themselves: the broker must see one task."""
        copies, self.copies = self.copies, []
        if session.state is r.State.OPEN and session.welcome is not None:
            for ticket in copies:
                if not ticket.ends and session.welcome.epoch in ticket.accepted:
                    session.send(m.Submit([ticket.item], bool(ticket.number % 2)))
                    self.world.hit("same task submitted twice")

    def _perform(self, effects: list[r.Effect], failed: list[r.Event], socket: Socket) -> None:
        for effect in effects:
            self.boundary()
            match effect:
                case r.Send():
                    if not failed and not self._send(effect, socket):
                        failed.append(r.Disconnected("connection closed"))
                case r.Valued():
                    self.readers.valued(effect.values)
                case r.Resolve():
                    for ticket, item in effect.endings:
                        self._end(ticket, m.TERMINAL_STATES[item[1]], item)
                case r.Reject():
                    for ticket, code, text, _ in effect.tickets:
                        self._end(ticket, f"rejected {code}", text)
                case r.Abandon():
                    for ticket in effect.tickets:
                        self._end(ticket, "abandoned", effect.refusal)
                case r.Reopen():
                    self.world.hit("client opens a new connection after silence")
                    socket.reopen()
                case r.StateChanged():
                    self._state_changed(effect.state, socket)
                case r.Answered():
                    asked = self._asked.pop(effect.number, None)
                    if asked is not None:
                        self.on_answer(self, asked, effect)
                case r.Log() | r.Reported() | r.Wrote():
                    pass  # nothing here says how far it is, or prints

    def _send(self, effect: r.Send, socket: Socket) -> bool:
        frames = [bytes(f) for f in codec.encode(effect.message, effect.session, effect.number)]
        kind = type(effect.message).__name__
        self.world.note(self.who, kind, frames[0])
        if isinstance(effect.message, m.Hello):
            self.hellos.append(self.world.now)
        if isinstance(effect.message, m.Submit) and effect.message.again:
            self.world.hit("client submits again to a broker that restarted")
        return socket.send(frames)

    def _state_changed(self, state: r.State, socket: Socket) -> None:
        if state in (r.State.CLOSED, r.State.REFUSED):
            self.over = True
            self.world.hit(f"client is {state.name.lower()}")
            socket.close()

    def _end(self, ticket: object, how: str, what: object) -> None:
        assert isinstance(ticket, Ticket)
        self.readers.ended(ticket, how, what)
        ticket.ends.append((how, what))
        self.world.note(self.who, f"end of {ticket.number}: {how}")
        self.on_end(self, ticket)
