"""How often something happened of late, by key, in a table of bounded size. No clock of its own.

Counting is by windows that begin with the first event: cheap, and exact enough to tell a peer that
errs from one that floods.
"""

from __future__ import annotations

from typing import Final

# Keys in one table. More: who uses more connections than this to hide costs more memory. Fewer: the
# oldest are forgotten, and begin anew.
_KEYS_MAX: Final = 4_096


class Rates:
    """At most `most` events of a key within `window_ns`. Caller: the broker core, within a step."""

    __slots__ = ("_keys_max", "_most", "_seen", "_window_ns")

    def __init__(self, most: int, window_ns: int, keys_max: int = _KEYS_MAX) -> None:
        self._most = most
        self._window_ns = window_ns
        self._keys_max = keys_max
        # Key: when its window began, and how many events since.
        self._seen: dict[bytes, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def excess(self, key: bytes, now_ns: int) -> int:
        """Counts one event; by how many the key is now beyond what it may (0: within)."""
        began_ns, count = self._seen.pop(key, (now_ns, 0))
        if now_ns - began_ns >= self._window_ns:
            began_ns, count = now_ns, 0
        elif len(self._seen) >= self._keys_max:
            del self._seen[next(iter(self._seen))]
        # Last in the table again: whoever is quiet for longest is forgotten first.
        self._seen[key] = (began_ns, count + 1)
        return max(0, count + 1 - self._most)

    def forget(self, key: bytes) -> None:
        """The key means nothing any more, or begins anew."""
        self._seen.pop(key, None)
