"""The app that the tests of what tasks can ask and tell run."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import evener

app = evener.App("i")


def wait_for(path: str) -> None:
    """Until a file appears."""
    while not os.path.exists(path):
        time.sleep(0.002)


@app.task(grace="60s")
def polite(begun: str, gate: str = "") -> str:
    """Stops when it is told to; `gate` holds it back after that."""
    Path(begun).touch()
    while not evener.cancelled():
        time.sleep(0.002)
    if gate:
        wait_for(gate)
    Path(begun + ".cleaned").touch()
    return "not what anybody gets"


@app.task(grace="60s")
def raising(begun: str) -> None:
    """Raises when it is told to stop."""
    Path(begun).touch()
    while not evener.cancelled():
        time.sleep(0.002)
    raise ValueError("in the midst of cleaning up")


@app.task(grace="60s")
async def polite_async(begun: str) -> None:
    """The same as a coroutine."""
    Path(begun).touch()
    while not evener.cancelled():
        await asyncio.sleep(0.002)


@app.task(grace="60s")
def polite_thread(begun: str) -> None:
    """The same, where a thread of the task asks."""

    def look() -> None:
        while not evener.cancelled():
            time.sleep(0.002)

    thread = threading.Thread(target=look)
    thread.start()
    Path(begun).touch()
    thread.join()


@app.task(grace="0.2s")
def deaf(begun: str) -> None:
    """Never asks, and is interrupted."""
    Path(begun).touch()
    try:
        while True:
            time.sleep(0.01)
    finally:
        Path(begun + ".cleaned").touch()


@app.task(grace=0)
def stubborn(begun: str) -> None:
    """Neither asks nor lets itself be interrupted."""
    Path(begun).touch()
    while True:
        try:
            time.sleep(10)
        except BaseException:  # the point of it
            continue


@app.task
def times() -> tuple[float | None, bool]:
    """What it has left, and whether it is to stop."""
    return evener.time_left(), evener.cancelled()


@app.task
async def times_async() -> tuple[float | None, bool]:
    """The same as a coroutine."""
    await asyncio.sleep(0)
    return evener.time_left(), evener.cancelled()


@app.task(grace="60s")
def in_time(begun: str) -> str:
    """Ends with what it has before its time is over."""
    Path(begun).touch()
    while (left := evener.time_left()) is not None and left > 0.2:
        time.sleep(0.002)
    return "what there was in time"


@app.task(grace="60s")
def items(folder: str, number: int) -> int:
    """One item of a map: each leaves a file, and the fourth waits for one."""
    Path(folder, str(number)).touch()
    if number == 3:
        wait_for(os.path.join(folder, "gate"))
    return number


@app.task
def steps(gates: list[str]) -> int:
    """Says how far it is, and goes on when each gate opens."""
    for number, gate in enumerate(gates):
        evener.progress(number, len(gates), f"before {Path(gate).name}")
        wait_for(gate)
    return len(gates)


@app.task
async def steps_async(gates: list[str]) -> int:
    """The same as a coroutine, with a thread that says it."""
    for number, gate in enumerate(gates):
        note = f"before {Path(gate).name}"
        await asyncio.to_thread(evener.progress, number, len(gates), note)
        while not os.path.exists(gate):
            await asyncio.sleep(0.002)
    return len(gates)


@app.task
def chatter(times: int) -> str:
    """Says a lot, and then waits for its end."""
    for number in range(times):
        evener.progress(number)
    evener.progress(times, times, "all said")
    while not evener.cancelled():
        time.sleep(0.002)
    return "cancelled"


@app.task(retries=1, retry_delay=0)
def twice(gates: list[str]) -> str:
    """Fails once, after it said something."""
    for gate in gates:
        evener.progress(1, 2, Path(gate).name)
        if not os.path.exists(gate):
            wait_for(gate)
            raise ValueError("once")
    return "at last"


@app.task
def wrong() -> str:
    """What progress refuses."""
    texts: list[str] = []
    for done in (-1, float("nan"), "1", True, 1 << 63):
        try:
            evener.progress(done)  # type: ignore[arg-type]
        except evener.UsageError as error:
            texts.append(str(error))
    return "\n".join(texts)


@app.task
def numbers(count: int, fail_at: int = -1) -> Iterator[int]:
    """Yields, and returns how many."""
    for number in range(count):
        if number == fail_at:
            raise ValueError(f"at {number}")
        yield number
    return count  # type: ignore[return-value]


@app.task
async def numbers_async(count: int, fail_at: int = -1) -> AsyncIterator[int]:
    """The same as an asynchronous generator."""
    for number in range(count):
        if number == fail_at:
            raise ValueError(f"at {number}")
        await asyncio.sleep(0)
        yield number


@app.task
def large(count: int, size: int) -> Iterator[bytes]:
    """Yields more than fits into a message."""
    for number in range(count):
        yield bytes([number]) * size


@app.task
def counting(path: str) -> Iterator[int]:
    """Yields without end, and leaves a file that is as long as it has come."""
    number = 0
    try:
        while True:
            with open(path, "ab") as file:
                file.write(b".")
            yield number
            number += 1
    finally:
        Path(path + ".closed").touch()


@app.task(retries=1, retry_delay=0)
def fails_once(flag: str) -> Iterator[str]:
    """Yields, fails, and yields something else the next time."""
    first = not os.path.exists(flag)
    Path(flag).touch()
    for number in range(3):
        yield f"{'first' if first else 'second'} {number}"
    if first:
        raise ValueError("once")


@app.task(max_starts=2)
def dies_once(flag: str) -> Iterator[int]:
    """Yields, and takes its worker down once."""
    yield 1
    if not os.path.exists(flag):
        wait_for(flag + ".now")
        Path(flag).touch()
        os._exit(3)
    yield 2


@app.task
def pid() -> int:
    """Which process runs tasks."""
    return os.getpid()
