"""Helpers for tests of the journal: records with known content, and what became of them.

Rules of this file: real files, and every wait ends.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evener_broker.effects import Append
from evener_broker.events import CommitFailed, Committed
from evener_broker.journal import Journal
from evener_broker.journaling import Contents, Records, TaskEnded, TaskSaved, TaskTried
from evener_wire import messages as m

BYTES_MAX = 64 << 20
CLIENT = b"c" * 16


def open_journal(path: Path, bytes_max: int = BYTES_MAX, at_least_epoch: int = 0) -> Journal:
    """As the broker opens it."""
    return Journal.open(path, bytes_max, at_least_epoch)


def reopened(path: Path, bytes_max: int = BYTES_MAX) -> Contents:
    """What a broker that starts now would get."""
    with open_journal(path, bytes_max) as journal:
        return journal.take_contents()


def id_of(number: int) -> bytes:
    """The id of a task of these tests."""
    return number.to_bytes(16, "big")


def saved(number: int, call: m.Payload = b"call", **changes: Any) -> TaskSaved:
    """A task that was accepted."""
    task = TaskSaved(number, id_of(number), CLIENT, "work.add", m.DEFAULT_OPTIONS, call, number * 7)
    return task._replace(**changes)


def ended(number: int, result: m.Payload = b"result", **changes: Any) -> TaskEnded:
    """Its end."""
    return TaskEnded(number, m.TERMINAL_DONE, result, None, False)._replace(**changes)


def tried(number: int, **changes: Any) -> TaskTried:
    """Its counts."""
    return TaskTried(number, 1, 0, 0, False)._replace(**changes)


class Writer:
    """Appends records to a journal, and notes what the journal tells of them."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.txn = 0
        self.committed: list[int] = []
        self.failed: list[CommitFailed] = []
        self.bytes_used = 0

    def append(self, *, resume: bool = False, **records: Any) -> int:
        """One transaction; returns its number."""
        self.txn += 1
        self.journal.append(Append(self.txn, Records(**records), resume))
        return self.txn

    def save(self, numbers: Sequence[int], call: m.Payload = b"call") -> int:
        """One transaction with these tasks."""
        return self.append(saved=[saved(number, call) for number in numbers])

    def take(self) -> None:
        """Wait for news, and take it in."""
        assert select.select([self.journal.fd], [], [], 30)[0], "the journal says nothing"
        for event in self.journal.take_events():
            if type(event) is Committed:
                self.committed.append(event.txn)
                self.bytes_used = event.bytes_used
            else:
                assert type(event) is CommitFailed
                self.failed.append(event)

    def settle(self) -> None:
        """Wait until the last transaction is decided."""
        before = len(self.failed)
        while self.txn not in self.committed and len(self.failed) == before:
            self.take()

    def commit(self, **records: Any) -> int:
        """One transaction that must reach the disk."""
        txn = self.append(**records)
        self.settle()
        assert self.committed[-1:] == [txn], self.failed
        return txn
