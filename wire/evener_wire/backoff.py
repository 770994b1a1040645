"""When to try again: a window that doubles with each failure, and a random moment within it.

Rules of this file: no clock, and no randomness but the one handed in. Peers that failed together
must not try again together, so each has its own seed, and the whole window is used (full jitter).
"""

from __future__ import annotations

import random


class Backoff:
    """Windows from `first_ns` to `most_ns`. Caller: a peer's session."""

    __slots__ = ("_first_ns", "_most_ns", "_rng", "failures")

    def __init__(self, first_ns: int, most_ns: int, rng: random.Random) -> None:
        self._first_ns = first_ns
        self._most_ns = most_ns
        self._rng = rng
        self.failures = 0

    def window_ns(self) -> int:
        """How long the window is now."""
        return min(self._first_ns << min(self.failures, 32), self._most_ns)

    def failed(self) -> int:
        """One more failure: the window that follows from it."""
        self.failures += 1
        return self.window_ns()

    def failed_for_now(self) -> int:
        """One more refusal: how long to keep still, the window of before and up to that again."""
        window_ns = self.window_ns()
        self.failures += 1
        return window_ns + self._rng.randrange(window_ns)

    def reset(self) -> None:
        """It worked."""
        self.failures = 0


class Patience:
    """How long to wait for the answer to a HELLO: each time longer, up to `most_ns`.

    Each HELLO ends the session that an earlier one began. Where the answer takes longer than the
    wait, the next HELLO would cross it each time, and no session would ever last.
    """

    __slots__ = ("_asked_ns", "_first_ns", "_most_ns", "_wait_ns")

    def __init__(self, first_ns: int, most_ns: int) -> None:
        self._first_ns = self._wait_ns = first_ns
        self._most_ns = most_ns
        self._asked_ns = 0

    def asked(self, now_ns: int) -> int:
        """A HELLO was said: when to say it again. After a while without any it begins anew."""
        if now_ns - self._asked_ns > 2 * self._most_ns:
            self._wait_ns = self._first_ns
        again_ns = now_ns + self._wait_ns
        self._asked_ns = now_ns
        self._wait_ns = min(2 * self._wait_ns, self._most_ns)
        return again_ns


def a_little_later(wait_ns: int, rng: random.Random) -> int:
    """A wait that somebody named, or up to a quarter more: all who were told so come one by one."""
    return wait_ns + rng.randrange(wait_ns // 4 + 1)


def retry_interval_ns(window_ns: int, shortest_ns: int, rng: random.Random) -> int:
    """What libzmq is given to try again within a window for as long as a socket lives.

    It waits for its interval and a random part of that again before each try (as long as
    RECONNECT_IVL_MAX is 0; with it the interval doubles and is random no more). So half the window
    is the most that it may be given.
    """
    return rng.randint(shortest_ns, max(shortest_ns, window_ns // 2))
