"""A small process that ends what workers started when the program dies without a word.

The kernel kills a worker when its program ends, but not what the worker started. The guard is told
the process groups of the workers; when the program is gone it kills those groups, and ends. It has
a session of its own: neither Ctrl-C nor the end of the terminal reaches it. One that somebody kills
is replaced.

Rules of this file: nothing depends on the guard; without it only a worker's own children may stay.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Final

# Isolated and without site-packages, so that it starts in a few milliseconds. It watches the
# program by a pidfd: forks of the program may hold the pipe open.
_PROGRAM: Final = """
import os, select, signal, sys
program = int(sys.argv[1])
groups, rest = set(), b""
def note(data):
    global rest
    *lines, rest = (rest + data).split(b"\\n")
    for line in lines:
        (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
poll = select.poll()
poll.register(0, select.POLLIN)
try:
    poll.register(os.pidfd_open(program), select.POLLIN)
except OSError:
    pass
while os.getppid() == program:
    ready = dict(poll.poll())
    if 0 not in ready:
        break
    data = os.read(0, 65536)
    if not data:
        break
    note(data)
os.set_blocking(0, False)  # what the program said last, though it died before this one ran
try:
    while data := os.read(0, 65536):
        note(data)
except BlockingIOError:
    pass
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


# A guard that ends sooner than this did not get far, and after so many of them in a row there is
# none until the next worker starts: something here kills or breaks whatever is started.
_EARLY_S: Final = 1.0
_EARLY_MAX: Final = 5


class Guard:
    """The program's end. Caller: the pool's loop, or who holds the lock of the programs' guard."""

    __slots__ = ("_begun", "_early", "_groups", "_pipe", "_process", "fd")

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._early = 0
        self.fd = -1
        """Readable when the guard was killed: then call `mend`. -1: there is none."""
        self._start()

    def _start(self) -> None:
        self._begun = time.monotonic()
        theirs, self._pipe = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._pipe, False)
        # Before it begins, as the program may be killed at any moment after that.
        for group in self._groups:
            self._tell(b"+%d\n" % group)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, str(os.getpid())],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
            self.fd = os.pidfd_open(self._process.pid)
        except BaseException:
            os.close(self._pipe)  # which ends the guard, if there is one
            raise
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int:
        """Of the guard."""
        return self._process.pid

    def mend(self) -> None:
        """If somebody killed it, have another one, which knows the same groups."""
        if self.fd >= 0:
            if self._process.poll() is None:
                return
            early = time.monotonic() - self._begun < _EARLY_S
            self._early = self._early + 1 if early else 0
            self._shut()
        if self._early < _EARLY_MAX:
            try:
                self._start()
            except OSError:  # no process to be had: the next worker that starts tries again
                return

    def hold(self, group: int) -> None:
        """From now on this process group ends with the program."""
        self._groups.add(group)
        if self.fd >= 0:
            self._tell(b"+%d\n" % group)
        else:
            self._early = 0
            self.mend()

    def release(self, group: int) -> None:
        """Nothing is left in this group."""
        self._groups.discard(group)
        if self.fd >= 0:
            self._tell(b"-%d\n" % group)

    def _tell(self, line: bytes) -> None:
        try:
            os.write(self._pipe, line)  # shorter than PIPE_BUF: whole or not at all
        except (BrokenPipeError, BlockingIOError):  # somebody killed or stopped the guard
            return

    def _shut(self) -> None:
        os.close(self.fd)
        os.close(self._pipe)
        self.fd = -1

    def close(self) -> None:
        """It is not needed any more."""
        if self.fd < 0:
            return
        self._shut()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
