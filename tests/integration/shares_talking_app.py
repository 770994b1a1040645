"""The app of the tests of what tasks side by side write, and of how far they say they are."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import evener

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
app = evener.App("talk")
log = logging.getLogger("talk")


def first(name: str) -> None:
    """On both outputs; of a line on stdout one half."""
    print(f"{name} begins,", end="", flush=True)
    print(f"{name} complains", file=sys.stderr)
    log.info("%s logs", name)


def second(name: str) -> None:
    """The other half, whole lines, and one that has no end."""
    print(f" {name} goes on")
    print(f"{name} one\n{name} two")
    print(f"{name} ends", end="")


@app.task(concurrency=20)
async def every_way(name: str, begun: str, gate: str) -> str:
    """In tasks of its own and in threads of the loop as well."""

    async def inner() -> None:
        print(f"{name} in a task")

    await asyncio.create_task(inner())
    await asyncio.to_thread(print, f"{name} in a thread")
    first(name)
    Path(begun).touch()
    while not os.path.exists(gate):
        await asyncio.sleep(0.002)
    second(name)
    return name


@app.task(threads=20)
def every_way_thread(name: str, begun: str, gate: str) -> str:
    first(name)
    Path(begun).touch()
    while not os.path.exists(gate):
        time.sleep(0.002)
    second(name)
    return name


@app.task(concurrency=20)
async def yields(name: str) -> AsyncIterator[str]:
    for number in range(3):
        print(f"{name} yields {number}")
        yield name


@app.task(concurrency=20)
async def past_python(name: str) -> str:
    """What nobody can tell apart, between two lines that say whose they are."""
    print(f"{name} prints")
    ctypes.CDLL(None).puts(f"{name} in C".encode())
    ctypes.CDLL(None).fflush(None)
    os.write(1, f"{name} past Python\n".encode())
    subprocess.run(["echo", f"{name} from a program"], check=True)
    thread = threading.Thread(target=print, args=[f"{name} in a thread of its own"])
    thread.start()
    thread.join()
    print(f"{name} ends")
    return name


@app.task(concurrency=20, max_starts=1)
async def dies(name: str, begun: str, gate: str) -> None:
    print(f"{name} says its last words")
    Path(begun).touch()
    while not os.path.exists(gate):
        await asyncio.sleep(0.002)
    os.kill(os.getpid(), 9)


@app.task(concurrency=20)
async def far(name: str, step: int, begun: str, gate: str) -> str:
    """Says how far it is, and stays."""
    evener.progress(step, 100, name)
    Path(begun).touch()
    while not os.path.exists(gate):
        await asyncio.sleep(0.002)
    return name


@app.task(threads=20)
def far_thread(name: str, step: int, begun: str, gate: str) -> str:
    evener.progress(step, 100, name)
    Path(begun).touch()
    while not os.path.exists(gate):
        time.sleep(0.002)
    return name
