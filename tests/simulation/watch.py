"""Listens at the broker's door: who has a session, what was taken in, what was said.

Rules of this file: its own books, from the messages alone, never from the broker's tables. What the
books mean for the invariants stands in `checkers.py`.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from evener_broker.effects import Append, Effect, Log, NoteAgent, Send
from evener_broker.events import (
    CommitFailed,
    Committed,
    Event,
    Flooding,
    Malformed,
    MemoryShort,
    PeerGone,
    Received,
    WallClock,
)
from evener_broker.transitions import Cause
from evener_wire import messages as m
from evener_wire.codec import Envelope
from evener_wire.limits import PROBE_NS, RECOVERY_MAX_NS, RECOVERY_NS
from evener_wire.session import Verdict
from tests.simulation.adoption import Adoption
from tests.simulation.broker_node import BrokerNode
from tests.simulation.durable import Durability
from tests.simulation.taps import AgentTap, Greetings, Judge, PeerTap
from tests.simulation.truth import Key, Sent, Ticket, Truth
from tests.simulation.world import MS, Violation, World


class Watch:
    """The `Watcher` of a broker node."""

    def __init__(self, world: World, truth: Truth) -> None:
        self.world: Final = world
        self.truth: Final = truth
        self.judge: Judge | None = None
        self.durable: Durability | None = None
        self.epoch = 0
        self.peers: dict[bytes, PeerTap] = {}
        self.hellos: dict[bytes, m.Hello] = {}
        self._greeted: set[bytes] = set()  # got a session in this turn
        self._greetings = Greetings([])
        self.agents: dict[bytes, AgentTap] = {}
        self.by_key: dict[Key, tuple[Ticket, Sent]] = {}
        self.malformed = 0
        self.verdicts = 0
        self.rejected = 0
        self.broker: BrokerNode | None = None
        self.first_ns = 0  # when this broker heard the first HELLO
        self._has_sent = False
        self.until_ns = 0  # until when it waits for agents that come back
        self._answers: dict[bytes, deque[m.Welcome | m.Refused]] = {}
        self._counted = 0  # sum of the broker's counters when they were last looked at
        self.adoption: Final = Adoption(self)

    def began(self, broker: BrokerNode) -> None:
        """A new broker process: it knows nobody."""
        self.broker = broker
        self.epoch = broker.epoch
        self.peers.clear()
        self.hellos.clear()
        self.agents.clear()
        self.malformed = self.verdicts = self.rejected = self._counted = 0
        self.first_ns = 1 << 62
        self.until_ns = 0
        self._has_sent = False
        self._answers.clear()
        if broker.life:
            self.world.hit("broker restarted")
        if self.durable is not None and self.judge is not None:
            for ticket in self.durable.began(self.epoch):
                self.judge.on_restored(ticket)

    def turned(self, broker: BrokerNode, events: list[Event], effects: list[Effect]) -> None:
        """What a turn took in."""
        assert self.judge is not None
        self.judge.on_turn_over()  # of the turn before
        if self.durable is not None:
            self.durable.on_turn(broker.core)
        unknown, rejected = self._announced(effects)
        # A session that was over before this turn shows in that all messages of it were refused;
        # sessions that silence ends leave no other trace.
        for peer, count in unknown.items():
            if count == sum(_is_within(event, peer) for event in events):
                self._end(peer)
        self._greeted.clear()
        self._greetings = Greetings(events)
        for event in events:
            if isinstance(event, Committed | CommitFailed):
                self._on_journal(event)
                continue
            if isinstance(event, MemoryShort | WallClock | Flooding):
                continue
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
        for task, before, cause in broker.moves:
            self.world.steps[before.value, cause.value] += 1
            if (before.value, cause.value) in IMPOSSIBLE:
                raise Violation("I1", f"a step that nothing leads to: {before}, {cause}")
            if self.durable is not None and cause is Cause.ASSIGN:
                # Its RUN may have to wait for the journal, and others may go before it then.
                self.judge.on_assigned(self.truth.of_payload(task.payload, task.id))
        self._answers.clear()
        self._count(broker)

    def _announced(self, effects: list[Effect]) -> tuple[dict[bytes, int], dict[bytes, set[bytes]]]:
        """By peer: how many messages were of no session, and which tasks are refused."""
        unknown: dict[bytes, int] = {}
        rejected: dict[bytes, set[bytes]] = {}
        for effect in effects:
            if not isinstance(effect, Send):
                continue
            message = effect.message
            kind = type(message)
            if kind is m.Heartbeat:  # most of what is said in quiet times
                continue
            if isinstance(message, m.Resync):
                self.world.hit(f"broker says RESYNC: {message.reason}")
                if message.reason == "unknown session":
                    unknown[effect.peer] = unknown.get(effect.peer, 0) + 1
            elif isinstance(message, m.Rejected):
                ids = {item[0] for item in message.items}
                rejected.setdefault(effect.peer, set()).update(ids)
                self.rejected += len(message.items)
            elif isinstance(message, m.Welcome | m.Refused):
                self._answers.setdefault(effect.peer, deque()).append(message)
        return unknown, rejected

    def _on_journal(self, event: Committed | CommitFailed) -> None:
        assert self.durable is not None
        assert self.judge is not None
        if isinstance(event, CommitFailed):
            self.judge.on_withdrawn(self.durable.on_failed(event))
        else:
            self.durable.on_committed(event.txn)

    def _count(self, broker: BrokerNode) -> None:
        counters = broker.core.tables.counters
        self.world.checked["I30"] += 1
        malformed = counters["messages_malformed"]
        # Of a connection in quarantine nobody looks at what it sends.
        if not malformed <= self.malformed <= malformed + counters["messages_quarantined"]:
            raise Violation("I30", f"{malformed} != {self.malformed} malformed")
        if counters["tasks_rejected"] != self.rejected:
            raise Violation("I30", f"{counters['tasks_rejected']} != {self.rejected} rejected")
        total = sum(counters.values())
        if total != self._counted:
            self._counted = total
            for name, point in _COUNTED.items():
                if counters[name]:
                    self.world.sometimes[point] += 1

    def _end(self, peer: bytes) -> None:
        tap = self.peers.pop(peer, None)
        if tap is not None and tap.agent is not None:
            tap.agent.offered = False
            tap.agent.session_ns = self.world.now

    def _received(self, event: Received, rejected: set[bytes]) -> None:
        envelope = event.envelope
        message = envelope.message
        if isinstance(message, m.Hello):
            self._hello(event, message)
            return
        tap = self.peers.get(event.peer)
        if tap is None:
            return
        verdict = tap.sequence.judge(envelope.session, envelope.number)
        if verdict is Verdict.RESYNC:
            self._end(event.peer)
        elif verdict is Verdict.TAKE:
            self._taken(event, tap, message, rejected)

    def _hello(self, event: Received, hello: m.Hello) -> None:
        peer, tap = event.peer, self.peers.get(event.peer)
        answers = self._answers.get(peer) or deque()
        before = self.hellos[peer] if peer in self._greeted else None
        if self._greetings.is_repeated(event, hello, before, tap, len(answers)):
            self.world.hit("HELLO that was repeated")
            return
        answer = answers.popleft() if answers else None
        if isinstance(answer, m.Refused):
            # A session that it has goes on.
            self.world.hit(f"REFUSED {answer.code}")
            if hello.role == "agent" and answer.wait_ms:
                wait_ns = answer.wait_ms * MS * 5 // 4 + PROBE_NS
                until_ns = min(self.world.now + wait_ns, self.first_ns + RECOVERY_MAX_NS)
                self.until_ns = max(self.until_ns, until_ns)
            return
        self._end(peer)
        for other, known in list(self.peers.items()):
            if known.instance == hello.instance:
                self._end(other)
                self.world.hit("HELLO of a peer that the broker still knew")
        self.hellos[peer] = hello
        self._greeted.add(peer)
        if self.world.now < self.first_ns:
            self.first_ns = self.world.now
            self.until_ns = max(self.until_ns, self.first_ns + RECOVERY_NS)
        if hello.role == "agent":
            agent = self.agents.get(hello.instance)
            if agent is None:
                agent = self.agents[hello.instance] = AgentTap(hello.name, hello.instance)
            agent.read_ns = agent.session_ns = self.world.now

    # --- What was taken in ------------------------------------------------------------------------

    def _taken(
        self, event: Received, tap: PeerTap, message: m.Message, rejected: set[bytes]
    ) -> None:
        judge = self.judge
        assert judge is not None
        if tap.agent is not None:
            tap.agent.read_ns = self.world.now
            if isinstance(message, m.Offer):
                self._on_offer(tap.agent, message)
            elif isinstance(message, m.Result):
                self._on_result(event.envelope, tap.agent, message)
            elif isinstance(message, m.Goodbye):
                tap.agent.left = True
                self._end(event.peer)
            return
        self.truth.heard_ns[tap.who] = self.world.now
        if isinstance(message, m.Submit):
            judge.on_submit(tap, message, rejected)
            if self.durable is not None:
                taken = [item for item in message.items if item[0] not in rejected]
                tickets = [self.truth.of_payload(item[2], item[0]) for item in taken]
                self.durable.on_submit(tap.sequence.session, event.envelope.number, tickets)
        elif isinstance(message, m.Cancel):
            judge.on_cancel(message)
        elif isinstance(message, m.Goodbye):
            self._end(event.peer)

    def _on_result(self, envelope: Envelope, agent: AgentTap, message: m.Result) -> None:
        judge = self.judge
        assert judge is not None
        done: list[tuple[Ticket, Sent]] = []
        for item in message.items:
            self.world.hit(f"RESULT {m.OUTCOMES[item[2]]}")
            found = agent.open.pop((item[0], item[1]), None)
            if found is None:
                self.world.hit("RESULT of an attempt that is not open")
                continue
            found[1].taken_in, found[1].taken_ns = self.epoch, self.world.now
            judge.on_result(found[0], item[1], item[2])
            if item[2] == m.RETURNED:
                judge.on_returned(found[0])
            elif item[2] == m.DONE:
                done.append(found)
        if self.durable is not None:
            self.durable.on_results(envelope.session, envelope.number, done)

    def _on_offer(self, agent: AgentTap, offer: m.Offer) -> None:
        if (offer.slots, offer.draining) != (agent.slots, agent.draining):
            agent.changed_ns = self.world.now
        agent.slots = offer.slots
        agent.draining = offer.draining
        agent.queues = frozenset(offer.queues)
        agent.offered = True
        if offer.functions is not None:
            agent.functions = frozenset(name for name, _ in offer.functions)
        if offer.held is None:
            return
        self.adoption.on_held(agent, offer.held)

    # --- What was said ----------------------------------------------------------------------------

    def performed(self, broker: BrokerNode, effect: Effect) -> None:
        """An effect of the turn."""
        judge = self.judge
        assert judge is not None
        if isinstance(effect, Log):
            self._log(effect.text)
            return
        if isinstance(effect, Append):
            assert self.durable is not None
            self.durable.on_append(broker.core, effect)
            return
        if isinstance(effect, NoteAgent):
            return
        message = effect.message
        if type(message) is m.Heartbeat:
            return
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
            if not self._has_sent and broker.life > 1:
                self.world.took("broker start to its first RUN", self.world.now - broker.started_ns)
            self._has_sent = True
            if len(message.items) > tap.agent.slots:
                self.world.hit("broker sends work ahead")
            judge.on_run(tap, [(i[0], i[1], i[2], i[3]) for i in message.items])
        elif isinstance(message, m.Terminal):
            judge.on_terminal(tap, message)
        elif self.durable is not None and isinstance(message, m.Accepted):
            self.durable.on_accepted(effect.session, message.upto)
        elif self.durable is not None and isinstance(message, m.Ack):
            self.durable.on_acknowledged(effect.session, message.upto)
        elif isinstance(message, m.Recall):
            self.world.hit("broker recalls work ahead")
        elif isinstance(message, m.Cancel):
            self.world.hit("broker tells an agent to stop an attempt")
            self.adoption.on_stop(message)
        elif isinstance(message, m.Rejected):
            for item in message.items:
                self.world.hit(f"REJECTED {item[1]}")
        elif isinstance(message, m.Notice):
            self.world.hit(f"NOTICE {message.code}")

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
                    # Before its client claimed it nobody else could get it.
                    sent.given_up_in = self.epoch if self.epoch in ticket.accepted else 0
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


# Legal in the table of the task machine, and never made: what waits has nothing to be lost with.
IMPOSSIBLE: Final = frozenset({("queued", "lose")})

_COUNTED: Final = {
    name: f"counter {name}"
    for name in (
        "attempts_adopted",
        "attempts_stale",
        "messages_forbidden",
        "messages_quarantined",
        "messages_repeated",
        "messages_unknown_peer",
        "results_stale",
        "sessions_out_of_step",
        "sessions_silent",
        "stalls",
        "tasks_conflicting",
        "violations",
    )
}
