"""The journal's database: opened, checked, written and synced. No thread of its own.

One row for each task, keyed by acceptance number, in one table without indexes; all writes may be
repeated. Each transaction first writes `meta`, on the condition that the epoch there is ours.
`cache_spill` is off, so that statements never write to the disk and a transaction has each page
once in the log, which `journal_damage` relies on. Caller: one thread at a time.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from evener_broker import journal_rows as rows
from evener_broker import journal_schema as schema
from evener_broker.journal_damage import (
    EXIT_DAMAGED,
    PAGE_BYTES,
    JournalError,
    damaged,
    wal_of,
)
from evener_broker.journaling import Contents, KeptTask, Records
from evener_wire import checks
from evener_wire import messages as m
from evener_wire.limits import BROKER_TASKS_MAX, MIB

# The log is written into the file itself once it has so many bytes, or a quarter of the journal's
# bound: a disk that is hardly larger must have room for both. Larger: fewer syncs, a longer look at
# it after a crash (20 us for each page).
_LOG_BYTES: Final = 16 * MIB

# Free pages are given back while there are more than these, and more than a quarter of all.
_FREE_PAGES: Final = 1_024

_CACHE_KIB: Final = 65_536

# Ended tasks are kept as well as open ones.
_ROWS_MAX: Final = 4 * BROKER_TASKS_MAX


class EpochError(Exception):
    """Raised when another broker has written to the journal since we opened it."""


class Store:
    """An open database, with a transaction under way or none. All but `close` raise sqlite3.Error
    and `EpochError`."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self.path: Final = path
        self.bytes_max: Final = bytes_max
        self.log_bytes: Final = min(_LOG_BYTES, bytes_max // 4)
        self.bytes_used = 0
        self.epoch = 0
        self._accepted = 0
        self._writes = 0
        self._packing = rows.Packing()
        self._in_parts: set[int] = set()  # tasks that may have any
        self._connection: sqlite3.Connection | None = None

    # --- Open and close ---------------------------------------------------------------------------

    def open(self) -> None:
        """Open the database, and take it for this process alone. Raises `JournalError` too."""
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            for setting in (
                "locking_mode=EXCLUSIVE",
                "trusted_schema=OFF",
                "cell_size_check=ON",
                "synchronous=FULL",
                "wal_autocheckpoint=0",
                "cache_spill=OFF",
                f"cache_size=-{_CACHE_KIB}",
                "secure_delete=OFF",
                "temp_store=MEMORY",
            ):
                connection.execute(f"PRAGMA {setting}").fetchall()
            schema.upgrade(connection)
            schema.check(connection, self.path)
            pages = max(1, self.bytes_max // PAGE_BYTES)
            connection.execute(f"PRAGMA max_page_count={pages}").fetchall()
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._count_bytes()

    def is_open(self) -> bool:
        """False before `open`, and after something went wrong that `look` may mend."""
        return self._connection is not None

    def close(self) -> None:
        """Closes; nothing is lost, whatever fails."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("the journal is closed after an error")
        return self._connection

    # --- Reading ----------------------------------------------------------------------------------

    def load(self) -> Contents:
        """Everything in it, each row checked. Raises `JournalError` for what is wrong."""
        db = self._db()
        for (line,) in db.execute("PRAGMA quick_check(1)"):
            if line != "ok":
                raise damaged(self.path, line.replace("\n", " "))
        self.read_meta()
        (count,) = db.execute("SELECT count(*) FROM tasks").fetchone()
        if count > _ROWS_MAX:
            raise JournalError(
                f"the journal {self.path} holds {count} tasks, more than any broker keeps "
                f"({_ROWS_MAX}): it was not written by one",
                EXIT_DAMAGED,
            )
        return Contents(
            self._accepted,
            self.bytes_used,
            self.bytes_max,
            self._peers("clients"),
            self._peers("agents"),
            list(self._tasks()),
            self.epoch,
            self._taken(),
            schema.read_paused(self._db(), self.path),
        )

    def read_meta(self) -> int:
        """The last transaction; sets epoch and acceptance number. Raises `JournalError`."""
        found = self._db().execute("SELECT * FROM meta").fetchall()
        try:
            ((one, epoch, txn, accepted, writes, stored),) = found
            checks.whole(epoch, "epoch", m.EPOCH_MAX)
            for number in (txn, accepted, writes):
                checks.whole(number, "number")
            if one != 1 or stored != rows.meta_sum(epoch, txn, accepted, writes):
                raise ValueError("the row and its checksum differ")
        except ValueError as error:
            raise damaged(self.path, f"table meta: {error}") from error
        self.epoch, self._accepted, self._writes = epoch, accepted, writes
        last: int = txn
        return last

    def _peers(self, table: str) -> list[tuple[bytes, str]]:
        peers: list[tuple[bytes, str]] = []
        for instance, name, stored in self._db().execute(f"SELECT * FROM {table}"):
            try:
                checks.identity(instance, "instance")
                checks.name(name, "name")
                if stored != rows.peer_sum(instance, name):
                    raise ValueError("a row and its checksum differ")
            except ValueError as error:
                raise damaged(self.path, f"table {table}: {error}") from error
            peers.append((instance, name))
        return peers

    def _taken(self) -> list[tuple[bytes, int]]:
        taken: list[tuple[bytes, int]] = []
        for instance, upto, stored in self._db().execute("SELECT * FROM taken"):
            try:
                checks.identity(instance, "instance")
                checks.whole(upto, "order")
                if stored != rows.taken_sum(instance, upto):
                    raise ValueError("a row and its checksum differ")
            except ValueError as error:
                raise damaged(self.path, f"table taken: {error}") from error
            taken.append((instance, upto))
        return taken

    def _tasks(self) -> Iterator[KeptTask]:
        seen: set[bytes] = set()
        found = self._db().execute(f"SELECT DISTINCT key >> {rows.PARTS_BITS + 1} FROM parts")
        self._in_parts = {number for (number,) in found}
        left = set(self._in_parts)
        for row in self._db().execute(f"SELECT {rows.COLUMNS} FROM tasks ORDER BY number"):
            try:
                if not 0 < row[0] <= self._accepted:
                    raise ValueError(f"no task has this number yet, the last is {self._accepted}")
                if row[0] in left:
                    left.remove(row[0])
                    row = self._with_parts(row)
                task = rows.kept(row)
                if task.id in seen:
                    raise ValueError("another task has its id")
            except (ValueError, TypeError) as error:
                raise damaged(self.path, f"task number {row[0]}: {error}") from error
            seen.add(task.id)
            yield task
        if left:
            raise damaged(self.path, f"there are parts of task number {min(left)}, but no task")

    def _with_parts(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        whole = list(row)
        for kind, column in ((rows.CALL_PARTS, rows.CALL), (rows.RESULT_PARTS, rows.RESULT)):
            found = self._db().execute(schema.PARTS_READ, rows.parts_of(row[0], kind)).fetchall()
            if found:
                # The checksum in the row is that of all of them.
                whole[column] = b"".join(part for (part,) in found)
        return tuple(whole)

    # --- Writing ----------------------------------------------------------------------------------

    def take_over(self, at_least: int) -> None:
        """Begin a new epoch, and have that on disk. Raises `JournalError` too."""
        before, self.epoch = self.epoch, max(self.epoch + 1, at_least)
        if self.epoch > m.EPOCH_MAX:
            raise damaged(self.path, f"epoch {before} is the last there is")
        self._begin(0, before)
        self.commit()
        self.checkpoint()

    def _begin(self, txn: int, epoch: int) -> None:
        self._db().execute("BEGIN IMMEDIATE")
        if epoch != self.epoch:
            self._db().execute("UPDATE meta SET epoch=? WHERE epoch=?", (self.epoch, epoch))
        self._write_meta(txn)

    def _write_meta(self, txn: int) -> None:
        self._writes += 1
        stored = rows.meta_sum(self.epoch, txn, self._accepted, self._writes)
        values = txn, self._accepted, self._writes, stored, self.epoch
        if self._db().execute(schema.META, values).rowcount != 1:
            raise EpochError

    def write(self, txn: int, turns: Sequence[Records]) -> None:
        """Begin the transaction that ends with `txn`."""
        for records in turns:
            if records.saved:
                self._accepted = max(self._accepted, max(task.number for task in records.saved))
        self._packing.parts.clear()  # of a transaction that failed half-way
        self._begin(txn, self.epoch)
        for records in turns:
            self._write(records)

    def _write(self, records: Records) -> None:
        many = self._db().executemany
        if records.clients_gone:
            gone = [(instance,) for instance in records.clients_gone]
            many("DELETE FROM clients WHERE instance=?", gone)
            many("DELETE FROM taken WHERE instance=?", gone)
        if records.agents_gone:
            many("DELETE FROM agents WHERE instance=?", [(i,) for i in records.agents_gone])
        if records.clients:
            many("INSERT OR REPLACE INTO clients VALUES (?,?,?)", map(_peer, records.clients))
        if records.taken:
            many("INSERT OR REPLACE INTO taken VALUES (?,?,?)", map(_upto, records.taken))
        if records.agents:
            many("INSERT OR REPLACE INTO agents VALUES (?,?,?)", map(_peer, records.agents))
        if records.saved:
            many(schema.SAVED, map(self._packing.saved, records.saved))
            self._write_parts()
        if records.tried:
            many(schema.TRIED, map(rows.tried, records.tried))
        if records.ended:
            pack = self._packing.ended
            bare = [task for task in records.ended if not task.keep_call]
            many(schema.ENDED_BARE, map(pack, bare))
            many(schema.ENDED_KEPT, [pack(task) for task in records.ended if task.keep_call])
            self._drop_parts([task.number for task in bare], rows.CALL_PARTS)
            self._write_parts()
        self._forget(records.forgotten)
        schema.write_pauses(self._db(), records.pauses)

    def _forget(self, numbers: Sequence[int]) -> None:
        if numbers:
            self._db().executemany(schema.FORGOTTEN, [(number,) for number in numbers])
            self._drop_parts(numbers, rows.CALL_PARTS)
            self._drop_parts(numbers, rows.RESULT_PARTS)

    def _write_parts(self) -> None:
        if self._packing.parts:
            parts, self._packing.parts = self._packing.parts, []
            self._in_parts.update(key >> rows.PARTS_BITS + 1 for key, _ in parts)
            self._db().executemany(schema.PARTS, parts)

    def _drop_parts(self, numbers: Sequence[int], kind: int) -> None:
        if self._in_parts:
            gone = [rows.parts_of(n, kind) for n in numbers if n in self._in_parts]
            self._db().executemany(schema.PARTS_GONE, gone)

    def rollback(self) -> None:
        """Undo what was not committed; closes if that fails."""
        try:
            if self._db().in_transaction:
                self._db().execute("ROLLBACK")
            self._count_bytes()
        except sqlite3.Error:
            self.close()

    def commit(self) -> None:
        """Sync the transaction to the disk."""
        self._db().execute("COMMIT")
        self._count_bytes()

    def _count_bytes(self) -> None:
        self.bytes_used = (self._pragma("page_count") - self._pragma("freelist_count")) * PAGE_BYTES

    def _pragma(self, name: str) -> int:
        value: int = self._db().execute(f"PRAGMA {name}").fetchone()[0]
        return value

    # --- Upkeep -----------------------------------------------------------------------------------

    def wants_upkeep(self) -> bool:
        """Whether the log has grown enough."""
        try:
            return wal_of(self.path).stat().st_size >= self.log_bytes
        except FileNotFoundError:
            return False

    def upkeep(self, txn: int) -> None:
        """Give free pages back, write the log into the file, and empty it. `txn`: the last one."""
        free = self._pragma("freelist_count")
        if free > max(_FREE_PAGES, self._pragma("page_count") // 4):
            self._writes += 1
            stored = rows.meta_sum(self.epoch, txn, self._accepted, self._writes)
            values = {"writes": self._writes, "sum": stored, "epoch": self.epoch}
            self._db().executescript(schema.VACUUM.format_map(values))
            self._count_bytes()
        self.checkpoint()

    def checkpoint(self) -> None:
        """Write the log into the file, synced, and empty it."""
        busy, _, _ = self._db().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("the journal's log could not be written back")

    def look(self) -> int:
        """After an error: open it anew, and see which transaction is the last.

        It is on disk once `checkpoint` wrote it there. Those after it never will be: what closing
        took away of the log stays away, also if the machine dies.
        """
        self.close()
        self.open()
        schema.sync_folder(self.path)
        ours = self.epoch
        txn = self.read_meta()
        theirs, self.epoch = self.epoch, ours
        if theirs != ours:
            raise EpochError
        return txn


def _peer(peer: tuple[bytes, str]) -> tuple[bytes, str, int]:
    return *peer, rows.peer_sum(*peer)


def _upto(taken: tuple[bytes, int]) -> tuple[bytes, int, int]:
    return *taken, rows.taken_sum(*taken)


def reason_of(error: Exception) -> str:
    """Why something could not be written, for people."""
    if isinstance(error, EpochError):
        return "another broker has taken it over"
    if isinstance(error, JournalError):
        return str(error)
    name = getattr(error, "sqlite_errorname", "")
    text = str(error)
    if name == "SQLITE_FULL":
        return "the disk, or the journal's bound, is full"
    if name.startswith("SQLITE_IOERR"):
        return f"the disk reports an error ({name.removeprefix('SQLITE_').lower()})"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full"
    return f"{text} ({name})" if name else text
