"""`--reload`: which files make up the app, and whether one of them was written since.

Rules of this file: for development only. Workers tell the files of the modules they imported, also
of those that failed to import; the agent looks at their times, a few hundred at most, so it needs
no thread and no library. Files that are written one after the other count as one change.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from typing import Final

from evener_wire.limits import MILLISECOND_NS

TELL_VARIABLE: Final = "EVENER_TELL_FILES"
"""In the environment of a worker: it shall tell its files."""

_LOOK_NS: Final = 250 * MILLISECOND_NS

# More is not looked at. An app with so many modules of its own should be started anew by hand.
FILES_MAX: Final = 5_000

_TRACEBACK_FILE: Final = re.compile(r'^\s*File "([^"]+)", line', re.MULTILINE)


class Changes:
    """The agent's end. Caller: its loop."""

    __slots__ = ("_changed", "_look_ns", "_times")

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._changed: set[str] = set()
        self._look_ns = 0

    def add(self, files: Iterable[str]) -> None:
        """A worker imported these. What it imported is what they are now."""
        for file in files:
            if len(self._times) < FILES_MAX:
                self._times.setdefault(file, _time_of(file))

    def __bool__(self) -> bool:
        """Whether there is any file to look at."""
        return bool(self._times)

    def look(self, now_ns: int) -> Sequence[str]:
        """The files that changed, once none of them changes any more."""
        if now_ns < self._look_ns:
            return ()
        self._look_ns = now_ns + _LOOK_NS
        now: set[str] = set()
        for file, before in self._times.items():
            time = _time_of(file)
            if time != before:
                self._times[file] = time
                now.add(file)
        if now:
            self._changed |= now
            return ()
        changed, self._changed = self._changed, set()
        return sorted(changed)

    def next_at(self) -> int:
        """When to look again."""
        return self._look_ns


def _time_of(file: str) -> int:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0  # removed, or about to be written anew


# --- In the worker --------------------------------------------------------------------------------


def files_here(trace: str = "") -> list[str]:
    """The files of all modules that are neither Python's, nor installed, nor evener's own.

    Of code that failed to import also those that its traceback names.
    """
    files = {
        os.path.abspath(file)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] not in _OURS
        and isinstance(file := getattr(module, "__file__", None), str)
    }
    files |= {os.path.abspath(file) for file in _TRACEBACK_FILE.findall(trace)}
    elsewhere = tuple(
        os.path.abspath(path) + os.sep
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
        if (path := sysconfig.get_path(name))
    )
    here = os.path.dirname(os.path.abspath(__file__)) + os.sep
    return sorted(
        file for file in files if not file.startswith((*elsewhere, here)) and os.path.exists(file)
    )[:FILES_MAX]


_OURS: Final = {"evener", "evener_wire", "evener_worker", "evener_broker"}
