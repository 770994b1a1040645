"""The journal: what the broker promised, on disk. Statements here, the sync in a thread.

The loop's thread runs the statements, because they are short and hold the interpreter anyway. The
COMMIT, which waits for the disk, runs in one thread of its own; what the loop appends meanwhile
waits, and shares the next commit. The database is used by one of the two at a time: by the thread
from an order until its last report. Rules of this file: it decides nothing about tasks.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import shutil
import sqlite3
from collections import deque
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Final, NamedTuple

from evener_broker.effects import Append
from evener_broker.events import CommitFailed, Committed, Event
from evener_broker.journal_damage import JournalError, check_files, damaged
from evener_broker.journal_schema import create
from evener_broker.journal_store import EpochError, Store, reason_of
from evener_broker.journaling import Contents
from evener_wire.errors import UsageError
from evener_wire.limits import MIB

_log = logging.getLogger("evener.broker")

# What one commit may write beyond its first turn: the statements take the loop's time at a stretch,
# 3 us for each record and a millisecond for each megabyte.
_GROUP_RECORDS: Final = 10_000
_GROUP_BYTES: Final = 32 * MIB

# The pages that a new journal needs, and room for some tasks.
BYTES_MIN: Final = MIB

_CLOSE_POLL_S: Final = 1.0

_ERRORS: Final = (sqlite3.Error, EpochError, JournalError, OSError, OverflowError)


class _Order(NamedTuple):
    """What the thread is to do: commit the transactions `first` to `last`, or recover."""

    first: int
    last: int
    recover: bool = False


class _Report(NamedTuple):
    """What the thread did. `idle`: the database is the loop's again."""

    event: Event | None
    idle: bool


class Journal:
    """An open journal. Caller: the broker's loop; all methods but `close` return at once.

    `fd` is readable while `take_events` has something.
    """

    def __init__(self, store: Store, contents: Contents, lock: int) -> None:
        self._contents: Contents | None = contents
        self.epoch: Final = store.epoch
        self.fd: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._store = store
        self._lock = lock
        self._queue: deque[Append] = deque()
        self._reports: deque[_Report] = deque()
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._busy = False
        self._failed = False
        self._last = 0
        self._closed = False
        self._thread = Thread(target=self._work, name="journal")
        self._thread.start()

    @classmethod
    def open(cls, path: Path, bytes_max: int, at_least_epoch: int = 0) -> Journal:
        """Open or make a journal, and begin a new epoch in it. Raises `JournalError`."""
        if bytes_max < BYTES_MIN:
            raise UsageError(f"a journal needs at least {BYTES_MIN} bytes: raise --journal-size")
        path = path.resolve()  # as SQLite does, which names the log after it
        lock = _take(path)
        store = Store(path, bytes_max)
        try:
            check_files(path, lock)
            store.open()
            contents = store.load()
            # What a power cut left of a last transaction goes with the log. Else it would stand
            # behind our first one, and after another power cut nobody could tell what was synced.
            store.checkpoint()
            store.take_over(at_least_epoch)
            _warn_of_small_disk(store)
            return cls(store, contents, lock)
        except _ERRORS as error:
            store.close()
            os.close(lock)
            raise _opening_failed(path, error) from error
        except BaseException:
            store.close()
            os.close(lock)
            raise

    # --- In the loop's thread ---------------------------------------------------------------------

    def take_contents(self) -> Contents:
        """What it held when it was opened; once, so that nobody holds on to a million tasks."""
        contents, self._contents = self._contents, None
        assert contents is not None
        return contents

    def append(self, effect: Append) -> None:
        """Write and sync these records, after all earlier ones."""
        assert effect.txn > self._last, "transactions come in order"
        assert not self._closed
        self._last = effect.txn
        if self._failed:
            if not effect.resume:
                return
            self._failed = False
        self._queue.append(effect)
        if not self._busy:
            self._begin()

    def take_events(self) -> list[Event]:
        """What became of transactions; begins the next commit."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        events: list[Event] = []
        while self._reports:
            event, idle = self._reports.popleft()
            if idle:
                self._busy = False
            if type(event) is CommitFailed:
                self._fail()
            if event is not None:
                events.append(event)
        if self._queue and not self._busy:
            self._begin()
        return events

    def _fail(self) -> None:
        # What the core appended before it knows of this relies on what failed.
        self._failed = True
        self._queue.clear()

    def _begin(self) -> None:
        """Run the statements of what waits, and have it committed."""
        if not self._store.is_open():
            first = self._queue[0].txn
            self._order(_Order(first, first, recover=True))
            return
        group: list[Append] = []
        count = size = 0
        while self._queue and count < _GROUP_RECORDS and size < _GROUP_BYTES:
            effect = self._queue.popleft()
            group.append(effect)
            if self._queue:  # else nobody asks how much it is
                saved, ended = effect.records.saved, effect.records.ended
                count += len(saved) + len(ended)
                size += sum(len(task.call) for task in saved)
                size += sum(len(task.result) for task in ended)
        first, last = group[0].txn, group[-1].txn
        try:
            self._store.write(last, [effect.records for effect in group])
        except _ERRORS as error:
            self._store.rollback()
            self._fail()
            self._report(CommitFailed(first, reason_of(error)), idle=True)
            return
        self._order(_Order(first, last))

    def _order(self, order: _Order) -> None:
        assert not self._busy
        self._busy = True
        self._orders.put(order)

    def close(self) -> None:
        """Finish what was appended, write the log into the file, and let go of it."""
        if self._closed:
            return
        while self._busy or self._queue:
            select.select([self.fd], [], [], _CLOSE_POLL_S)
            self.take_events()
        self._closed = True
        self._orders.put(None)
        self._thread.join()
        if self._store.is_open():
            try:
                self._store.checkpoint()
            except _ERRORS as error:
                _log.warning("journal: its log stays beside it: %s", reason_of(error))
        self._store.close()
        os.close(self.fd)
        os.close(self._lock)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "failed" if self._failed else "busy" if self._busy else "idle"
        return f"<Journal {self._store.path} epoch {self.epoch}, {state}>"

    # --- In the thread that syncs -----------------------------------------------------------------

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            if order.recover:
                self._recover(order)
            else:
                self._commit(order)

    def _commit(self, order: _Order) -> None:
        store = self._store
        try:
            store.commit()
        except Exception as error:
            self._settle(order, error)
            return
        event = Committed(order.last, store.bytes_used)
        if not store.wants_upkeep():
            self._report(event, idle=True)
            return
        self._report(event, idle=False)
        try:
            store.upkeep(order.last)
        except _ERRORS as error:
            # Nothing is lost: the log only grows until this works.
            _log.warning("journal: its log could not be written back: %s", reason_of(error))
            store.rollback()
        self._report(None, idle=True)

    def _settle(self, order: _Order, error: Exception) -> None:
        """A COMMIT failed, and whether it is on disk is not known: look."""
        store, unknown = self._store, order.last
        try:
            if store.look() < order.last:
                unknown = 0  # what cannot be seen was never written, and will not appear later
            store.checkpoint()
        except _ERRORS as again:
            _log.warning("journal: not usable: %s", reason_of(again))
            store.close()
            self._report(CommitFailed(order.first, reason_of(error), unknown), idle=True)
            return
        if unknown:
            self._report(Committed(order.last, store.bytes_used), idle=True)
        else:
            self._report(CommitFailed(order.first, reason_of(error)), idle=True)

    def _recover(self, order: _Order) -> None:
        try:
            self._store.look()
            self._store.checkpoint()
        except _ERRORS as error:
            self._store.close()
            self._report(CommitFailed(order.first, reason_of(error)), idle=True)
            return
        self._report(None, idle=True)

    def _report(self, event: Event | None, *, idle: bool) -> None:
        self._reports.append(_Report(event, idle))
        os.eventfd_write(self.fd, 1)


# --- Taking the file ------------------------------------------------------------------------------


def _take(path: Path) -> int:
    """A descriptor of the file, which is made if it is missing, locked against other brokers."""
    try:
        while True:
            if not path.exists():
                create(path)
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Somebody may have moved it away in between.
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
    except BlockingIOError as error:
        raise JournalError(
            f"the journal {path} is in use by {_who_has(path)}: stop that broker, or name another "
            "file with --journal"
        ) from error
    except (OSError, sqlite3.Error) as error:
        raise _opening_failed(path, error) from error


def _who_has(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError, IndexError):
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
                return f"the process with pid {int(fields[4])}"
    return "another process"


def _opening_failed(path: Path, error: Exception) -> JournalError:
    if isinstance(error, JournalError):
        return error
    if isinstance(error, FileNotFoundError):
        return JournalError(f"cannot open the journal {path}: there is no folder {path.parent}")
    if isinstance(error, PermissionError):
        return JournalError(
            f"cannot open the journal {path}: this user may not read and write it and its folder"
        )
    if isinstance(error, OSError):
        return JournalError(f"cannot open the journal {path}: {error.strerror}")
    name = getattr(error, "sqlite_errorname", "")
    # Without a name it is Python's, of a text that is no UTF-8.
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or name in ("SQLITE_ERROR", ""):
        return damaged(path, str(error))
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        return JournalError(
            f"cannot open the journal {path}: the broker must be able to write it, and to make "
            f"files in {path.parent}"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return JournalError(f"the journal {path} is in use by another process: stop that one")
    return JournalError(f"cannot open the journal {path}: {reason_of(error)}")


def _warn_of_small_disk(store: Store) -> None:
    """A journal that fills its disk before its bound can reject tasks, but hardly tidy up."""
    most = store.bytes_max + 2 * store.log_bytes
    needed = most - store.path.stat().st_size
    free = shutil.disk_usage(store.path.parent).free
    if free < needed:
        _log.warning(
            "journal %s may grow to %d MiB with its log, and its disk has %d MiB left: "
            "make room, or lower --journal-size",
            store.path,
            most // MIB,
            free // MIB,
        )
