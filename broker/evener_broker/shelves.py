"""Where ended tasks are kept after their clients have them: bounded in number, bytes and time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from evener_broker.records import Task


class Shelf:
    """Ended tasks, the oldest first, bounded in number, bytes and time."""

    def __init__(self, tasks_max: int, bytes_max: int, time_ns: int) -> None:
        self._tasks_max: Final = tasks_max
        self._bytes_max: Final = bytes_max
        self._time_ns: Final = time_ns
        self._batches: Final[deque[tuple[int, list[Task], int]]] = deque()
        self.count = 0
        self.bytes = 0

    def put(self, now_ns: int, tasks: list[Task], size: int) -> None:
        """These come last."""
        self._batches.append((now_ns + self._time_ns, tasks, size))
        self.count += len(tasks)
        self.bytes += size

    def overdue(self, now_ns: int) -> list[Task]:
        """Take out what is too old or too much."""
        found: list[Task] = []
        batches = self._batches
        while batches and (
            self.count > self._tasks_max or self.bytes > self._bytes_max or batches[0][0] <= now_ns
        ):
            found += self.oldest()
        return found

    def oldest(self) -> list[Task]:
        """Take out those that came first, or nothing if there are none."""
        if not self._batches:
            return []
        _, tasks, size = self._batches.popleft()
        self.count -= len(tasks)
        self.bytes -= size
        return tasks

    def next_at(self) -> int | None:
        """When the oldest is too old."""
        return self._batches[0][0] if self._batches else None

    def remove(self, tasks: set[Task]) -> None:
        """Take out some. A walk over all."""
        for index, (until_ns, batch, _) in enumerate(self._batches):
            left = [task for task in batch if task not in tasks]
            self._batches[index] = until_ns, left, sum(task.size() for task in left)
        self.count = sum(len(batch) for _, batch, _ in self._batches)
        self.bytes = sum(size for _, _, size in self._batches)

    def __iter__(self) -> Iterator[Task]:
        for _, batch, _ in self._batches:
            yield from batch
