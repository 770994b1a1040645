"""Sessions: who is connected, who went silent, who comes back.

A session belongs to a connection and dies with it; the client or agent behind it lives on for a
while. Silence counts in broker-live time: when the broker itself stood still, nobody is blamed for
it. Changes: sessions, the session field of clients and agents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from evener_broker.arrivals import Arrivals
from evener_broker.events import Peer
from evener_broker.facts import kept
from evener_broker.placing import Placing
from evener_broker.records import Agent, Client, Session
from evener_broker.recovery import Recovery
from evener_broker.reports import ask_again
from evener_broker.retention import Retention
from evener_broker.schedule_records import SCHEDULER
from evener_broker.tables import Tables
from evener_wire import messages as m
from evener_wire.limits import (
    AGENTS_MAX,
    CLIENT_AWAY_NS,
    CLIENTS_MAX,
    HEARTBEAT_NS,
    HELLO_FACTS_BYTES_MAX,
    HELLO_REPEATED_NS,
    MILLISECOND_NS,
    PROBE_NS,
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    RECONNECT_GRACE_NS,
    SESSIONS_MAX,
    SILENCE_NS,
)
from evener_wire.session import Sequence

_SESSION_BITS: Final = 62

# Heartbeats leave at multiples of this, a little early, so that those of many peers share a turn.
# Longer: more messages at once. Shorter: a turn of its own for each idle peer, each second.
_BEAT_GRID_NS: Final = 50 * MILLISECOND_NS


class Sessions:
    """Caller: the broker core."""

    def __init__(
        self,
        tables: Tables,
        placing: Placing,
        retention: Retention,
        recovery: Recovery,
        facts: m.Facts,
    ) -> None:
        self._tables = tables
        self._placing = placing
        self._retention = retention
        self._recovery = recovery
        self._facts = facts
        bounds = tables.bounds
        self._arrivals = Arrivals(bounds.hellos_per_second, bounds.hellos_at_once, tables.rng)

    # --- Beginning --------------------------------------------------------------------------------

    def hello(self, peer: Peer, hello: m.Hello) -> None:
        """A peer wants a session. An earlier one of the same instance ends."""
        tables = self._tables
        if self._is_repeated(peer, hello):
            tables.counters["messages_repeated"] += 1
            return
        refusal = self._refusal(hello)
        if refusal is not None:
            tables.counters["sessions_refused"] += 1
            text = f"refused {hello.role} {hello.name}: {refusal.text}"
            tables.outbox.log("warning", text, peer)
            tables.outbox.send_outside(peer, refusal)
            return
        is_agent = hello.role == "agent"
        wait_ns = self._arrivals.wait_ns(peer, hello.instance, tables.now_ns, is_agent=is_agent)
        if wait_ns:
            self._defer(peer, hello, -(-wait_ns // MILLISECOND_NS))
            return
        self._recovery.begin()
        record = self._record_of(peer, hello)
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
        record.facts = kept(hello.facts, HELLO_FACTS_BYTES_MAX)
        tables.counters["sessions_opened"] += 1
        tables.outbox.send(session, self._welcome())
        if isinstance(record, Client):
            record.closed = record.gone = False
            record.last_epoch, record.last_broker = hello.epoch, hello.broker
            tables.outbox.more_room(record)
            ask_again(tables, [tables.tasks[task_id] for task_id in record.streams])
        self._arm(session)

    def _is_repeated(self, peer: Peer, hello: m.Hello) -> bool:
        """Whether this asks for the session that its connection just got, and has not used yet.

        A peer repeats its HELLO while nobody answers; a broker that was busy finds them all at
        once. The WELCOME cannot be lost without the connection. Whoever means it says it again.
        """
        session = self._tables.sessions.get(peer)
        if session is None or session.sequence.received:
            return False
        record = session.record
        if record.instance != hello.instance or isinstance(record, Agent) != (
            hello.role == "agent"
        ):
            return False
        # As long as it says nothing it was heard last when it began.
        return self._tables.live_ns - session.heard_ns < HELLO_REPEATED_NS

    def _defer(self, peer: Peer, hello: m.Hello, wait_ms: int) -> None:
        """Too many come at once: this one shall come again. A session that it has goes on."""
        tables = self._tables
        tables.counters["sessions_deferred"] += 1
        text = "many come at the same time: say HELLO again after wait_ms"
        tables.outbox.send_outside(peer, m.Refused("retry_after", text, wait_ms))
        if hello.role == "client":
            return
        # Peers wait up to a quarter longer than they are told.
        wait_ns = (wait_ms + wait_ms // 4) * MILLISECOND_NS + PROBE_NS
        self._recovery.await_agent(tables.now_ns + wait_ns)
        agent = tables.agents.get(hello.instance)
        if agent is None or agent.session is not None:
            return
        if tables.live_ns + wait_ns > agent.left_ns + PROBE_NS:
            # It is here, and it is us who let it wait: that is not taken from its grace.
            self._begin_grace(agent, wait_ns)

    def _refusal(self, hello: m.Hello) -> m.Refused | None:
        if hello.protocol_min > PROTOCOL_MAX or hello.protocol_max < PROTOCOL_MIN:
            return m.Refused(
                "protocol",
                f"this broker speaks evener protocol {PROTOCOL_MIN} to {PROTOCOL_MAX}, the "
                f"{hello.role} speaks {hello.protocol_min} to {hello.protocol_max}: install the "
                f"same minor version of evener on both",
            )
        if hello.instance == SCHEDULER:
            return m.Refused("denied", "this instance stands for the broker's own schedules")
        short = self._tables.memory_short
        if short and hello.role == "client" and hello.instance not in self._tables.clients:
            return m.Refused("busy", short)
        if len(self._tables.sessions) >= SESSIONS_MAX:
            return m.Refused("busy", f"the broker has {SESSIONS_MAX} sessions, which is its limit")
        # Also those that are away: who makes up instances one after the other has but one session.
        is_client = hello.role == "client"
        known: Collection[bytes] = self._tables.clients if is_client else self._tables.agents
        most = CLIENTS_MAX if is_client else AGENTS_MAX
        if len(known) >= most and hello.instance not in known:
            return m.Refused("busy", f"the broker knows {most} {hello.role}s, which is its limit")
        return None

    def _record_of(self, peer: Peer, hello: m.Hello) -> Client | Agent:
        tables = self._tables
        if hello.role == "client":
            client = tables.clients.get(hello.instance)
            if client is None:
                client = Client(hello.instance, hello.name, {})
                tables.clients[hello.instance] = client
            return client
        agent = tables.agents.get(hello.instance)
        if agent is None:
            agent = tables.agents[hello.instance] = Agent(hello.instance, hello.name, {})
            tables.agent_came(agent)
            tables.outbox.log("info", f"agent {hello.name} connected", peer)
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
            tables.commits.durable,
            self._facts,
        )

    # --- Ending -----------------------------------------------------------------------------------

    def _end(self, session: Session) -> None:
        tables = self._tables
        tables.outbox.forget(session)
        tables.waiting.forget(session)
        tables.sessions.pop(session.peer, None)
        record = session.record
        record.session = None
        if isinstance(record, Agent):
            record.offered = False
            self._placing.refresh(record)

    def lose(self, session: Session) -> None:
        """The connection broke, or got out of step: the peer may come back within its grace."""
        self._end(session)
        record = session.record
        if isinstance(record, Agent):
            self._begin_grace(record, 0)
        elif record.open_tasks or record.ended_tasks:
            self.await_return(record)
        else:
            # Nothing to keep for it: clients that come and go leave no trace.
            self._forget_client(record)

    def _begin_grace(self, agent: Agent, after_ns: int) -> None:
        tables = self._tables
        agent.left_ns = tables.live_ns + after_ns
        at_ns = tables.now_ns + after_ns + RECONNECT_GRACE_NS
        tables.timers.set(at_ns, self._on_grace_over, (agent, agent.left_ns))

    def goodbye(self, session: Session, reason: str) -> None:
        """The peer leaves on purpose."""
        record = session.record
        self.lose(session)
        if isinstance(record, Agent):
            self._verdict(record, f"left ({reason})")
        else:
            record.closed = True
            self._give_up_reading(record)

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
        tables.agent_gone(agent.instance)
        tables.counters["agents_lost"] += 1
        text = f"agent {agent.name} is gone: {why}; tasks back in line: {count}"
        tables.outbox.log("warning" if count else "info", text, agent.instance)

    def await_return(self, client: Client) -> None:
        """It is away, and what it submitted is kept for it, for a while."""
        client.left_ns = self._tables.now_ns
        if not client.awaited:
            # One timer for each client, however often it comes and goes.
            self._look_after(client, client.left_ns)
        if not client.away:
            self._wait_for(client)

    def _wait_for(self, client: Client) -> None:
        """Generators of a client that is away wait for it, but not for ever."""
        client.away = True
        self._tables.timers.set(client.left_ns + CLIENT_AWAY_NS, self._on_away, client)

    def _on_away(self, client: Client) -> None:
        tables = self._tables
        client.away = False
        if client.session is not None or tables.clients.get(client.instance) is not client:
            return
        if tables.now_ns - client.left_ns < CLIENT_AWAY_NS:
            self._wait_for(client)  # it was back meanwhile, and left again
        else:
            self._give_up_reading(client)

    def _give_up_reading(self, client: Client) -> None:
        """Nobody takes what its tasks yield and write: nobody waits for it any longer."""
        tables = self._tables
        client.gone = True
        tables.outbox.forwarding.forget(client)
        ask_again(tables, [tables.tasks[task_id] for task_id in client.streams])

    def _look_after(self, client: Client, since_ns: int) -> None:
        client.awaited = True
        at_ns = since_ns + self._tables.bounds.retention_ns
        self._tables.timers.set(at_ns, self._on_retention_over, client)

    def _on_retention_over(self, client: Client) -> None:
        """Nobody came for the results of a client that is gone."""
        tables = self._tables
        client.awaited = False
        if client.session is not None or tables.clients.get(client.instance) is not client:
            return
        if tables.now_ns - client.left_ns < tables.bounds.retention_ns:
            self._look_after(client, client.left_ns)  # it was back meanwhile, and left again
            return
        if client.instance == SCHEDULER:
            return  # nobody comes, and the last end of each schedule is kept
        self._retention.unclaimed(client, client.outgoing)
        client.outgoing.clear()
        if client.open_tasks:
            self._look_after(client, tables.now_ns)
        else:
            self._forget_client(client)

    def _forget_client(self, client: Client) -> None:
        del self._tables.clients[client.instance]
        self._tables.outbox.forwarding.forget(client)
        self._tables.commits.client_gone(client)

    # --- Liveness ---------------------------------------------------------------------------------

    def _arm(self, session: Session) -> None:
        record = session.record
        busy = isinstance(record, Agent) and record.held() > 0
        self._beat_in(session, PROBE_NS if busy else HEARTBEAT_NS)

    def _beat_in(self, session: Session, wait_ns: int) -> None:
        at_ns = (self._tables.now_ns + wait_ns) // _BEAT_GRID_NS * _BEAT_GRID_NS
        session.beat_ns = at_ns
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
        self._tables.commits.acknowledge(session)
