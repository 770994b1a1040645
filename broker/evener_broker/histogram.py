"""How long things take, as counts in classes that grow with the time: percentiles at little cost.

Rules of this file: pure. Four classes to each doubling, so a percentile is at most an eighth off;
what is longer than three days counts as three days.
"""

from __future__ import annotations

from typing import Final

_SUB_BITS: Final = 2
_FROM: Final = 1 << _SUB_BITS
_LONGEST_US: Final = (1 << 38) - 1

# Classes of one histogram at most: the bound of its memory.
CLASSES_MAX: Final = 38 * _FROM

_ASKED: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class Histogram:
    """Durations in microseconds. Only the classes that have something take memory."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def note(self, duration_us: int, count: int) -> None:
        """So many took about so long."""
        place = _class_of(duration_us)
        self._counts[place] = self._counts.get(place, 0) + count

    def percentiles(self) -> dict[str, int | None]:
        """Of all that was noted; each None when nothing was."""
        total = sum(self._counts.values())
        return {name: self._at(share * total) if total else None for name, share in _ASKED.items()}

    def _at(self, rank: float) -> int:
        """The middle of the class that has the duration of this rank."""
        for place in sorted(self._counts):
            rank -= self._counts[place]
            if rank <= 0:
                return _middle_of(place)
        return _middle_of(max(self._counts))

    def __len__(self) -> int:
        return len(self._counts)


def _class_of(duration_us: int) -> int:
    value = min(max(duration_us, 0), _LONGEST_US)
    shift = max(value.bit_length() - _SUB_BITS - 1, 0)
    return (shift << _SUB_BITS) + (value >> shift)


def _middle_of(place: int) -> int:
    shift = max((place >> _SUB_BITS) - 1, 0)
    return (place - (shift << _SUB_BITS) << shift) + (1 << shift) // 2
