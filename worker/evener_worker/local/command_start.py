"""Becomes a program of the user, once the kernel has promised to kill that when its parent ends.

Rules of this file: it is run as a script by an interpreter that imports nothing else (`-I -S`), in
about 20 ms. After it there is only the program: same process, same pipes, same environment.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """`argv`: the pid of the parent, and the program with its arguments."""
    parent, program = int(argv[1]), argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(70)  # it ended before the promise
    # What Python changes for itself, and a program would inherit: these signals, and a variable.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    with open("/proc/self/environ", "rb") as file:
        entries = [entry.partition(b"=") for entry in file.read().split(b"\0") if entry]
    environment = {name: value for name, _, value in entries}
    try:
        os.execvpe(program[0], program, environment)
    except OSError as error:
        sys.stderr.write(f"cannot run {program[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main(sys.argv)
