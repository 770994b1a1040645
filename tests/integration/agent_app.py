"""The app that the tests of the agent run: functions that end in every way a function can."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time

import evener

app = evener.App("t")


@app.task
def add(a: int, b: int) -> int:
    return a + b


@app.task
def nothing() -> None:
    return None


@app.task
def fail(text: str) -> None:
    raise ValueError(text)


@app.task
def leave(code: int) -> None:
    os._exit(code)


@app.task
def crash() -> None:
    ctypes.string_at(0)


@app.task
def say(out: str, err: str) -> None:
    print(out)
    print(err, file=sys.stderr)


@app.task
def pid() -> int:
    return os.getpid()


@app.task
def write_pid_and_wait(path: str) -> None:
    """Tell who runs, then run until stopped."""
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    os.rename(path, path + ".done")
    while True:
        time.sleep(0.01)


@app.task
def refuse_to_end(path: str) -> None:
    """Neither a flag nor an exception ends this."""
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    os.rename(path, path + ".done")
    while True:
        try:
            time.sleep(10)
        except BaseException:  # the point of it
            continue


@app.task
def wait_for(path: str) -> str:
    """Run until a file appears."""
    while not os.path.exists(path):
        time.sleep(0.002)
    return path


@app.task
def fork_and_return() -> int:
    """The child returns as well, and must not be taken for the worker."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return child


@app.task
def close_everything() -> None:
    os.closerange(0, 1_000)


@app.task
def flood(lines: int) -> None:
    for number in range(lines):
        print(f"line {number} {'x' * 60}")


@app.task
async def later(value: int) -> int:
    await asyncio.sleep(0.001)
    return value


@app.task
def echo(data: bytes) -> bytes:
    return data


@app.task
def sometimes_long(number: int) -> int:
    """Mostly nothing, at times a few milliseconds."""
    if number % 20 == 19:
        time.sleep(0.004)
    return number


@app.task
def wait_if(path: str) -> None:
    """Run until a file appears, if one is named."""
    while path and not os.path.exists(path):
        time.sleep(0.002)
