"""The disk of the chaos runs: what it lets fail, what a power cut may leave, and what never.

Programs of a few lines write to it, so that what must be there is known for each byte.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from tests.chaos.disk import SETTINGS, TROUBLES, Disk, why_no_disk
from tests.chaos.powercut import Cut, Version
from tests.support import skip_aloud, wait_until
from tests.unit.broker.journals import reopened

T = TypeVar("T")


class Oldest(random.Random):
    """Chooses what is first: of what was not synced, nothing."""

    def choice(self, seq: Sequence[T]) -> T:  # type: ignore[override]
        return seq[0]


class Newest(random.Random):
    """Chooses what is last: of what was not synced, everything."""

    def choice(self, seq: Sequence[T]) -> T:  # type: ignore[override]
        return seq[-1]

    def randint(self, a: int, b: int) -> int:
        return b


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    reason = why_no_disk()
    if reason is not None:
        skip_aloud(reason)
    with Disk(tmp_path) as made:
        yield made


_BEGIN = """
import mmap, os, struct, sys
path = sys.argv[1]
def trouble(**settings):
    with open(os.environ['CHAOS_DISK_STATE'] + '/control', 'r+b') as file:
        memory = mmap.mmap(file.fileno(), 0)
        for name, value in settings.items():
            struct.pack_into('<I', memory, 4 * {names}.index(name), value)
fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
def sync(): os.fsync(fd)
def put(byte, at, length): os.pwrite(fd, byte * length, at)
def sync_folder():
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)
def told(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0
"""


def run(disk: Disk, script: str) -> str:
    """What a program says that ends without a farewell."""
    begin = _BEGIN.replace("{names}", repr(SETTINGS))
    script = f"{begin}{script}\nsys.stdout.flush()\nos._exit(0)"
    done = subprocess.run(
        [*disk.prefix, sys.executable, "-I", "-S", "-c", script, str(disk.journal)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- A power cut ----------------------------------------------------------------------------------


def test_what_was_synced_stays_and_the_rest_is_torn(disk: Disk, tmp_path: Path) -> None:
    run(disk, "put(b'A', 0, 4096); sync(); sync_folder(); put(b'B', 0, 4096)")
    log = disk.journal.parent.parent / "disk-state" / "log"
    kept = log.read_bytes()
    seen: set[str] = set()
    for seed in range(40):
        log.write_bytes(kept)
        disk.journal.write_bytes(b"B" * 4096)  # in place, so it stays the same inode
        disk.cut_power(random.Random(seed))
        content = disk.journal.read_text()
        sectors = [content[at : at + 512] for at in range(0, 4096, 512)]
        assert {sector[0] * 512 for sector in sectors} == set(sectors)
        seen.add("".join(sorted({sector[0] for sector in sectors})))
    assert seen == {"A", "B", "AB"}


def test_nothing_is_undone_after_a_sync(disk: Disk) -> None:
    run(disk, "put(b'A', 0, 5000); put(b'B', 700, 10); sync(); sync_folder()")
    cut = disk.cut_power(Oldest())
    assert disk.journal.read_bytes() == b"A" * 700 + b"B" * 10 + b"A" * 4290
    assert (cut.sectors, cut.lost) == (0, 0)


_RANDOM = """
import random
rng = random.Random({seed})
put(b'-', 0, rng.randrange(3000)); sync(); sync_folder()
for _ in range(rng.randrange(60)):
    what = rng.random()
    if what < 0.7:
        put(bytes([rng.randrange(97, 123)]), rng.randrange(20_000), rng.randrange(1, 5_000))
    elif what < 0.85:
        os.ftruncate(fd, rng.randrange(25_000))
    else:
        sync()
sync(); open(sys.argv[1] + '-shm', 'wb').write(os.pread(fd, 30_000, 0))
for _ in range(rng.randrange(1, 12)):
    if rng.random() < 0.8:
        put(bytes([rng.randrange(65, 91)]), rng.randrange(30_000), rng.randrange(1, 5_000))
    else:
        os.ftruncate(fd, rng.randrange(25_000))
print(os.pread(fd, 50_000, 0).hex())
"""


@pytest.mark.parametrize("seed", range(12))
def test_both_ends_of_what_may_be_left(disk: Disk, tmp_path: Path, seed: int) -> None:
    """Whatever was written, truncated and synced: all of it, or exactly what was synced last."""
    newest = bytes.fromhex(run(disk, _RANDOM.replace("{seed}", str(seed))))
    synced = (disk.journal.parent / "journal-shm").read_bytes()
    assert disk.journal.read_bytes() == newest
    log = tmp_path / "disk-state" / "log"
    kept = log.read_bytes()
    disk.cut_power(Newest())
    assert disk.journal.read_bytes() == newest
    log.write_bytes(kept)
    assert disk.cut_power(Oldest()).lost > 0
    assert disk.journal.read_bytes() == synced


def test_files_come_and_go_with_the_sync_of_their_folder(disk: Disk) -> None:
    run(disk, "put(b'A', 0, 600); sync(); sync_folder(); os.unlink(path)")
    assert not disk.journal.exists()
    disk.cut_power(Oldest())
    assert disk.journal.read_bytes() == b"A" * 600
    run(disk, "os.unlink(path); sync_folder()")
    disk.cut_power(Oldest())
    assert not disk.journal.exists()
    run(disk, "put(b'A', 0, 600); sync()")
    disk.cut_power(Oldest())
    assert not disk.journal.exists(), "its name was not synced"


def test_after_a_failed_sync_the_next_one_proves_nothing(disk: Disk) -> None:
    """Linux takes the pages for written: only what is written anew reaches the disk."""
    begun = "put(b'A', 0, 600); sync(); sync_folder(); trouble(sync_error=5); put(b'B', 0, 600)\n"
    failed = begun + "print(told(sync)); trouble(sync_error=0); "
    assert run(disk, failed + "sync()") == "5"
    disk.cut_power(Oldest())
    assert disk.journal.read_bytes() == b"A" * 600
    assert run(disk, failed + "put(b'C', 5, 1); sync()") == "5"
    disk.cut_power(Oldest())
    assert disk.journal.read_bytes() == b"BBBBBC" + b"B" * 594


_JOURNAL = """
import os, sys
from pathlib import Path
from tests.unit.broker.journals import Writer, open_journal
writer = Writer(open_journal(Path(sys.argv[1])))
for number in range(1, 6):
    writer.save([number])
    writer.settle()
os._exit(len(writer.committed) != 5)
"""


def _kept(disk: Disk) -> list[int]:
    """The tasks of a journal that was told of five, after a power cut that left what it could."""
    subprocess.run(
        [*disk.prefix, sys.executable, "-c", _JOURNAL, str(disk.journal)],
        check=True, timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    disk.cut_power(Oldest())
    return [task.number for task in reopened(disk.journal).tasks]


def test_a_journal_has_after_a_power_cut_what_it_committed(disk: Disk) -> None:
    """I5."""
    assert _kept(disk) == [1, 2, 3, 4, 5]


def test_on_a_disk_that_lies_it_would_not(disk: Disk) -> None:
    """So that the power cut is one: this is what a journal without syncs comes to."""
    disk.set(lies=1)
    assert _kept(disk) == []


_SLOW = f"""
import mmap, os, struct, sys
from pathlib import Path
from tests.unit.broker.journals import Writer, open_journal
def slow(ms):
    fd = os.open(os.environ['CHAOS_DISK_STATE'] + '/control', os.O_RDWR)
    struct.pack_into('<I', mmap.mmap(fd, 0), {4 * SETTINGS.index("delay_ms")}, ms)
"""
_COMMITS = f"""{_SLOW}
writer = Writer(open_journal(Path(sys.argv[1])))
writer.save([1])
writer.settle()
slow(40_000)
writer.save(list(range(2, 60)), b"x" * 500)
writer.settle()
"""
_OPENS = f"""{_SLOW}
slow(500)
open_journal(Path(sys.argv[1])).close()
"""


class Tears(random.Random):
    """Of what was not synced one sector is lost: the first with a difference, but for the head."""

    def __init__(self) -> None:
        super().__init__(0)
        self._seen: list[bool] = []

    def choice(self, seq: Sequence[T]) -> T:  # type: ignore[override]
        if not isinstance(seq[0], Version):
            return next((one for one in seq if one == "any"), seq[-1])
        first, last = ((v.content or b"").ljust(512, b"\0") for v in (seq[0], seq[-1]))  # type: ignore[attr-defined]
        self._seen.append(first != last and len(self._seen) > 0 and not any(self._seen))
        return seq[0] if self._seen[-1] else seq[-1]

    def randint(self, a: int, b: int) -> int:
        return b


def _killed_in_a_sync(disk: Disk, script: str, number: int = 1) -> Cut:
    """Run it until so many slow syncs have begun, or to its end; then the power is cut."""
    slowed = disk.counts()["slowed"] + number
    with subprocess.Popen(
        [*disk.prefix, sys.executable, "-c", script, str(disk.journal)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:  # fmt: skip
        wait_until(
            lambda: disk.counts()["slowed"] >= slowed or process.poll() is not None, 30, "a sync"
        )
        process.kill()
    disk.set(delay_ms=0)
    return disk.cut_power(Tears())


@pytest.mark.parametrize("number", range(1, 6))
def test_power_cuts_in_two_syncs_leave_a_journal(disk: Disk, number: int) -> None:
    """I29: what the first left of its transaction may stand behind that of the start after it."""
    assert _killed_in_a_sync(disk, _COMMITS).torn == 1
    _killed_in_a_sync(disk, _OPENS, number)
    assert [task.number for task in reopened(disk.journal).tasks] == [1]


# --- Errors ---------------------------------------------------------------------------------------

_ALL = """
print(told(put, b'A', 0, 10), told(sync), told(os.ftruncate, fd, 5), told(os.pread, fd, 1, 0),
      told(os.open, path, os.O_RDWR), told(os.unlink, path))
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("EIO from writes", "5 0 5 0 0 0"),
        ("EIO from syncs", "0 5 0 0 0 0"),
        ("read-only", "30 30 30 0 30 30"),
    ],
)
def test_what_fails(disk: Disk, name: str, expected: str) -> None:
    settings = TROUBLES[name] | {"torn": 0}
    assert run(disk, f"trouble(**{settings})\n{_ALL}\ntrouble(**{dict.fromkeys(settings, 0)})")
    assert run(disk, f"trouble(**{settings})\n{_ALL}") == expected


def test_now_and_then(disk: Disk) -> None:
    settings = TROUBLES["EIO now and then"]
    script = "print(sum(told(put, b'A', 0, 1) != 0 for _ in range(400)))"
    assert 50 < int(run(disk, f"trouble(**{settings}); {script}")) < 150


def test_half_of_a_write_that_fails_may_be_there(disk: Disk) -> None:
    script = """
trouble(write_error=5, torn=1)
print(*(told(put, b'A', 0, 1000) for _ in range(20)))
"""
    assert "5" in run(disk, script)
    assert disk.journal.stat().st_size == 500


def test_syncs_take_their_time_and_are_counted(disk: Disk) -> None:
    script = "import time\nbegan = time.monotonic(); sync(); print(time.monotonic() - began)"
    with disk.failing(delay_ms=50):
        assert float(run(disk, script)) >= 0.05
    assert disk.counts()["slowed"] == 1


def test_other_files_are_left_alone(disk: Disk, tmp_path: Path) -> None:
    script = (
        f"trouble(**{TROUBLES['read-only']}); open({str(tmp_path / 'other')!r}, 'w').write('x')"
    )
    run(disk, script)
    assert (tmp_path / "other").read_text() == "x"
