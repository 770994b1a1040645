"""A slot: the place of one worker process, which stays when the process is replaced.

Rules of this file: data, one table, and the restart policy, which is a function of what happened.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Final

from evener_wire.messages import Options
from evener_worker.attempts import Attempt
from evener_worker.limits import (
    RESTART_FORGET_NS,
    RESTART_MAX_NS,
    RESTART_NS,
    START_FAILURES_MAX,
)


class SlotState(Enum):
    """Where the process of a slot is."""

    WAITING = "waiting"  # for the end of its back-off
    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"  # finishes what it runs, gets nothing new, and leaves
    LEAVING = "leaving"  # asked to end, or killed
    STOPPED = "stopped"  # for good


SLOT_TRANSITIONS: Final[dict[SlotState, frozenset[SlotState]]] = {
    SlotState.WAITING: frozenset({SlotState.STARTING, SlotState.STOPPED}),
    SlotState.STARTING: frozenset(
        {SlotState.READY, SlotState.WAITING, SlotState.LEAVING, SlotState.STOPPED}
    ),
    SlotState.READY: frozenset(
        {SlotState.RETIRING, SlotState.WAITING, SlotState.LEAVING, SlotState.STOPPED}
    ),
    SlotState.RETIRING: frozenset(
        {SlotState.READY, SlotState.WAITING, SlotState.LEAVING, SlotState.STOPPED}
    ),
    SlotState.LEAVING: frozenset({SlotState.WAITING, SlotState.STOPPED}),
    SlotState.STOPPED: frozenset(),
}

LIVING: Final = frozenset(
    {SlotState.STARTING, SlotState.READY, SlotState.RETIRING, SlotState.LEAVING}
)

# Those that may have something in hand.
MAY_HOLD: Final = frozenset({SlotState.READY, SlotState.RETIRING, SlotState.LEAVING})

NO_LIMIT: Final = 1 << 62
"""Of the tasks that one process runs."""


def index_of(worker: str) -> int:
    """The place of a worker among those of its host: 3 of `node-1:3`. It outlives processes."""
    return int(worker.rpartition(":")[2])


class Shared:
    """An attempt that a worker runs beside others, and the lane that it has there."""

    __slots__ = ("attempt", "lane", "since_ns", "units")

    def __init__(self, attempt: Attempt, lane: int, units: int, now_ns: int) -> None:
        self.attempt: Final = attempt
        # From 1; its cells in the memory that is shared with the process.
        self.lane: Final = lane
        self.units: Final = units  # of the worker's WORKER_UNITS
        self.since_ns: Final = now_ns


class Slot:
    """One worker: its process, what it has in hand, and how often it died."""

    __slots__ = (
        "age_at_ns",
        "cpu_ms",
        "deaths",
        "dirty_until",
        "due",
        "first",
        "functions",
        "generation",
        "gone",
        "handed",
        "head_since_ns",
        "in_hand_bytes",
        "in_hand_ns",
        "lanes",
        "leave_until_ns",
        "load",
        "number",
        "pid",
        "ready_ns",
        "recycled",
        "restarts",
        "retired_ns",
        "rss_bytes",
        "shared",
        "spawned_ns",
        "start_at_ns",
        "start_failures",
        "state",
        "stuck",
        "taking",
        "tasks",
        "tasks_limit",
        "trial",
        "worker",
    )

    def __init__(self, number: int, worker: str) -> None:
        self.number: Final = number
        self.worker: Final = worker
        self.state = SlotState.WAITING
        self.pid = 0
        # What it has, oldest first; the first one runs or is about to. `first` is its number.
        self.handed: deque[Attempt] = deque()
        self.first = 1
        self.in_hand_ns = 0
        self.in_hand_bytes = 0
        self.head_since_ns = 0
        # Or attempts side by side, by number, in the order in which they were handed to it; what
        # they take together, and their lanes, a bit each. `first` is the number of the next one.
        self.shared: dict[int, Shared] = {}
        self.load = 0
        self.lanes = 0
        self.stuck = False  # its first attempt takes longer than estimated
        self.taking = 0  # how many permits the shell is asked to take back
        # The last number the worker was sent, while it has not noticed that some were taken back.
        self.dirty_until = 0
        self.start_at_ns = 0
        self.spawned_ns = 0
        self.ready_ns = 0
        self.leave_until_ns = 0  # while it starts: until when it must be ready
        self.deaths = 0  # in a row, with short lives
        self.start_failures = 0  # in a row, before it was ready
        self.restarts = 0
        self.tasks = 0
        self.rss_bytes = 0
        self.cpu_ms = 0
        # Care: why the process is to be replaced, and when that is, if it is by then.
        self.due = ""
        self.age_at_ns = 0  # 0: however old
        self.tasks_limit = NO_LIMIT
        self.retired_ns = 0
        self.recycled = 0  # how often it was replaced in good order
        self.generation = 0  # of the code that its process imported
        self.gone = False  # nothing is started here again
        self.trial = False  # it takes the place of another, if it gets ready
        self.functions: Sequence[tuple[str, Options | None]] = ()

    @property
    def index(self) -> int:
        """Its place among the workers of this host, from 1."""
        return index_of(self.worker)

    @property
    def busy(self) -> bool:
        """Whether it has anything in hand."""
        return bool(self.handed or self.shared)

    def held(self) -> int:
        """How many attempts it has in hand."""
        return len(self.handed) + len(self.shared)

    def head(self) -> tuple[Attempt, int] | None:
        """What it runs, or is about to, and since when; of many the one that it has longest."""
        if self.handed:
            return self.handed[0], self.head_since_ns
        for shared in self.shared.values():
            return shared.attempt, shared.since_ns
        return None

    def lane_of(self, attempt: Attempt) -> int:
        """The lane of an attempt that it has in hand; 0 if it has the worker to itself."""
        shared = self.shared.get(attempt.sequence)
        return shared.lane if shared is not None else 0

    def share(self, attempt: Attempt, units: int, now_ns: int) -> Shared:
        """One more beside the others, on the lowest lane that is free."""
        free = ~self.lanes & self.lanes + 1
        shared = Shared(attempt, free.bit_length(), units, now_ns)
        attempt.slot, attempt.sequence = self.number, self.first
        self.shared[self.first] = shared
        self.first += 1
        self.load += units
        self.lanes |= free
        return shared

    def unshare(self, number: int) -> Attempt | None:
        """One of them is over; None if there is none of this number."""
        shared = self.shared.pop(number, None)
        if shared is None:
            return None
        self.load -= shared.units
        self.lanes ^= 1 << shared.lane - 1
        return shared.attempt

    def move(self, state: SlotState) -> None:
        """The process changes its state, by the table."""
        assert state in SLOT_TRANSITIONS[self.state], (self, state)
        self.state = state

    def renew(self) -> None:
        """Forget the process that ended: the next one counts from 1 again."""
        assert not self.busy
        self.pid = 0
        self.first = 1
        self.in_hand_ns = self.in_hand_bytes = 0
        self.stuck = False
        self.taking = self.dirty_until = 0
        self.ready_ns = self.rss_bytes = self.cpu_ms = 0
        self.due = ""
        self.age_at_ns = self.retired_ns = 0
        self.tasks_limit = NO_LIMIT
        self.functions = ()

    def restart_delay_ns(self, now_ns: int, rng: random.Random) -> int | None:
        """Take note of a death. How long to wait before the next start; None: not again.

        The first restart comes at once, the next after 0.1 s, then doubling, with jitter.
        """
        if self.ready_ns:
            self.start_failures = 0
        else:
            self.start_failures += 1
            if self.start_failures >= START_FAILURES_MAX:
                return None
        if self.ready_ns and now_ns - self.ready_ns >= RESTART_FORGET_NS:
            self.deaths = 0
        self.deaths += 1
        if self.deaths == 1:
            return 0
        doubled = min(RESTART_NS << min(self.deaths - 2, 20), RESTART_MAX_NS)
        return int(doubled * rng.uniform(0.5, 1.0))

    def __repr__(self) -> str:
        return f"<Slot {self.worker} {self.state.value}, {self.held()} in hand>"
