"""A disk that fails, for one broker: EIO, read-only, slow syncs, a power cut.

A library that gcc builds here is loaded into the broker's process, between it and the C library
(`disk_shim.c`); it looks at the journal's files alone. Rules of this file: what shall fail is told
through shared memory, so that it begins and ends at once; what did fail is counted there.
"""

from __future__ import annotations

import atexit
import errno
import mmap
import os
import random
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.chaos.powercut import Cut, cut_power

SOURCE = Path(__file__).with_name("disk_shim.c")
_CONTROL = struct.Struct("<10I5Q")
SETTINGS = (
    "write_error", "sync_error", "read_error", "names_error", "one_in", "torn", "delay_ms", "seed",
    "settle", "lies",
)  # fmt: skip
_COUNTED = ("sequence", "writes", "syncs", "failed", "slowed")

EIO, EROFS = errno.EIO, errno.EROFS
TROUBLES: dict[str, dict[str, int]] = {
    "EIO from writes": {"write_error": EIO, "torn": 1},
    "EIO from syncs": {"sync_error": EIO},
    "EIO now and then": {
        "write_error": EIO, "sync_error": EIO, "read_error": EIO, "names_error": EIO, "one_in": 4,
        "torn": 1,
    },
    "read-only": {"write_error": EROFS, "sync_error": EROFS, "names_error": EROFS},
    "slow syncs": {"delay_ms": 2_000},
}  # fmt: skip


def why_no_disk() -> str | None:
    """Why this cannot be had here, or None."""
    return None if shutil.which("gcc") else "gcc is not installed"


@cache
def library() -> Path:
    """The shim, built once for this process. Raises OSError with what the compiler says."""
    folder = tempfile.mkdtemp(prefix=f"evener-shim-{os.getpid()}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    built = Path(folder) / "disk_shim.so"
    done = subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(built),
         str(SOURCE), "-ldl"],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise OSError(f"gcc cannot build {SOURCE.name}: {done.stderr[-1_000:]}")
    return built


class Disk:
    """A folder with a journal on a disk that can be told to fail."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.journal = folder / "disk" / "journal"
        self._state = folder / "disk-state"
        for made in (self.journal.parent, self._state / "graves"):
            made.mkdir(parents=True)
        (self._state / "control").write_bytes(bytes(mmap.PAGESIZE))
        self._log = self._state / "log"
        self._log.touch()
        with (self._state / "control").open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.total = Cut()
        self.set(seed=seed)

    @property
    def prefix(self) -> list[str]:
        """What starts a program on this disk."""
        return [
            "env", f"LD_PRELOAD={library()}", f"CHAOS_DISK={self.journal}",
            f"CHAOS_DISK_STATE={self._state}",
        ]  # fmt: skip

    def set(self, **settings: int) -> None:
        """From now on; what is not named stays as it is."""
        for name, value in settings.items():
            struct.pack_into("<I", self._memory, 4 * SETTINGS.index(name), value)

    @contextmanager
    def failing(self, **trouble: int) -> Iterator[None]:
        """Meanwhile these operations fail, or take so long."""
        self.set(**trouble)
        try:
            yield
        finally:
            self.set(**dict.fromkeys(trouble, 0))

    def counts(self) -> dict[str, int]:
        """What was done on this disk, and what failed: writes, syncs, failed, slowed."""
        return dict(zip(_COUNTED, _CONTROL.unpack_from(self._memory)[10:], strict=True))

    def settle(self) -> None:
        """The broker is dead, and the kernel has written all it had."""
        self._log.write_bytes(b"")
        for grave in (self._state / "graves").iterdir():
            grave.unlink()

    def cut_power(self, rng: random.Random) -> Cut:
        """The broker is dead, and the disk has what was synced, and of the rest whatever it had."""
        folder = self.journal.parent
        cut = cut_power(self._log.read_bytes(), [folder, self._state / "graves"], rng)
        (folder / "journal-shm").unlink(missing_ok=True)  # it was memory
        self.settle()
        for name in Cut.__slots__:
            setattr(self.total, name, getattr(self.total, name) + getattr(cut, name))
        return cut

    def close(self) -> None:
        self._memory.close()

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
