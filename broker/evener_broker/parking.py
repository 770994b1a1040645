"""What waits for peers that are full, or of peers that are put off: a line for each, bounded in
messages and bytes, and in total.

Rules of this file: no socket, no decision about work. A peer whose line is full loses its line, and
with it its session: what it is owed stays in the tables and is told when it comes back. When all
lines together are too long, the longest one goes: whoever reads least pays for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from evener_broker.events import Peer
from evener_wire import messages as m
from evener_wire.limits import PARKED_BYTES_MAX, PEER_PARKED_BYTES_MAX, PEER_PARKED_MAX

# What a message costs beside its bytes: its list, its frames, its place in line.
_MESSAGE_WEIGHT: Final = 256


class _Line:
    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.messages: deque[list[m.Buffer]] = deque()
        self.size = 0


def size_of(frames: Sequence[m.Buffer]) -> int:
    """The memory that a message takes here: large payloads are the tables' own, not a copy."""
    return _MESSAGE_WEIGHT + sum(len(frame) for frame in frames if type(frame) is bytes)


def whole_size_of(frames: Sequence[m.Buffer]) -> int:
    """The memory of a message that came and is not in the tables yet."""
    return _MESSAGE_WEIGHT + sum(map(len, frames))


class Parking:
    """Caller: the shell. A line of `few` messages may have any size."""

    def __init__(
        self,
        peer_messages: int = PEER_PARKED_MAX,
        peer_bytes: int = PEER_PARKED_BYTES_MAX,
        total_bytes: int = PARKED_BYTES_MAX,
        *,
        few: int = 1,
        weigh: Callable[[Sequence[m.Buffer]], int] = size_of,
    ) -> None:
        self._peer_messages = peer_messages
        self._peer_bytes = peer_bytes
        self._total_bytes = total_bytes
        self._few = few
        self._weigh = weigh
        self._lines: dict[Peer, _Line] = {}
        self.size = 0
        """Bytes in all lines."""

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, peer: Peer) -> bool:
        return peer in self._lines

    def __iter__(self) -> Iterator[Peer]:
        """Who has a line now; lines may come and go meanwhile."""
        return iter(list(self._lines))

    def park(self, peer: Peer, frames: list[m.Buffer]) -> list[Peer]:
        """Put a message at the end of its peer's line. Returns the peers that lost theirs."""
        line = self._lines.get(peer)
        if line is None:
            line = self._lines[peer] = _Line()
        size = self._weigh(frames)
        line.messages.append(frames)
        line.size += size
        self.size += size
        lost: list[Peer] = []
        count = len(line.messages)
        # One message alone may be larger: it could never be sent otherwise.
        if count > self._peer_messages or (count > self._few and line.size > self._peer_bytes):
            self.drop(peer)
            lost.append(peer)
        while self.size > self._total_bytes:
            longest = max(self._lines, key=lambda other: self._lines[other].size)
            self.drop(longest)
            lost.append(longest)
        return lost

    def first(self, peer: Peer) -> list[m.Buffer] | None:
        """The message that is next for a peer."""
        line = self._lines.get(peer)
        return None if line is None else line.messages[0]

    def sent(self, peer: Peer) -> None:
        """The first message of the line left."""
        line = self._lines[peer]
        size = self._weigh(line.messages.popleft())
        line.size -= size
        self.size -= size
        if not line.messages:
            del self._lines[peer]

    def drop(self, peer: Peer) -> None:
        """Forget what waits for a peer."""
        line = self._lines.pop(peer, None)
        if line is not None:
            self.size -= line.size

    def clear(self) -> None:
        """Forget what waits for anybody."""
        self._lines.clear()
        self.size = 0

    def count(self, peer: Peer) -> int:
        """How many messages wait in the line of a peer."""
        line = self._lines.get(peer)
        return 0 if line is None else len(line.messages)

    def longest(self) -> int:
        """How many messages wait in the longest line."""
        return max((len(line.messages) for line in self._lines.values()), default=0)
