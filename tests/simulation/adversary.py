"""A peer with a valid session that sends well-formed messages, and wrong ones.

Rules of this file: every message decodes. It knows the ids and fences of others, as from a list on
a screen. It offers workers only to queues that nobody uses, so no task comes to it: what a worker
may do to a task that it was given is no attack. Others must not notice that it is there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from evener_wire import codec
from evener_wire import messages as m
from evener_wire.errors import PeerError
from evener_wire.limits import PROTOCOL_MAX, PROTOCOL_MIN
from tests.simulation.network import Network, Socket
from tests.simulation.node import Node
from tests.simulation.truth import Body, Ticket, Truth
from tests.simulation.world import MS, World

# Messages in one flood. More: the simulation has no time for anything else.
_FLOOD: Final = 400

_TASKS_MAX: Final = 12


class Adversary(Node):
    """One connection, and what was said on it. `instance` may be that of a second one."""

    def __init__(self, world: World, network: Network, truth: Truth, name: str) -> None:
        super().__init__(world, name)
        self._network = network
        self._truth = truth
        self.instance = self.rng.randbytes(16)
        self.socket: Socket | None = None
        self._role: m.Role = "client"
        self._session = 0
        self._number = 0
        self._epoch = 0
        self._submitted = 0
        self._outbox: list[tuple[m.Message, int, int]] = []
        both: tuple[Callable[[], None], ...] = (
            self._hello_again,
            self._other_role,
            self._unknown_session,
            self._gap,
            self._repeat,
            self._what_brokers_say,
            self._what_others_say,
            self._flood,
            self._goodbye,
        )
        as_agent = (
            self._results_of_others,
            self._started_of_others,
            self._holds_of_others,
            self._offer_nonsense,
        )
        as_client = self._cancel, self._acknowledge_all, self._ask_nonsense, self._submit
        # Twice, because most of what both do ends the session.
        self._deeds: Final = {
            "agent": (*both, *as_agent, *as_agent),
            "client": (*both, *as_client, *as_client),
        }

    def start(self) -> None:
        """A process of it."""
        super().start()
        self._session = self._number = 0
        self._outbox.clear()
        self.socket = Socket(self._network, self)

    def leave(self) -> None:
        """It is gone."""
        if self.alive:
            assert self.socket is not None
            self.socket.close()
            self.crash(host=False)

    def strike(self, rng: random.Random) -> str:
        """Do one of its deeds."""
        deed = rng.choice(self._deeds[self._role])
        if not self.alive:
            self.start()
        elif rng.random() < 0.15:
            # Who erred too often on one connection is not read: it begins with a clean record.
            assert self.socket is not None
            self.socket.reopen()
            self._session = 0
        if not self._session or rng.random() < 0.05:
            self._greet(rng.choice(("client", "agent")))
        else:
            deed()
        self.wake(self.world.now)
        return f"{self.who}: {deed.__name__[1:].replace('_', ' ')}"

    # --- The loop ---------------------------------------------------------------------------------

    def turn(self) -> None:
        """Read, and send what was thought of."""
        socket = self.socket
        assert socket is not None
        for frames in socket.receive(64):
            try:
                self._heard(codec.decode(frames))
            except PeerError:
                continue
        outbox, self._outbox = self._outbox, []
        for message, session, number in outbox:
            frames = [bytes(frame) for frame in codec.encode(message, session, number)]
            kind = type(message).__name__
            self.world.note(self.who, kind, frames[0])
            if not socket.send(frames):
                break
        if socket.inbox:
            self.wake(self.world.now)

    def _heard(self, envelope: codec.Envelope) -> None:
        message = envelope.message
        if isinstance(message, m.Welcome):
            self._session, self._number = envelope.session, 0
            self._epoch = message.epoch
            if self._role == "agent":
                self._say(m.Offer(0, False, ["default"], [], []))
        elif isinstance(message, m.Resync | m.Refused):
            self._session = 0

    def _greet(self, role: m.Role) -> None:
        self._role = role
        instance, name = self._instance_of(role), "adversary"
        hello = m.Hello(PROTOCOL_MIN, PROTOCOL_MAX, role, instance, name, 0, bytes(16), {})
        self._outbox.append((hello, 0, 0))

    def _instance_of(self, role: m.Role) -> bytes:
        # One instance is either; the broker may refuse that, but must not mix them up.
        return self.instance if self.rng.random() < 0.1 else self.instance[:-1] + role[:1].encode()

    def _say(self, message: m.Message) -> None:
        self._number += 1
        self._outbox.append((message, self._session, self._number))

    # --- What it knows ----------------------------------------------------------------------------

    def _some(self) -> list[Ticket]:
        tickets = self._truth.tickets
        count = min(len(tickets), 5)
        return self.rng.sample(tickets[-60:], min(count, len(tickets[-60:])))

    def _attempts(self) -> list[tuple[bytes, int]]:
        """Attempts of others, of this epoch: who held one of an earlier epoch would be believed."""
        found = [
            (ticket.id, sent.fence)
            for ticket in self._some()
            for sent in ticket.sent
            if sent.epoch == self._epoch
        ]
        return list(dict(found).items())

    # --- Deeds ------------------------------------------------------------------------------------

    def _hello_again(self) -> None:
        self._greet(self._role)
        self._session = 0

    def _other_role(self) -> None:
        self._greet("agent" if self._role == "client" else "client")
        self._session = 0

    def _unknown_session(self) -> None:
        self._outbox.append((m.Heartbeat(), self._session ^ 5, self._number + 1))

    def _gap(self) -> None:
        self._number += 1
        self._say(m.Heartbeat())

    def _repeat(self) -> None:
        for _ in range(20):
            self._outbox.append((m.Heartbeat(), self._session, max(1, self._number)))

    def _results_of_others(self) -> None:
        items: list[Any] = []
        for task_id, fence in self._attempts():
            wrong = self.rng.choice((fence, fence, fence + 1, fence - 1, 1, 1 << 60))
            outcome = self.rng.randrange(len(m.OUTCOMES))
            items.append((task_id, wrong, outcome, b"stolen", 1, None))
        if items:
            self._say(m.Result(items))

    def _started_of_others(self) -> None:
        if attempts := self._attempts():
            self._say(m.Started(attempts))
            self._say(m.Heartbeat([(*attempt, 5) for attempt in attempts], [{"pid": 1}]))

    def _holds_of_others(self) -> None:
        self._say(m.Offer(0, False, ["default"], None, self._attempts()))

    def _offer_nonsense(self) -> None:
        rng = self.rng
        queues = [f"{self.name}-{rng.randrange(1 << 30)}" for _ in range(rng.randint(0, 12))]
        functions = [(f"no.{rng.randrange(1 << 30)}", None) for _ in range(rng.randint(0, 12))]
        slots = rng.choice((0, 1, 4_096))
        self._say(m.Offer(slots, rng.random() < 0.3, queues, functions, None))

    def _cancel(self) -> None:
        """Whoever has a session may cancel any task; ids that nobody has must change nothing."""
        tickets = self._some()[:2] if self.rng.random() < 0.3 else []
        for ticket in tickets:
            ticket.cancel_asked = True
        unknown = [(self.rng.randbytes(16), 0) for _ in range(50)]
        self._say(m.Cancel([*((ticket.id, 0) for ticket in tickets), *unknown]))

    def _acknowledge_all(self) -> None:
        self._say(m.Ack(self.rng.choice((0, 1, 1 << 40))))

    def _ask_nonsense(self) -> None:
        what = self.rng.choice(("status", "tasks", "task", "no such thing", "show", "fetch"))
        value = self.rng.choice((0, "x", "ff" * 16, b"\0" * 16, -1))
        self._say(m.Query(self.rng.randrange(1 << 20), what, {"id": value, "limit": value}))

    def _what_brokers_say(self) -> None:
        message = self.rng.choice((m.Run([]), m.Accepted(9), m.Terminal([]), m.Drain("now")))
        self._say(message)
        self._session = 0

    def _what_others_say(self) -> None:
        wrong = m.Result([]) if self._role == "client" else m.Submit([])
        self._say(wrong)
        self._session = 0

    def _flood(self) -> None:
        rng = self.rng
        greetings = rng.random() < 0.3
        for _ in range(_FLOOD):
            if greetings:
                self._greet(self._role)
            else:
                self._say(m.Heartbeat())

    def _submit(self) -> None:
        """Real work, too, that its owner never wants back."""
        if self._submitted >= _TASKS_MAX:
            return
        self._submitted += 1
        body = Body(5 * MS)
        options = m.Options(expires_ms=2_000)
        ticket = self._truth.ticket(
            self.who, self.rng.randbytes(16), "app.short", body, options, 10
        )
        ticket.owner = "adversary"
        ticket.alarming = False
        self._say(m.Submit([ticket.item], self.rng.random() < 0.2))

    def _goodbye(self) -> None:
        self._say(m.Goodbye("had enough"))
        self._session = 0
