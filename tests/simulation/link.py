"""The way between one host and the broker.

Rules of this file: data and the latency of the next message.
"""

from __future__ import annotations

import random
from typing import Final

from tests.simulation.world import SECOND, US

_TAIL_NS_MAX: Final = 2 * SECOND


class Link:
    """The way between one host and the broker: how slow, how tailed, which directions blocked."""

    __slots__ = (
        "base_ns",
        "blocked_down",
        "blocked_up",
        "rng",
        "since_ns",
        "tail",
        "unnamed_until",
    )

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.base_ns = int(50 * US * 100 ** rng.random())
        self.tail = 0.0
        self.blocked_up = 0
        # Until when nobody answers what address the broker has: no new connection.
        self.unnamed_until = 0
        self.blocked_down = 0
        # Since when the way is in order. Faults of the way write the time of their end here.
        self.since_ns = 0

    def disturb(self, until_ns: int) -> None:
        """It is not in order before then."""
        self.since_ns = max(self.since_ns, until_ns)

    def latency_ns(self) -> int:
        """Of the next message."""
        rng = self.rng
        latency = self.base_ns + int(rng.expovariate(4 / self.base_ns))
        if self.tail and rng.random() < self.tail:
            latency = min(latency * 1_000, _TAIL_NS_MAX)
        return latency
