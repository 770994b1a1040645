"""Sessions: who is connected, who went silent, who comes back.

A session belongs to a connection and dies with it; the client or agent behind it lives on for a
while. Silence counts in broker-live time: when the broker itself stood still, nobody is blamed for
it. Changes: sessions, the session field of clients and agents.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from evener_broker.events import Peer
from evener_broker.lifecycle import Lifecycle
from evener_broker.placing import Placing
from evener_broker.records import Agent, Client, Session
from evener_broker.recovery import Recovery
from evener_broker.tables import Tables
from evener_wire import messages as m
from evener_wire.limits import (
    HEARTBEAT_NS,
    MILLISECOND_NS,
    PROBE_NS,
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    RECONNECT_GRACE_NS,
    RETENTION_NS,
    SESSIONS_MAX,
    SILENCE_NS,
)
from evener_wire.session import Sequence

_SESSION_BITS: Final = 62


class Sessions:
    """Caller: the broker core."""

    def __init__(
        self,
        tables: Tables,
        placing: Placing,
        lifecycle: Lifecycle,
        recovery: Recovery,
        facts: m.Facts,
    ) -> None:
        self._tables = tables
        self._placing = placing
        self._lifecycle = lifecycle
        self._recovery = recovery
        self._facts = facts

    # --- Beginning --------------------------------------------------------------------------------

    def hello(self, peer: Peer, hello: m.Hello) -> None:
        """A peer wants a session. An earlier one of the same instance ends."""
        tables = self._tables
        refusal = self._refusal(hello)
        if refusal is not None:
            tables.counters["sessions_refused"] += 1
            tables.outbox.log("warning", f"refused {hello.role} {hello.name}: {refusal.text}")
            tables.outbox.send_outside(peer, refusal)
            return
        self._recovery.begin()
        record = self._record_of(hello)
        if record.session is not None:
            self._end(record.session)
        known = tables.sessions.get(peer)
        if known is not None:
            # Another program speaks on this connection now; the one before may come back.
            self.lose(known)
        sequence = Sequence(tables.rng.getrandbits(_SESSION_BITS) | 1 << _SESSION_BITS)
        session = Session(peer, sequence, record, tables.live_ns)
        tables.sessions[peer] = session
        record.session = session
        record.facts = hello.facts
        tables.counters["sessions_opened"] += 1
        tables.outbox.send(session, self._welcome())
        if isinstance(record, Client):
            tables.outbox.more_room(record)
        self._arm(session)

    def _refusal(self, hello: m.Hello) -> m.Refused | None:
        if hello.protocol_min > PROTOCOL_MAX or hello.protocol_max < PROTOCOL_MIN:
            return m.Refused(
                "protocol",
                f"this broker speaks evener protocol {PROTOCOL_MIN} to {PROTOCOL_MAX}, the "
                f"{hello.role} speaks {hello.protocol_min} to {hello.protocol_max}: install the "
                f"same minor version of evener on both",
            )
        if len(self._tables.sessions) >= SESSIONS_MAX:
            return m.Refused("busy", f"the broker has {SESSIONS_MAX} sessions, which is its limit")
        return None

    def _record_of(self, hello: m.Hello) -> Client | Agent:
        tables = self._tables
        if hello.role == "client":
            client = tables.clients.get(hello.instance)
            if client is None:
                client = Client(hello.instance, hello.name, hello.facts)
                tables.clients[hello.instance] = client
            return client
        agent = tables.agents.get(hello.instance)
        if agent is None:
            agent = tables.agents[hello.instance] = Agent(hello.instance, hello.name, hello.facts)
            tables.outbox.log("info", f"agent {hello.name} connected")
        return agent

    def _welcome(self) -> m.Welcome:
        tables = self._tables
        return m.Welcome(
            PROTOCOL_MAX,
            tables.epoch,
            tables.broker,
            HEARTBEAT_NS // MILLISECOND_NS,
            SILENCE_NS // MILLISECOND_NS,
            tables.bounds.client_tasks,
            tables.bounds.client_bytes,
            False,
            self._facts,
        )

    # --- Ending -----------------------------------------------------------------------------------

    def _end(self, session: Session) -> None:
        tables = self._tables
        tables.outbox.forget(session)
        tables.sessions.pop(session.peer, None)
        record = session.record
        record.session = None
        if isinstance(record, Agent):
            record.offered = False
            self._placing.refresh(record)

    def lose(self, session: Session) -> None:
        """The connection broke, or got out of step: the peer may come back within its grace."""
        self._end(session)
        tables, record = self._tables, session.record
        if isinstance(record, Agent):
            record.left_ns = tables.live_ns
            at_ns = tables.now_ns + RECONNECT_GRACE_NS
            tables.timers.set(at_ns, self._on_grace_over, (record, record.left_ns))
        elif record.open_tasks or record.ended_tasks:
            record.left_ns = tables.now_ns
            tables.timers.set(tables.now_ns + RETENTION_NS, self._on_retention_over, record)
        else:
            # Nothing to keep for it: clients that come and go leave no trace.
            del tables.clients[record.instance]

    def goodbye(self, session: Session, reason: str) -> None:
        """The peer leaves on purpose."""
        record = session.record
        self.lose(session)
        if isinstance(record, Agent):
            self._verdict(record, f"left ({reason})")

    def _on_grace_over(self, subject: tuple[Agent, int]) -> None:
        agent, since_ns = subject
        if agent.session is not None or self._tables.agents.get(agent.instance) is not agent:
            return
        if agent.left_ns != since_ns:
            return  # it was back meanwhile, and left again: that has a timer of its own
        left_ns = since_ns + RECONNECT_GRACE_NS - self._tables.live_ns
        if left_ns > 0:
            self._tables.timers.set(self._tables.now_ns + left_ns, self._on_grace_over, subject)
        else:
            self._verdict(agent, "its connection broke and it did not come back")

    def _verdict(self, agent: Agent, why: str) -> None:
        tables = self._tables
        if agent.session is not None:
            self._end(agent.session)
        count = self._recovery.verdict(agent)
        self._placing.forget(agent)
        del tables.agents[agent.instance]
        tables.counters["agents_lost"] += 1
        text = f"agent {agent.name} is gone: {why}; tasks back in line: {count}"
        tables.outbox.log("warning" if count else "info", text)

    def _on_retention_over(self, client: Client) -> None:
        """Nobody came for the results of a client that is gone."""
        tables = self._tables
        if client.session is not None or tables.clients.get(client.instance) is not client:
            return
        if tables.now_ns - client.left_ns < RETENTION_NS:
            return  # it was back meanwhile, and left again: that has a timer of its own
        self._lifecycle.forget(client, client.outgoing)
        client.outgoing.clear()
        if client.open_tasks:
            tables.timers.set(tables.now_ns + RETENTION_NS, self._on_retention_over, client)
        else:
            del tables.clients[client.instance]

    # --- Liveness ---------------------------------------------------------------------------------

    def _arm(self, session: Session) -> None:
        record = session.record
        busy = isinstance(record, Agent) and record.held() > 0
        self._beat_in(session, PROBE_NS if busy else HEARTBEAT_NS)

    def _beat_in(self, session: Session, wait_ns: int) -> None:
        at_ns = session.beat_ns = self._tables.now_ns + wait_ns
        self._tables.timers.set(at_ns, self._on_beat, (session, at_ns))

    def watch_closely(self, agents: Iterable[Agent]) -> None:
        """These agents just got work: from now on they are probed more often than the idle."""
        soon_ns = self._tables.now_ns + PROBE_NS
        for agent in agents:
            session = agent.session
            if session is not None and session.beat_ns > soon_ns:
                self._beat_in(session, PROBE_NS)

    def _on_beat(self, subject: tuple[Session, int]) -> None:
        """Time to look at a session: is the peer silent, does it want to hear from us?"""
        session, at_ns = subject
        tables = self._tables
        if tables.sessions.get(session.peer) is not session or session.beat_ns != at_ns:
            return
        silent_ns = tables.live_ns - session.heard_ns
        if silent_ns >= SILENCE_NS:
            tables.counters["sessions_silent"] += 1
            record = session.record
            if isinstance(record, Agent):
                self._verdict(record, f"silent for {silent_ns / 1e9:.1f} s")
            else:
                self.lose(session)
            return
        # Every send is also a probe: it fails at once when the peer's process is gone.
        tables.outbox.send(session, m.Heartbeat())
        self._arm(session)

    def acknowledge(self, session: Session, wait_ns: int, most: int) -> None:
        """RESULTs came: acknowledge them soon, or at once when many wait."""
        session.unacked += 1
        if session.unacked >= most:
            self._acknowledge_now(session)
        elif not session.ack_due:
            session.ack_due = True
            self._tables.timers.set(self._tables.now_ns + wait_ns, self._on_ack_due, session)

    def _on_ack_due(self, session: Session) -> None:
        session.ack_due = False
        if session.unacked and self._tables.sessions.get(session.peer) is session:
            self._acknowledge_now(session)

    def _acknowledge_now(self, session: Session) -> None:
        session.unacked = 0
        self._tables.outbox.send(session, m.Ack(session.sequence.received))
