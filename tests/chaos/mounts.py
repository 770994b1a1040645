"""A small disk in memory, and what fills it.

Rules of this file: mounted in a folder of its own with the run's pid in its name; removed with it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.network import NetworkError, run

_PREFIX = "evener-disk-"


def why_no_mounts() -> str | None:
    """Why nothing can be mounted here, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    try:
        with small_disk(1):
            return None
    except NetworkError as error:
        return str(error)


@contextmanager
def small_disk(mebibytes: int) -> Iterator[Path]:
    """A folder with so much room."""
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as name:
        run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "evener-chaos", name)
        try:
            yield Path(name)
        finally:
            run("umount", "-l", name)


@contextmanager
def full_disk(disk: Path) -> Iterator[None]:
    """No byte is free on it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 4_096, 1):
            try:
                while True:
                    if file.write(bytes(size)) < size:
                        break
            except OSError:
                continue
    try:
        yield
    finally:
        ballast.unlink()
