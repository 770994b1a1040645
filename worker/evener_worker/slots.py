"""A slot: the place of one worker process, which stays when the process is replaced.

Rules of this file: data, one table, and the restart policy, which is a function of what happened.
"""

from __future__ import annotations

import random
from collections import deque
from enum import Enum
from typing import Final

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
    LEAVING = "leaving"  # asked to end, or killed
    STOPPED = "stopped"  # for good


SLOT_TRANSITIONS: Final[dict[SlotState, frozenset[SlotState]]] = {
    SlotState.WAITING: frozenset({SlotState.STARTING, SlotState.STOPPED}),
    SlotState.STARTING: frozenset(
        {SlotState.READY, SlotState.WAITING, SlotState.LEAVING, SlotState.STOPPED}
    ),
    SlotState.READY: frozenset({SlotState.WAITING, SlotState.LEAVING, SlotState.STOPPED}),
    SlotState.LEAVING: frozenset({SlotState.WAITING, SlotState.STOPPED}),
    SlotState.STOPPED: frozenset(),
}

LIVING: Final = frozenset({SlotState.STARTING, SlotState.READY, SlotState.LEAVING})


class Slot:
    """One worker: its process, what it has in hand, and how often it died."""

    __slots__ = (
        "cpu_ms",
        "deaths",
        "dirty_until",
        "first",
        "handed",
        "head_since_ns",
        "in_hand_bytes",
        "in_hand_ns",
        "leave_until_ns",
        "number",
        "pid",
        "ready_ns",
        "restarts",
        "rss_bytes",
        "spawned_ns",
        "start_at_ns",
        "start_failures",
        "state",
        "stuck",
        "taking",
        "tasks",
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
        self.stuck = False  # its first attempt takes longer than estimated
        self.taking = 0  # how many permits the shell is asked to take back
        # The last number the worker was sent, while it has not noticed that some were taken back.
        self.dirty_until = 0
        self.start_at_ns = 0
        self.spawned_ns = 0
        self.ready_ns = 0
        self.leave_until_ns = 0
        self.deaths = 0  # in a row, with short lives
        self.start_failures = 0  # in a row, before it was ready
        self.restarts = 0
        self.tasks = 0
        self.rss_bytes = 0
        self.cpu_ms = 0

    def move(self, state: SlotState) -> None:
        """The process changes its state, by the table."""
        assert state in SLOT_TRANSITIONS[self.state], (self, state)
        self.state = state

    def renew(self) -> None:
        """Forget the process that ended: the next one counts from 1 again."""
        assert not self.handed
        self.pid = 0
        self.first = 1
        self.in_hand_ns = self.in_hand_bytes = 0
        self.stuck = False
        self.taking = self.dirty_until = 0
        self.ready_ns = self.rss_bytes = self.cpu_ms = 0

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
        return f"<Slot {self.worker} {self.state.value}, {len(self.handed)} in hand>"
