"""Memory and processor time of worker processes, read from /proc once per second.

Rules of this file: one small read per process; what cannot be read is absent.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from evener_wire.messages import Facts

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICK_MS: Final = 1_000 // os.sysconf("SC_CLK_TCK")
# Positions behind the command name in /proc/<pid>/stat.
_STATE: Final = 0
_FLAGS: Final = 6
_EXITING: Final = 0x4  # PF_EXITING
_UTIME: Final = 11
_STIME: Final = 12
_RSS: Final = 21


def usage_of(pid: int) -> tuple[int, int] | None:
    """Resident bytes and processor milliseconds of a process; None when it is gone."""
    fields = _fields_of(pid)
    if fields is None:
        return None
    cpu_ms = (int(fields[_UTIME]) + int(fields[_STIME])) * _TICK_MS
    return int(fields[_RSS]) * _PAGE_BYTES, cpu_ms


def is_exiting(pid: int) -> bool:
    """Whether a process is ending: the kernel closes its files before it reports the end."""
    fields = _fields_of(pid)
    return fields is None or fields[_STATE] in (b"Z", b"X") or bool(int(fields[_FLAGS]) & _EXITING)


def _fields_of(pid: int) -> list[bytes] | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 1_024)
        finally:
            os.close(fd)
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()
    return fields if len(fields) > _RSS else None


def host_facts() -> Facts:
    """What HELLO tells about this host."""
    # The version of the distribution is that of the client package.
    from evener.version import __version__

    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "evener": __version__,
        "cpus": os.cpu_count() or 1,
    }
