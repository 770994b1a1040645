"""The tables of a journal, and the statements that write them.

A change here is a new `VERSION` in `journal_damage`, and an `upgrade` of what there was before. The
table `meta` has one row, and is made first: where it stands is part of the format.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from evener_broker import journal_rows as rows
from evener_broker.journal_damage import (
    APPLICATION_ID,
    META_PAGE,
    PAGE_BYTES,
    VERSION,
    damaged,
    wal_of,
)
from evener_wire import checks
from evener_wire.limits import BROKER_SCHEDULES_MAX

# Those of schedules that are offered, and as many that nobody has offered since the last start.
_PAUSED_MAX: Final = 2 * BROKER_SCHEDULES_MAX

# Free pages given back at once: not all, because commits wait meanwhile: about 10 us for each.
_FREED_AT_ONCE: Final = 4_096

TABLES: Final = {
    "meta": "CREATE TABLE meta (id INTEGER PRIMARY KEY, epoch INTEGER, txn INTEGER, "
    "accepted INTEGER, writes INTEGER, sum INTEGER)",
    "clients": "CREATE TABLE clients (instance BLOB PRIMARY KEY, name TEXT, sum INTEGER) "
    "WITHOUT ROWID",
    "agents": "CREATE TABLE agents (instance BLOB PRIMARY KEY, name TEXT, sum INTEGER) "
    "WITHOUT ROWID",
    "tasks": "CREATE TABLE tasks (number INTEGER PRIMARY KEY, task BLOB, tries BLOB, "
    "ending BLOB, result_lengths BLOB, result BLOB, call_lengths BLOB, call BLOB)",
    "taken": "CREATE TABLE taken (instance BLOB PRIMARY KEY, upto INTEGER, sum INTEGER) "
    "WITHOUT ROWID",
    "parts": "CREATE TABLE parts (key INTEGER PRIMARY KEY, data BLOB)",
    "paused": "CREATE TABLE paused (name TEXT PRIMARY KEY, sum INTEGER) WITHOUT ROWID",
}

# With which format they came: format 1 did not know what clients had taken (its ends have no
# order), and a pause of a schedule ended with the broker before format 3.
_SINCE: Final = {"taken": 2, "paused": 3}

META: Final = "UPDATE meta SET txn=?, accepted=?, writes=?, sum=? WHERE id=1 AND epoch=?"
SAVED: Final = "INSERT OR REPLACE INTO tasks (number, task, call_lengths, call) VALUES (?,?,?,?)"
TRIED: Final = "UPDATE tasks SET tries=? WHERE number=?"
_ENDED: Final = "UPDATE tasks SET ending=?, result_lengths=?, result=?"
ENDED_KEPT: Final = f"{_ENDED} WHERE number=?"
ENDED_BARE: Final = f"{_ENDED}, call_lengths=NULL, call=NULL WHERE number=?"
FORGOTTEN: Final = "DELETE FROM tasks WHERE number=?"
PARTS: Final = "INSERT OR REPLACE INTO parts VALUES (?,?)"
PARTS_GONE: Final = "DELETE FROM parts WHERE key BETWEEN ? AND ?"
_PAUSED: Final = "INSERT OR REPLACE INTO paused VALUES (?,?)"
_RESUMED: Final = "DELETE FROM paused WHERE name=?"
PARTS_READ: Final = "SELECT data FROM parts WHERE key BETWEEN ? AND ? ORDER BY key"

# A script, because only that runs a PRAGMA to its end. If the epoch is not ours, the first UPDATE
# is an error: an id that is no number.
VACUUM: Final = (
    "BEGIN IMMEDIATE; UPDATE meta SET id='' WHERE epoch<>{epoch}; "
    "UPDATE meta SET writes={writes}, sum={sum}; "
    f"PRAGMA incremental_vacuum({_FREED_AT_ONCE}); COMMIT"
)


def create(path: Path) -> None:
    """Make an empty journal, whole or not at all; nothing happens if the file exists."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as db:
            db.execute(f"PRAGMA page_size={PAGE_BYTES}")
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            db.execute("PRAGMA journal_mode=WAL").fetchall()
            db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            db.execute(f"PRAGMA user_version={VERSION}")
            for statement in TABLES.values():
                db.execute(statement)
            values = 1, 0, 0, 0, 0, rows.meta_sum(0, 0, 0, 0)
            db.execute("INSERT INTO meta VALUES (?,?,?,?,?,?)", values)
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        for name in (fresh, wal_of(fresh), fresh.with_name(f"{fresh.name}-shm")):
            name.unlink(missing_ok=True)
    sync_folder(path)


def sync_folder(path: Path) -> None:
    """What was made and removed beside this file is so on disk, too."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def upgrade(connection: sqlite3.Connection) -> None:
    """Make a journal of an earlier format one of this. Who dies meanwhile does no harm."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version >= VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    for name, since in _SINCE.items():
        if version < since:
            connection.execute(TABLES[name])
    connection.execute(f"PRAGMA user_version={VERSION}")
    connection.execute("COMMIT")


def write_pauses(connection: sqlite3.Connection, pauses: Iterable[tuple[str, bool]]) -> None:
    """Schedules that were paused or resumed, in this order."""
    for name, paused in pauses:
        if paused:
            connection.execute(_PAUSED, (name, rows.peer_sum(b"", name)))
        else:
            connection.execute(_RESUMED, (name,))


def read_paused(connection: sqlite3.Connection, path: Path) -> list[str]:
    """The names of paused schedules, each row checked. Raises `JournalError`."""
    names: list[str] = []
    for name, stored in connection.execute("SELECT * FROM paused ORDER BY name"):
        try:
            checks.name(name, "name")
            if stored != rows.peer_sum(b"", name):
                raise ValueError("a row and its checksum differ")
            if len(names) == _PAUSED_MAX:
                raise ValueError(f"it has more than {_PAUSED_MAX} rows, which no broker writes")
        except ValueError as error:
            raise damaged(path, f"table paused: {error}") from error
        names.append(name)
    return names


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises `JournalError` unless these are our tables, and nothing else."""
    # Before any other statement: a table could have become a view, or have got a trigger.
    found = connection.execute("SELECT type, name, rootpage, sql FROM sqlite_schema").fetchall()
    tables = {name: sql for kind, name, _, sql in found if kind == "table"}
    if tables != TABLES or len(found) != len(TABLES):
        raise damaged(path, "its tables are not those of a journal")
    if ("meta", META_PAGE) not in {(name, page) for _, name, page, _ in found}:
        raise damaged(path, "its tables do not stand where they should")
    if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        raise damaged(path, "it has no write-ahead log")
