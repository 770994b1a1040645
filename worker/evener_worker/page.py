"""The page of memory that a worker shares with its agent, and the permits beside it.

Rules of this file: cells of 64 bits, each written by one side only. The agent can read it after the
worker died, whatever it died of. Before a worker starts an attempt it takes a permit from an
eventfd; the agent takes work back by taking its permit. The kernel decides who was first.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

PAGE_BYTES: Final = mmap.PAGESIZE

# Written by the worker.
STARTED: Final = 0  # number of the attempt it started last
STARTED_NS: Final = 1  # when (CLOCK_BOOTTIME); of the item, in a chunk
ITEM: Final = 2  # index of the item of a chunk

# Written by the agent.
STOP: Final = 8  # number of the attempt that shall end
STOP_OUTCOME: Final = 9  # CANCELLED or TIMED_OUT


def create_page() -> int:
    """A file descriptor of a new page, closed in children unless passed on."""
    fd = os.memfd_create("evener-page", os.MFD_CLOEXEC)
    os.ftruncate(fd, PAGE_BYTES)
    return fd


def map_page(fd: int) -> memoryview:
    """The cells of a page."""
    return memoryview(mmap.mmap(fd, PAGE_BYTES)).cast("Q")


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
