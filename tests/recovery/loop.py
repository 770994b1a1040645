"""One loop for hundreds of peers in one process: real sockets, one epoll, one thread.

Rules of this file: nothing of evener. A peer has a descriptor, a `turn`, and says when it wants the
next one. It may ask for another descriptor when it opened its connection anew.
"""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable
from typing import Final, Protocol

_POLL_MS_MAX: Final = 50


def now_ns() -> int:
    """The clock of all parts of evener."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Peer(Protocol):
    """What lives in the loop."""

    @property
    def fd(self) -> int:
        """To be watched for reading."""
        ...

    def turn(self, now_ns: int) -> None:
        """Take in all there is, decide, act."""

    def wake_at(self) -> int:
        """When the next turn is due though nothing is readable."""
        ...


class Loop:
    """Caller: one thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._peers: dict[int, Peer] = {}
        self._watched: dict[Peer, int] = {}
        self._timers: list[tuple[int, int, Peer]] = []
        self._numbers = itertools.count()
        self.late_ns = 0
        """The longest that a turn came after its time: how busy this process itself was."""

    def add(self, peer: Peer) -> None:
        """Let a peer live here."""
        self._watch(peer)
        self._set_timer(peer)

    def run_until(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        """Turn after turn until `done`; AssertionError when that takes too long."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
            self._turn()

    def run_for(self, seconds: float) -> None:
        """Turn after turn for a while."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._turn()

    def _turn(self) -> None:
        left_ms = _POLL_MS_MAX
        if self._timers:
            left_ms = min(left_ms, max(0, (self._timers[0][0] - now_ns()) // 1_000_000 + 1))
        for fd, _ in self._epoll.poll(left_ms / 1_000):
            peer = self._peers.get(fd)
            if peer is not None:
                self._have_turn(peer)
        due: list[tuple[int, Peer]] = []
        until_ns = now_ns()
        while self._timers and self._timers[0][0] <= until_ns:
            at_ns, _, peer = heapq.heappop(self._timers)
            due.append((at_ns, peer))
        for at_ns, peer in due:
            if peer.wake_at() <= now_ns():
                self.late_ns = max(self.late_ns, now_ns() - at_ns)
                self._have_turn(peer)

    def _have_turn(self, peer: Peer) -> None:
        peer.turn(now_ns())
        if self._watched[peer] != peer.fd:
            self._watch(peer)
        self._set_timer(peer)

    def _set_timer(self, peer: Peer) -> None:
        heapq.heappush(self._timers, (peer.wake_at(), next(self._numbers), peer))

    def _watch(self, peer: Peer) -> None:
        old = self._watched.get(peer)
        if old is not None and self._peers.get(old) is peer:
            # Closed, and with that gone from the epoll; unless its number is in use again.
            del self._peers[old]
        fd = peer.fd
        self._watched[peer] = fd
        self._peers[fd] = peer
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except FileExistsError:
            self._epoll.modify(fd, select.EPOLLIN)

    def close(self) -> None:
        """Watch nothing any more."""
        self._epoll.close()
