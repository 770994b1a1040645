"""Workers that run several attempts side by side: which of them has room, and what it has.

A worker has WORKER_UNITS to give. An attempt of a function that runs N at once takes an N-th of
them, and one without a share takes the worker alone; the two kinds never stand in one worker. Each
attempt with a share has a lane: memory of its own in which the worker notes that it started.

Of workers that have room the fullest gets the next one. Spread evenly, a few attempts that run for
hours would stand in every worker, and none would ever be free for what needs a whole one; and a
function says itself how many of it one worker bears. Rules of this file: looks at slots, and takes
out of one what the kernel gave back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from evener_wire.limits import WORKER_UNITS
from evener_worker.attempts import Attempt
from evener_worker.slots import Slot, SlotState


def units_of(at_once: Mapping[str, int]) -> dict[str, int]:
    """What an attempt takes of a worker, by function."""
    return {name: WORKER_UNITS // count for name, count in at_once.items()}


def has_room(slot: Slot, units: int) -> bool:
    """Whether a worker can take one more attempt with this share now."""
    return (
        slot.load + units <= WORKER_UNITS
        and slot.state is SlotState.READY
        and not slot.handed
        and not slot.dirty_until
        and not slot.taking
        and slot.first <= slot.tasks_limit
    )


def fullest(slots: Iterable[Slot], units: int) -> Slot | None:
    """Of those that have room the one that has most in hand; the first of several."""
    return max((slot for slot in slots if has_room(slot, units)), key=_load, default=None)


def _load(slot: Slot) -> int:
    return slot.load


def in_hand(slot: Slot) -> Iterator[Attempt]:
    """What a worker has, alone or side by side, in the order in which it was handed."""
    yield from slot.handed
    for shared in slot.shared.values():
        yield shared.attempt


def running_as(slot: Slot, number: int) -> Attempt | None:
    """What a worker runs under this number, alone or side by side; None if it runs no such."""
    shared = slot.shared.get(number)
    if shared is not None:
        return shared.attempt
    head = slot.handed[0] if slot.handed else None
    return head if head is not None and head.sequence == number else None


def last_shared(slot: Slot) -> Attempt:
    """Take out what was handed to it last, of what runs side by side."""
    attempt = slot.unshare(next(reversed(slot.shared)))
    assert attempt is not None
    return attempt


def check(slot: Slot) -> None:
    """Raises AssertionError where what is kept twice differs."""
    shared = slot.shared
    assert not (shared and slot.handed), slot
    assert slot.load == sum(it.units for it in shared.values()) <= WORKER_UNITS, slot
    assert slot.lanes == sum(1 << it.lane - 1 for it in shared.values()), slot
    numbers = list(shared)
    assert numbers == sorted(numbers), slot
    assert not numbers or numbers[-1] < slot.first, slot
    for number, it in shared.items():
        assert (it.attempt.slot, it.attempt.sequence) == (slot.number, number), slot
