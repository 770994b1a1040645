"""Fences: the numbers of attempts.

Rules of this file: arithmetic only.
"""

from __future__ import annotations

from typing import Final

_ATTEMPT_BITS: Final = 16
ATTEMPTS_MAX: Final = (1 << _ATTEMPT_BITS) - 1
EPOCH_MAX: Final = (1 << 47) - 1


def fence_of(epoch: int, attempt: int) -> int:
    """The number that no two attempts of a task share, and that grows with epoch and attempt."""
    return epoch << _ATTEMPT_BITS | attempt


def attempt_of(fence: int) -> int:
    """Which try this is within its epoch, from 1."""
    return fence & ATTEMPTS_MAX


def epoch_of(fence: int) -> int:
    """In which epoch the attempt was dispatched."""
    return fence >> _ATTEMPT_BITS
