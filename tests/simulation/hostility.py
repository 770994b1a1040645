"""A network that does what ZeroMQ never does: loses, doubles, reorders, replays, corrupts.

Rules of this file: it works on bytes. A message whose corruption still decodes counts as lost: the
protocol has no checksum of its own, TCP has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from evener_wire import codec
from evener_wire.errors import PeerError
from tests.simulation.world import MS, World

KINDS: Final = ("lose", "double", "reorder", "replay", "corrupt")


class Hostility:
    """By kind, how likely it is for each message."""

    def __init__(self, world: World, chances: dict[str, float]) -> None:
        self._world = world
        self._rngs = {kind: world.stream(f"hostile/{kind}") for kind in KINDS}
        self._chances = chances
        self.on = True

    def _strikes(self, kind: str) -> bool:
        chance = self._chances.get(kind, 0.0)
        if not chance or self._rngs[kind].random() >= chance:
            return False
        self._world.fired[kind] += 1
        return True

    def mangle(
        self, frames: Sequence[Any], history: deque[Sequence[Any]], host: str
    ) -> list[tuple[Sequence[Any], int]]:
        """What arrives instead of one message: messages, each with how much later it comes."""
        if not self.on:
            return [(frames, 0)]
        copies: list[tuple[Sequence[Any], int]] = []
        if not self._strikes("lose"):
            extra = self._rngs["reorder"].randint(1, 300) * MS if self._strikes("reorder") else 0
            sent: Sequence[Any] | None = frames
            if self._strikes("corrupt"):
                sent = self._corrupted(frames)
            if sent is not None:
                copies.append((sent, extra))
        if self._strikes("double"):
            copies.append((frames, self._rngs["double"].choice((0, 5 * MS, 900 * MS))))
        if history and self._strikes("replay"):
            copies.append((history[self._rngs["replay"].randrange(len(history))], 0))
        history.append(frames)
        return copies

    def _corrupted(self, frames: Sequence[Any]) -> Sequence[Any] | None:
        rng = self._rngs["corrupt"]
        head = bytearray(frames[0])
        how = rng.randrange(4)
        if how == 0:
            del head[rng.randrange(len(head)) :]
        elif how == 1:
            head += bytes(rng.randrange(1, 9))
        elif how == 2:
            for _ in range(rng.randint(1, 4)):
                head[rng.randrange(len(head))] ^= 1 << rng.randrange(8)
        else:
            head = bytearray(rng.randbytes(len(head)))
        spoilt = [bytes(head), *frames[1:]]
        if how == 3 and rng.random() < 0.3:
            spoilt.append(b"one frame more")
        try:
            codec.decode(spoilt)  # anything but a PeerError ends the simulation: I26
        except PeerError:
            return spoilt
        return None
