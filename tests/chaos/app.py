"""The app of the chaos runs: functions that note their start and end, stay, hang, and die.

Rules of this file: whatever runs is in the history. The value of a task is its token with a mark
that only this file adds, so that the checker sees whose result came.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import evener
from tests.chaos.history import DIE, END, START, Writer

app = evener.App("chaos")

FOLDER = Path(os.environ["CHAOS_FOLDER"])
_history = Writer(FOLDER)


def _value(token: str) -> str:
    return f"{token}!"


def _first_time(token: str) -> bool:
    """Whether this is asked for the first time, in whichever process."""
    try:
        os.close(os.open(FOLDER / f"{token}.once", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


@app.task
def work(token: str, seconds: float = 0.0, ballast: bytes = b"") -> str:
    """Run for a moment."""
    _history.note(START, token)
    if seconds:
        time.sleep(seconds)
    _history.note(END, token)
    return _value(token)


@app.task
def hold(token: str, name: str, longest: float = 120.0) -> str:
    """Run until a file is there."""
    _history.note(START, token)
    until = time.monotonic() + longest
    path = FOLDER / name
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.002)
    _history.note(END, token)
    return _value(token)


@app.task
def large(token: str, size: int) -> tuple[str, bytes]:
    """A result of many bytes."""
    _history.note(START, token)
    _history.note(END, token)
    return _value(token), bytes(size)


@app.task
def spin(token: str, seconds: float) -> str:
    """Keep the interpreter busy."""
    _history.note(START, token)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    _history.note(END, token)
    return _value(token)


# --- The end of a worker, near the end of its task ------------------------------------------------


@app.task
def edge(token: str, after_us: int) -> str:
    """The first time, end the process just before the result is sent, or so long after."""
    _history.note(START, token)
    first = _first_time(token)
    if first and after_us <= 0:
        _die(token)
    if first:
        threading.Timer(after_us / 1e6, _die, [token]).start()
    _history.note(END, token)
    return _value(token)


def _die(token: str) -> None:
    _history.note(DIE, token)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def hoard(token: str, group: str) -> str:
    """Join a group with little memory, and take more than it has: the kernel ends this process."""
    _history.note(START, token)
    (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    _history.note(DIE, token)
    taken = []
    while True:
        taken.append(os.urandom(1 << 20))


@app.task
def devour(token: str) -> str:
    """Take more memory than this container has."""
    _history.note(START, token)
    _history.note(DIE, token)
    taken = []
    while True:
        taken.append(os.urandom(1 << 20))


# --- Functions that hang --------------------------------------------------------------------------


@app.task
def hang(token: str, how: str) -> str:
    """Never end: deadlock, spin, hog (C code with the interpreter's lock), pipe, flood, deaf."""
    _history.note(START, token)
    if how == "deadlock":
        lock = threading.Lock()
        with lock:
            lock.acquire()
    elif how == "spin":
        while True:
            pass
    elif how == "hog":
        sum(range(10**13))
    elif how == "pipe":
        reader, _ = os.pipe()
        os.read(reader, 1)
    elif how == "flood":
        while True:
            sys.stdout.write("x" * 8_192 + "\n")
    elif how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            try:
                time.sleep(3600)
            except BaseException:  # the point of it
                continue
    raise AssertionError(f"{how} came to an end")
