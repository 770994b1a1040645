"""The tables of the broker: tasks, functions, clients, agents. Data, and the sums kept over them.

Rules of this file: one slotted class per thing, no decisions. Whoever changes a field that is
summed elsewhere changes the sum in the same method; `BrokerCore.check` recounts them all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Final

from evener_broker.histogram import Histogram
from evener_broker.session_records import Session as Session
from evener_broker.transitions import Cause, State
from evener_wire import messages as m

if TYPE_CHECKING:
    from evener_broker.lines import Queue
    from evener_broker.reports import Report

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
    """A function by name: who offers it, how long it runs, and what became of its tasks."""

    __slots__ = (
        "accepted",
        "agents",
        "by_value",
        "cancelled",
        "ended",
        "estimate_ns",
        "expired",
        "failed",
        "lost",
        "name",
        "options",
        "run_times",
        "run_total_us",
        "runs",
        "waits",
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
        # One run stands for all of a batch, and one wait for all that are handed out together.
        self.run_times: Final = Histogram()
        self.waits: Final = Histogram()
        # Tasks since this broker began, and how many of them ended, and how many of those not well.
        self.accepted = 0
        self.ended = 0
        self.failed = 0
        self.cancelled = 0
        self.expired = 0
        self.lost = 0

    def note_end(self, cause: Cause) -> None:
        """One of its tasks ended, and was not done."""
        if cause is Cause.FAIL:
            self.failed += 1
        elif cause is Cause.CANCEL:
            self.cancelled += 1
        elif cause is Cause.EXPIRE:
            self.expired += 1
        else:
            self.lost += 1

    def observe(self, runs: int, total_us: int, one_us: int) -> None:
        """Take note of how long some runs took together, and one of them."""
        self.run_times.note(one_us, runs)
        self.runs += runs
        self.run_total_us += total_us
        old = self.estimate_ns
        new = total_us * 1_000 // runs
        followed_ns = new if old is None else old + (new - old) // _ESTIMATE_SHARE
        self.estimate_ns = max(followed_ns, _ESTIMATE_MIN_NS)

    def __repr__(self) -> str:
        return f"<Function {self.name}, {self.runs} runs>"


# What the end of a generator says if values of its last attempt were taken for an absent client.
VALUES_DROPPED: Final = {"values_dropped": True}


class Tries:
    """What went wrong, or out of the ordinary, with one task. Most tasks never need one."""

    __slots__ = (
        "again_ns",
        "call",
        "cancelled_ns",
        "cancelling",
        "deadline_ns",
        "dispatched",
        "expires_ns",
        "facts",
        "failures",
        "last",
        "recalled",
        "returns",
        "settled",
        "starts",
    )

    def __init__(self) -> None:
        self.starts = 0  # attempts that took their worker down
        self.failures = 0  # attempts that raised, or ran too long
        self.returns = 0  # attempts that vanished with their agent, perhaps never started
        self.settled = 0  # fence of the last attempt that is counted in these
        self.cancelling = False
        self.cancelled_ns = 0  # since when
        self.recalled = False
        self.dispatched = False  # noted for the journal, where that matters
        # What was called, if the task ended in a way after which it may be tried anew.
        self.call: m.Payload | None = None
        self.deadline_ns = 0  # when it must have ended, if the client set a deadline
        self.expires_ns = 0  # until when it may wait, if that is limited and it never started
        self.facts: m.Facts | None = None
        # For people: what became of the last attempt that went wrong, and until when it is held.
        self.last: str | None = None
        self.again_ns = 0

    def begin(self) -> None:
        """Another attempt begins: it yields all its values anew."""
        self.recalled = False
        if self.facts == VALUES_DROPPED:
            self.facts = None

    def cancel(self, now_ns: int) -> None:
        """Nobody wants it any more."""
        self.cancelling = True
        self.cancelled_ns = self.cancelled_ns or now_ns


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
        "order",
        "payload",
        "since_ns",
        "state",
        "taken",
        "tries",
        "txn",
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
        # Of the call, once the result took its place, or once it was saved; 0 before.
        self.digest = 0
        # The last transaction that says something of it. 0: there is no journal.
        self.txn = 0
        # The place of its end among all that a journal noted: so they are told to its client.
        self.order = 0
        # Whether its client has the end, so that it is only kept for those who ask.
        self.taken = False
        self.state = state
        self.since_ns = now_ns
        # Of the last attempt; one more for the next. 0 while an earlier broker may have started it
        # and we wait to hear of that.
        self.fence = fence
        self.agent: Agent | None = None
        # What this attempt adds to its agent's work in hand.
        self.charge_ns = 0
        self.tries = UNTRIED

    def size(self) -> int:
        """Payload bytes it takes."""
        call = self.tries.call
        return len(self.payload) if call is None else len(self.payload) + len(call)

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
        "awaited",
        "away",
        "bytes",
        "closed",
        "ended_tasks",
        "facts",
        "flight_bytes",
        "flight_sizes",
        "flights",
        "gone",
        "instance",
        "last_broker",
        "last_epoch",
        "left_ns",
        "name",
        "open_tasks",
        "outgoing",
        "paused",
        "recorded",
        "report_flight",
        "reports",
        "session",
        "streams",
    )

    def __init__(self, instance: bytes, name: str, facts: m.Facts) -> None:
        self.instance: Final = instance
        self.name = name
        self.facts = facts
        # Of its attempts that run and said something, and the number of the PROGRESS on the way.
        self.reports: dict[bytes, Report] = {}
        self.report_flight = 0
        # Its attempts that run and yielded something.
        self.streams: dict[bytes, None] = {}
        # Whether the journal knows it.
        self.recorded = False
        # Of the broker it was connected to before this one: its epoch, and its id.
        self.last_epoch = 0
        self.last_broker = b""
        # Whether it left on purpose, or has not come to this broker yet: it waits for no ends.
        self.closed = False
        self.session: Session | None = None
        # Whether it said goodbye to this broker, or has been away for so long that nobody waits.
        self.gone = False
        # Whether a timer looks for that.
        self.away = False
        # When its last session broke, while it has none.
        self.left_ns = 0
        # Whether a timer looks after what it left here.
        self.awaited = False
        # Whether its waiting tasks stay in line until it has taken some of its results.
        self.paused = False
        self.open_tasks = 0
        # Payload bytes of all its tasks, open and ended.
        self.bytes = 0
        # Tasks that ended and are not acknowledged: those to be told, and those told, by message.
        self.ended_tasks = 0
        self.outgoing: deque[Task] = deque()
        self.flights: deque[tuple[int, list[Task]]] = deque()
        # What those take on the way, by message and together.
        self.flight_sizes: deque[int] = deque()
        self.flight_bytes = 0

    def landed(self) -> list[Task]:
        """The oldest message on the way is acknowledged: these ends the client has."""
        self.flight_bytes -= self.flight_sizes.popleft()
        return self.flights.popleft()[1]

    def ends(self) -> Iterator[Task]:
        """Its tasks that ended and that it does not have, as far as anybody may know of them."""
        for _, told in self.flights:
            yield from told
        yield from self.outgoing

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
        "late",
        "left_ns",
        "lost",
        "name",
        "offered",
        "open",
        "orphans",
        "queues",
        "reserved",
        "run_bytes",
        "run_items",
        "session",
        "shared",
        "shares",
        "slots",
        "spared",
        "txn",
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
        # The transaction that names it.
        self.txn = 0
        self.slots = 0
        self.draining = False
        self.lost = False
        self.queues: tuple[str, ...] = ()
        self.functions: frozenset[Function] = frozenset()
        # Attempts of ours, and attempts of an earlier broker that nobody claimed yet.
        self.open: dict[bytes, Task] = {}
        self.orphans: dict[bytes, int] = {}
        # What tasks of these functions leave of a worker; what open ones leave, and the sum.
        self.shares: dict[Function, int] = {}
        self.shared: dict[bytes, int] = {}
        self.spared = 0
        self.reserved: Queue | None = None  # its next task needs a whole worker
        # Those of the orphans that yielded values, which nobody could get, and until when.
        self.late: dict[bytes, int] = {}
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
