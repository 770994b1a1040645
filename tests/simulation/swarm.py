"""What one seed is about: how large the cluster is, which faults strike, how the work looks.

Rules of this file: drawn once, from the seed alone. Each kind of fault is left out with one chance
in two, because some bugs show only where others do not hide them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from evener_broker.tables import Bounds
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
    "client crash": (8, 40),
    "client pause": (5, 30),
    "client close": (15, 60),
    "slow node": (5, 30),
}

# Kinds that hold for the whole run of a seed, by a number that says how much.
LASTING: Final = ("latency tail", "small buffers", "worker dies at its start", "never reads")

HOSTILE: Final[dict[str, float]] = {
    "lose": 0.1,
    "double": 0.1,
    "reorder": 0.1,
    "replay": 0.1,
    "corrupt": 0.05,
}

ALL: Final = (*FAULTS, *LASTING, *HOSTILE)


@dataclass(slots=True)
class Swarm:
    """The draw of one seed."""

    seed: int
    hostile: bool
    agents: list[int]  # workers of each
    clients: int
    safety_ns: int
    tasks: int
    queues: int
    period_ns: int
    bounds: Bounds
    hold_when_full: bool
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
            f"{'hostile' if self.hostile else 'zmq'}, agents {self.agents}, {self.clients} clients,"
            f" {self.tasks} tasks, {self.safety_ns / 1e9:.0f} s, faults {', '.join(self.kinds())}"
        )


def draw(seed: int) -> Swarm:
    """The swarm of a seed."""
    rng = random.Random(f"{seed}/swarm")
    tiny = rng.random() < 0.2
    safety_s = 10 * 6 ** rng.random()
    swarm = Swarm(
        seed=seed,
        hostile=rng.random() < 0.35,
        agents=[rng.choice((1, 1, 2, 3, 4)) for _ in range(rng.choice((1, 2, 2, 3, 4, 5)))],
        clients=rng.choice((1, 1, 2, 3, 5)),
        safety_ns=int(safety_s * SECOND),
        tasks=int(30 * 30 ** rng.random()),
        queues=rng.choice((1, 1, 2, 3)),
        period_ns=int(safety_s * SECOND * rng.choice((0.4, 0.8, 1.0))),
        bounds=_bounds(rng) if tiny else Bounds(),
        hold_when_full=rng.random() < 0.7,
    )
    for kind, (low, high) in FAULTS.items():
        chosen = rng.random() < 0.5
        mean = low * (high / low) ** rng.random()
        if chosen:
            swarm.mean_s[kind] = mean
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
    return swarm


def _bounds(rng: random.Random) -> Bounds:
    return Bounds(
        tasks=rng.randint(10, 60),
        client_tasks=rng.randint(4, 30),
        payload_bytes=rng.choice((20_000, 200_000, 4_000_000)),
        client_bytes=rng.choice((10_000, 100_000, 2_000_000)),
    )
