"""One line of waiting tasks, in the order of acceptance, whenever they come back to it.

Ended tasks are skipped, and swept out when they are many. No I/O, no clock.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from itertools import islice

from evener_broker.records import UNTRIED, Task
from evener_broker.transitions import State


class Fifo:
    """Tasks in the order of their acceptance numbers. Those that ended meanwhile are skipped."""

    __slots__ = ("_back", "_new")

    def __init__(self) -> None:
        # Tasks mostly come in order; those that come back to an earlier place stand in a heap.
        self._new: deque[Task] = deque()
        self._back: list[tuple[int, Task]] = []

    def add(self, task: Task) -> None:
        """Put a task in its place: usually the end, since numbers grow."""
        if self._new and task.number < self._new[-1].number:
            heapq.heappush(self._back, (task.number, task))
        else:
            self._new.append(task)

    def head(self) -> Task | None:
        """The next task, or None."""
        new, back = self._new, self._back
        if not back and new and new[0].state is State.QUEUED:
            return new[0]
        while new and new[0].state is not State.QUEUED:
            new.popleft()
        while back and back[0][1].state is not State.QUEUED:
            heapq.heappop(back)
        if back and (not new or back[0][0] < new[0].number):
            return back[0][1]
        return new[0] if new else None

    def pop(self) -> None:
        """Take out the task that `head` just gave."""
        new, back = self._new, self._back
        if not back:
            new.popleft()
        elif not new or back[0][0] < new[0].number:
            heapq.heappop(back)
        else:
            new.popleft()

    def pop_like(self, first: Task, most: int) -> list[Task]:
        """Take out the next tasks, up to `most`, as long as they are like `first`, just popped."""
        if self._back:
            return []
        new = self._new
        function, options = first.function, first.options
        taken: list[Task] = []
        for _ in range(min(most, len(new))):
            task = new[0]
            if (
                task.function is not function
                or task.options is not options
                or task.tries is not UNTRIED
                or task.state is not State.QUEUED
            ):
                break
            taken.append(new.popleft())
        return taken

    def sweep(self) -> None:
        """Forget the tasks that ended while they waited here."""
        self._new = deque(task for task in self._new if task.state is State.QUEUED)
        self._back = [entry for entry in self._back if entry[1].state is State.QUEUED]
        heapq.heapify(self._back)

    def before(self, number: int, most: int) -> tuple[int, bool]:
        """How many waiting tasks have a smaller number, and whether that is all of them.

        Looks at no more than `most` tasks of each kind, so it costs the same however many wait.
        """
        count = 0
        exact = len(self._back) <= most
        for looked, task in enumerate(self._new):
            if task.number >= number:
                break
            if looked == most:
                exact = False
                break
            count += task.state is State.QUEUED
        for earlier, task in islice(self._back, most):
            count += earlier < number and task.state is State.QUEUED
        return count, exact

    def __iter__(self) -> Iterator[Task]:
        for task in sorted([*self._new, *(task for _, task in self._back)], key=number_of):
            if task.state is State.QUEUED:
                yield task


def number_of(task: Task) -> int:
    """Its place in the order of acceptance."""
    return task.number
