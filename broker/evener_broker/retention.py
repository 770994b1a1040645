"""Ends that are kept after their clients have them, for whoever asks later.

Of what ended well the latest are kept for a while; what failed, got lost or expired is kept longer,
with its call, so that people can look at it and have it run anew. Bounded in number, bytes and
time: the oldest go first. Changes: ended tasks, clients' sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from evener_broker.records import UNTRIED, Client, Task
from evener_broker.shelves import Shelf
from evener_broker.tables import Tables
from evener_broker.transitions import LETTERS

# Ends that go together when a broker of the next time has too many of them.
_BATCH: Final = 256


class Retention:
    """Caller: the broker core."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._results: Final = tables.results
        self._letters: Final = tables.letters
        self._armed = False

    # --- In and out -------------------------------------------------------------------------------

    def acknowledged(self, client: Client, upto: int) -> None:
        """The client has all ends that it was told in its messages up to this one."""
        landed: list[Task] = []
        while client.flights and client.flights[0][0] <= upto:
            landed = client.landed()
            self.taken(client, landed)
        if landed:
            self._tables.commits.took(client, landed[-1])

    def taken(self, client: Client, tasks: list[Task]) -> None:
        """The client has the ends of these tasks: they are no longer its own."""
        letters: list[Task] = []
        size = 0
        for task in tasks:
            task.taken = True
            if task.tries is not UNTRIED and task.state in LETTERS:
                letters.append(task)
            else:
                size += len(task.payload)
        results = [t for t in tasks if t.state not in LETTERS] if letters else tasks
        self._leave(client, len(results), size)
        if results:
            self._tables.retained += len(results)
            self._results.put(self._tables.now_ns, results, size)
        self._keep_letters(client, letters)
        self._clear()

    def unclaimed(self, client: Client, tasks: Iterable[Task]) -> None:
        """Nobody came for these ends in all the time that results are kept."""
        tasks = list(tasks)
        if tasks:
            self._tables.commits.took(client, tasks[-1])
        results = [task for task in tasks if task.state not in LETTERS]
        self._leave(client, len(results), sum(task.size() for task in results))
        self._forget(results)
        self._keep_letters(client, [task for task in tasks if task.state in LETTERS])
        self._clear()

    def restored(self, tasks: list[Task]) -> None:
        """The journal has these ends, which their clients took from an earlier broker."""
        now_ns = self._tables.now_ns
        self._tables.retained += len(tasks)
        for task in tasks:
            task.taken = True
        letters = [task for task in tasks if task.state in LETTERS]
        results = [task for task in tasks if task.state not in LETTERS]
        for shelf, ends in ((self._results, results), (self._letters, letters)):
            for start in range(0, len(ends), _BATCH):
                batch = ends[start : start + _BATCH]
                shelf.put(now_ns, batch, sum(task.size() for task in batch))
        self._clear()

    def _keep_letters(self, client: Client, letters: list[Task]) -> None:
        if letters:
            size = sum(task.size() for task in letters)
            self._leave(client, len(letters), size)
            self._tables.retained += len(letters)
            for task in letters:
                task.taken = True
            self._letters.put(self._tables.now_ns, letters, size)

    def _leave(self, client: Client, count: int, size: int) -> None:
        client.ended_tasks -= count
        client.bytes -= size
        self._tables.bytes -= size
        self._tables.relieve(client)

    def _clear(self) -> None:
        """Forget what is too old or too much; look again when the next is too old."""
        tables = self._tables
        for shelf in (self._results, self._letters):
            overdue = shelf.overdue(tables.now_ns)
            if overdue:
                tables.retained -= len(overdue)
                self._forget(overdue)
            while tables.commits.is_crowded() and shelf.count:
                self._forget_oldest(shelf)
        if not self._armed:
            moments = [at for at in (self._results.next_at(), self._letters.next_at()) if at]
            if moments:
                self._armed = True
                tables.timers.set(min(moments), self._on_old, None)

    def make_room(self) -> None:
        """A task was refused because the journal is full: what is only kept goes first."""
        commits = self._tables.commits
        most, commits.short = commits.growth - commits.short, 0
        for shelf in (self._results, self._letters):
            while commits.growth > most and shelf.count:
                self._forget_oldest(shelf)

    def _forget_oldest(self, shelf: Shelf) -> None:
        oldest = shelf.oldest()
        self._tables.retained -= len(oldest)
        self._forget(oldest)

    def _on_old(self, _: object) -> None:
        self._armed = False
        self._clear()

    def _forget(self, tasks: list[Task]) -> None:
        table = self._tables.tasks
        for task in tasks:
            del table[task.id]
        if self._tables.commits.durable:
            for task in tasks:
                self._tables.commits.forget(task)

    # --- For people -------------------------------------------------------------------------------

    def inherit(self) -> None:
        """Dead letters of clients that closed, which will not come for them, are for people now."""
        for client in self._tables.clients.values():
            if client.closed and client.outgoing:
                letters = [task for task in client.outgoing if task.state in LETTERS]
                results = [task for task in client.outgoing if task.state not in LETTERS]
                client.outgoing.clear()
                client.outgoing.extend(results)
                self._keep_letters(client, letters)
        self._clear()

    def purge(self, tasks: set[Task]) -> int:
        """Forget some of the dead letters now; returns how many of these were such."""
        found = [task for task in self._letters if task in tasks]
        self._letters.remove(set(found))
        self._tables.retained -= len(found)
        self._forget(found)
        return len(found)

    def check(self) -> None:
        """Recount what is kept."""
        tables = self._tables
        kept = [*self._results, *self._letters]
        assert tables.retained == len(kept) == self._results.count + self._letters.count
        assert {task.id for task in kept} == {t.id for t in tables.tasks.values() if t.taken}
        for shelf in (self._results, self._letters):
            assert shelf.bytes == sum(task.size() for task in shelf)
        assert not kept or self._armed
