"""A small world around a `BrokerCore`: peers without sockets, and a clock that is told.

Rules of this file: no assertions about a single test. What must hold always is checked here, after
every step: the core's own recount, the numbering of each session, one unchanging end per task, and
attempts whose numbers only grow.
"""

from __future__ import annotations

import random
from collections.abc import Sequence as Items
from typing import Any, Final, TypeVar

from evener_broker.core import BrokerCore
from evener_broker.effects import Effect, Log, Send
from evener_broker.events import Event, Malformed, PeerGone, Received
from evener_broker.records import Agent as AgentRecord
from evener_broker.records import Task
from evener_broker.tables import Bounds
from evener_wire import messages as m
from evener_wire.codec import Envelope, decode, encode
from evener_wire.limits import HEARTBEAT_NS, MILLISECOND_NS, SECOND_NS
from evener_wire.session import Sequence, Verdict

CALL: Final = b"\x92\x90\xc0"
VALUE: Final = b"\x91\x03"
START_NS: Final = 1_000 * SECOND_NS

Told = list[tuple["Peer", m.Message]]
RunItem = tuple[bytes, int, str, m.Payload, int, int]
M = TypeVar("M", bound=m.Message)


def task_id(number: int) -> bytes:
    """The id of the n-th task of a test."""
    return number.to_bytes(16, "big")


def options(**chosen: Any) -> m.Options:
    """Options that differ from the defaults in what is named."""
    return m.Options(**chosen)


class World:
    """A broker core, its peers, and the time."""

    def __init__(self, *, epoch: int = 1, seed: int = 0, bounds: Bounds | None = None) -> None:
        self.now_ns = START_NS
        self.peers: list[Peer] = []
        self.logs: list[Log] = []
        self.bounds = bounds
        self.seed = seed
        self.core = self._core(epoch)
        self.fences: dict[bytes, int] = {}
        self.once: set[bytes] = set()
        # What every step sent, if a test asks for it.
        self.trace: list[Effect] | None = None

    def _core(self, epoch: int) -> BrokerCore:
        return BrokerCore(
            epoch.to_bytes(16, "big"), epoch, random.Random(self.seed), self.bounds, {"pid": 1}
        )

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
    ) -> Agent:
        """An agent with a session that told what it offers."""
        agent = Agent(self, name)
        agent.slots, agent.queues = slots, tuple(queues)
        agent.functions = [(function, registered) for function in functions]
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
            # What is sent can be received: it passes the codec, with its bounds.
            frames = encode(effect.message, effect.session, effect.number)
            assert decode(frames).number == effect.number
            for peer in self.peers:
                if peer.connection == effect.peer:
                    peer.receive(effect)
                    told.append((peer, effect.message))
        self._check_attempts(told)
        return told

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
        """The state of the n-th task, or "forgotten"."""
        task = self.core.tables.tasks.get(task_id(number))
        return "forgotten" if task is None else task.state.value

    def counter(self, name: str) -> int:
        """A counter of the broker."""
        return self.core.tables.counters[name]

    def texts(self, level: str) -> list[str]:
        """What the broker logged at a level."""
        return [log.text for log in self.logs if log.level == level]


class Peer:
    """What clients and agents have in common: a connection, a session, and what they were told."""

    role: m.Role

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.instance = name.encode().ljust(16, b"-")[:16]
        self.connection = world.new_connection()
        self.sequence: Sequence | None = None
        self.inbox: list[m.Message] = []
        self.beat_ns = 0
        world.peers.append(self)

    def __repr__(self) -> str:
        return self.name

    def envelope(self, message: m.Message) -> Received:
        """The event that this message makes at the broker, with the next number."""
        assert self.sequence is not None, f"{self.name} has no session"
        number = self.sequence.next_number()
        return Received(self.connection, Envelope(self.sequence.session, number, message))

    def say(self, *said: m.Message) -> Told:
        """Send messages; the broker takes them in one step."""
        return self.world.turn(*map(self.envelope, said))

    def hello_event(self, versions: tuple[int, int] = (1, 1)) -> Received:
        """HELLO as an event."""
        hello = m.Hello(*versions, self.role, self.instance, self.name, 0, bytes(16), {"pid": 7})
        return Received(self.connection, Envelope(0, 0, hello))

    def hello(self) -> Told:
        """Ask for a session on the present connection."""
        self.beat_ns = self.world.now_ns + HEARTBEAT_NS
        return self.world.turn(self.hello_event())

    def vanish(self) -> Told:
        """The connection breaks, and the broker notices at its next send."""
        self.sequence = None
        return self.world.turn(PeerGone(self.connection))

    def move(self) -> None:
        """A new connection, without a session yet; the broker knows nothing of it."""
        self.connection = self.world.new_connection()
        self.sequence = None

    def garble(self) -> Told:
        """Bytes that are no message."""
        return self.world.turn(Malformed(self.connection, "head is not msgpack"))

    def heartbeat(self) -> m.Heartbeat:
        """What this peer says when it has nothing to say."""
        return m.Heartbeat()

    def receive(self, effect: Send) -> None:
        """One message from the broker: it fits the session's numbering, and is kept."""
        if type(effect.message) is m.Welcome:
            self.sequence = Sequence(effect.session)
        if effect.session == 0:
            assert effect.number == 0
            if type(effect.message) in (m.Resync, m.Refused):
                self.sequence = None
        elif self.sequence is not None:
            assert self.sequence.judge(effect.session, effect.number) is Verdict.TAKE
        self.inbox.append(effect.message)

    def got(self, kind: type[M]) -> list[M]:
        """The messages of one kind that came since the last look; all others are dropped."""
        inbox, self.inbox = self.inbox, []
        return [message for message in inbox if type(message) is kind]


class Client(Peer):
    """A program that submits tasks."""

    role: m.Role = "client"

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        # How each task ended. Repeats must say the same (I1, I2).
        self.ends: dict[bytes, tuple[bytes, int, m.Payload, m.Facts | None]] = {}
        self.last_terminal = 0

    def submit(
        self,
        *numbers: int,
        function: str = "demo.add",
        payload: m.Payload = CALL,
        again: bool = False,
        **chosen: Any,
    ) -> Told:
        """Submit tasks in one message, all alike."""
        wanted = options(**chosen) if chosen else None
        items = [(task_id(number), function, payload, wanted) for number in numbers]
        return self.say(m.Submit(items, again))

    def cancel(self, *numbers: int) -> Told:
        """Cancel tasks."""
        return self.say(m.Cancel([(task_id(number), 0) for number in numbers]))

    def acknowledge(self) -> Told:
        """Say that all ends told so far are taken."""
        return self.say(m.Ack(self.last_terminal))

    def receive(self, effect: Send) -> None:
        super().receive(effect)
        if type(effect.message) is m.Terminal:
            self.last_terminal = effect.number
            for item in effect.message.items:
                assert self.ends.setdefault(item[0], item) == item, "an end changed (I1, I2)"

    def end(self, number: int) -> str:
        """How a task ended, as a word, or "open"."""
        item = self.ends.get(task_id(number))
        return "open" if item is None else m.TERMINAL_STATES[item[1]]

    def facts(self, number: int) -> dict[str, Any]:
        """The facts of a task's end."""
        return dict(self.ends[task_id(number)][3] or {})


class Agent(Peer):
    """The agent of a host. It runs nothing: each test says how attempts end."""

    role: m.Role = "agent"

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.slots = 1
        self.queues: tuple[str, ...] = ("default",)
        self.functions: list[tuple[str, m.Options | None]] = []
        # Attempts in hand, in the order in which they came.
        self.hand: dict[bytes, RunItem] = {}

    @property
    def record(self) -> AgentRecord:
        """What the broker knows of it."""
        return self.world.core.tables.agents[self.instance]

    def offer(
        self,
        *,
        held: Items[tuple[bytes, int]] | None = None,
        slots: int | None = None,
        draining: bool = False,
    ) -> Told:
        """Say what its workers can do; `held` only in the first OFFER of a session."""
        self.slots = self.slots if slots is None else slots
        functions = self.functions if held is not None else None
        return self.say(m.Offer(self.slots, draining, self.queues, functions, held))

    def held(self) -> list[tuple[bytes, int]]:
        """What it would report: every attempt in hand."""
        return [(item[0], item[1]) for item in self.hand.values()]

    def come_back(self) -> Told:
        """A new connection, HELLO, and the inventory."""
        self.move()
        return self.hello() + self.offer(held=self.held())

    def numbers(self) -> list[int]:
        """Which tasks it has in hand."""
        return [int.from_bytes(subject, "big") for subject in self.hand]

    def fence(self, number: int) -> int:
        """The fence of the attempt in hand."""
        return self.hand[task_id(number)][1]

    def result(
        self,
        number: int,
        outcome: int = m.DONE,
        payload: m.Payload = b"",
        run_us: int = 100,
        facts: m.Facts | None = None,
    ) -> m.Result:
        """The RESULT of an attempt in hand, which it lets go of."""
        subject, fence = self.hand.pop(task_id(number))[:2]
        return m.Result([(subject, fence, outcome, payload, run_us, facts)])

    def done(self, *numbers: int, run_us: int = 100) -> Told:
        """Attempts return a value, all in one message."""
        items = [self.result(n, payload=VALUE, run_us=run_us).items[0] for n in numbers]
        return self.say(m.Result(items))

    def ends(self, number: int, outcome: int, facts: m.Facts | None = None) -> Told:
        """An attempt ends in another way."""
        return self.say(self.result(number, outcome, facts=facts))

    def starts(self, *numbers: int) -> Told:
        """Say that attempts run."""
        return self.say(m.Started([(task_id(n), self.fence(n)) for n in numbers]))

    def receive(self, effect: Send) -> None:
        super().receive(effect)
        if type(effect.message) is m.Run:
            for item in effect.message.items:
                self.hand[item[0]] = item
