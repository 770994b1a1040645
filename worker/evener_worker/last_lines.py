"""The last lines of a process, for what is said about its death.

A crash dumps its stacks in more lines than are kept, so what the process said itself has a place of
its own, and of the dump the head is kept: what happened, and where the thread was. Rules of this
file: no I/O. `faulthandler` marks no end of a dump, so what looks like none of its lines is the
process's own.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Final

from evener_worker.limits import DUMP_LINES_KEPT, LINES_KEPT

CRASH: Final = "Fatal Python error: "
"""How the first line of a dump begins."""

_CURRENT: Final = re.compile(r"(Current thread 0x|Stack )")
_OTHER: Final = re.compile(r"Thread 0x")
_BODY: Final = re.compile(r'(  File "|  <|  \.\.\.|Extension modules:|Python runtime state:|\s*$)')


class LastLines:
    """Caller: who reads the outputs of one process."""

    __slots__ = ("_dump", "_own", "_skipping", "dumping")

    def __init__(self) -> None:
        self._own: deque[str] = deque(maxlen=LINES_KEPT)
        self._dump: list[str] = []
        self.dumping = False
        """Whether a dump began; whatever comes may be part of it."""
        self._skipping = False

    def append(self, line: str) -> None:
        """One more line."""
        if line.startswith(CRASH):
            self._own.extend(self._dump)  # an older one was not the last
            self._dump = [line]
            self.dumping, self._skipping = True, False
        elif not self.dumping or not self._is_dumped(line):
            self._own.append(line)
        elif not self._skipping and line.strip() and len(self._dump) < DUMP_LINES_KEPT:
            self._dump.append(line)

    def _is_dumped(self, line: str) -> bool:
        if _CURRENT.match(line):
            self._skipping = False
        elif _OTHER.match(line):  # whoever crashed is the current one
            self._skipping = True
        else:
            return bool(_BODY.match(line))
        return True

    def __iter__(self) -> Iterator[str]:
        own = [*self._own][-(LINES_KEPT - len(self._dump)) :]
        return iter([*own, *self._dump])
