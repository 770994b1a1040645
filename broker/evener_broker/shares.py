"""Whose messages are handled now, and whose are put off: each peer has a share of the time.

Who takes more than its share is put off: its messages are read and wait in a line of their own.
While others want something they are handled at the pace of the share; when nobody else does, as
fast as it goes. Peers that keep to the protocol have few messages under way, so their lines are
short. Who lets a long line wait and goes on sending loses it, and its session with it: ZeroMQ
cannot leave one peer unread and read the others.

Rules of this file: no I/O and no clock; what a message costs is measured by the caller, and counts
the same whatever it says.
"""

from __future__ import annotations

from typing import Final

from evener_broker.events import Peer
from evener_broker.parking import Parking, whole_size_of
from evener_wire import messages as m
from evener_wire.limits import (
    MILLISECOND_NS,
    PUT_OFF_BYTES_MAX,
    PUT_OFF_MAX,
    PUT_OFF_TOTAL_BYTES_MAX,
)

# A peer's share while others want something: one part in so many. More parts: who has much to do is
# slower beside others. Fewer: others wait longer behind it.
_PARTS: Final = 3

# What a peer may take at once, in time of the broker, after it took nothing for a while.
_BURST_NS: Final = 20 * MILLISECOND_NS

# What it may owe of its share by then. More: who took much while nobody else wanted anything waits
# longer once others do. Less: what it took is forgiven while it goes on.
_DEBT_NS: Final = 10 * MILLISECOND_NS

# What one message counts at most: the broker itself may have stood still meanwhile, and whoever is
# put off for seconds seems silent. More: the same holds for less. Less: dear messages are cheap.
_COST_MAX_NS: Final = 100 * MILLISECOND_NS

# For how long others count as wanting something after a message of theirs. Longer: who is put off
# waits though the broker is idle. Shorter: others wait for it who ask one thing after the other.
_WANTED_NS: Final = 50 * MILLISECOND_NS

# A line of so many messages is not read further while nobody else wants anything: it need not grow.
_FEW: Final = 64

# A line that may have any size: what clients have under way at most, and something beside.
_ANY_SIZE: Final = 16

# Accounts that are looked through for settled ones, at least.
_SWEEP_MIN: Final = 1_024


class Shares:
    """Caller: the shell, which reads and measures. Times are of any clock that never goes back."""

    def __init__(self) -> None:
        self._lines = Parking(
            PUT_OFF_MAX,
            PUT_OFF_BYTES_MAX,
            PUT_OFF_TOTAL_BYTES_MAX,
            few=_ANY_SIZE,
            weigh=whole_size_of,
        )
        # Until when the share of a peer is used up. Who is not here, or in the past, is even.
        self._even_ns: dict[Peer, int] = {}
        self._sweep_at = _SWEEP_MIN
        # Who has a line, in the order of their turns.
        self._turns: dict[Peer, None] = {}
        # Who within its share wanted something last, and when; and the last one before it.
        self._wanted: tuple[Peer, int] = b"", -_WANTED_NS
        self._wanted_before: tuple[Peer, int] = b"", -_WANTED_NS

    def __len__(self) -> int:
        """How many peers are put off."""
        return len(self._turns)

    def waiting(self) -> int:
        """How many messages are put off."""
        return sum(map(self._lines.count, self._turns))

    def accounts(self) -> int:
        """Of how many peers there are accounts: those of late, and a few more."""
        return len(self._even_ns)

    def is_due(self, peer: Peer, now_ns: int) -> bool:
        """Whether a message of this peer, just read, is to be handled now."""
        return (
            peer not in self._turns
            and self._even_ns.get(peer, now_ns) - now_ns <= _BURST_NS * _PARTS
        )

    def charge(self, peer: Peer, spent_ns: int, now_ns: int, *, wants: bool) -> None:
        """A message of a peer took so long; `wants`: somebody waits for what comes of it."""
        even_ns = self._even_ns
        cost_ns = min(spent_ns, _COST_MAX_NS) * _PARTS
        even_at_ns = max(even_ns.get(peer, 0), now_ns)
        if even_at_ns - now_ns > _BURST_NS * _PARTS:
            even_at_ns = min(even_at_ns, now_ns + (_BURST_NS + _DEBT_NS) * _PARTS)
        elif wants and peer not in self._turns:
            if peer != self._wanted[0]:
                self._wanted_before = self._wanted
            self._wanted = peer, now_ns
        even_ns[peer] = even_at_ns + cost_ns
        if len(even_ns) > self._sweep_at:
            self._even_ns = {p: at_ns for p, at_ns in even_ns.items() if at_ns > now_ns}
            self._sweep_at = max(_SWEEP_MIN, 2 * len(self._even_ns))

    def is_wanted(self, now_ns: int) -> bool:
        """Whether two wanted something of late, or somebody beside those who are put off."""
        last, wanted_ns = self._wanted
        if last in self._turns or not self._turns:
            wanted_ns = self._wanted_before[1]
        return now_ns - wanted_ns < _WANTED_NS

    def put_off(self, peer: Peer, frames: list[m.Buffer]) -> list[Peer]:
        """A message waits. Returns who loses all that waits, as it is too much."""
        self._turns[peer] = None
        lost = self._lines.park(peer, frames)
        for other in lost:
            del self._turns[other]
        return lost

    def is_enough(self, peer: Peer, now_ns: int) -> bool:
        """Whether enough of this peer waits: nobody else is kept waiting, so more is not read."""
        return self._lines.count(peer) >= _FEW and now_ns >= self._wanted_until_ns(peer)

    def next(self, now_ns: int) -> tuple[Peer, list[m.Buffer]] | None:
        """Take out a message that waited and may be handled now; peers take turns."""
        for peer in self._turns:
            if self._due_ns(peer) <= now_ns:
                frames = self._lines.first(peer)
                assert frames is not None
                self._lines.sent(peer)
                del self._turns[peer]
                if peer in self._lines:
                    self._turns[peer] = None
                return peer, frames
        return None

    def wait_ns(self, now_ns: int) -> int | None:
        """After how long there may be a message for `next`; None if none waits."""
        if not self._turns:
            return None
        return max(0, min(map(self._due_ns, self._turns)) - now_ns)

    def _due_ns(self, peer: Peer) -> int:
        due_ns = self._even_ns.get(peer, 0) - _BURST_NS * _PARTS
        return min(due_ns, self._wanted_until_ns(peer))

    def _wanted_until_ns(self, peer: Peer) -> int:
        """Until when others than this peer count as wanting something."""
        last, wanted_ns = self._wanted
        return (self._wanted_before[1] if last == peer else wanted_ns) + _WANTED_NS
