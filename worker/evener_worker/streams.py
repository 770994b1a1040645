"""Values that attempts yield, kept here until their client took them.

Rules of this file: an attempt yields in order and waits itself when too much is not taken, so what
is kept is bounded by its window. What may have got lost is sent again, all of it; whoever gets a
value twice knows by its index.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from evener_wire import messages as m
from evener_wire.limits import BATCH_BYTES_TARGET, BATCH_ITEMS_MAX
from evener_worker.attempts import HANDED, Key
from evener_worker.effects import Take
from evener_worker.events import Yielded
from evener_worker.ledger import Ledger
from evener_worker.session import Session
from evener_worker.shares import running_as
from evener_worker.slots import Slot

_Item: TypeAlias = tuple[bytes, int, int, bool, m.Payload]


class Streams:
    """Caller: the core's step."""

    __slots__ = ("_fresh", "_ledger", "_open", "_session", "stale")

    def __init__(self, ledger: Ledger, session: Session) -> None:
        self._ledger = ledger
        self._session = session
        # Of attempts that yielded: what is not taken, as (index, more, payload).
        self._open: dict[Key, deque[tuple[int, bool, m.Payload]]] = {}
        self._fresh: list[_Item] = []  # of these, what is to be told at the end of the step
        self.stale = False  # a new session: whatever was told may have got lost

    def on_yielded(self, slot: Slot, event: Yielded) -> None:
        """A worker sent a value."""
        attempt = running_as(slot, event.sequence)
        if attempt is None:
            return  # it was stopped, and its worker had not noticed
        key = attempt.key
        value = event.index, event.more, event.payload
        self._open.setdefault(key, deque()).append(value)
        self._fresh.append((*key, *value))

    def on_taken(self, taken: m.Taken) -> None:
        """The client took values, or wants the rest again."""
        for task_id, fence, upto, again in taken.items:
            key = task_id, fence
            values = self._open.get(key)
            attempt = self._ledger.open.get(key)
            if values is None or attempt is None or attempt.state is not HANDED:
                continue
            before = len(values)
            while values and values[0][0] < upto:
                values.popleft()
            if len(values) < before:
                self._ledger.effects.append(Take(attempt.slot, attempt.sequence, upto))
            if again:
                # What is new stands among them.
                self._fresh = [item for item in self._fresh if item[:2] != key]
                self._fresh += [(*key, *value) for value in values]

    def proceed(self) -> None:
        """At the end of each step: forget what ended; tell what is new, or all to a new session."""
        for key in [key for key in self._open if key not in self._ledger.open]:
            del self._open[key]
        if self.stale:
            self.stale = False
            self._fresh = [(*key, *it) for key, values in self._open.items() for it in values]
        if self._fresh:
            self._tell()

    def _tell(self) -> None:
        batch: list[_Item] = []
        size = 0
        for item in self._fresh:
            if batch and (size >= BATCH_BYTES_TARGET or len(batch) == BATCH_ITEMS_MAX):
                self._session.send(m.Values(batch))
                batch, size = [], 0
            batch.append(item)
            size += m.weight_of(item[4])
        self._fresh.clear()
        self._session.send(m.Values(batch))

    def check(self) -> None:
        """Raises AssertionError where values do not follow each other."""
        for values in self._open.values():
            indexes = [index for index, _, _ in values]
            assert indexes == list(range(indexes[0], indexes[0] + len(values))) if values else True
