"""A disk that is full, fails, or will not say: nothing is claimed that is not there (I24, I29)."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evener_broker.journal_damage import JournalError
from evener_broker.journal_store import Store
from evener_wire import messages as m
from tests.support import skip_aloud
from tests.unit.broker.journals import (
    CLIENT,
    Writer,
    ended,
    open_journal,
    reopened,
    saved,
)

LARGE = m.Frames((bytes(300_000),))


def numbers(path: Path) -> list[int]:
    return [task.number for task in reopened(path).tasks]


class Trouble:
    """Makes COMMIT fail, before or after it reached the disk; and opening again, if asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._commit, self._open = Store.commit, Store.open
        self.commits: list[str] = []
        self.opens = 0
        monkeypatch.setattr(Store, "commit", lambda store: self.commit(store))
        monkeypatch.setattr(Store, "open", lambda store: self.open(store))

    def commit(self, store: Store) -> None:
        how = self.commits.pop(0) if self.commits else ""
        if how == "after":
            self._commit(store)
        if how:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error
        self._commit(store)

    def open(self, store: Store) -> None:
        if self.opens:
            self.opens -= 1
            raise sqlite3.OperationalError("disk I/O error")
        self._open(store)


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Trouble:
    return Trouble(monkeypatch)


# --- The bound ------------------------------------------------------------------------------------


def test_a_full_journal_fails_what_does_not_fit_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with open_journal(path, 1 << 20) as journal:
        writer = Writer(journal)
        writer.commit(saved=[saved(1, LARGE), saved(2)])
        writer.append(saved=[saved(3, LARGE), saved(4, LARGE), saved(5, LARGE)], ended=[ended(2)])
        writer.append(saved=[saved(6)])
        writer.settle()
        assert [(failed.txn, failed.reason) for failed in writer.failed] == [
            (2, "the disk, or the journal's bound, is full")
        ]
        writer.append(saved=[saved(7)])
        assert journal.take_events() == [], "fails unwritten until somebody resumes"
        writer.append(resume=True, ended=[ended(2)])
        writer.settle()
        assert writer.committed[-1] == writer.txn
        writer.commit(forgotten=[1])
        writer.commit(saved=[saved(8, LARGE), saved(9, LARGE)])
        assert writer.bytes_used < 1 << 20
    tasks = reopened(path, 1 << 20).tasks
    assert [(task.number, task.state) for task in tasks] == [
        (2, m.TERMINAL_DONE),
        (8, None),
        (9, None),
    ]


def test_a_smaller_bound_than_what_is_there_only_stops_growth(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        Writer(journal).commit(saved=[saved(number, LARGE) for number in range(1, 9)])
    with open_journal(path, 1 << 20) as journal:
        contents = journal.take_contents()
        assert len(contents.tasks) == 8
        assert contents.bytes_used > contents.bytes_max
        writer = Writer(journal)
        writer.save([10], LARGE)
        writer.settle()
        assert writer.failed
        writer.append(resume=True, forgotten=list(range(1, 9)))
        writer.settle()
        assert writer.committed[-1] == writer.txn
        assert writer.bytes_used < 1 << 20


# --- Commits of unknown outcome -------------------------------------------------------------------


def test_a_commit_that_failed_and_is_there_is_committed(tmp_path: Path, trouble: Trouble) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        trouble.commits = ["after"]
        writer.commit(saved=[saved(1)])
        writer.commit(saved=[saved(2)])
        assert writer.failed == []
    assert numbers(path) == [1, 2]


def test_a_commit_that_failed_and_is_not_there_failed(tmp_path: Path, trouble: Trouble) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(saved=[saved(1)], clients=[(CLIENT, "c")])
        trouble.commits = ["before"]
        writer.append(saved=[saved(2)], ended=[ended(1)])
        writer.append(saved=[saved(3)])
        writer.settle()
        (failed,) = writer.failed
        assert (failed.txn, failed.reason) == (2, "the disk reports an error (ioerr_fsync)")
        writer.append(resume=True, ended=[ended(1)])
        writer.settle()
        writer.commit(saved=[saved(4)])
    assert numbers(path) == [1, 4]


@pytest.mark.parametrize("how", ["before", "after"])
def test_what_cannot_be_read_is_unknown_and_may_be_written_again(
    tmp_path: Path, trouble: Trouble, how: str
) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(saved=[saved(1)])
        trouble.commits, trouble.opens = [how], 3
        writer.append(saved=[saved(2)], ended=[ended(1)])
        writer.settle()
        assert [(failed.txn, failed.unknown) for failed in writer.failed] == [(2, 2)]
        for tries in (2, 3):
            writer.append(resume=True, saved=[saved(2)], ended=[ended(1), ended(2)])
            writer.settle()
            assert len(writer.failed) == tries, "the disk cannot be read yet"
            assert writer.failed[-1].unknown == 0, "and nothing new was written"
        writer.append(resume=True, saved=[saved(2)], ended=[ended(1), ended(2)])
        writer.settle()
        assert writer.committed[-1] == writer.txn
        writer.commit(saved=[saved(5)])
    tasks = reopened(path).tasks
    assert [(task.number, task.state is None) for task in tasks] == [
        (1, False),
        (2, False),
        (5, True),
    ]


@pytest.mark.parametrize(("how", "unknown"), [("before", 0), ("after", 2)])
def test_what_can_be_read_is_known_to_be_missing_although_nothing_can_be_written(
    tmp_path: Path, trouble: Trouble, monkeypatch: pytest.MonkeyPatch, how: str, unknown: int
) -> None:
    """As on a full disk. What is there may be there in memory only, so it stays unknown."""
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(saved=[saved(1)])

        def full(store: Store) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(Store, "checkpoint", full)
            trouble.commits = [how]
            writer.save([2])
            writer.settle()
        assert [(failed.txn, failed.unknown) for failed in writer.failed] == [(2, unknown)]
        writer.append(resume=True, saved=[saved(3)])
        writer.settle()
        assert writer.committed[-1] == writer.txn
    assert numbers(path) == ([1, 2, 3] if how == "after" else [1, 3])


def test_a_journal_that_failed_can_be_closed(tmp_path: Path, trouble: Trouble) -> None:
    path = tmp_path / "j"
    journal = open_journal(path)
    writer = Writer(journal)
    writer.commit(saved=[saved(1)])
    trouble.commits, trouble.opens = ["before"], 1
    writer.save([2])
    writer.settle()
    journal.close()
    assert numbers(path) == [1]


def test_a_log_that_cannot_be_written_back_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(store: Store, txn: int) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    path = tmp_path / "j"
    with open_journal(path) as journal:
        monkeypatch.setattr(Store, "wants_upkeep", lambda store: True)
        monkeypatch.setattr(Store, "upkeep", fail)
        writer = Writer(journal)
        for number in range(1, 20):
            writer.commit(saved=[saved(number)])
    assert numbers(path) == list(range(1, 20))
    assert "its log could not be written back" in caplog.text


# --- One writer -----------------------------------------------------------------------------------


def test_a_broker_that_was_deposed_writes_nothing(tmp_path: Path) -> None:
    """A lock that did not hold, as on some network file systems: the epoch decides."""
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(saved=[saved(1)])
        # Stands for another broker: changes the epoch on the connection of the first.
        store = journal._store
        store._db().execute("UPDATE meta SET epoch = epoch + 1")
        writer.save([2])
        writer.settle()
        assert writer.failed[-1].reason == "another broker has taken it over"
        writer.append(resume=True, saved=[saved(3)])
        writer.settle()
        assert len(writer.failed) == 2
        with pytest.raises(sqlite3.IntegrityError):
            store._db().executescript(
                "BEGIN IMMEDIATE; UPDATE meta SET id='' WHERE epoch<>1; DELETE FROM tasks; COMMIT"
            )
        store.rollback()
        tasks = store._db().execute("SELECT number FROM tasks").fetchall()
        assert tasks == [(1,)]


# --- Real full disks ------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes, of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        skip_aloud("only root may mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        skip_aloud(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_fails_commits_until_there_is_room(small_disk: Path) -> None:
    path = small_disk / "j"
    told: list[int] = []
    ballast = small_disk / "ballast"
    with open_journal(path) as journal:
        writer = Writer(journal)
        number = 0
        for _ in range(5):
            ballast.write_bytes(bytes(2 << 20))
            while not writer.failed:
                number += 1
                writer.save([number], m.Frames((bytes(100_000),)))
                writer.settle()
                if not writer.failed:
                    told.append(number)
            assert "full" in writer.failed.pop().reason
            writer.append(resume=True, ended=[ended(told[0])])
            writer.settle()
            if not writer.failed:
                told.append(0)  # the end fitted where the task did not
            writer.failed.clear()
            ballast.unlink()
            writer.append(resume=True, forgotten=[n for n in told if n])
            writer.settle()
            assert writer.failed == []
            told.clear()
            number += 1
            writer.commit(saved=[saved(number)])
            told.append(number)
    assert numbers(path) == told


def test_no_room_for_a_journal_at_all(small_disk: Path) -> None:
    with contextlib.suppress(OSError):
        (small_disk / "ballast").write_bytes(bytes(5 << 20))
    with pytest.raises(JournalError, match="full"):
        open_journal(small_disk / "j")
    assert [entry.name for entry in small_disk.iterdir()] == ["ballast"]


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from evener_wire import messages as m
from tests.unit.broker.journals import Writer, open_journal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_journal(Path(sys.argv[1])) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))
    writer = Writer(journal)
    told = []
    for number in range(1, 60):
        writer.save([number], m.Frames((bytes(100_000),)))
        writer.settle()
        if writer.failed:
            break
        told.append(number)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    writer.append(resume=True)
    writer.settle()
    assert writer.committed[-1] == writer.txn
    print(*told)
"""


def test_a_log_that_may_not_grow_fails_commits_and_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "j"
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    told = list(map(int, done.stdout.split()))
    assert 5 < len(told) < 59
    assert numbers(path) == told
