"""The worker process: imports the app, says ready, and runs what its agent hands it, one at a time.

Rules of this file: no ZeroMQ, no keys, no broker address. User code may print, fork, crash or close
files here: it can only lose this process. Imports cost start-up time, so they are few, and the app
is imported as soon as the agent's death would be noticed.
"""

from __future__ import annotations

import os
import sys

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_EX_SOFTWARE = 70


def main(argv: list[str]) -> int:
    """`argv`: fds of socket, page and permits, pid of the agent, trusted, worker name, app."""
    socket_fd, page_fd, permits_fd, agent_pid = (int(text) for text in argv[1:5])
    trusted, worker, target = argv[5] == "1", argv[6], argv[7]
    _die_with(agent_pid)
    for fd in (socket_fd, page_fd, permits_fd):
        os.set_inheritable(fd, False)  # what user code starts must not hold the agent's ends
    _prepare_output()

    from evener_worker.runner_loop import Runner  # after the guard above, because it takes a while

    runner = Runner(socket_fd, page_fd, permits_fd, trusted=trusted, worker=worker)
    if not runner.load(target):
        return 1
    runner.serve()
    return 0


def _die_with(agent_pid: int) -> None:
    """Let the kernel kill this process when its agent ends; end now if that has happened."""
    import ctypes

    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != agent_pid:
        os._exit(_EX_SOFTWARE)
    # Lines of C code appear as they are written, not when a buffer is full.
    libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, 1, 0)


def _prepare_output() -> None:
    import faulthandler

    faulthandler.enable()  # a segfault leaves its Python stack in the last lines
    for stream in (sys.stdout, sys.stderr):
        # Whole lines in one write each, so that lines of threads do not mix.
        stream.reconfigure(line_buffering=True, write_through=False, errors="backslashreplace")  # type: ignore[union-attr]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
