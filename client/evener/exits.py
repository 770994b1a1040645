"""What happens to connections when their process ends, or forks."""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from evener.connection import Connection

# At the end of a program, for each connection that is still open: what was submitted is handed
# over.
_CLOSE_S = 2.0

live_connections: WeakSet[Connection] = WeakSet()


def _close_all() -> None:
    for connection in list(live_connections):
        connection.close(_CLOSE_S)


def _forget_all() -> None:
    for connection in list(live_connections):
        connection.forget_after_fork()
    live_connections.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_all)
