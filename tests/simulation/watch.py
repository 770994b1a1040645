"""Listens at the broker's door: who has a session, what was taken in, what was said.

Rules of this file: its own books, from the messages alone, never from the broker's tables. What the
books mean for the invariants stands in `checkers.py`.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

from evener_broker.effects import Effect, Log, Send
from evener_broker.events import Event, Malformed, PeerGone, Received
from evener_wire import messages as m
from evener_wire.limits import RECOVERY_NS
from evener_wire.session import Sequence, Verdict
from tests.simulation.broker_node import BrokerNode
from tests.simulation.truth import Key, Sent, Ticket, Truth
from tests.simulation.world import MS, Violation, World


class AgentTap:
    """What is known of one agent process from its messages to this broker process."""

    def __init__(self, who: str, instance: bytes) -> None:
        self.who: Final = who
        self.instance: Final = instance
        self.slots = 0
        self.draining = False
        self.queues: frozenset[str] = frozenset()
        self.functions: frozenset[str] = frozenset()
        self.offered = False
        self.open: dict[Key, tuple[Ticket, Sent]] = {}
        self.left = False
        self.read_ns = 0  # when a message of it was last taken in
        self.session_ns = 0  # when its session was last seen to end or begin


class PeerTap:
    """A session as the messages show it."""

    __slots__ = ("agent", "instance", "role", "sequence", "who")

    def __init__(self, hello: m.Hello, session: int, agent: AgentTap | None) -> None:
        self.role: Final = hello.role
        self.instance: Final = hello.instance
        self.who: Final = hello.name
        self.sequence: Final = Sequence(session)
        self.agent: Final = agent


class Judge(Protocol):
    """Who draws conclusions: see `checkers.py`."""

    def on_submit(self, tap: PeerTap, message: m.Submit, rejected: set[bytes]) -> None: ...
    def on_cancel(self, message: m.Cancel) -> None: ...
    def on_returned(self, ticket: Ticket) -> None: ...
    def on_result(self, ticket: Ticket, fence: int, outcome: int) -> None: ...
    def on_run(self, tap: PeerTap, items: list[tuple[bytes, int, str, m.Payload]]) -> None: ...
    def on_terminal(self, tap: PeerTap, message: m.Terminal) -> None: ...
    def on_verdict(self, tap: AgentTap, why: str) -> None: ...
    def on_turn_over(self) -> None: ...


class Watch:
    """The `Watcher` of a broker node."""

    def __init__(self, world: World, truth: Truth) -> None:
        self.world: Final = world
        self.truth: Final = truth
        self.judge: Judge | None = None
        self.epoch = 0
        self.peers: dict[bytes, PeerTap] = {}
        self.hellos: dict[bytes, m.Hello] = {}
        self._greeted: set[bytes] = set()  # said HELLO in this turn
        self.agents: dict[bytes, AgentTap] = {}
        self.by_key: dict[Key, tuple[Ticket, Sent]] = {}
        self.malformed = 0
        self.verdicts = 0
        self.rejected = 0
        self.broker: BrokerNode | None = None
        self.first_ns = 0  # when this broker heard the first HELLO

    def began(self, broker: BrokerNode) -> None:
        """A new broker process: it knows nobody."""
        self.broker = broker
        self.epoch = broker.epoch
        self.peers.clear()
        self.hellos.clear()
        self.agents.clear()
        self.malformed = self.verdicts = self.rejected = 0
        self.first_ns = 1 << 62
        if self.epoch > 1:
            self.world.hit("broker restarted")

    def turned(self, broker: BrokerNode, events: list[Event], effects: list[Effect]) -> None:
        """What a turn took in."""
        assert self.judge is not None
        self.judge.on_turn_over()  # of the turn before
        unknown: Counter[bytes] = Counter()
        rejected: dict[bytes, set[bytes]] = {}
        for effect in effects:
            if isinstance(effect, Send):
                if isinstance(effect.message, m.Resync):
                    self.world.hit(f"broker says RESYNC: {effect.message.reason}")
                    if effect.message.reason == "unknown session":
                        unknown[effect.peer] += 1
                elif isinstance(effect.message, m.Rejected):
                    ids = {item[0] for item in effect.message.items}
                    rejected.setdefault(effect.peer, set()).update(ids)
                    self.rejected += len(effect.message.items)
        # A session that was over before this turn shows in that all messages of it were refused;
        # sessions that silence ends leave no other trace.
        for peer, count in unknown.items():
            if count == sum(_is_within(event, peer) for event in events):
                self._end(peer)
        self._greeted.clear()
        for event in events:
            if event.peer in self._greeted and not _is_hello(event):
                # Whatever it is, it is not of the session that just began, and ends it.
                self._greeted.discard(event.peer)
                del self.hellos[event.peer]
            if isinstance(event, Malformed):
                self.malformed += 1
                self.world.hit("broker gets bytes that are no message")
                self._end(event.peer)
            elif isinstance(event, PeerGone):
                self._end(event.peer)
            else:
                self._received(event, rejected.get(event.peer, set()))
        self._count(broker)

    def _count(self, broker: BrokerNode) -> None:
        counters = broker.core.tables.counters
        if counters["messages_malformed"] != self.malformed:
            raise Violation(
                "I30", f"{counters['messages_malformed']} != {self.malformed} malformed"
            )
        if counters["tasks_rejected"] != self.rejected:
            raise Violation("I30", f"{counters['tasks_rejected']} != {self.rejected} rejected")
        for name in _COUNTED:
            if counters[name]:
                self.world.sometimes[f"counter {name}"] += 1

    def _end(self, peer: bytes) -> None:
        tap = self.peers.pop(peer, None)
        if tap is not None and tap.agent is not None:
            tap.agent.offered = False
            tap.agent.session_ns = self.world.now

    def _received(self, event: Received, rejected: set[bytes]) -> None:
        envelope = event.envelope
        message = envelope.message
        if isinstance(message, m.Hello):
            self._hello(event.peer, message)
            return
        tap = self.peers.get(event.peer)
        if tap is None:
            return
        verdict = tap.sequence.judge(envelope.session, envelope.number)
        if verdict is Verdict.RESYNC:
            self._end(event.peer)
        elif verdict is Verdict.TAKE:
            self._taken(event.peer, tap, message, rejected)

    def _hello(self, peer: bytes, hello: m.Hello) -> None:
        self._end(peer)
        for other, tap in list(self.peers.items()):
            if tap.instance == hello.instance:
                self._end(other)
                self.world.hit("HELLO of a peer that the broker still knew")
        self.hellos[peer] = hello
        self._greeted.add(peer)
        self.first_ns = min(self.first_ns, self.world.now)
        if hello.role == "agent":
            agent = self.agents.get(hello.instance)
            if agent is None:
                agent = self.agents[hello.instance] = AgentTap(hello.name, hello.instance)
            agent.read_ns = agent.session_ns = self.world.now

    # --- What was taken in ------------------------------------------------------------------------

    def _taken(self, peer: bytes, tap: PeerTap, message: m.Message, rejected: set[bytes]) -> None:
        judge = self.judge
        assert judge is not None
        if tap.agent is not None:
            tap.agent.read_ns = self.world.now
            if isinstance(message, m.Offer):
                self._on_offer(tap.agent, message)
            elif isinstance(message, m.Result):
                for item in message.items:
                    found = tap.agent.open.pop((item[0], item[1]), None)
                    if found is None:
                        self.world.hit("RESULT of an attempt that is not open")
                    else:
                        found[1].taken_in = self.epoch
                        judge.on_result(found[0], item[1], item[2])
                        if item[2] == m.RETURNED:
                            judge.on_returned(found[0])
                    self.world.hit(f"RESULT {m.OUTCOMES[item[2]]}")
            elif isinstance(message, m.Goodbye):
                tap.agent.left = True
                self._end(peer)
        elif isinstance(message, m.Submit):
            judge.on_submit(tap, message, rejected)
        elif isinstance(message, m.Cancel):
            judge.on_cancel(message)
        elif isinstance(message, m.Goodbye):
            self._end(peer)

    def _on_offer(self, agent: AgentTap, offer: m.Offer) -> None:
        agent.slots = offer.slots
        agent.draining = offer.draining
        agent.queues = frozenset(offer.queues)
        agent.offered = True
        if offer.functions is not None:
            agent.functions = frozenset(name for name, _ in offer.functions)
        if offer.held is None:
            return
        held = {*offer.held}
        for key in list(agent.open):
            if key not in held:
                ticket, _ = agent.open.pop(key)
                if any(run.key == key for run in ticket.runs):
                    raise Violation("I11", f"{agent.who} forgot {key[1]}: {ticket.story()}")
                assert self.judge is not None
                self.judge.on_returned(ticket)
                self.world.hit("RUN that never arrived")
        for key in held:
            found = self.by_key.get(key)
            if found is None or key in agent.open:
                continue
            ticket, sent = found
            if sent.taken_in == self.epoch:
                continue  # its acknowledgement was lost
            newer = any(other.epoch == self.epoch for other in ticket.sent)
            others = sent.given_up_in == self.epoch and self.epoch in ticket.accepted
            over = newer or others or self.epoch in ticket.told
            if sent.epoch == self.epoch or over:
                sent.given_up = True
                self.world.hit("agent comes back with an attempt that others have now")
            else:
                sent.given_up = False
                agent.open[key] = found
                self.world.hit("agent tells a new broker what it runs")

    # --- What was said ----------------------------------------------------------------------------

    def performed(self, broker: BrokerNode, effect: Effect) -> None:
        """An effect of the turn."""
        judge = self.judge
        assert judge is not None
        if isinstance(effect, Log):
            self._log(effect.text)
            return
        message = effect.message
        if isinstance(message, m.Welcome):
            hello = self.hellos.get(effect.peer)
            if hello is None:
                return
            agent = self.agents.get(hello.instance)
            tap = self.peers[effect.peer] = PeerTap(hello, effect.session, agent)
            if agent is not None:
                agent.session_ns = self.world.now
            return
        known = self.peers.get(effect.peer)
        if known is None:
            return
        tap = known
        if isinstance(message, m.Run):
            assert tap.agent is not None
            if len(message.items) > tap.agent.slots:
                self.world.hit("broker sends work ahead")
            judge.on_run(tap, [(i[0], i[1], i[2], i[3]) for i in message.items])
        elif isinstance(message, m.Terminal):
            judge.on_terminal(tap, message)
        elif isinstance(message, m.Recall):
            self.world.hit("broker recalls work ahead")
        elif isinstance(message, m.Cancel):
            self.world.hit("broker tells an agent to stop an attempt")
            self._on_stop(message)
        elif isinstance(message, m.Rejected):
            for item in message.items:
                self.world.hit(f"REJECTED {item[1]}")
        elif isinstance(message, m.Notice):
            self.world.hit(f"NOTICE {message.code}")

    def _on_stop(self, message: m.Cancel) -> None:
        """I23: what an agent reports in time is adopted, unless somebody wants it stopped."""
        for key in message.items:
            found = self.by_key.get((key[0], key[1]))
            if found is None or self.epoch in (found[1].epoch, found[1].taken_in):
                continue
            ticket, sent = found
            _, since_ns, again = ticket.accepted.get(self.epoch, (0, self.world.now, False))
            deadline_ms = ticket.options.deadline_ms
            is_late = deadline_ms and self.world.now - since_ns >= deadline_ms * MS
            if ticket.cancelled_in == self.epoch or is_late:
                continue  # it is adopted, and its end is awaited
            wanted = again and not (ticket.cancelled_in or ticket.told or deadline_ms)
            here = any(other.epoch == self.epoch for other in ticket.sent)
            in_time = self.world.now - self.first_ns < RECOVERY_NS - 5 * MS
            newest = max(other.fence for other in ticket.sent) == sent.fence
            if wanted and in_time and newest and not here and sent.given_up_in != self.epoch:
                raise Violation("I23", f"reported in time, not adopted: {ticket.story()}")
            sent.given_up = True

    def _log(self, text: str) -> None:
        assert self.broker is not None
        assert self.judge is not None
        if text.startswith("the broker stood still"):
            self.world.hit("broker notices that it stood still")
        head, gone, why = text.partition(" is gone: ")
        if not gone or not head.startswith("agent "):
            return
        self.verdicts += 1
        if self.verdicts > self.broker.core.tables.counters["agents_lost"]:
            raise Violation("I30", "more verdicts in the log than in the counter")
        who = head.removeprefix("agent ")
        for tap in self.agents.values():
            if tap.who == who:
                self.judge.on_verdict(tap, why)
                for ticket, sent in tap.open.values():
                    sent.given_up = True
                    sent.given_up_in = self.epoch
                    ticket.vanished += 1
                    key = (ticket.id, sent.fence)
                    ticket.vanished_started += any(run.key == key for run in ticket.runs)
                tap.open.clear()
                tap.offered = False
                del self.agents[tap.instance]
                for peer, known in list(self.peers.items()):
                    if known.agent is tap:
                        del self.peers[peer]
                return


def _is_hello(event: Event) -> bool:
    return isinstance(event, Received) and isinstance(event.envelope.message, m.Hello)


def _is_within(event: Event, peer: bytes) -> bool:
    if not isinstance(event, Received) or event.peer != peer:
        return False
    return not isinstance(event.envelope.message, m.Hello | m.Resync)


_COUNTED: Final = (
    "attempts_adopted",
    "attempts_stale",
    "messages_repeated",
    "messages_unknown_peer",
    "results_stale",
    "sessions_out_of_step",
    "sessions_silent",
    "stalls",
    "tasks_conflicting",
    "violations",
)
