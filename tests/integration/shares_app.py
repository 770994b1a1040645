"""The app of the tests of many tasks at once. Tasks meet and wait by files, never by time."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import evener

app = evener.App("many")
inside = 0
barrier = threading.Barrier(32)


def pid() -> int:
    return os.getpid()


@app.task
def alone(gate: str = "") -> tuple[int, int]:
    """With the worker to itself: who, and how many others are here."""
    while gate and not os.path.exists(gate):
        time.sleep(0.002)
    return os.getpid(), inside


@app.task(concurrency=100)
async def meet(count: int) -> int:
    """Waits until so many are inside at the same moment."""
    global inside, opened
    inside += 1
    try:
        if inside == count:
            opened.set()
        await opened.wait()
        return os.getpid()
    finally:
        inside -= 1
        if not inside:
            opened = asyncio.Event()


opened = asyncio.Event()


@app.task(threads=32)
def meet_in_threads() -> int:
    """The same in threads: the barrier opens when all are there."""
    barrier.wait(60)
    return os.getpid()


async def gate_of(path: str) -> None:
    while not os.path.exists(path):
        await asyncio.sleep(0.002)


@app.task(concurrency=100)
async def wait(begun: str, gate: str) -> tuple[int, bool]:
    """Says that it began, and ends when the gate is there. Who, and whether it shall stop."""
    Path(begun).touch()
    await gate_of(gate)
    return os.getpid(), evener.cancelled()


@app.task(threads=32)
def wait_in_thread(begun: str, gate: str) -> tuple[int, bool]:
    Path(begun).touch()
    while not os.path.exists(gate):
        time.sleep(0.002)
    return os.getpid(), evener.cancelled()


@app.task(concurrency=100, grace="60s")
async def polite(begun: str) -> str:
    """Ends by itself once it hears that it shall."""
    Path(begun).touch()
    while not evener.cancelled():
        await asyncio.sleep(0.002)
    return "not what anybody gets"


@app.task(threads=32, grace="60s")
def polite_thread(begun: str) -> str:
    Path(begun).touch()
    while not evener.cancelled():
        time.sleep(0.002)
    return "not what anybody gets"


@app.task(concurrency=100, grace=0)
async def stubborn(begun: str) -> None:
    """Swallows its cancellation."""
    Path(begun).touch()
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


@app.task(threads=32, grace=0)
def stubborn_thread(begun: str) -> None:
    """Swallows what is raised into it."""
    Path(begun).touch()
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            continue


@app.task(concurrency=100)
async def block(begun: str) -> None:
    """Holds up the loop."""
    Path(begun).touch()
    time.sleep(3600)


@app.task(concurrency=100)
async def ask(timeout_of: str) -> float | None:
    """How long it has, as it hears it; and a step of its progress, with its name."""
    evener.progress(1, 2, timeout_of)
    return evener.time_left()


@app.task(concurrency=100)
async def tell(name: str, begun: str, gate: str) -> None:
    """A line in two parts, between which others write theirs."""
    print(f"{name} begins", end="", flush=True)
    Path(begun).touch()
    await gate_of(gate)
    print(f" and {name} ends")
    evener.progress(2, 2, name)


@app.task(threads=32)
def tell_in_thread(name: str, begun: str, gate: str) -> None:
    print(f"{name} begins", end="", flush=True)
    Path(begun).touch()
    while not os.path.exists(gate):
        time.sleep(0.002)
    print(f" and {name} ends")
    evener.progress(2, 2, name)


@app.task(concurrency=100, retries=1)
async def fails_once(mark: str) -> str:
    """Raises at its first try."""
    if not os.path.exists(mark):
        Path(mark).touch()
        raise ValueError("the first time")
    return "the second time"


@app.task(concurrency=100)
async def exits() -> None:
    """A task of its own ends the interpreter, or would."""

    async def leave() -> None:
        raise SystemExit(3)

    await asyncio.create_task(leave())


@app.task(concurrency=100)
async def kills(begun: str, gate: str) -> None:
    """Takes its worker down once the gate is there."""
    Path(begun).touch()
    await gate_of(gate)
    os.kill(os.getpid(), 9)


@app.task(threads=4)
def size(data: bytes) -> bytes:
    return data


@app.task(concurrency=4)
async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number
