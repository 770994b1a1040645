"""The page of memory that a worker shares with its agent, and the permits beside it.

Attempts that run side by side have a lane each, memory laid out as the page is (`lane`).

Rules of this file: cells of 64 bits, each written by one side only. The agent can read it after the
worker died, whatever it died of. Before a worker starts an attempt it takes a permit from an
eventfd; the agent takes work back by taking its permit. The kernel decides who was first.

How far an attempt is stands in the page as well: the last thing it said, and in a cell its length
and checksum. So a task may report a million times a second and costs nobody else anything, and what
is read while it is being written is not taken for a report.
"""

from __future__ import annotations

import mmap
import os
from typing import Final, NamedTuple
from zlib import crc32

import msgpack

from evener_wire import checks
from evener_wire.limits import SHARES_MAX

PAGE_BYTES: Final = mmap.PAGESIZE

# What runs alone has the first page. Attempts side by side have one each behind it, their lane; a
# page that nobody ever touches takes no memory.
_CELLS: Final = PAGE_BYTES // 8
_BYTES: Final = (1 + SHARES_MAX) * PAGE_BYTES

# Written by the worker.
STARTED: Final = 0  # number of the attempt it started last
STARTED_NS: Final = 1  # when (CLOCK_BOOTTIME); of the item, in a chunk
ITEM: Final = 2  # index of the item of a chunk
REPORT: Final = 3  # checksum and length of the report, which stands further down

# Written by the agent.
STOP: Final = 8  # number of the attempt that shall end
STOP_OUTCOME: Final = 9  # CANCELLED or TIMED_OUT

# Where the report stands, in bytes, and how long it may be: a note of four-byte characters fits.
_REPORT_AT: Final = 1_024
_REPORT_BYTES_MAX: Final = 1_024
_LENGTH_BITS: Final = 16


class Said(NamedTuple):
    """What attempt `sequence` said last of its progress."""

    sequence: int
    done: float
    total: float | None
    note: str


def write_report(page: memoryview, report: Said) -> None:
    """Replace what the worker said last. The caller sees to it that threads take turns."""
    body: bytes = msgpack.packb(report)
    assert len(body) <= _REPORT_BYTES_MAX
    page.cast("B")[_REPORT_AT : _REPORT_AT + len(body)] = body
    page[REPORT] = crc32(body) << _LENGTH_BITS | len(body)


def read_report(page: memoryview, cell: int) -> Said | None:
    """The report that the cell names; None while it is being replaced, or where it is none."""
    length = min(cell & (1 << _LENGTH_BITS) - 1, _REPORT_BYTES_MAX)
    body = bytes(page.cast("B")[_REPORT_AT : _REPORT_AT + length])
    if crc32(body) != cell >> _LENGTH_BITS:
        return None
    # User code can write here, so it may be anything.
    try:
        sequence, done, total, note = msgpack.unpackb(body)
        checks.whole(sequence, "sequence")
        checks.progress(done, total, note)
    except Exception:
        return None
    return Said(sequence, done, total, note)


def create_page() -> int:
    """A file descriptor of a new page and its lanes, closed in children unless passed on."""
    fd = os.memfd_create("evener-page", os.MFD_CLOEXEC)
    os.ftruncate(fd, _BYTES)
    return fd


def map_page(fd: int) -> memoryview:
    """The cells of a page, and behind them those of the lanes."""
    return memoryview(mmap.mmap(fd, _BYTES)).cast("Q")


def lane(page: memoryview, number: int) -> memoryview:
    """The cells of one lane, laid out as the page is; lane 0 is the page itself."""
    return page[number * _CELLS : (number + 1) * _CELLS]


def create_permits() -> int:
    """A file descriptor that counts permits."""
    return os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def take_permits(fd: int, most: int) -> int:
    """Take up to `most` permits; how many there were."""
    for taken in range(most):
        try:
            os.eventfd_read(fd)
        except BlockingIOError:
            return taken
    return most
