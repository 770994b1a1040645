"""A small world around a `BrokerCore`: peers without sockets, and a clock that is told.

Rules of this file: no assertions about a single test. What must hold always is checked here, after
every step: the core's own recount, the numbering of each session, one unchanging end per task, and
attempts whose numbers only grow.
"""

from __future__ import annotations

import random
from collections.abc import Sequence as Items
from typing import Final

from evener_broker.core import BrokerCore
from evener_broker.effects import Append, Effect, Log, NoteAgent
from evener_broker.events import Event
from evener_broker.records import Task
from evener_broker.roster import Notes, Roster
from evener_broker.tables import Bounds
from evener_wire import messages as m
from evener_wire.codec import decode, encode
from evener_wire.limits import HEARTBEAT_NS, MILLISECOND_NS, SECOND_NS
from tests.unit.broker.fake_journal import FakeJournal
from tests.unit.broker.peers import CALL, VALUE, Agent, Client, Peer, Told, options, task_id

__all__ = ["CALL", "VALUE", "Agent", "Client", "Peer", "Told", "World", "options", "task_id"]

START_NS: Final = 1_000 * SECOND_NS


class World:
    """A broker core, its peers, and the time."""

    def __init__(
        self,
        *,
        epoch: int = 1,
        seed: int = 0,
        bounds: Bounds | None = None,
        journal: FakeJournal | None = None,
        notes: Notes | None = None,
    ) -> None:
        self.now_ns = START_NS
        self.peers: list[Peer] = []
        self.logs: list[Log] = []
        self.bounds = bounds
        self.journal = journal
        self.notes = notes
        # What it noted for the broker after it.
        self.noted: list[NoteAgent] = []
        self.seed = seed
        self.core = self._core(epoch)
        self.fences: dict[bytes, int] = {}
        self.once: set[bytes] = set()
        # What every step sent, if a test asks for it.
        self.trace: list[Effect] | None = None

    def _core(self, epoch: int) -> BrokerCore:
        contents = None
        if self.journal is not None:
            contents = self.journal.contents()
            self.journal.epoch = epoch
        broker, rng = epoch.to_bytes(16, "big"), random.Random(self.seed)
        roster = None if self.notes is None else Roster(self.notes)
        return BrokerCore(broker, epoch, rng, self.bounds, {"pid": 1}, contents, roster)

    # --- Peers ------------------------------------------------------------------------------------

    def client(self, name: str = "client") -> Client:
        """A client with a session."""
        client = Client(self, name)
        client.hello()
        return client

    def agent(
        self,
        name: str = "agent",
        slots: int = 1,
        functions: Items[str] = ("demo.add",),
        queues: Items[str] = ("default",),
        registered: m.Options | None = None,
        shares: Items[tuple[str, int]] = (),
    ) -> Agent:
        """An agent with a session that told what it offers."""
        agent = Agent(self, name)
        agent.slots, agent.queues = slots, tuple(queues)
        agent.functions = [(function, registered) for function in functions]
        agent.shares = tuple(shares)
        agent.hello()
        agent.offer(held=())
        return agent

    def new_connection(self) -> bytes:
        """The name of a connection that nobody had before."""
        self._connections = getattr(self, "_connections", 0) + 1
        return self._connections.to_bytes(5, "big")

    # --- Time and steps ---------------------------------------------------------------------------

    def turn(self, *events: Event) -> Told:
        """One step of the core at the present time; returns what it said to whom, in order."""
        effects = self.core.step(self.now_ns, list(events))
        self.core.check()
        if self.trace is not None:
            self.trace += effects
        told: Told = []
        for effect in effects:
            if isinstance(effect, Log):
                self.logs.append(effect)
                continue
            if isinstance(effect, NoteAgent):
                self.noted.append(effect)
                continue
            if isinstance(effect, Append):
                assert self.journal is not None
                self.journal.append(effect)
                continue
            assert effect.after <= (0 if self.journal is None else self.journal.committed), effect
            # What is sent can be received: it passes the codec, with its bounds.
            frames = encode(effect.message, effect.session, effect.number)
            assert decode(frames).number == effect.number
            for peer in self.peers:
                if peer.connection == effect.peer:
                    peer.receive(effect)
                    told.append((peer, effect.message))
        self._check_attempts(told)
        if self.journal is not None and self.journal.auto and self.journal.pending:
            told += self.turn(*self.journal.commit())
        return told

    def commit(self, most: int | None = None) -> Told:
        """The journal wrote what it was given, or the first few transactions of it."""
        assert self.journal is not None
        return self.turn(*self.journal.commit(most))

    def fail(self, *, written: bool = False, unknown: bool = False) -> Told:
        """The journal could not write, or cannot say whether it could."""
        assert self.journal is not None
        return self.turn(self.journal.fail(written=written, unknown=unknown))

    def pass_ms(self, ms: float, *, silent: Items[Peer] = ()) -> Told:
        """Let time pass; peers that are not silent send their heartbeats. Theirs are left out."""
        end_ns = self.now_ns + int(ms * MILLISECOND_NS)
        told: Told = []
        while True:
            speaking = [p for p in self.peers if p.sequence is not None and p not in silent]
            beats = [peer.beat_ns for peer in speaking]
            wake_at = self.core.wake_at()
            wake = [] if wake_at is None else [max(wake_at, self.now_ns)]
            self.now_ns = min([end_ns, *beats, *wake])
            due = [peer for peer in speaking if peer.beat_ns <= self.now_ns]
            events = [peer.envelope(peer.heartbeat()) for peer in due]
            for peer in due:
                peer.beat_ns = self.now_ns + HEARTBEAT_NS
            told += [pair for pair in self.turn(*events) if type(pair[1]) is not m.Heartbeat]
            wake_at = self.core.wake_at()
            if self.now_ns >= end_ns and (wake_at is None or wake_at > end_ns):
                return told

    def stand_still_ms(self, ms: float) -> None:
        """Time passes, and the broker does not run."""
        self.now_ns += int(ms * MILLISECOND_NS)
        for peer in self.peers:
            peer.beat_ns = max(peer.beat_ns, self.now_ns)

    def restart(self, epoch: int | None = None) -> None:
        """Another broker process takes over the address; it knows nothing."""
        self.core = self._core(epoch or self.core.tables.epoch + 1)
        for peer in self.peers:
            peer.sequence = None

    # --- What must hold always --------------------------------------------------------------------

    def _check_attempts(self, told: Told) -> None:
        for _, message in told:
            if type(message) is not m.Run:
                continue
            for item in message.items:
                subject, fence = item[0], item[1]
                assert fence > self.fences.get(subject, 0), "a token was issued twice (I9)"
                self.fences[subject] = fence
                assert m.epoch_of(fence) == self.core.tables.epoch
                task = self.core.tables.tasks.get(subject)
                if task is not None and task.options.at_most_once:
                    assert subject not in self.once, "dispatched twice (I15)"
                    self.once.add(subject)
        holders = [i for agent in self.core.tables.agents.values() for i in agent.open]
        assert len(holders) == len(set(holders)), "two open attempts (I7)"
        for agent in self.core.tables.agents.values():
            assert agent.held() <= max(agent.slots, 1) * 513

    # --- Looking inside ---------------------------------------------------------------------------

    def task(self, number: int) -> Task:
        """The broker's record of the n-th task."""
        return self.core.tables.tasks[task_id(number)]

    def state(self, number: int) -> str:
        """The state of the n-th task, "taken" once its client has the end, or "forgotten"."""
        task = self.core.tables.tasks.get(task_id(number))
        if task is None:
            return "forgotten"
        return "taken" if task.taken else task.state.value

    def counter(self, name: str) -> int:
        """A counter of the broker."""
        return self.core.tables.counters[name]

    def texts(self, level: str) -> list[str]:
        """What the broker logged at a level."""
        return [log.text for log in self.logs if log.level == level]
