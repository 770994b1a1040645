"""Arguments and results as they travel: bytes that nobody between the two ends looks into.

Rules of this file: data only. Small ones stand in the head of a message, large ones in frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from evener_wire.limits import BATCH_BYTES_TARGET, FRAMES_MAX

Buffer: TypeAlias = Any
"""Anything that supports the buffer protocol: bytes, memoryview, or a frame as received."""


class Frames:
    """A payload that travels as frames of its own: too large for the head, or several buffers."""

    __slots__ = ("buffers", "nbytes")

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self.buffers: Final = tuple(buffers)
        self.nbytes: Final = sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frames):
            return NotImplemented
        return [bytes(b) for b in self.buffers] == [bytes(b) for b in other.buffers]

    def __hash__(self) -> int:
        return hash(self.nbytes)

    def __len__(self) -> int:
        return self.nbytes

    def __repr__(self) -> str:
        return f"<Frames {len(self.buffers)} buffers, {self.nbytes} bytes>"


Payload: TypeAlias = bytes | Frames
"""Bytes no longer than `INLINE_BYTES_MAX`, or `Frames`. The broker never looks inside."""

# A frame beside its bytes, in the size of a batch: so a batch of `BATCH_BYTES_TARGET` has at most
# half of `FRAMES_MAX` frames, however small they are.
_FRAME_WEIGHT: Final = 2 * BATCH_BYTES_TARGET // FRAMES_MAX

# What an item takes in the head beside its payload, roughly.
_ITEM_WEIGHT: Final = 64


def weight_of(payload: Payload) -> int:
    """What an item with this payload adds to the size of its batch, in bytes."""
    if type(payload) is bytes:
        return len(payload) + _ITEM_WEIGHT
    assert type(payload) is Frames
    return payload.nbytes + _FRAME_WEIGHT * len(payload.buffers) + _ITEM_WEIGHT
