"""Named moments at which a session has something to do.

Rules of this file: no clock; times come in. `next_at` is cheap and may be early, never late: a
moment that was moved to a later time is found out when the earlier one comes.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

NEVER: Final = 1 << 62


class Deadlines:
    """At most one moment per name."""

    __slots__ = ("_at", "_next_at")

    def __init__(self) -> None:
        self._at: dict[Hashable, int] = {}
        self._next_at = NEVER

    def set(self, name: Hashable, at_ns: int) -> None:
        """Sets or moves a moment."""
        self._at[name] = at_ns
        if at_ns < self._next_at:
            self._next_at = at_ns

    def clear(self, name: Hashable) -> None:
        """Forgets a moment, if there is one."""
        self._at.pop(name, None)

    def clear_all(self) -> None:
        """Forgets them all."""
        self._at.clear()
        self._next_at = NEVER

    def __contains__(self, name: Hashable) -> bool:
        return name in self._at

    def next_at(self) -> int:
        """No moment comes before this one."""
        return self._next_at

    def due(self, now_ns: int) -> list[Hashable]:
        """The names whose moment has come, earliest first; they are forgotten."""
        if now_ns < self._next_at:
            return []
        due = sorted((at, number) for number, at in enumerate(self._at.values()) if at <= now_ns)
        names = list(self._at)
        found = [names[number] for _, number in due]
        for name in found:
            del self._at[name]
        self._next_at = min(self._at.values(), default=NEVER)
        return found

    def check(self) -> None:
        """Raises AssertionError if `next_at` were late."""
        assert self._next_at <= min(self._at.values(), default=NEVER)
