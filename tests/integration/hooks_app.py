"""An app whose hooks and tasks write down what happens, for the tests of beginnings and ends."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import evener

app = evener.App("hooks")
ROLE_AT_IMPORT = evener.current_worker().role
_opened: list[str] = []


def note(text: str) -> None:
    """A line in the file that all processes share."""
    with Path(os.environ["HOOKS_NOTES"]).open("a") as file:
        file.write(f"{text}\n")


@app.on_main_start
def main_start() -> None:
    note(f"main start {evener.current_worker().role}")


@app.on_shutdown
async def shutdown() -> None:
    await asyncio.sleep(0)
    note("shutdown")


@app.on_worker_start
def open_first() -> None:
    here = evener.current_worker()
    assert (here.pid, here.role, ROLE_AT_IMPORT) == (os.getpid(), here.role, here.role)
    _opened.append(f"{here.role} {here.id}")
    broken = os.environ.get("HOOKS_BROKEN", "")
    if "start" in broken:
        raise ConnectionError("no database")
    if "never" in broken:
        note("hangs")
        time.sleep(600)


@app.on_worker_start
async def open_second() -> None:
    await asyncio.sleep(0)
    _opened.append("second")
    note(f"start {' '.join(_opened)}")


@app.on_worker_stop
async def close_first() -> None:
    await asyncio.sleep(0)
    here = evener.current_worker()
    note(f"stop {here.role} {here.id} of {here.name.rpartition(':')[2]}")


@app.on_worker_stop
def close_second() -> None:
    broken = os.environ.get("HOOKS_BROKEN", "")
    if "hang" in broken:
        note("hangs")
        time.sleep(600)
    if "stop" in broken:
        raise ValueError("half closed")


@app.task
def opened() -> list[str]:
    return _opened


@app.task
async def who() -> list[object]:
    here = evener.current_worker()
    return [here.id, here.role, here.pid]


@app.task
def hold(until: str) -> str:
    """Runs until a file exists."""
    note("holding")
    while not Path(until).exists():
        time.sleep(0.005)
    note("held")
    return "held"
