"""The tables of the broker: tasks, functions, clients, agents. Data, and the sums kept over them.

Rules of this file: one slotted class per thing, no decisions. Whoever changes a field that is
summed elsewhere changes the sum in the same method; `BrokerCore.check` recounts them all.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

from evener_broker.events import Peer
from evener_broker.transitions import State
from evener_wire import messages as m
from evener_wire.session import Sequence

# How fast the estimate of a function's run time follows: new = old + (measured - old) / 4.
_ESTIMATE_SHARE: Final = 4

# What an attempt takes of a worker's time at least: hand-over and result.
_ESTIMATE_MIN_NS: Final = 5_000


class Credit(Enum):
    """What an agent may get now: work for a free worker, work ahead of one, or nothing."""

    NONE = "none"
    IDLE = "idle"
    AHEAD = "ahead"


class Function:
    """A function by name: who offers it, and how long it runs."""

    __slots__ = (
        "agents",
        "by_value",
        "ended",
        "estimate_ns",
        "failed",
        "name",
        "options",
        "run_total_us",
        "runs",
    )

    def __init__(self, name: str) -> None:
        self.name: Final = name
        # Functions shipped inside the payload run on every worker.
        self.by_value: Final = name.startswith("~")
        self.agents: set[Agent] = set()
        self.options = m.DEFAULT_OPTIONS
        self.estimate_ns: int | None = None
        self.runs = 0
        self.run_total_us = 0
        self.failed = 0
        self.ended = 0

    def observe(self, runs: int, total_us: int) -> None:
        """Take note of how long some runs took together."""
        self.runs += runs
        self.run_total_us += total_us
        old = self.estimate_ns
        new = total_us * 1_000 // runs
        followed_ns = new if old is None else old + (new - old) // _ESTIMATE_SHARE
        self.estimate_ns = max(followed_ns, _ESTIMATE_MIN_NS)

    def __repr__(self) -> str:
        return f"<Function {self.name}, {self.runs} runs>"


class Tries:
    """What went wrong, or out of the ordinary, with one task. Most tasks never need one."""

    __slots__ = (
        "cancelling",
        "deadline_ns",
        "expires_ns",
        "facts",
        "failures",
        "recalled",
        "returns",
        "starts",
    )

    def __init__(self) -> None:
        self.starts = 0  # attempts that took their worker down
        self.failures = 0  # attempts that raised, or ran too long
        self.returns = 0  # attempts that vanished with their agent, perhaps never started
        self.cancelling = False
        self.recalled = False
        self.deadline_ns = 0  # when it must have ended, if the client set a deadline
        self.expires_ns = 0  # until when it may wait, if that is limited and it never started
        self.facts: m.Facts | None = None


# Shared by all tasks without an own one; nobody writes to it (`check` sees to that).
UNTRIED: Final = Tries()


class Task:
    """One unit of work, from acceptance until the client acknowledged its end."""

    __slots__ = (
        "agent",
        "charge_ns",
        "client",
        "digest",
        "fence",
        "function",
        "id",
        "number",
        "options",
        "payload",
        "since_ns",
        "state",
        "tries",
    )

    def __init__(
        self,
        task_id: bytes,
        function: Function,
        payload: m.Payload,
        options: m.Options,
        client: Client,
        number: int,
        now_ns: int,
        state: State,
        fence: int,
    ) -> None:
        self.id: Final = task_id
        self.function: Final = function
        self.options: Final = options
        self.client: Final = client
        # The acceptance number: its place in the queue for ever.
        self.number: Final = number
        # The call, until the task ended; then the result, until the client has it.
        self.payload = payload
        # Of the call, once the result took its place.
        self.digest = 0
        self.state = state
        self.since_ns = now_ns
        # Of the last attempt; one more for the next. 0 while an earlier broker may have started it
        # and we wait to hear of that.
        self.fence = fence
        self.agent: Agent | None = None
        # What this attempt adds to its agent's work in hand.
        self.charge_ns = 0
        self.tries = UNTRIED

    def own_tries(self) -> Tries:
        """The record of what went wrong, to write to."""
        if self.tries is UNTRIED:
            self.tries = Tries()
        return self.tries

    def __repr__(self) -> str:
        return f"<Task {self.function.name}[{self.id.hex()[:8]}] {self.state.value}>"


class Client:
    """A program that submits tasks, known by its instance; it outlives its connections."""

    __slots__ = (
        "bytes",
        "ended_tasks",
        "facts",
        "flights",
        "instance",
        "left_ns",
        "name",
        "open_tasks",
        "outgoing",
        "session",
    )

    def __init__(self, instance: bytes, name: str, facts: m.Facts) -> None:
        self.instance: Final = instance
        self.name = name
        self.facts = facts
        self.session: Session | None = None
        # When its last session broke, while it has none.
        self.left_ns = 0
        self.open_tasks = 0
        # Payload bytes of all its tasks, open and ended.
        self.bytes = 0
        # Tasks that ended and are not acknowledged: those to be told, and those told, by message.
        self.ended_tasks = 0
        self.outgoing: deque[Task] = deque()
        self.flights: deque[tuple[int, list[Task]]] = deque()

    def __repr__(self) -> str:
        return f"<Client {self.name}, {self.open_tasks} open, {self.ended_tasks} unfetched>"


class Agent:
    """The agent of one host, and through it its workers."""

    __slots__ = (
        "credit",
        "draining",
        "facts",
        "functions",
        "in_hand_ns",
        "instance",
        "left_ns",
        "lost",
        "name",
        "offered",
        "open",
        "orphans",
        "queues",
        "run_bytes",
        "run_items",
        "session",
        "slots",
        "workers",
    )

    def __init__(self, instance: bytes, name: str, facts: m.Facts) -> None:
        self.instance: Final = instance
        self.name = name
        self.facts = facts
        self.session: Session | None = None
        # When its last session broke, in broker-live time, while it has none.
        self.left_ns = 0
        # Whether it told, in this session, what it can do and what it holds. Work sent before that
        # would cross its inventory, and look as if it had never arrived.
        self.offered = False
        self.slots = 0
        self.draining = False
        self.lost = False
        self.queues: tuple[str, ...] = ()
        self.functions: frozenset[Function] = frozenset()
        # Attempts of ours, and attempts of an earlier broker that nobody claimed yet.
        self.open: dict[bytes, Task] = {}
        self.orphans: dict[bytes, int] = {}
        self.in_hand_ns = 0
        self.credit = Credit.NONE
        self.run_items: list[tuple[bytes, int, str, m.Payload, int, int]] = []
        self.run_bytes = 0
        self.workers: tuple[m.Facts, ...] = ()

    def held(self) -> int:
        """How many attempts it has in hand."""
        return len(self.open) + len(self.orphans)

    def __repr__(self) -> str:
        return f"<Agent {self.name}, {self.slots} slots, {len(self.open)} open>"


class Session:
    """One connection of a client or an agent. `heard_ns` is broker-live time."""

    __slots__ = (
        "accepted_due",
        "ack_due",
        "beat_ns",
        "heard_ns",
        "peer",
        "record",
        "sequence",
        "unacked",
    )

    def __init__(
        self, peer: Peer, sequence: Sequence, record: Client | Agent, live_ns: int
    ) -> None:
        self.peer: Final = peer
        self.sequence: Final = sequence
        self.record: Final = record
        self.heard_ns = live_ns
        # When the peer is next looked at, and hears from us.
        self.beat_ns = 0
        # Whether a SUBMIT waits for its ACCEPTED; how many RESULTs wait for their ACK.
        self.accepted_due = False
        self.ack_due = False
        self.unacked = 0

    def __repr__(self) -> str:
        return f"<Session {self.record.name} of {self.peer.hex()}>"
