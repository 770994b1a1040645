"""A journal in memory: it keeps what is committed, when the test says so.

`contents` is what a broker that starts now would read. Nothing of it is shared with the real one,
so it is also a second opinion on what the records mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from evener_broker.effects import Append
from evener_broker.events import CommitFailed, Committed, Event
from evener_broker.journaling import Contents, KeptTask, Records

BYTES_MAX = 1 << 30


class FakeJournal:
    """`auto`: each transaction is committed at once."""

    def __init__(self, *, auto: bool = True, bytes_max: int = BYTES_MAX) -> None:
        self.auto = auto
        self.bytes_max = bytes_max
        self.tasks: dict[int, KeptTask] = {}
        self.clients: dict[bytes, str] = {}
        self.agents: dict[bytes, str] = {}
        self.paused: set[str] = set()
        self.taken: dict[bytes, int] = {}
        self.accepted = 0
        self.epoch = 0
        self.committed = 0
        self.pending: list[Append] = []
        self.failed = False

    def append(self, effect: Append) -> None:
        """The core wants a transaction written."""
        if self.failed and not effect.resume:
            return
        self.failed = False
        self.pending.append(effect)

    def commit(self, most: int | None = None) -> list[Event]:
        """The next transactions are on disk."""
        events: list[Event] = []
        for effect in self.pending[:most]:
            self._apply(effect.records)
            self.committed = effect.txn
            events.append(Committed(effect.txn, self.bytes_used()))
        del self.pending[: len(events)]
        return events

    def fail(
        self,
        reason: str = "No space left on device",
        *,
        written: bool = False,
        unknown: bool = False,
    ) -> Event:
        """What is pending fails. Of the first transaction that is `unknown`, and it may be
        `written` all the same."""
        failed, self.pending = self.pending, []
        if written:
            self._apply(failed[0].records)
        self.failed = True
        return CommitFailed(failed[0].txn, reason, failed[0].txn if written or unknown else 0)

    def bytes_used(self) -> int:
        """Payloads alone."""
        kept = self.tasks.values()
        return sum(len(task.call or b"") + len(task.result) for task in kept)

    def contents(self) -> Contents:
        """What a broker reads at its start. What is pending is lost."""
        self.pending.clear()
        self.failed = False
        return Contents(
            self.accepted,
            self.bytes_used(),
            self.bytes_max,
            list(self.clients.items()),
            list(self.agents.items()),
            [self.tasks[number] for number in sorted(self.tasks)],
            self.epoch,
            list(self.taken.items()),
            sorted(self.paused),
        )

    def _apply(self, records: Records) -> None:
        _drop(self.clients, records.clients_gone)
        _drop(self.taken, records.clients_gone)
        _drop(self.agents, records.agents_gone)
        for name, paused in records.pauses:
            (self.paused.add if paused else self.paused.discard)(name)
        self.clients.update(records.clients)
        self.agents.update(records.agents)
        self.taken.update(records.taken)
        for saved in records.saved:
            self.tasks[saved.number] = KeptTask(*saved, 0, 0, 0, False, None, b"", None)
            self.accepted = max(self.accepted, saved.number)
        for tried in records.tried:
            counts = tried._asdict()
            self.tasks[tried.number] = self.tasks[tried.number]._replace(**counts)
        for ended in records.ended:
            task = self.tasks[ended.number]
            self.tasks[ended.number] = task._replace(
                call=task.call if ended.keep_call else None,
                state=ended.state,
                result=ended.result,
                facts=ended.facts,
                order=ended.order,
            )
        for number in records.forgotten:
            self.tasks.pop(number, None)


def _drop(table: dict[bytes, Any], keys: Iterable[bytes]) -> None:
    for key in keys:
        table.pop(key, None)
