"""The state of a client's session and how it changes: by one table, each change on record.

Rules of this file: no I/O, no clock, no decisions.
"""

from __future__ import annotations

import random
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
from evener_wire import messages as m
from evener_wire.backoff import Backoff
from evener_wire.limits import (
    CLIENT_BYTES_MAX,
    CLIENT_TASKS_MAX,
    HEARTBEAT_NS,
    MILLISECOND_NS,
    RECONNECT_CLIENT_MAX_NS,
    RECONNECT_MAX_NS,
    REFUSED_AGAIN_MAX_NS,
    REFUSED_AGAIN_MIN_NS,
    SILENCE_NS,
)

_LOG_LENGTH: Final = 256

# Whatever a broker asks for: without a bound one that says 0 would have us spin.
_BEAT_MIN_NS: Final = 10 * MILLISECOND_NS
_SILENCE_MIN_NS: Final = 100 * MILLISECOND_NS


class SessionState:
    """State, counters, the record of changes, and the effects of the step under way."""

    def __init__(self, rng: random.Random) -> None:
        self.state = State.CONNECTING
        self.welcome: m.Welcome | None = None
        """The last one, also while there is no session."""
        self._rng = rng
        self._refusals = Backoff(REFUSED_AGAIN_MIN_NS, REFUSED_AGAIN_MAX_NS, rng)
        self._reconnects = Backoff(RECONNECT_MAX_NS, RECONNECT_CLIENT_MAX_NS, rng)
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

    # --- What the broker told with its welcome ----------------------------------------------------

    @property
    def tasks_max(self) -> int:
        """Open tasks that the broker takes from this client."""
        return CLIENT_TASKS_MAX if self.welcome is None else self.welcome.tasks_max

    @property
    def bytes_max(self) -> int:
        """Payload bytes of open tasks that the broker takes from this client."""
        return CLIENT_BYTES_MAX if self.welcome is None else self.welcome.bytes_max

    def _beat_ns(self) -> int:
        if self.welcome is None:
            return HEARTBEAT_NS
        return max(_BEAT_MIN_NS, self.welcome.heartbeat_ms * MILLISECOND_NS)

    def _silence_ns(self) -> int:
        if self.welcome is None:
            return SILENCE_NS
        return max(_SILENCE_MIN_NS, self.welcome.silence_ms * MILLISECOND_NS)

    # --- For people and tests ---------------------------------------------------------------------

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
