"""The app that the fault tests run: functions that note what they do, wait for files, and die.

Rules of this file: whatever runs is in the history. Nothing here decides how long it takes by
itself: a function that stays, stays until its file is there or somebody ends it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import evener
from tests.integration.history import BEGIN, END, note

app = evener.App("f")


def folder() -> Path:
    """Where the history and the files of this test are."""
    return Path(os.environ["FAULT_FOLDER"])


@contextmanager
def noted(token: str) -> Iterator[None]:
    note(folder(), BEGIN, token)
    yield
    note(folder(), END, token)


def wait_for(name: str) -> None:
    path = folder() / name
    while not path.exists():
        time.sleep(0.002)


# --- Functions that do what they should -----------------------------------------------------------


@app.task
def work(token: str, seconds: float = 0.0) -> str:
    """Run for a moment."""
    with noted(token):
        if seconds:
            time.sleep(seconds)
    return token


@app.task
def stay(token: str, name: str) -> str:
    """Run until a file is there."""
    with noted(token):
        wait_for(name)
    return token


@app.task
def where(token: str, name: str) -> int:
    """Run until a file is there; the process that ran it."""
    with noted(token):
        wait_for(name)
    return os.getpid()


@app.task
def pid(token: str) -> int:
    with noted(token):
        return os.getpid()


@app.task
def fail(token: str, times: int) -> int:
    """Raise so many times; then the number of the run that did not."""
    with noted(token):
        pass
    path = folder() / f"{token}.failed"
    with path.open("a+b") as file:
        file.seek(0)
        runs = len(file.read()) + 1
        file.write(b"x")
    if runs <= times:
        raise ValueError(f"run {runs} of {token}")
    return runs


# --- Functions that take their worker down --------------------------------------------------------


def _die(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(3)
    elif how == "abort":
        os.abort()
    elif how == "memory":
        _exhaust_memory()
    elif how == "close":
        os.closerange(0, 1_024)
        time.sleep(60)
    raise AssertionError(f"survived {how}")


def _exhaust_memory() -> None:
    """Join the group with little memory that the test made, and take more than it has."""
    group = Path(os.environ["FAULT_CGROUP"])
    (group / "cgroup.procs").write_text(str(os.getpid()))
    hoard = []
    while True:
        hoard.append(bytearray(1 << 20))


@app.task
def die(token: str, how: str, times: int = 1_000) -> str:
    """Take the worker down so many times, then end well."""
    note(folder(), BEGIN, token)
    path = folder() / f"{token}.deaths"
    with path.open("a+b") as file:
        file.seek(0)
        deaths = len(file.read())
        file.write(b"x")
    if deaths < times:
        print(f"the last words of {token}", flush=True)
        _die(how)
    note(folder(), END, token)
    return token


# --- Functions that do not want to end ------------------------------------------------------------


@app.task
def spin(token: str) -> None:
    with noted(token):
        while True:
            pass


@app.task
def nap(token: str) -> None:
    with noted(token):
        time.sleep(3_600)


@app.task
def hog(token: str) -> None:
    """One call of C code that holds the interpreter's lock and looks at no signal."""
    with noted(token):
        sum(range(10**13))


@app.task
def deaf(token: str) -> None:
    """Neither a signal nor an exception ends this."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with noted(token):
        while True:
            try:
                time.sleep(3_600)
            except BaseException:  # the point of it
                continue
