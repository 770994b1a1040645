"""What all parts of the agent's core share: the time of this step, its effects, and the attempts.

Rules of this file: tables and sums, no decisions. An attempt changes its state only here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from evener_wire import messages as m
from evener_worker.attempts import (
    ENDED,
    GONE,
    HANDED,
    TRANSITIONS,
    WAITING,
    Attempt,
    Item,
    Key,
    State,
)
from evener_worker.effects import Effect, Level, Log
from evener_worker.limits import LOG_ENTRIES_MAX


class Ledger:
    """Caller: the core and its parts, within one step."""

    __slots__ = (
        "counts",
        "effects",
        "ended",
        "log",
        "now_ns",
        "open",
        "result_bytes",
        "schedules",
        "waiting",
    )

    def __init__(self) -> None:
        self.now_ns = 0
        self.effects: list[Effect] = []
        # Attempts that are waiting or handed.
        self.open: dict[Key, Attempt] = {}
        self.waiting: deque[Attempt] = deque()
        # Attempts that ended since the last RESULT was sent.
        self.ended: list[Attempt] = []
        # What all results take that the broker has not acknowledged.
        self.result_bytes = 0
        # When the broker is to run functions by itself: what the worker said that came last.
        self.schedules: Sequence[m.Schedule] = ()
        self.counts = [0] * len(m.OUTCOMES)
        self.log: deque[tuple[int, Key, State]] = deque(maxlen=LOG_ENTRIES_MAX)

    def take(self, key: Key, item: Item) -> Attempt:
        """A new attempt, at the end of the line."""
        attempt = Attempt(key, item)
        self.open[key] = attempt
        self.waiting.append(attempt)
        self.log.append((self.now_ns, key, WAITING))
        return attempt

    def move(self, attempt: Attempt, state: State) -> None:
        """The attempt changes its state, by the table. The caller keeps the lines in order."""
        assert state in TRANSITIONS[attempt.state], (attempt, state, self.story(attempt.key))
        attempt.state = state
        self.log.append((self.now_ns, attempt.key, state))

    def end(
        self, attempt: Attempt, outcome: int, run_us: int = 0, facts: m.Facts | None = None
    ) -> None:
        """The agent states how an attempt ended."""
        attempt.end(outcome, run_us, facts)
        self.close(attempt, outcome)

    def close(self, attempt: Attempt, outcome: int) -> None:
        """An attempt ended; its item is packed."""
        self.move(attempt, ENDED)
        del self.open[attempt.key]
        attempt.item = None
        attempt.wish = None
        self.counts[outcome] += 1
        self.result_bytes += attempt.result_bytes()
        self.ended.append(attempt)

    def taken(self, attempt: Attempt) -> None:
        """The broker has its result."""
        self.move(attempt, GONE)
        self.result_bytes -= attempt.result_bytes()

    def forget(self, attempt: Attempt) -> None:
        """An attempt that nobody waits for, and that never starts, disappears."""
        self.move(attempt, GONE)
        del self.open[attempt.key]
        attempt.item = None

    def hand(self, attempt: Attempt) -> None:
        """A worker gets it. The caller took it off the line."""
        self.move(attempt, HANDED)

    def put_back(self, attempt: Attempt) -> None:
        """Taken back unstarted: to the front of the line."""
        self.move(attempt, WAITING)
        attempt.sequence = 0
        self.waiting.appendleft(attempt)

    def say(self, level: Level, text: str) -> None:
        """One line for the operator."""
        self.effects.append(Log(level, text))

    def story(self, key: Key) -> list[tuple[int, str]]:
        """What happened to one attempt, as far as the log reaches."""
        return [(at_ns, state.name.lower()) for at_ns, of, state in self.log if of == key]
