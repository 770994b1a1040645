"""Results of an earlier broker's attempts that no client has claimed yet, kept for a while.

Changes: nothing but its own table, which counts against the broker's bound of payload bytes.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from evener_broker.tables import Tables
from evener_wire import messages as m
from evener_wire.limits import ORPHAN_NS

Item: TypeAlias = tuple[bytes, int, int, m.Payload, int, "m.Facts | None"]


class Unclaimed:
    """Caller: recovery."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.results: Final[dict[bytes, Item]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.results)

    def take(self, task_id: bytes) -> Item | None:
        """Take out the result of a task, if there is one."""
        item = self.results.pop(task_id, None)
        if item is not None:
            self._bytes -= len(item[3])
        return item

    def keep(self, item: Item) -> None:
        """Keep a result, if there is room; an earlier one of the same task goes."""
        tables, size = self._tables, len(item[3])
        self.take(item[0])
        if tables.bytes + self._bytes + size > tables.bounds.payload_bytes:
            tables.counters["results_unclaimed_dropped"] += 1  # its task will run again
            return
        self.results[item[0]] = item
        self._bytes += size
        tables.timers.set(tables.now_ns + ORPHAN_NS, self._on_over, item)

    def _on_over(self, item: Item) -> None:
        if self.results.get(item[0]) is item:  # another attempt may have brought a later one
            self.take(item[0])

    def check(self) -> None:
        """Recount the bytes."""
        assert self._bytes == sum(len(item[3]) for item in self.results.values())
