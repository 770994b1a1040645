"""A torn tail is cut, damage before it stops the start, and nothing in a journal is evaluated.

I29, and T22 of what a malicious or broken disk may hand us. Every state that a broker starts from
must be one that was on disk after some commit: never a mixture, never half of one.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evener_broker import journal_rows as rows
from evener_broker import journal_store
from evener_broker.journal_damage import (
    EXIT_DAMAGED,
    PAGE_BYTES,
    JournalError,
    wal_of,
)
from evener_broker.journaling import Contents
from evener_wire import messages as m
from tests.unit.broker.journals import (
    CLIENT,
    Writer,
    ended,
    id_of,
    open_journal,
    reopened,
    saved,
    tried,
)

FRAME = PAGE_BYTES + 24
State = tuple[Any, ...]


def state_of(contents: Contents) -> State:
    return (
        contents.accepted,
        sorted(contents.clients),
        sorted(contents.agents),
        tuple(contents.tasks),
        sorted(contents.taken),
    )


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[State], list[int]]:
    """A journal as a killed broker leaves it: all states it ever had, and where its log ended."""
    folder = tmp_path_factory.mktemp("crashed")
    path = folder / "live" / "j"
    path.parent.mkdir()
    states: list[State] = []
    ends: list[int] = []
    with open_journal(path) as journal:
        states.append(state_of(journal.take_contents()))
        ends.append(0)
        writer = Writer(journal)

        def commit(**records: Any) -> None:
            writer.commit(**records)
            copy = folder / f"after-{writer.txn}"
            copy.mkdir()
            for name in ("j", "j-wal"):
                shutil.copyfile(path.with_name(name), copy / name)
            ends.append((copy / "j-wal").stat().st_size)
            states.append(state_of(reopened(copy / "j")))

        commit(clients=[(CLIENT, "c")], agents=[(b"a" * 16, "a")], saved=[saved(1), saved(2)])
        commit(saved=[saved(n, b"x" * 900) for n in range(3, 12)])
        commit(tried=[tried(1)], ended=[ended(2, facts={"why": "so"}, state=m.TERMINAL_LOST)])
        commit(saved=[saved(20, m.Frames((b"y" * 9_000, b"z")))])
        commit(forgotten=[2], ended=[ended(5), ended(1, keep_call=True)])
        commit(agents_gone=[b"a" * 16])
        commit(saved=[saved(21)])
        shutil.copytree(path.parent, folder / "crashed")
    assert len(set(map(repr, states))) == len(states)
    return folder / "crashed" / "j", states, ends


def copy_of(path: Path, folder: Path) -> Path:
    """A copy that a test may spoil, in place of the last one."""
    for name in ("j", "j-wal"):
        target = folder / name
        if path.with_name(name).exists():
            shutil.copyfile(path.with_name(name), target)
        else:
            target.unlink(missing_ok=True)
    return folder / "j"


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


# --- A torn tail ----------------------------------------------------------------------------------


def test_a_killed_broker_leaves_everything(
    crashed: tuple[Path, list[State], list[int]], tmp_path: Path
) -> None:
    path, states, _ = crashed
    assert state_of(reopened(copy_of(path, tmp_path))) == states[-1]


def test_a_log_cut_anywhere_gives_the_last_whole_commit(
    crashed: tuple[Path, list[State], list[int]], tmp_path: Path
) -> None:
    path, states, ends = crashed
    size = ends[-1]
    odd = random.Random(1).sample(range(size), 40)
    frames = range(32, size + 1, FRAME)
    near = [end + step for end in frames for step in (-1, 1, 24)]
    for length in sorted({0, 1, 31, 32, *frames, *near, *odd}):
        if length > size:
            continue
        copy = copy_of(path, tmp_path)
        os.truncate(wal_of(copy), length)
        whole = max(number for number, end in enumerate(ends) if end <= length)
        assert state_of(reopened(copy)) == states[whole], f"cut at {length}"


def test_a_last_transaction_with_pages_missing_is_cut(
    crashed: tuple[Path, list[State], list[int]], tmp_path: Path
) -> None:
    """What was not synced may reach the disk in any order: the last frame, and not the first."""
    path, states, ends = crashed
    for offset in range(ends[-2], ends[-1], FRAME):
        copy = copy_of(path, tmp_path)
        with wal_of(copy).open("r+b") as file:
            file.seek(offset)
            file.write(bytes(FRAME))
        assert state_of(reopened(copy)) == states[-2]


def test_a_log_of_earlier_times_behind_the_end_is_no_damage(tmp_path: Path) -> None:
    """SQLite writes over an old log: what is left of that has other salts."""
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        for number in range(1, 9):
            writer.save([number])
            writer.settle()
        old = wal_of(path).read_bytes()
    with open_journal(path) as journal:
        Writer(journal).commit(saved=[saved(50)])
        kept = tmp_path / "kept"
        kept.mkdir()
        shutil.copyfile(path, kept / "j")
        new = wal_of(path).read_bytes()
        wal_of(kept / "j").write_bytes(new + old[len(new) :])
    assert len(old) > len(new)
    assert [task.number for task in reopened(kept / "j").tasks] == [*range(1, 9), 50]


# --- Damage before the tail -----------------------------------------------------------------------


def test_a_flipped_bit_in_a_synced_transaction_stops_the_start(
    crashed: tuple[Path, list[State], list[int]], tmp_path: Path
) -> None:
    path, _, ends = crashed
    rng = random.Random(2)
    headers = [frame + byte for frame in range(32, ends[-2], FRAME) for byte in range(0, 24, 3)]
    for offset in [*range(32), *headers, *rng.sample(range(32, ends[-2]), 60)]:
        copy = copy_of(path, tmp_path)
        flip(wal_of(copy), offset, rng.randrange(8))
        with pytest.raises(JournalError, match="is damaged: ") as raised:
            reopened(copy)
        assert raised.value.code == EXIT_DAMAGED
        assert str(wal_of(copy)) in str(raised.value)


def test_what_is_refused_is_left_as_it_is(
    crashed: tuple[Path, list[State], list[int]], tmp_path: Path
) -> None:
    """A second start must not succeed where the first one said no."""
    path, _, _ = crashed
    copy = copy_of(path, tmp_path)
    flip(wal_of(copy), 32 + 24 + 100, 3)
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir() if entry.is_file()}
    for _ in range(2):
        with pytest.raises(JournalError):
            reopened(copy)
    after = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir() if entry.is_file()}
    assert after == before


def test_a_flipped_bit_in_the_file_never_changes_a_task(tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    folder.mkdir()
    path = folder / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(clients=[(CLIENT, "c")], agents=[(b"a" * 16, "a")])
        writer.commit(
            saved=[saved(n, b"call" * n, options=m.Options(retries=n)) for n in range(40)[1:]]
        )
        writer.commit(ended=[ended(n, facts={"n": n}) for n in range(1, 20)], tried=[tried(30)])
        writer.commit(taken=[(bytes([n]) * 16, n) for n in range(100)])
    before = state_of(reopened(path))
    rng = random.Random(3)
    refused = 0
    for _ in range(250):
        copy = copy_of(path, tmp_path)
        flip(copy, rng.randrange(path.stat().st_size), rng.randrange(8))
        try:
            found = state_of(reopened(copy))
        except JournalError:
            refused += 1
        else:
            assert found == before
    assert refused > 50, "most of the file is content"


def test_a_file_that_was_cut_stops_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    folder.mkdir()
    path = folder / "j"
    with open_journal(path) as journal:
        Writer(journal).commit(saved=[saved(n, b"x" * 500) for n in range(1, 100)])
    size = path.stat().st_size
    for length in (0, 1, 99, 100, 4_095, 4_096, 8_192, size // 2, size - 4_096, size - 1):
        copy = copy_of(path, tmp_path)
        os.truncate(copy, length)
        with pytest.raises(JournalError) as raised:
            reopened(copy)
        assert raised.value.code == EXIT_DAMAGED
        assert str(copy) in str(raised.value)


def _rewrite(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        db = sqlite3.connect(path, isolation_level=None)
        try:
            for statement in statements:
                db.execute(statement)
        finally:
            db.close()

    return change


def _swap(columns: str) -> Callable[[Path], None]:
    names = columns.split(", ")
    pairs = ", ".join(
        f"{name} = (SELECT {name} FROM old WHERE number <> t.number)" for name in names
    )
    return _rewrite(
        "CREATE TEMP TABLE old AS SELECT * FROM tasks WHERE number IN (1, 2)",
        f"UPDATE tasks AS t SET {pairs} WHERE number IN (1, 2)",
    )


def _task(**changes: Any) -> Callable[[Path], None]:
    """A task with these fields in place of the first, and all checksums right."""
    task = rows.Packing().saved(saved(1, **changes))[1]
    return _rewrite(f"UPDATE tasks SET task = x'{task.hex()}' WHERE number = 1")


ROWS = {
    "another number": _rewrite("UPDATE tasks SET number = 5 WHERE number = 1"),
    "swapped rows": _swap("task, call, call_lengths"),
    "swapped tasks": _swap("task"),
    "swapped calls": _swap("call, call_lengths"),
    "swapped ends": _rewrite(
        "UPDATE tasks SET (ending, result, result_lengths) = "
        "(SELECT ending, result, result_lengths FROM tasks WHERE number = 4) WHERE number = 3"
    ),
    "swapped results": _rewrite(
        "UPDATE tasks SET result = (SELECT result FROM tasks WHERE number = 4) WHERE number = 3"
    ),
    "a number never given": _rewrite("UPDATE tasks SET number = 77 WHERE number = 1"),
    "a name that steers a terminal": _task(function="\x1b[2J"),
    "no name": _task(function=""),
    "an id that is too short": _task(id=b"short"),
    "an id twice": _task(id=id_of(2)),
    "a negative digest": _task(digest=-1),
    "options out of their range": _task(options=m.Options(priority=10)),
    "options of another type": _task(options=m.Options(queue=b"x")),  # type: ignore[arg-type]
    "a task cut short": _rewrite("UPDATE tasks SET task = substr(task, 1, 10) WHERE number = 1"),
    "a task that is a text": _rewrite("UPDATE tasks SET task = 'task' WHERE number = 1"),
    "no task": _rewrite("UPDATE tasks SET task = NULL WHERE number = 1"),
    "no call": _rewrite("UPDATE tasks SET call = NULL WHERE number = 1"),
    "a call that is a text": _rewrite("UPDATE tasks SET call = 'call' WHERE number = 1"),
    "tries of another task": _rewrite("UPDATE tasks SET tries = ending WHERE number = 3"),
    "a result without an end": _rewrite("UPDATE tasks SET ending = NULL WHERE number = 3"),
    "an end without a result": _rewrite("UPDATE tasks SET result = NULL WHERE number = 3"),
    "lengths that do not fit": _rewrite("UPDATE tasks SET call_lengths = x'ffffffff'"),
    "a client without a name": _rewrite("UPDATE clients SET name = ''"),
    "a client of another name": _rewrite("UPDATE clients SET name = 'x'"),
    "an agent of another id": _rewrite("UPDATE agents SET instance = x'00'"),
    "no meta": _rewrite("DELETE FROM meta"),
    "meta twice": _rewrite(
        "INSERT INTO meta SELECT 2, epoch, txn, accepted, writes, sum FROM meta"
    ),
    "another epoch": _rewrite("UPDATE meta SET epoch = 12345"),
    "an epoch that is a text": _rewrite("UPDATE meta SET epoch = 'x'"),
    "a trigger": _rewrite("CREATE TRIGGER t AFTER UPDATE ON meta BEGIN DELETE FROM tasks; END"),
    "a view in place of a table": _rewrite(
        "DROP TABLE agents", "CREATE VIEW agents AS SELECT load_extension('x'), 'y', 1"
    ),
    "a table more": _rewrite("CREATE TABLE more (x)"),
    "an index": _rewrite("CREATE INDEX i ON tasks (task)"),
    "a part too few": _rewrite("DELETE FROM parts WHERE key & 1"),
    "parts of nothing": _rewrite("INSERT INTO parts VALUES (1 << 40, x'00')"),
    "no table": _rewrite("DROP TABLE clients"),
}


@pytest.mark.parametrize("change", ROWS.values(), ids=ROWS.keys())
def test_rows_that_we_did_not_write_stop_the_start(
    tmp_path: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "PART_BYTES", 1_000)
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(saved=[saved(9, m.Frames((b"z" * 3_000,)))])
        writer.commit(clients=[(CLIENT, "c")], agents=[(b"a" * 16, "a")])
        writer.commit(saved=[saved(1), saved(2, b"other", options=m.Options(retries=2))])
        writer.commit(saved=[saved(3), saved(4)], ended=[ended(3), ended(4, b"other")])
    change(path)
    with pytest.raises(JournalError, match="is damaged") as raised:
        reopened(path)
    assert raised.value.code == EXIT_DAMAGED
    assert len(str(raised.value)) < 600


def test_more_rows_than_any_broker_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        Writer(journal).commit(saved=[saved(n) for n in range(1, 5)])
    monkeypatch.setattr(journal_store, "_ROWS_MAX", 3)
    with pytest.raises(JournalError, match="holds 4 tasks, more than any broker keeps"):
        reopened(path)


def test_the_last_epoch_there_is(tmp_path: Path) -> None:
    path = tmp_path / "j"
    open_journal(path, at_least_epoch=m.EPOCH_MAX).close()
    with pytest.raises(JournalError, match="is the last there is"):
        reopened(path)
