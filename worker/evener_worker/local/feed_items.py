"""What a pool that is fed from a source keeps: its items, its workers, the source of the moment.

Rules of this file: data, and one table. Each item is in exactly one state of `STEPS`, and every way
ends in `TAKEN`, unless the run is ended from outside.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any, Final

from evener_worker.local import feed_steps as s
from evener_worker.local.outcome import Outcome
from evener_worker.slots import Slot, SlotState


class ItemState(Enum):
    """Where an item is."""

    WAITING = "waiting"  # for a worker
    RUNNING = "running"
    ENDED = "ended"  # its outcome waits for its turn
    DELIVERED = "delivered"  # and now for who iterates
    TAKEN = "taken"


STEPS: Final[dict[ItemState, frozenset[ItemState]]] = {
    ItemState.WAITING: frozenset({ItemState.RUNNING}),
    # Back to waiting when its worker failed, and nobody knows yet whether that was its fault.
    ItemState.RUNNING: frozenset({ItemState.ENDED, ItemState.WAITING}),
    ItemState.ENDED: frozenset({ItemState.DELIVERED}),
    ItemState.DELIVERED: frozenset({ItemState.TAKEN}),
    ItemState.TAKEN: frozenset(),
}


class Entry:
    """One item that was pulled."""

    __slots__ = ("due_ns", "index", "item", "outcome", "state", "tries")

    def __init__(self, index: int, item: Any) -> None:
        self.index: Final = index
        self.item: Final = item
        self.state = ItemState.WAITING
        self.tries = 0
        self.due_ns: int | None = None
        self.outcome: Outcome[Any, Any] | None = None

    def move(self, state: ItemState) -> None:
        """Its next state, by the table."""
        assert state in STEPS[self.state], (self.index, self.state, state)
        self.state = state


class Station:
    """The place of one worker, which stays when the worker is replaced."""

    __slots__ = ("entry", "life", "slot")

    def __init__(self, number: int) -> None:
        self.slot: Final = Slot(number, f"worker-{number}")
        self.life = 0
        self.entry: Entry | None = None

    @property
    def idle(self) -> bool:
        """Whether it could execute an item now."""
        return self.slot.state is SlotState.READY and self.entry is None


class Run:
    """One source, from its first item to its end."""

    def __init__(self, number: int, begin: s.Begin) -> None:
        self.number: Final = number
        self.begin: Final = begin
        self.pulling = False
        self.source_open = True
        self.source_error: BaseException | None = None
        self.stopping = False
        self.stop_error: BaseException | None = None
        self.pulled = 0
        self.turn = 0  # the index that is delivered next, where order matters
        self.waiting: deque[Entry] = deque()
        self.ended: dict[int, Entry] = {}
        self.delivered: deque[Entry] = deque()
