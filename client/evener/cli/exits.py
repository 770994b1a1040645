"""Exit codes, and which error gets which. Part of what scripts rely on: codes are never reused.

Rules of this file: numbers and the mapping only; errors are loaded when one has happened.
"""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
DAMAGED: Final = 65  # EX_DATAERR of sysexits.h, as are the next ones of theirs
UNREACHABLE: Final = 69  # EX_UNAVAILABLE
UNUSABLE: Final = 74  # EX_IOERR
TIMED_OUT: Final = 75  # EX_TEMPFAIL
PROTOCOL: Final = 76  # EX_PROTOCOL
REFUSED: Final = 77  # EX_NOPERM
CONFIG: Final = 78  # EX_CONFIG
INTERRUPTED: Final = 130
TERMINATED: Final = 143

MEANINGS: Final = (
    (OK, "done"),
    (FAILED, "a task, or the command, failed"),
    (USAGE, "wrong usage"),
    (DAMAGED, "the journal is damaged, or no journal that this version reads"),
    (UNREACHABLE, "no broker could be reached, or a port is taken"),
    (UNUSABLE, "the journal is in use, or cannot be written"),
    (TIMED_OUT, "timed out"),
    (PROTOCOL, "broker and client speak different protocol versions"),
    (REFUSED, "the broker refused the connection"),
    (CONFIG, "bad configuration"),
    (INTERRUPTED, "stopped by Ctrl-C"),
    (TERMINATED, "stopped by SIGTERM"),
)


def code_of(error: BaseException) -> int:
    """The exit code for an error of evener's own."""
    from evener import errors as e
    from evener.config.errors import ConfigError

    if isinstance(error, e.BrokerUnreachable):
        return UNREACHABLE
    if isinstance(error, e.BrokerRefused):
        return PROTOCOL if error.code == "protocol" else REFUSED
    if isinstance(error, e.TaskTimeout):
        return TIMED_OUT
    if isinstance(error, e.PeerError):
        return PROTOCOL
    if isinstance(error, ConfigError):
        return CONFIG
    if isinstance(error, e.UsageError):
        return USAGE
    return FAILED
