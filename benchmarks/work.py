"""What the benchmarks run: functions that do next to nothing, so that everything else shows.

Rules of this file: imports evener only; the peers run the same plain functions.
"""

from __future__ import annotations

import os
import socket
import time

import evener

app = evener.App("work")


def nothing() -> None:
    """The smallest task there is."""


def increment(number: int) -> int:
    """A tiny call for map."""
    return number + 1


def echo(body: bytes) -> bytes:
    """A payload there and back."""
    return body


def report_and_wait(path: str, seconds: float) -> int:
    """Tell a datagram socket "pid, time" at the start, then wait to be killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as report:
        report.sendto(f"{os.getpid()} {time.monotonic_ns()}".encode(), path)
    time.sleep(seconds)
    return os.getpid()


async def sleep(seconds: float) -> None:
    """Waits for others, on an event loop."""
    import asyncio  # here: `start` measures how long the imports of a worker take

    await asyncio.sleep(seconds)


noop = app.task(nothing, name="noop")
add_one = app.task(increment, name="add_one")
send_back = app.task(echo, name="send_back")
victim = app.task(report_and_wait, name="victim")
wait = app.task(time.sleep, name="wait")
wait_async = app.task(sleep, name="wait_async", concurrency=100)
wait_in_thread = app.task(time.sleep, name="wait_in_thread", threads=32)
