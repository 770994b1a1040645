"""What one seed is about: how large the cluster is, which faults strike, how the work looks.

Rules of this file: drawn once, from the seed alone. Each kind of fault is left out with one chance
in two, because some bugs show only where others do not hide them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from evener_broker.tables import Bounds
from evener_wire import messages as m
from tests.simulation.timetable import drawn
from tests.simulation.truth import Body
from tests.simulation.world import SECOND

# Kind of fault: mean time between two of them, in seconds, from and to.
FAULTS: Final[dict[str, tuple[float, float]]] = {
    "cut": (0.5, 20),
    "cut unnoticed": (3, 30),
    "flapping": (8, 40),
    "ghosts": (2, 20),
    "stale flush": (2, 20),
    "partition": (5, 40),
    "partition up": (5, 40),
    "partition down": (5, 40),
    "broker crash": (5, 40),
    "broker host crash": (10, 60),
    "broker pause": (4, 30),
    "broker stall": (1, 10),
    "agent crash": (4, 30),
    "agent host crash": (6, 40),
    "agent pause": (4, 30),
    "agent drain": (8, 40),
    "agent stop": (10, 60),
    "worker kill": (0.5, 10),
    "rolling restart": (3, 30),
    "drain undone": (3, 30),
    "client crash": (8, 40),
    "client pause": (5, 30),
    "client close": (15, 60),
    "slow node": (5, 30),
    "suspend": (10, 80),
    "name server stall": (4, 40),
    "clock step": (2, 20),
    "adversary": (0.2, 5),
    "disk full": (2, 30),
    "disk slow": (2, 30),
}

# The same, and drawn after everything else: what earlier seeds drew is what it was.
LATER: Final[dict[str, tuple[float, float]]] = {
    "late peers": (2, 15),
}

# Kinds that hold for the whole run of a seed, by a number that says how much.
LASTING: Final = (
    "latency tail",
    "small buffers",
    "worker dies at its start",
    "never reads",
    "disk error",
)

HOSTILE: Final[dict[str, float]] = {
    "lose": 0.1,
    "double": 0.1,
    "reorder": 0.1,
    "replay": 0.1,
    "corrupt": 0.05,
}

# Functions of which a worker may run many at once.
SHARED: Final = ("app.tiny", "app.short", "app.mid", "app.long", "app.mixed", "app.fragile")

PROFILES: Final = ("usual", "long", "days")

ALL: Final = (*FAULTS, *LATER, *LASTING, *HOSTILE)


@dataclass(slots=True)
class Swarm:
    """The draw of one seed."""

    seed: int
    profile: str
    durable: bool
    hostile: bool
    agents: list[int]  # workers of each
    clients: int
    safety_ns: int
    tasks: int
    queues: int
    period_ns: int
    bounds: Bounds
    journal_bytes: int
    hold_when_full: bool
    care_s: float = 0.0  # workers are replaced by age, tasks and memory; times so many seconds
    schedules: list[tuple[m.Schedule, Body]] = field(default_factory=list)
    streams: bool = False  # some tasks are generators
    shares: dict[str, int] = field(default_factory=dict)  # functions of which many run at once
    there_s: float = 0.0  # how long hosts and programs are there on average
    away_s: float = 0.0  # and how long away; 0: they are always there
    mean_s: dict[str, float] = field(default_factory=dict)
    chances: dict[str, float] = field(default_factory=dict)
    lasting: dict[str, float] = field(default_factory=dict)

    def kinds(self) -> list[str]:
        """The faults that may strike."""
        return [*self.mean_s, *self.chances, *self.lasting]

    def without(self, kinds: frozenset[str]) -> Swarm:
        """The same, but for some kinds of faults."""
        for table in (self.mean_s, self.chances, self.lasting):
            for kind in kinds:
                table.pop(kind, None)
        return self

    def __str__(self) -> str:
        return (
            f"{self.profile}, {f'journal {self.journal_bytes}' if self.durable else 'memory'},"
            f" {'hostile' if self.hostile else 'zmq'}{', streams' * self.streams}"
            f"{f', shares {self.shares}' if self.shares else ''}"
            f"{', care' * bool(self.care_s)}{', schedules' * bool(self.schedules)},"
            f" agents {self.agents},"
            f" {self.clients} clients, {self.tasks} tasks, {self.safety_ns / 1e9:.0f} s,"
            f" faults {', '.join(self.kinds())}"
        )


def draw(seed: int, profile: str = "usual") -> Swarm:
    """The swarm of a seed. `long`: hours instead of a minute, and as many faults in all.

    `days`: up to three of them, in which hosts and programs are away for hours and come back.
    """
    is_long = profile != "usual"
    rng = random.Random(f"{seed}/swarm")
    tiny = rng.random() < 0.2
    shortest_s, times = {"usual": (10, 6), "long": (600, 48), "days": (28_800, 9)}[profile]
    safety_s = shortest_s * times ** rng.random()
    hosts = rng.choice((1, 1, 1, 2) if is_long else (1, 2, 2, 3, 4, 5))
    swarm = Swarm(
        seed=seed,
        profile=profile,
        durable=rng.random() < 0.5,
        hostile=rng.random() < 0.35,
        agents=[rng.choice((1, 1, 2, 3, 4)) for _ in range(hosts)],
        clients=rng.choice((1, 1, 1, 2) if is_long else (1, 1, 2, 3, 5)),
        safety_ns=int(safety_s * SECOND),
        tasks=int(30 * 30 ** rng.random()),
        queues=rng.choice((1, 1, 2, 3)),
        period_ns=int(safety_s * SECOND * rng.choice((0.4, 0.8, 1.0))),
        bounds=_bounds(rng) if tiny else Bounds(),
        journal_bytes=rng.choice((20_000, 100_000, 1 << 30, 1 << 30)),
        hold_when_full=rng.random() < 0.7,
    )
    stretch = max(1.0, safety_s / 60) if is_long else 1.0
    swarm.mean_s = _means(rng, FAULTS, stretch)
    for kind in LASTING:
        chosen = rng.random() < 0.3
        much = rng.random()
        if chosen:
            swarm.lasting[kind] = much
    for kind, most in HOSTILE.items():
        chosen = rng.random() < 0.5
        chance = most * 0.02 ** rng.random()
        if chosen and swarm.hostile:
            swarm.chances[kind] = chance
    swarm.streams = rng.random() < 0.5
    if rng.random() < 0.4:
        swarm.care_s = stretch
    if rng.random() < 0.4:
        swarm.schedules = drawn(rng, profile, safety_s)
    if profile == "days":
        swarm.there_s = 60 * 10 ** rng.random()
        swarm.away_s = 1_800 * 12 ** rng.random()
    # Last, so that what is drawn above is what it was.
    if rng.random() < 0.5:
        names = [name for name in SHARED if rng.random() < 0.6]
        swarm.shares = {name: rng.choice((1, 2, 3, 8, 50)) for name in names}
    swarm.mean_s |= _means(rng, LATER, stretch)
    together = rng.random() < 0.5
    if swarm.streams and together:
        swarm.shares["app.stream"] = rng.choice((2, 8, 50))
    return swarm


def _means(
    rng: random.Random, kinds: dict[str, tuple[float, float]], stretch: float
) -> dict[str, float]:
    """Of every second kind, the mean time between two of them."""
    means: dict[str, float] = {}
    for kind, (low, high) in kinds.items():
        chosen = rng.random() < 0.5
        mean = low * (high / low) ** rng.random() * stretch
        if chosen:
            means[kind] = mean
    return means


def _bounds(rng: random.Random) -> Bounds:
    return Bounds(
        tasks=rng.randint(10, 60),
        client_tasks=rng.randint(4, 30),
        payload_bytes=rng.choice((20_000, 200_000, 4_000_000)),
        client_bytes=rng.choice((10_000, 100_000, 2_000_000)),
        retained_tasks=rng.choice((0, 20, 1_000)),
        letters=rng.choice((0, 20, 1_000)),
        hellos_at_once=rng.choice((1, 500)),
        hellos_per_second=rng.choice((2, 2_000)),
    )
