"""The app of the tests of generators side by side: each once on the loop, once in threads."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import evener

app = evener.App("flows")

MANY = 40
FEW = 16

here = 0
all_here = asyncio.Event()
barrier = threading.Barrier(FEW)


@app.task
def alone() -> int:
    """With the worker to itself."""
    return os.getpid()


@app.task(concurrency=MANY)
async def meet(name: int, count: int) -> AsyncIterator[tuple[int, int]]:
    """Yields once all are here, so none ends unless all run at once."""
    global here
    here += 1
    if here == MANY:
        all_here.set()
    await all_here.wait()
    for number in range(count):
        yield name, number


@app.task(threads=FEW)
def meet_thread(name: int, count: int) -> Iterator[tuple[int, int]]:
    barrier.wait(60)
    for number in range(count):
        yield name, number


@app.task(concurrency=4)
async def numbers(count: int, fail_at: int = -1) -> AsyncIterator[int]:
    for number in range(count):
        if number == fail_at:
            raise ValueError(f"at {number}")
        yield number


@app.task(threads=4)
def numbers_thread(count: int, fail_at: int = -1) -> Generator[int, None, int]:
    for number in range(count):
        if number == fail_at:
            raise ValueError(f"at {number}")
        yield number
    return count


@app.task(concurrency=4)
async def endless(path: str) -> AsyncIterator[int]:
    """Leaves a file that is as long as it has come, and another one when it is closed."""
    number = 0
    try:
        while True:
            with open(path, "ab") as file:
                file.write(b".")
            yield number
            number += 1
    finally:
        await asyncio.sleep(0)
        Path(path + ".closed").touch()


@app.task(threads=4)
def endless_thread(path: str) -> Iterator[int]:
    number = 0
    try:
        while True:
            with open(path, "ab") as file:
                file.write(b".")
            yield number
            number += 1
    finally:
        Path(path + ".closed").touch()


@app.task(concurrency=4)
async def silent(begun: str) -> AsyncIterator[str]:
    """Yields one value, and waits for ever."""
    yield "begun"
    Path(begun).touch()
    await asyncio.Event().wait()


@app.task(threads=4)
def silent_thread(begun: str) -> Iterator[str]:
    yield "begun"
    Path(begun).touch()
    while True:
        time.sleep(0.002)


@app.task(concurrency=4)
async def large(count: int, size: int) -> AsyncIterator[bytearray]:
    """Uses the same memory for each value."""
    memory = bytearray(size)
    for number in range(count):
        memory[:] = bytes([number]) * size
        yield memory


@app.task(threads=4)
def large_thread(count: int, size: int) -> Iterator[bytearray]:
    memory = bytearray(size)
    for number in range(count):
        memory[:] = bytes([number]) * size
        yield memory


@app.task(concurrency=4)
async def survive(flag: str, gate: str) -> AsyncIterator[int]:
    """Yields 0 and 1; between them waits for the gate."""
    yield 0
    Path(flag).touch()
    while not os.path.exists(gate):
        await asyncio.sleep(0.002)
    yield 1


@app.task(threads=4)
def survive_thread(flag: str, gate: str) -> Iterator[int]:
    yield 0
    Path(flag).touch()
    while not os.path.exists(gate):
        time.sleep(0.002)
    yield 1


@app.task(concurrency=4)
async def talk(name: str) -> AsyncIterator[str]:
    """What it asks and tells is its own."""
    for number in range(3):
        print(f"{name} {number}")
        yield f"{name} {evener.time_left() is None}"


@app.task(threads=4)
def talk_thread(name: str) -> Iterator[str]:
    for number in range(3):
        print(f"{name} {number}")
        yield f"{name} {evener.time_left() is None}"
