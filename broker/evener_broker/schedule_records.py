"""The record of a schedule: what agents want to run by itself, and what became of that so far.

Rules of this file: data, and how the ids of runs are made; no decisions.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from evener_broker.records import Agent
from evener_wire import messages as m
from evener_wire.limits import ID_BYTES, MILLISECOND_NS

# The client that runs belong to. Ids of clients are random, and nobody else may have this one.
SCHEDULER: Final = blake2b(b"evener schedules", digest_size=ID_BYTES).digest()
SCHEDULER_NAME: Final = "schedules"

_KEY_BYTES: Final = ID_BYTES // 2
_ASKED: Final = 1 << 63


class Schedule:
    """One schedule of the cluster, however many agents offer it."""

    __slots__ = (
        "agents",
        "base_ns",
        "due_ns",
        "error",
        "key",
        "last_end",
        "last_id",
        "last_ns",
        "missed",
        "open",
        "paused",
        "runs",
        "skipped",
        "spec",
        "timer_ns",
        "waiting",
    )

    def __init__(self, spec: m.Schedule) -> None:
        self.spec = spec
        self.key = key_of(spec)
        self.agents: set[Agent] = set()
        # When the next run is due: of cron in ns of the wall clock, else of the broker's own clock.
        # None: never, or not known yet.
        self.due_ns: int | None = None
        # What makes a time of the wall of that: for ids, so that they go on after a restart.
        self.base_ns = 0
        # When the timer fires that counts, if one is set: no later than the next run is due.
        self.timer_ns: int | None = None
        self.paused = False
        # Why it cannot run at all.
        self.error = ""
        # Runs that may not have ended.
        self.open: list[bytes] = []
        # A run that is due and waits for the one that it cancelled: its id.
        self.waiting: bytes | None = None
        self.last_id: bytes | None = None
        self.last_ns = 0
        self.last_end: str | None = None
        self.runs = 0
        self.skipped = 0
        self.missed = 0

    def __repr__(self) -> str:
        return f"<Schedule {self.spec.name}, {self.runs} runs>"


def key_of(spec: m.Schedule) -> bytes:
    """What the ids of its runs begin with: another time makes another key."""
    text = "\0".join((spec.name, spec.function, str(spec.every_ms), spec.cron, spec.zone))
    return blake2b(text.encode(), digest_size=_KEY_BYTES).digest()


def run_id(key: bytes, due_wall_ns: int) -> bytes:
    """The id of the run that is due at a moment of the wall clock: the same, whoever makes it."""
    return key + max(0, due_wall_ns // MILLISECOND_NS).to_bytes(_KEY_BYTES, "big")


def asked_id(key: bytes, drawn: int) -> bytes:
    """The id of a run that somebody asked for: it was due at no time."""
    return key + (_ASKED | drawn % _ASKED).to_bytes(_KEY_BYTES, "big")


def read_id(task_id: bytes) -> tuple[bytes, int | None]:
    """The key of the schedule, and when the run was due; None: when somebody asked for it."""
    due_ms = int.from_bytes(task_id[_KEY_BYTES:], "big")
    return task_id[:_KEY_BYTES], None if due_ms & _ASKED else due_ms * MILLISECOND_NS


def jitter_ns(spec: m.Schedule, task_id: bytes) -> int:
    """How long after its due time a run is made: the same for the same run."""
    if not spec.jitter_ms:
        return 0
    drawn = int.from_bytes(blake2b(task_id, digest_size=8).digest(), "big")
    return drawn % (spec.jitter_ms * MILLISECOND_NS)
