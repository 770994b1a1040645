"""What `ps` and `top` show of an agent and its workers.

The name of a process (15 bytes; `ps -o comm`, `top`) needs nothing; the whole command line is set
with setproctitle where that is installed. Rules of this file: the path of a short task costs one
look into a dict. A function is shown while it runs if it is new to this process, or took long the
last time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from evener_wire.limits import MILLISECOND_NS
from evener_worker.slots import index_of

LONG_NS: Final = 100 * MILLISECOND_NS
"""Run time from which a function is shown the next time."""

_NAME_BYTES: Final = 15
_FUNCTIONS_MAX: Final = 4_096
_PR_SET_NAME: Final = 15


def _setter() -> Callable[[str, str], None]:
    import ctypes
    from importlib import import_module

    prctl = ctypes.CDLL(None).prctl

    def set_name(title: str, name: str) -> None:
        prctl(_PR_SET_NAME, name.encode()[:_NAME_BYTES], 0, 0, 0)

    try:
        set_title: Callable[[str], None] = import_module("setproctitle").setproctitle
    except ImportError:
        return set_name

    def set_both(title: str, name: str) -> None:
        set_title(title)  # and the beginning of that as the name
        set_name(title, name)

    return set_both


def show_agent(name: str) -> None:
    """Call this process an agent."""
    _setter()(f"evener agent {name}", "evener agent")


class Titles:
    """Of a worker process. Caller: its loop."""

    __slots__ = ("_index", "_set", "_title", "is_long")

    def __init__(self, worker: str) -> None:
        self._set = _setter()
        self._title = f"evener worker {worker}"
        self._index = index_of(worker)
        # By function: whether it took long the last time. What is not in it never ran here.
        self.is_long: dict[str, bool] = {}
        self.idle()

    def idle(self) -> None:
        """Nothing runs."""
        self._set(self._title, f"evener:{self._index}")

    def running(self, function: str) -> None:
        """This function begins, and may take long."""
        short = function.rpartition(".")[2]
        self._set(f"{self._title} {function}", f"{self._index}:{short}")

    def ended(self, function: str, run_ns: int) -> None:
        """It was shown, or it took long."""
        if len(self.is_long) >= _FUNCTIONS_MAX:
            self.is_long.clear()
        self.is_long[function] = run_ns >= LONG_NS
        self.idle()
