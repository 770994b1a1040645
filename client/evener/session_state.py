"""The state of a client's session and how it changes: by one table, each change on record.

Rules of this file: no I/O, no clock, no decisions.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from evener.session_records import (
    TRANSITIONS,
    Cause,
    Effect,
    Level,
    Log,
    State,
    StateChanged,
)

_LOG_LENGTH: Final = 256


class SessionState:
    """State, counters, the record of changes, and the effects of the step under way."""

    def __init__(self) -> None:
        self.state = State.CONNECTING
        self.now_ns = 0
        self.effects: list[Effect] = []
        self.counters: dict[str, int] = {}
        self.transitions: deque[tuple[int, State, Cause, State]] = deque(maxlen=_LOG_LENGTH)

    def count(self, name: str, count: int = 1) -> None:
        """For people."""
        self.counters[name] = self.counters.get(name, 0) + count

    def is_over(self) -> bool:
        """Whether there will be no session any more."""
        return self.state in (State.REFUSED, State.CLOSED)

    def _move(self, cause: Cause) -> None:
        before = self.state
        after = TRANSITIONS.get((before, cause))
        assert after is not None, f"{cause} in {before}: {self.story()}"
        self.state = after
        self.transitions.append((self.now_ns, before, cause, after))
        if after is not before:
            self.effects.append(StateChanged(after))

    def _log(self, level: Level, text: str) -> None:
        self.effects.append(Log(level, text))

    def story(self) -> str:
        """The changes on record, one a line."""
        return "\n".join(
            f"{now_ns / 1e9:.6f} {before.name} --{cause.name}--> {after.name}"
            for now_ns, before, cause, after in self.transitions
        )

    def check(self) -> None:
        """Raises AssertionError for a change that the table does not have."""
        assert not self.effects
        for _, before, cause, after in self.transitions:
            assert TRANSITIONS[before, cause] is after
