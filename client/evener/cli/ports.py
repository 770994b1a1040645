"""Which port `evener up` takes when none was asked for.

Rules of this file: only a port that somebody has leads to the next one. Any other trouble with an
address is the broker's to name, at once.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import Final

PORTS_TRIED: Final = 50


def is_taken(host: str, port: int) -> bool:
    """Whether somebody has this port; not whether it can be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the broker's socket will have it: connections that just closed do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def free_port(host: str, first: int) -> int | None:
    """The first port from `first` on that nobody has; None if all that are tried are taken."""
    for port in range(first, first + PORTS_TRIED):
        if not is_taken(host, port):
            return port
    return None


def who_listens(port: int) -> str:
    """`evener (pid 4711)`, or `another process` where that is not ours to know."""
    import psutil

    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr
            listens = connection.status == psutil.CONN_LISTEN and here and here.port == port
            if listens and connection.pid is not None:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another process"
