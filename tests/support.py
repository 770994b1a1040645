"""What tests share: waiting for things, skipping aloud, and a record of what a test leaves behind.

Rules of this file: no fixtures (those are in `conftest.py`), nothing that imports evener, so that a
test of the source alone stays fast. Nothing here ends a process that the tests did not start.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import pytest

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

T = TypeVar("T")


# --- Waiting --------------------------------------------------------------------------------------


def wait_until(what: Callable[[], T], seconds: float = 10.0, why: str = "") -> T:
    """The first true value of `what()`; fails the test when there is none in time.

    Polls each 5 ms: for what lies in another process there is nothing to wait on. Inside a process
    use an event.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain{' for ' + why if why else ''}: {value!r}")
        time.sleep(0.005)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago. Where a part takes port 0, use that."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


# --- Skipping -------------------------------------------------------------------------------------


def skip_aloud(reason: str, *, expected_in_ci: bool = False) -> NoReturn:
    """Skip with a reason that the summary shows; under CI fail where the machine should be able."""
    if expected_in_ci and IN_CI:
        pytest.fail(f"must not be skipped here: {reason}")
    pytest.skip(reason)


# --- Rights ---------------------------------------------------------------------------------------

NOBODY = 65_534
"""The user and the group that own nothing."""


@contextmanager
def without_roots_rights() -> Iterator[None]:
    """The block runs as nobody, in all threads, if the tests run as root.

    Modules that it needs must be loaded before: nobody may be unable to read them.
    """
    if os.geteuid() != 0:
        yield
        return
    group = os.getegid()
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


# --- Processes ------------------------------------------------------------------------------------

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make this process the parent of every descendant that loses its own, so that none hides."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        pytest.exit("prctl(PR_SET_CHILD_SUBREAPER) failed: orphans could not be found")


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def children(pid: int | None = None) -> list[int]:
    """The pids of a process's direct children, zombies included."""
    pid = os.getpid() if pid is None else pid
    found: list[int] = []
    for task in _listing(f"/proc/{pid}/task"):
        try:
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def descendants(pid: int | None = None) -> list[int]:
    """The pids of everything below a process."""
    below: list[int] = []
    for child in children(pid):
        below += [child, *descendants(child)]
    return below


def command_line(pid: int) -> str:
    """What `ps` would show, or a word for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "(gone)"


def is_agent(pid: int) -> bool:
    """Whether this is an agent, by its command or by the title that it gave itself."""
    shown = command_line(pid)
    return '"part": "agent"' in shown or shown.startswith("evener agent ")


def is_worker(pid: int) -> bool:
    """Whether this is an agent's worker, by its command or by the title that it gave itself."""
    shown = command_line(pid)
    return "evener_worker.runner" in shown or shown.startswith("evener worker ")


class Processes:
    """The child processes that one test starts; what still runs at its end is killed, by pid."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *argv: str | os.PathLike[str], **options: Any) -> subprocess.Popen[str]:
        """A child with pipes for stdout and stderr, nothing on stdin, unless `options` differ."""
        settings: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "env": self.environment | options.pop("env", {}),
        }
        process: subprocess.Popen[str] = subprocess.Popen(argv, **(settings | options))
        self.started.append(process)
        return process

    def kill(self, process: subprocess.Popen[str], number: int = signal.SIGKILL) -> int:
        """Send a signal to a child of this test, wait for its end, and return its exit code."""
        process.send_signal(number)
        return process.wait(10)

    def close(self) -> None:
        """Kill what still runs, with everything below it, and close all pipes."""
        for process in self.started:
            if process.poll() is None:
                _kill_all([*descendants(process.pid), process.pid])
                process.wait(10)
            for pipe in (process.stdin, process.stdout, process.stderr):
                _close(pipe)


def _kill_all(pids: list[int]) -> None:
    for pid in pids:
        _kill(pid)
    wait_until(lambda: not any(map(is_running, pids)), why="what was killed to be gone")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _close(pipe: IO[str] | None) -> None:
    if pipe is None:
        return
    try:
        pipe.close()
    except BrokenPipeError:
        return


# --- What a test leaves behind --------------------------------------------------------------------

# Descriptors that come and go with Python itself.
_HARMLESS = ("/dev/null", "/dev/urandom", "/proc/")


@dataclass(frozen=True, slots=True)
class Traces:
    """What this process holds at one moment: by its key, as a text that a person can read."""

    # Names change after a start (of threads, of command lines), so they are no part of the keys.
    processes: dict[int, str]
    threads: dict[int, str]
    descriptors: dict[str, str]
    shared_memory: dict[str, str]

    def beyond(self, before: Traces) -> list[str]:
        """What is here and was not there."""
        return [
            *(f"process {k}: {v}" for k, v in self.processes.items() if k not in before.processes),
            *(f"thread {k}: {v}" for k, v in self.threads.items() if k not in before.threads),
            *(v for k, v in self.descriptors.items() if k not in before.descriptors),
            *(v for k, v in self.shared_memory.items() if k not in before.shared_memory),
        ]


def take_traces() -> Traces:
    """Processes below this one, its threads (native ones too), descriptors, files in /dev/shm."""
    _reap_orphans()
    return Traces(
        {pid: command_line(pid) for pid in descendants() if is_running(pid)},
        dict(_threads()),
        {
            f"{number} {target}": f"descriptor {number}: {target}"
            for number, target in _open_files()
        },
        {n: f"shared memory {n}" for n in _listing("/dev/shm") if n.startswith("evener")},
    )


@contextmanager
def nothing_left_behind(seconds: float = 3.0) -> Iterator[None]:
    """Fail when the block leaves a process, thread, descriptor or shared memory file behind.

    What is about to go (a process that just got its signal) has `seconds` to do so.
    """
    before = take_traces()
    yield
    left = take_traces().beyond(before)
    deadline = time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
        left = take_traces().beyond(before)
    for pid in descendants():
        if any(trace.startswith(f"process {pid}:") for trace in left):
            _kill(pid)  # or the next test is blamed
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left))


def _listing(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return []


def _threads() -> Iterator[tuple[int, str]]:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    for task in _listing("/proc/self/task"):
        try:
            kernel_name = Path(f"/proc/self/task/{task}/comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield int(task), names.get(int(task), kernel_name)


def _open_files() -> Iterator[tuple[str, str]]:
    for number in _listing("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if not target.startswith(_HARMLESS):
            yield number, target


def _reap_orphans() -> None:
    """Collect adopted processes that have ended; children of a live `Popen` are left to it."""
    ended = [pid for pid in children() if not is_running(pid)]
    if not ended:
        return  # the usual case: the search below is slow
    own = {
        item.pid
        for item in gc.get_objects()
        if isinstance(item, subprocess.Popen) and item.returncode is None
    }
    for pid in ended:
        if pid not in own:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue
