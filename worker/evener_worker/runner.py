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

LOCAL = "~local"
"""In place of an app: the worker belongs to a pool in a program, which sends it a class."""


def main(argv: list[str]) -> int:
    """`argv`: fds of socket, page, permits, stack; pid of the agent, trusted, worker name, app."""
    socket_fd, page_fd, permits_fd, stack_fd, agent_pid = (int(text) for text in argv[1:6])
    trusted, worker, target = argv[6] == "1", argv[7], argv[8]
    _die_with(agent_pid)
    for fd in (socket_fd, page_fd, permits_fd, stack_fd):
        os.set_inheritable(fd, False)  # what user code starts must not hold the agent's ends
    _prepare_output()

    from evener import whoami

    whoami.become_worker(_number_of(worker), worker)

    from evener_worker import stack

    stack.listen(stack_fd)  # from here on `evener stack` sees where it hangs, imports included
    if target == LOCAL:
        from evener_worker.local.inside import serve

        return serve(socket_fd, worker)
    from evener_worker.marking import mark_output
    from evener_worker.runner_loop import Runner  # after the guard above, because it takes a while

    runner = Runner(socket_fd, page_fd, permits_fd, trusted=trusted, worker=worker)
    runner.scope.enter(mark_output(runner.running_task))
    if not runner.load(target):
        return 1
    runner.serve()
    return 0


def _number_of(worker: str) -> int:
    """The place of a worker on its host: 3 of `node-1:3`."""
    number = worker.rpartition(":")[2]
    return int(number if number.isdecimal() else os.environ.get("EVENER_WORKER_ID", "1"))


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
