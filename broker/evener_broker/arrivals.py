"""How many HELLOs the broker answers with a session, and when the others shall come again.

A thousand peers that lost one broker find the next one within half a second. Each of them brings
more than its HELLO (what it holds, what it submits again), so the broker takes them in at a bounded
rate and names everybody else the moment of its turn. Rules of this file: agents first (what they
hold decides what may be dispatched), so they do not see how many clients wait. A turn that was
named is kept: nobody is put off twice who comes when it was told to.
"""

from __future__ import annotations

import random
from typing import Final

from evener_broker.rates import Rates
from evener_wire.limits import (
    HELLOS_OF_PEER_MAX,
    MILLISECOND_NS,
    RETRY_AFTER_MAX_NS,
    RETRY_AFTER_MIN_NS,
    SECOND_NS,
)

# How long after its moment a turn is kept for a peer that comes late.
_KEPT_NS: Final = 2 * SECOND_NS


class Arrivals:
    """`per_second` in the long run, after `at_once` that come together. Caller: sessions."""

    def __init__(self, per_second: int, at_once: int, rng: random.Random) -> None:
        self._step_ns = SECOND_NS // per_second
        self._early_ns = at_once * self._step_ns
        self._rng = rng
        # When the next turn is, of an agent and of a client. An agent's turn takes one of both, a
        # client's only of the clients': so agents alone may come at the rate, whoever else waits.
        self._agents_at_ns = 0
        self._clients_at_ns = 0
        # Instance: when its turn is. In the order in which they were named. Each took its step of
        # the rate, and none is further away than the longest wait: that bounds them.
        self._turns: dict[bytes, int] = {}
        self._of_peer = Rates(HELLOS_OF_PEER_MAX, SECOND_NS)

    def __len__(self) -> int:
        return len(self._turns)

    def wait_ns(self, peer: bytes, instance: bytes, now_ns: int, *, is_agent: bool) -> int:
        """A peer says HELLO: 0 when it is its turn, otherwise after how long it shall come again.

        A connection that says HELLO again and again, with whatever instances, gets no turns.
        """
        if self._of_peer.excess(peer, now_ns):
            return self._long_wait_ns()
        turn_ns = self._turns.get(instance)
        if turn_ns is None:
            turn_ns = self._next_turn_ns(now_ns, is_agent=is_agent)
            if turn_ns is None:
                return self._long_wait_ns()
            if turn_ns <= now_ns:
                return 0
            self._forget_old(now_ns)
            self._turns[instance] = turn_ns
        elif turn_ns <= now_ns:
            del self._turns[instance]
            return 0
        return max(RETRY_AFTER_MIN_NS, turn_ns - now_ns)

    def _next_turn_ns(self, now_ns: int, *, is_agent: bool) -> int | None:
        """The next turn, which is taken with that; None when that is too far away."""
        earliest_ns = now_ns - self._early_ns
        clients_ns = max(self._clients_at_ns, earliest_ns)
        turn_ns = max(self._agents_at_ns, earliest_ns) if is_agent else clients_ns
        if turn_ns - now_ns > RETRY_AFTER_MAX_NS:
            return None
        if is_agent:
            self._agents_at_ns = turn_ns + self._step_ns
        self._clients_at_ns = clients_ns + self._step_ns
        return turn_ns

    def _long_wait_ns(self) -> int:
        # Whole milliseconds: that is what the message carries.
        most = RETRY_AFTER_MAX_NS // MILLISECOND_NS
        return self._rng.randrange(most // 2, most) * MILLISECOND_NS

    def _forget_old(self, now_ns: int) -> None:
        """Turns of peers that did not come."""
        while self._turns:
            instance = next(iter(self._turns))
            if self._turns[instance] + _KEPT_NS >= now_ns:
                return
            del self._turns[instance]
