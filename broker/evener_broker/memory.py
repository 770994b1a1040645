"""How much memory this process may take, how much it takes, and what bounds follow from that.

The tables count what they hold. What cannot be counted (the allocator's leftovers, what ZeroMQ has
on its way to peers that do not read) shows only in the size of the process, so that is looked at
too: above the limit the broker takes on nothing new until it is below it again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from evener_broker.tables import Bounds
from evener_wire.limits import (
    BROKER_BYTES_MAX,
    BROKER_TASKS_MAX,
    CLIENT_BYTES_MAX,
    CLIENT_TASKS_MAX,
    KIB,
    LETTER_BYTES_MAX,
    MEMORY_LOOK_NS,
    MEMORY_TRIM_NS,
    MEMORY_WASTE_MIN_BYTES,
    MIB,
    RETAINED_BYTES_DURABLE_MAX,
    RETAINED_BYTES_MAX,
    RETAINED_TASKS_DURABLE_MAX,
    RETAINED_TASKS_MAX,
)

# Of the memory that is there, what the broker takes if nobody says otherwise.
_SHARE: Final = 0.8

# What a task takes beside its payload, rounded up.
TASK_BYTES: Final = KIB

# Once above its limit, the process counts as short until it is this far below.
_RELIEF: Final = 0.95

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_CGROUP: Final = Path("/sys/fs/cgroup")


def memory_here() -> int:
    """The memory that this process can have: the machine's, or less if its group has a limit."""
    limits = [_PAGE * os.sysconf("SC_PHYS_PAGES")]
    for path in _limit_files():
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    return min(limit for limit in limits if limit > 0)


def _limit_files() -> Iterator[Path]:
    """Where a limit may stand: in our group and in all above it, in both versions of cgroups."""
    groups = ["0::/", "0:memory:/"]
    with contextlib.suppress(OSError):
        groups += Path("/proc/self/cgroup").read_text().splitlines()
    for line in groups:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, file = _CGROUP, "memory.max"
        elif "memory" in controllers.split(","):
            root, file = _CGROUP / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = root / name.lstrip("/")
        yield from (place / file for place in (folder, *folder.parents))


def bounds_for(
    memory: int,
    *,
    tasks: int = 0,
    payload_bytes: int = 0,
    client_tasks: int = 0,
    client_bytes: int = 0,
    durable: bool = False,
) -> Bounds:
    """What is given, and for what is 0 a share of the memory: half for payloads, a quarter for
    tasks; the rest is for sessions, for what is on its way, and for the allocator. A broker with a
    journal keeps more of what has ended."""
    most = payload_bytes or min(BROKER_BYTES_MAX, max(MIB, memory // 2))
    count = tasks or min(BROKER_TASKS_MAX, max(1_000, memory // 4 // TASK_BYTES))
    return Bounds(
        tasks=count,
        payload_bytes=most,
        client_tasks=min(client_tasks or CLIENT_TASKS_MAX, count),
        client_bytes=min(client_bytes or CLIENT_BYTES_MAX, most),
        retained_tasks=RETAINED_TASKS_DURABLE_MAX if durable else RETAINED_TASKS_MAX,
        retained_bytes=min(
            RETAINED_BYTES_DURABLE_MAX if durable else RETAINED_BYTES_MAX, memory // 16
        ),
        letter_bytes=min(LETTER_BYTES_MAX, memory // 16),
    )


def default_limit() -> int:
    """The limit of a broker that was given none."""
    return int(memory_here() * _SHARE)


class Gauge:
    """Whether the process takes more than its limit. Caller: the shell's loop."""

    def __init__(self, limit: int) -> None:
        self.limit: Final = limit
        self.is_short = False
        self.rss = 0
        self._look_ns = 0
        self._trim_ns = 0
        self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def look(self, now_ns: int, held: int) -> bool:
        """Look, if it is time to. True if whether memory is short has changed.

        `held`: what the tables hold, for comparison. Free memory between what is in use does not go
        back to the system by itself, and would count on.
        """
        if now_ns < self._look_ns:
            return False
        self._look_ns = now_ns + MEMORY_LOOK_NS
        before = self.is_short
        self._measure()
        wasted = self.rss > MEMORY_WASTE_MIN_BYTES + 2 * held
        if (self.is_short or wasted) and now_ns >= self._trim_ns:
            self._trim_ns = now_ns + MEMORY_TRIM_NS
            _trim()
            self._measure()
        return self.is_short is not before

    def text(self) -> str:
        """What to say while memory is short."""
        if not self.is_short:
            return ""
        return (
            f"the broker takes {self.rss // MIB} MiB of memory and may take {self.limit // MIB}: "
            f"nothing new until that is less"
        )

    def _measure(self) -> None:
        self.rss = int(os.pread(self._file, 128, 0).split()[1]) * _PAGE
        self.is_short = self.rss > self.limit * (_RELIEF if self.is_short else 1.0)

    def close(self) -> None:
        """No more looking."""
        os.close(self._file)


def _trim() -> None:
    # Only glibc has it; other allocators give memory back by themselves.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
