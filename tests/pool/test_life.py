"""Workers live exactly as long as their program, however that ends, and so does what they started.

Real programs in processes of their own; none may leave anything for a second.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.support import Processes, children, descendants, is_running, wait_until

PROGRAM = Path(__file__).with_name("program.py")
GONE_WITHIN_S = 1.0


def _pids(program: subprocess.Popen[str], stdout: IO[str] | None = None) -> list[int]:
    """The program's workers and what they started, then everything else below it."""
    stream = stdout or program.stdout
    assert stream is not None
    line = stream.readline()
    assert line.startswith("pids "), line
    pids = [*map(int, line.split()[1:])]
    assert len(pids) == 4
    return [*pids, *descendants(program.pid)]


def _gone(pids: list[int], since: float) -> None:
    wait_until(lambda: not any(map(is_running, pids)), 5, "the end of the workers")
    assert time.monotonic() - since < GONE_WITHIN_S


def _started(processes: Processes, how: str) -> tuple[subprocess.Popen[str], list[int]]:
    program = processes.start(sys.executable, PROGRAM, how)
    return program, _pids(program)


@pytest.mark.parametrize("how", ["exit", "exception", "sys.exit", "return"])
def test_a_program_that_ends_by_itself(processes: Processes, how: str) -> None:
    program, pids = _started(processes, how)
    code = program.wait(10)
    _gone(pids, time.monotonic())
    assert code == {"exit": 3, "exception": 1, "sys.exit": 4, "return": 0}[how]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP])
def test_a_program_that_is_killed(processes: Processes, number: int) -> None:
    program, pids = _started(processes, "wait")
    assert processes.kill(program, number) == -number
    _gone(pids, time.monotonic())


def test_a_program_that_is_killed_while_its_workers_start(processes: Processes) -> None:
    program = processes.start(sys.executable, PROGRAM, "wait")
    wait_until(lambda: len(descendants(program.pid)) >= 2)
    below = descendants(program.pid)
    processes.kill(program)
    _gone(below, time.monotonic())


def test_without_its_guard_the_workers_still_end(processes: Processes) -> None:
    program, pids = _started(processes, "wait")
    workers = pids[:2]
    (guard,) = [pid for pid in children(program.pid) if pid not in workers]
    program.send_signal(signal.SIGSTOP)  # it must not have the time to start another one
    os.kill(guard, signal.SIGKILL)
    processes.kill(program)
    _gone(workers, time.monotonic())
    for pid in pids[2:4]:  # theirs are not the kernel's business: end them here
        os.kill(pid, signal.SIGKILL)
    _gone(pids, time.monotonic())


def _replaced(program: subprocess.Popen[str], guard: int) -> None:
    wait_until(lambda: guard not in children(program.pid), why="the burial of the guard")
    wait_until(lambda: len(children(program.pid)) == 3, why="another guard")


def test_a_guard_that_was_killed_is_replaced(processes: Processes) -> None:
    program, pids = _started(processes, "wait")
    for _ in range(2):
        (guard,) = set(children(program.pid)) - {*pids[:2]}
        os.kill(guard, signal.SIGKILL)
        _replaced(program, guard)
    pids = [*pids[:4], *descendants(program.pid)]
    processes.kill(program)
    _gone(pids, time.monotonic())


# --- A real terminal ------------------------------------------------------------------------------

_IN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A terminal with a program in its foreground."""

    def __init__(self, processes: Processes) -> None:
        self.master, slave = os.openpty()
        settings = termios.tcgetattr(slave)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        self.program = processes.start(
            sys.executable, "-c", _IN_TERMINAL, PROGRAM, "wait",
            stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        flags = fcntl.fcntl(self.master, fcntl.F_GETFD)
        fcntl.fcntl(self.master, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
        # Two descriptors would be two terminals to close.
        self.output = os.fdopen(self.master, "r", errors="replace")

    def close(self) -> None:
        """What the window's cross does."""
        self.output.close()


@pytest.fixture
def terminal(processes: Processes) -> Iterator[Terminal]:
    opened = Terminal(processes)
    yield opened
    opened.close()


def test_ctrl_c(terminal: Terminal) -> None:
    pids = _pids(terminal.program, terminal.output)
    os.write(terminal.master, b"\x03")
    assert terminal.program.wait(10) == -signal.SIGINT  # as Python ends after KeyboardInterrupt
    _gone(pids, time.monotonic())


def test_closing_the_terminal(terminal: Terminal) -> None:
    pids = _pids(terminal.program, terminal.output)
    terminal.close()
    assert terminal.program.wait(10) == -signal.SIGHUP
    _gone(pids, time.monotonic())


# --- Output ---------------------------------------------------------------------------------------

_PRINTS = """
import ctypes, subprocess, sys, time
import evener
from evener_worker import WorkerPool

class Printer(evener.Worker[int, None]):
    def run(self, item):
        print("from python")
        ctypes.CDLL(None).puts(b"from C")
        subprocess.run(["echo", "from a process"])
        print("to stderr", file=sys.stderr)
        time.sleep(600)

pool = WorkerPool(Printer, 1)
pool.spawn_all()
pool.submit(1)
time.sleep(600)
"""


def test_output_is_here_while_the_worker_still_works(processes: Processes) -> None:
    program = processes.start(sys.executable, "-c", _PRINTS)
    assert program.stdout is not None
    assert program.stderr is not None
    lines = {program.stdout.readline() for _ in range(3)}
    assert lines == {"from python\n", "from C\n", "from a process\n"}
    assert program.stderr.readline() == "to stderr\n"


# --- The end of a program is not held up ----------------------------------------------------------

_STUCK = """
import evener
from evener_worker import WorkerPool

class Stuck(evener.Worker[int, int]):
    def stop(self):
        import time
        time.sleep(600)

    def run(self, item):
        self.stop()

pool = WorkerPool(Stuck, 2)
pool.spawn_all()
pool.submit(1)
"""


def test_the_end_of_a_program_waits_for_no_worker(processes: Processes) -> None:
    program = processes.start(sys.executable, "-c", _STUCK + 'print("end")')
    assert program.stdout is not None
    assert program.stdout.readline() == "end\n"
    begun = time.monotonic()
    assert program.wait(10) == 0
    assert time.monotonic() - begun < GONE_WITHIN_S
