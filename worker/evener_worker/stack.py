"""The Python stack of a worker process: written by the process itself when a signal comes.

Both ends stand here. The worker has `faulthandler` write the stacks of all threads, in C and inside
the signal handler, so it also comes from a process that holds the GIL for ever; into memory that
the agent shares, so the write never blocks. Rules of this file: nothing here waits, and a process
that user code changed is left alone.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
from typing import Final

from evener_wire.limits import KIB

# The kernel ignores SIGURG unless a process asks for it: one that has not got so far, or whose code
# took the handler away, is not disturbed by it. SIGUSR1 and the real-time signals would kill it,
# SIGCONT would wake one that somebody stopped, SIGCHLD and SIGWINCH have users. Nobody else sends
# SIGURG to a process that does not ask for urgent data on a socket.
SIGNAL: Final = signal.SIGURG

# Of one dump. `faulthandler` stops at 100 threads of 100 frames, which is a little more than this
# only with very long paths. The memory is taken when it is written.
STACK_BYTES_MAX: Final = 256 * KIB

_BIT: Final = 1 << (SIGNAL - 1)


def listen(fd: int) -> None:
    """In the worker: from now on the signal writes the stacks of all threads to `fd`."""
    # No chaining: a handler of user code under it would run, and might wait for what hangs here.
    faulthandler.register(SIGNAL, file=fd, all_threads=True, chain=False)


class StackFile:
    """The agent's end: the memory that one worker process writes its stacks to."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd: Final = os.memfd_create("evener-stack", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, STACK_BYTES_MAX)
        # Whatever is written to it, it stays this large.
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)

    def ask(self, pid: int, pidfd: int) -> str:
        """Have the process write its stacks. Empty, or why it is better not asked."""
        status = status_of(pid)
        if status is None:
            return "the process has ended"
        if status.get("State", "")[:1] in ("T", "t"):
            return "the process is stopped (by SIGSTOP or a debugger), so it cannot answer"
        if not int(status.get("SigCgt", "0"), 16) & _BIT:
            return f"the process does not take {SIGNAL.name}: it just began, or its code changed it"
        if not self._is_there(pid):
            # By now the number may belong to a file or a connection of user code.
            return "the process has closed the descriptor that its stack is written to"
        # Both ends share one file position, so it also tells how much was written.
        os.lseek(self.fd, 0, os.SEEK_SET)
        try:
            signal.pidfd_send_signal(pidfd, SIGNAL)
        except ProcessLookupError:
            return "the process has ended"
        return ""

    def _is_there(self, pid: int) -> bool:
        try:
            theirs = os.stat(f"/proc/{pid}/fd/{self.fd}")
        except OSError:
            return False
        ours = os.fstat(self.fd)
        return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)

    def written(self) -> int:
        """How many bytes came since `ask`."""
        return os.lseek(self.fd, 0, os.SEEK_CUR)

    def text(self) -> str:
        """What came since `ask`."""
        return os.pread(self.fd, min(self.written(), STACK_BYTES_MAX), 0).decode("utf-8", "replace")

    def close(self) -> None:
        """The process is gone."""
        os.close(self.fd)


def is_writing(pid: int) -> bool:
    """Whether the main thread, which gets the signal first, still waits for it or handles it."""
    status = status_of(pid)
    if status is None:
        return False
    return any(int(status.get(name, "0"), 16) & _BIT for name in ("SigPnd", "ShdPnd", "SigBlk"))


# --- What the kernel says -------------------------------------------------------------------------


def status_of(pid: int) -> dict[str, str] | None:
    """The lines of /proc/PID/status by name; None when the process is gone."""
    text = _read(pid, "status")
    if text is None:
        return None
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def kernel_facts(pid: int) -> dict[str, str | int | None]:
    """Where a process is in the eyes of the kernel; what may not be read is None."""
    status = status_of(pid) or {}
    threads = status.get("Threads")
    return {
        "state": status.get("State"),
        "threads": int(threads) if threads else None,
        "wchan": _read(pid, "wchan"),
        "syscall": _read(pid, "syscall"),
    }


def _read(pid: int, name: str) -> str | None:
    try:
        with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None
