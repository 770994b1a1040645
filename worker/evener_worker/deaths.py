"""How a worker process ended, or why there was none, in words.

Rules of this file: text only.
"""

from __future__ import annotations

import errno

from evener_worker.events import Died


def how_it_ended(event: Died) -> str:
    """In words: how a process ended."""
    if event.note:
        return event.note
    if event.signal is not None:
        name = _SIGNALS.get(event.signal, f"signal {event.signal}")
        return f"died by {name}"
    return f"ended with exit code {event.exit_code}"


def why_not_started(error: OSError) -> str:
    """In words: why the system gave no process."""
    what = _LACKS.get(error.errno or 0, error.strerror or type(error).__name__)
    name = errno.errorcode.get(error.errno or 0, "")
    return f"could not be started: {what}" + (f" ({name})" if name else "")


_LACKS = {
    errno.EAGAIN: "no more processes are allowed here; see ulimit -u, and pids.max of the cgroup",
    errno.EMFILE: "the agent may not open more files; see ulimit -n",
    errno.ENFILE: "the system may not open more files; see fs.file-max",
    errno.ENOMEM: "there is no memory for one more process",
}


# Names of the signals that end processes; `signal.Signals` would have to be imported for them.
_SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS",
}
