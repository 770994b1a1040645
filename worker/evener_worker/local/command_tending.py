"""What the thread of a program does, from the program's start to its burial: polls, reads, writes.

Rules of this file: the thread never blocks but in `poll`. What was heard goes to the `Link`, which
others share. The order of a burial matters: kill the group while the process id cannot belong to
anybody else, read what was written, then wait for the process.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from evener_worker.local.feed_limits import LAST_BYTES_MAX, LAST_LINES_MS, PIPE_BYTES, SILENT_NS
from evener_worker.local.guard import Guard
from evener_worker.output import Lines, Sink

if TYPE_CHECKING:
    from evener_worker.local.command_link import Link

_STDERR: Final = 2

# Two threads must not both find room in the terminal's pipe, and then both write.
_TERMINAL: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class CommandSettings:
    """How a program is started, and what is expected of it."""

    argv: tuple[str, ...]
    name: str
    prefix: bytes
    cwd: str | None
    environment: Mapping[str, str]
    handshake: bool
    line_bytes_max: int
    grace_ns: int


class _SharedGuard:
    """The guard of all programs of this process; there is one while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guard: Guard | None = None
        self._held = 0

    def hold(self, group: int) -> None:
        """What this group leaves behind ends with this process, too."""
        with self._lock:
            if self._guard is None:
                self._guard = Guard()
            self._held += 1
            self._guard.hold(group)

    def release(self, group: int) -> None:
        """Nothing is left in this group."""
        with self._lock:
            assert self._guard is not None
            self._guard.release(group)
            self._held -= 1
            if not self._held:
                self._guard.close()
                self._guard = None

    @property
    def fd(self) -> int:
        """Readable when the guard was killed; -1 where there is none."""
        guard = self._guard
        return -1 if guard is None else guard.fd

    def mend(self) -> None:
        """If somebody killed it, have another one."""
        with self._lock:
            if self._guard is not None and self._guard.fd >= 0:
                self._guard.mend()


_GUARD: Final = _SharedGuard()


class Tending:
    """What the thread does from the program's start to its burial."""

    def __init__(
        self, link: Link, settings: CommandSettings, process: subprocess.Popen[bytes], wake_fd: int
    ) -> None:
        self._link = link
        self._settings = settings
        self._process = process
        self._wake_fd = wake_fd
        self._stdin, self._stdout, self._stderr = _pipes(process)
        self._pidfd = os.pidfd_open(process.pid)
        _GUARD.hold(process.pid)
        self._lines = Lines(settings.prefix, link.lines)
        self._sink = Sink(_STDERR)
        self._exited = False
        self._guard_fd = -1
        self._kill_at_ns: int | None = None
        self._silent_at_ns: int | None = None

    def run(self) -> None:
        """Until the program has ended."""
        while not self._exited:
            if self._link.doomed and self._kill_at_ns is None:
                self._signal(signal.SIGTERM)
                self._close(self._stdin)
                self._kill_at_ns = time.monotonic_ns() + self._settings.grace_ns
            self._look(self._interests())
            now_ns = time.monotonic_ns()
            if self._kill_at_ns is not None and now_ns >= self._kill_at_ns:
                self._signal(signal.SIGKILL)
            if self._silent_at_ns is not None and now_ns >= self._silent_at_ns:
                self._silent_at_ns = None
                self._link.terminate("closed its output and did not end")
        self._bury()

    def _interests(self) -> dict[int, int]:
        wanted = {self._wake_fd: select.POLLIN, self._pidfd: select.POLLIN}
        if not self._stdout.closed and not self._link.full:
            wanted[self._stdout.fileno()] = select.POLLIN
        if not self._stderr.closed and not self._sink.full:
            wanted[self._stderr.fileno()] = select.POLLIN
        if not self._stdin.closed and self._link.has_outgoing():
            wanted[self._stdin.fileno()] = select.POLLOUT
        if self._sink.queued:
            wanted[_STDERR] = select.POLLOUT
        self._guard_fd = _GUARD.fd
        if self._guard_fd >= 0:
            wanted.setdefault(self._guard_fd, select.POLLIN)
        return wanted

    def _look(self, wanted: dict[int, int]) -> None:
        poll = select.poll()
        for fd, mask in wanted.items():
            poll.register(fd, mask)
        due = [at for at in (self._kill_at_ns, self._silent_at_ns) if at is not None]
        wait = max(0, (min(due) - time.monotonic_ns()) // 1_000_000 + 1) if due else None
        ready = {fd for fd, _ in poll.poll(wait)}
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        if not self._stdin.closed and self._stdin.fileno() in ready:
            self._link.write_some(self._stdin.fileno())
        if not self._stdout.closed and self._stdout.fileno() in ready:
            self._read_stdout()
        if not self._stderr.closed and self._stderr.fileno() in ready:
            self._read_stderr()
        if _STDERR in ready:
            with _TERMINAL:
                self._sink.flush()
        self._exited = self._pidfd in ready
        if self._guard_fd in ready:
            _GUARD.mend()  # another thread may have done so already

    def _read_stdout(self) -> int:
        data = _read(self._stdout)
        if data is None:
            return 0
        self._link.hear(data or None)
        if not data:
            self._close(self._stdout)
            # A program that cannot answer any more is of no use; it is about to end, or hangs.
            self._silent_at_ns = time.monotonic_ns() + SILENT_NS
        return len(data)

    def _read_stderr(self) -> int:
        data = _read(self._stderr)
        if data is None:
            return 0
        with _TERMINAL:
            self._sink.write(self._lines.feed(data) if data else self._lines.end())
        if not data:
            self._close(self._stderr)
        return len(data)

    def _bury(self) -> None:
        """Whatever it started and left in its group ends with it; what it wrote is read."""
        self._signal(signal.SIGKILL)
        left = LAST_BYTES_MAX
        while left > 0 and not self._stdout.closed and (count := self._read_stdout()):
            left -= count
        if not self._stdout.closed:
            self._link.hear(None)
        left = LAST_BYTES_MAX
        while left > 0 and not self._stderr.closed and (count := self._read_stderr()):
            left -= count
        with _TERMINAL:
            self._sink.write(self._lines.end())
            terminal = select.poll()
            terminal.register(_STDERR, select.POLLOUT)
            while self._sink.queued and terminal.poll(LAST_LINES_MS):
                self._sink.flush()
        os.close(self._pidfd)
        for pipe in (self._stdin, self._stdout, self._stderr):
            self._close(pipe)
        _GUARD.release(self._process.pid)  # before its id may belong to others
        self._link.ended_with(self._process.wait())

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def _close(self, pipe: IO[bytes]) -> None:
        if not pipe.closed:
            pipe.close()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None
    for pipe in (stdin, stdout, stderr):
        os.set_blocking(pipe.fileno(), False)
    return stdin, stdout, stderr


def _read(pipe: IO[bytes]) -> bytes | None:
    """Some bytes, none at the end, None if there are none now."""
    try:
        return os.read(pipe.fileno(), PIPE_BYTES)
    except BlockingIOError:
        return None
