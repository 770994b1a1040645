"""What a dead worker had started, where this program has to bury it: as PID 1 of a container.

Processes that lose their parent go to PID 1, or to a program that asked the kernel for them. There
they stay as zombies until they are waited for. Everywhere else nothing of this happens.

Rules of this file: waits for nobody; only for process groups of workers, which were killed.
"""

from __future__ import annotations

import os
from typing import Final

LOOK_AGAIN_S: Final = 0.02
_LOOKS_MAX: Final = 250


class Orphans:
    """Caller: the pool's loop."""

    __slots__ = ("_looks",)

    def __init__(self) -> None:
        self._looks: dict[int, int] = {}

    def add(self, group: int) -> None:
        """The worker of this process group was buried."""
        self._looks[group] = 0

    def look(self) -> bool:
        """Bury what has ended. Whether to look again soon."""
        for group in [*self._looks]:
            self._looks[group] += 1
            if not self._bury(group) or self._looks[group] > _LOOKS_MAX:
                del self._looks[group]
        return bool(self._looks)

    def _bury(self, group: int) -> bool:
        """Whether children in this group still live."""
        while True:
            try:
                ended = os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return False
            if ended is None:
                return True
