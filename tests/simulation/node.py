"""A process of the simulated cluster: it has turns, a clock of its own, pauses, and an end.

Rules of this file: nothing of evener. A node is the place; `life` counts the processes that were
started there. A turn takes time, so what comes meanwhile waits and is taken in together.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from tests.simulation.world import US, World

_TURN_NS: Final = 40 * US
_MILLION: Final = 1_000_000


class Died(Exception):
    """The process was killed between two effects of the turn under way."""


class Node:
    """Base of broker, agent and client. Subclasses have `turn`, and say when to wake."""

    def __init__(self, world: World, name: str) -> None:
        self.world: Final = world
        self.name: Final = name
        self.rng: Final = world.stream(f"node/{name}")
        self.alive = False
        self.life = 0
        self.slow = 1
        self.paused_until = 0
        self.suspended_until = 0
        self.pauses: deque[tuple[int, int]] = deque(maxlen=64)
        self.started_ns = 0
        self.crash_in: int | None = None
        # The clock of its host: another zero, and up to 500 parts in a million fast or slow.
        self._offset_ns = self.rng.randrange(10**15)
        self.wall_ns = 0  # how wrong the clock on its wall is, which no part looks at
        self._ppm = self.rng.randint(-500, 500)
        self._turn_at: int | None = None
        self._token = 0
        self._busy_until = 0

    @property
    def who(self) -> str:
        """The process at this node now."""
        return f"{self.name}.{self.life}"

    # --- The clock --------------------------------------------------------------------------------

    def local(self) -> int:
        """What the clock of this host shows."""
        now = self.world.now
        return self._offset_ns + now + now * self._ppm // _MILLION

    def world_time(self, local_ns: int) -> int:
        """When the clock of this host will show that."""
        return (local_ns - self._offset_ns) * _MILLION // (_MILLION + self._ppm) + 1

    # --- Turns ------------------------------------------------------------------------------------

    def wake(self, at_ns: int) -> None:
        """Have a turn at a moment, or as soon after it as possible."""
        at_ns = max(at_ns, self._busy_until, self.paused_until)
        if self._turn_at is not None and self._turn_at <= at_ns:
            return
        self._token += 1
        self._turn_at = at_ns
        self.world.at(at_ns, self.name, self._due, self._token)

    def wake_local(self, at_ns: int | None) -> None:
        """The same, by the clock of this host; not earlier than the next microsecond."""
        if at_ns is not None:
            self.wake(max(self.world_time(at_ns), self.world.now + US))

    def _due(self, token: int) -> None:
        if token != self._token or not self.alive:
            return
        self._turn_at = None
        now = self.world.now
        if now < self.paused_until:
            self.wake(self.paused_until)
            return
        self._busy_until = now + _TURN_NS * self.slow
        try:
            self.turn()
        except Died:
            self.world.hit("crash between two effects")

    def turn(self) -> None:
        """Take in, decide, act."""
        raise NotImplementedError

    def boundary(self) -> None:
        """Between two effects: where a planned death strikes."""
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                self.crash_in = None
                self.crash(host=False)
                raise Died

    # --- Faults -----------------------------------------------------------------------------------

    def pause(self, for_ns: int) -> None:
        """The process stands still (SIGSTOP, a busy host) and goes on later."""
        now = self.world.now
        if now >= self.paused_until:
            self.pauses.append((now, now))
        until = max(now + for_ns, self.paused_until)
        self.pauses[-1] = (self.pauses[-1][0], until)
        self.paused_until = until

    def suspend(self, for_ns: int) -> None:
        """The whole host stands still, and its clock goes on: to the process a very long pause."""
        self.pause(for_ns)
        self.suspended_until = max(self.suspended_until, self.world.now + for_ns)

    def resume(self) -> None:
        """It goes on now."""
        now = self.world.now
        if now < self.paused_until:
            self._cut_pause()
            self._token += 1
            self._turn_at = None
            self.wake(now)

    def _cut_pause(self) -> None:
        self.suspended_until = min(self.suspended_until, self.world.now)
        if self.world.now < self.paused_until:
            self.paused_until = self.world.now
            self.pauses[-1] = (self.pauses[-1][0], self.world.now)

    def stood_still_since(self, since_ns: int, ignored_ns: int) -> int:
        """For how long it stood still since then, less so much of each pause."""
        now = self.world.now
        lengths = [min(end, now) - max(start, since_ns) for start, end in self.pauses]
        return sum(max(0, length - ignored_ns) for length in lengths)

    def is_paused(self) -> bool:
        """Whether it stands still now."""
        return self.world.now < self.paused_until

    def was_paused_since(self, since_ns: int) -> bool:
        """Whether it stood still at any moment since then."""
        return self.paused_until > since_ns

    def start(self) -> None:
        """A new process. Subclasses build their core first."""
        self.life += 1
        self.started_ns = self.world.now
        self.alive = True
        self.crash_in = None
        self._turn_at = None
        self._token += 1
        self._busy_until = self.world.now
        self._cut_pause()
        self.world.note(self.who, "START")
        self.wake(self.world.now)

    def crash(self, *, host: bool) -> None:
        """The process is gone. `host`: with its host, so that nobody is told."""
        self.alive = False
        self._token += 1
        self._turn_at = None
        self.world.note(self.who, "CRASH of the host" if host else "CRASH")
