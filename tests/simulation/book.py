"""What a journal holds, as plain data: the records applied one after the other.

Rules of this file: nothing of `journal_store.py`; the two must agree because both follow
`journaling.py`. Applying the same records again changes nothing.
"""

from __future__ import annotations

from typing import Final

from evener_broker.core import BrokerCore
from evener_broker.journaling import Contents, KeptTask, Records
from evener_broker.records import Tries
from evener_broker.transitions import TERMINAL, TERMINAL_CODES
from tests.simulation.truth import digest_of
from tests.simulation.world import Violation

# What a row takes beside its payloads, roughly.
_ROW_BYTES: Final = 128


class Book:
    """Tasks by acceptance number, clients and agents."""

    def __init__(self) -> None:
        self.tasks: dict[int, KeptTask] = {}
        self.by_id: dict[bytes, int] = {}
        self.clients: dict[bytes, str] = {}
        self.agents: dict[bytes, str] = {}
        self.taken: dict[bytes, int] = {}
        self.paused: dict[str, None] = {}
        self.accepted = 0
        self.bytes = 0
        # For checkers alone.
        self.forgotten: dict[int, KeptTask] = {}
        self.forgotten_ids: set[bytes] = set()

    def find(self, task_id: bytes) -> KeptTask | None:
        """The task with this id."""
        number = self.by_id.get(task_id)
        return None if number is None else self.tasks[number]

    def growth(self, records: Records) -> int:
        """How much larger it gets at most."""
        size = sum(_ROW_BYTES + len(s.call) for s in records.saved if s.number not in self.tasks)
        size += sum(len(ended.result) for ended in records.ended)
        freed = [self.tasks[n] for n in records.forgotten if n in self.tasks]
        return size - sum(map(_size, freed))

    def contents(self, bytes_max: int, epoch: int) -> Contents:
        """What a broker that starts reads; `epoch` is that of the broker that wrote it."""
        tasks = [self.tasks[number] for number in sorted(self.tasks)]
        return Contents(
            self.accepted,
            self.bytes,
            bytes_max,
            list(self.clients.items()),
            list(self.agents.items()),
            tasks,
            epoch,
            list(self.taken.items()),
            list(self.paused),
        )

    def apply(self, records: Records) -> None:
        """One transaction."""
        for instance in records.clients_gone:
            self.clients.pop(instance, None)
            self.taken.pop(instance, None)
        for instance in records.agents_gone:
            self.agents.pop(instance, None)
        self.clients.update(records.clients)
        self.agents.update(records.agents)
        self.taken.update(records.taken)
        for name, paused in records.pauses:
            self.paused.pop(name, None)
            if paused:
                self.paused[name] = None
        for saved in records.saved:
            self._check_number(saved.number, saved.id)
            self._put(
                KeptTask(*saved, 0, 0, 0, dispatched=False, state=None, result=b"", facts=None)
            )
        for tried in records.tried:
            if (task := self.tasks.get(tried.number)) is not None:
                counts = tried._asdict()
                self._put(task._replace(**counts))
        for ended in records.ended:
            if (task := self.tasks.get(ended.number)) is not None:
                self._check_end(task, ended.state, digest_of(ended.result))
                call = task.call if ended.keep_call else None
                self._put(
                    task._replace(
                        state=ended.state,
                        result=ended.result,
                        facts=ended.facts,
                        call=call,
                        order=ended.order,
                    )
                )
        for number in records.forgotten:
            self._drop(number)

    def _check_number(self, number: int, task_id: bytes) -> None:
        known = self.tasks.get(number) or self.forgotten.get(number)
        if known is not None and known.id != task_id:
            raise Violation("I9", f"number {number} was given to another task before")

    def _check_end(self, task: KeptTask, state: int, digest: bytes) -> None:
        before = task.state
        if before is not None and (before, digest_of(task.result)) != (state, digest):
            raise Violation("I1", f"the journal has another end of {task.id.hex()} already")

    def _put(self, task: KeptTask) -> None:
        old = self.tasks.get(task.number)
        self.bytes += _size(task) - (0 if old is None else _size(old))
        self.tasks[task.number] = task
        self.by_id[task.id] = task.number
        self.accepted = max(self.accepted, task.number)

    def _drop(self, number: int) -> None:
        task = self.tasks.pop(number, None)
        if task is not None:
            self.bytes -= _size(task)
            self.forgotten[number] = task
            self.forgotten_ids.add(task.id)
            if self.by_id.get(task.id) == number:
                del self.by_id[task.id]


def _size(task: KeptTask) -> int:
    return _ROW_BYTES + len(task.result) + (0 if task.call is None else len(task.call))


Snapshot = dict[int, tuple[object, ...]]


def snapshot_of(core: BrokerCore) -> Snapshot:
    """What a broker holds now of each task, as far as a journal is to keep it.

    What ended has its counts in its facts.
    """
    found: Snapshot = {}
    for task in core.tables.tasks.values():
        tries = task.tries
        ended = task.state in TERMINAL
        call = tries.call if ended else task.payload
        found[task.number] = (
            task.id,
            task.client.instance,
            task.function.name,
            task.options,
            None if call is None else digest_of(call),
            None if ended else _counts(tries),
            TERMINAL_CODES[task.state] if ended else None,
            digest_of(task.payload) if ended else b"",
            tries.facts if ended else None,
        )
    return found


def snapshot_in(book: Book) -> Snapshot:
    """The same, of what the journal holds."""
    return {
        task.number: (
            task.id,
            task.client,
            task.function,
            task.options,
            None if task.call is None else digest_of(task.call),
            None if task.state is not None else _counts(task),
            task.state,
            digest_of(task.result) if task.state is not None else b"",
            task.facts,
        )
        for task in book.tasks.values()
    }


def _counts(tried: KeptTask | Tries) -> tuple[int, int, int, int]:
    return tried.starts, tried.failures, tried.returns, tried.settled
