"""The states of a task at the broker, and every legal step between them.

Rules of this file: one table; a missing key is the error path. The diagram in the docs is drawn
from it, and a test fails when the two differ.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from evener_wire import messages as m


class State(Enum):
    """Where a task is. The last five are terminal."""

    HELD = "held"  # waits for a moment: back-off after a failure, or recovery after a restart
    QUEUED = "queued"  # waits in its queue for a worker
    ASSIGNED = "assigned"  # sent to an agent, not known to have started
    RUNNING = "running"  # known to have started
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    LOST = "lost"

    # Members are single objects, and the hash that Enum brings along is slow on the hot path.
    __hash__ = object.__hash__


class Cause(Enum):
    """Why a task moves."""

    RELEASE = "release"  # the moment it was held for has come
    ASSIGN = "assign"
    START = "start"
    RETURN = "return"  # back to its place, not having run, or not known to have run
    RETRY = "retry"  # held before its next try
    ADOPT = "adopt"  # an agent reports that it runs this already
    FINISH = "finish"
    FAIL = "fail"
    CANCEL = "cancel"
    EXPIRE = "expire"
    LOSE = "lose"

    __hash__ = object.__hash__


_ENDS: Final = {Cause.CANCEL: State.CANCELLED, Cause.EXPIRE: State.EXPIRED, Cause.LOSE: State.LOST}
_OPEN_ENDS: Final = {
    **_ENDS,
    Cause.FINISH: State.DONE,
    Cause.FAIL: State.FAILED,
    Cause.RETURN: State.QUEUED,
    Cause.RETRY: State.HELD,
}

TRANSITIONS: Final[dict[State, dict[Cause, State]]] = {
    State.HELD: {
        **_ENDS,
        Cause.RELEASE: State.QUEUED,
        Cause.ADOPT: State.RUNNING,
        Cause.FINISH: State.DONE,
        Cause.FAIL: State.FAILED,
        Cause.RETRY: State.HELD,  # it failed under an earlier broker, and may be tried again
    },
    State.QUEUED: {
        **_ENDS,
        Cause.ASSIGN: State.ASSIGNED,
        Cause.ADOPT: State.RUNNING,  # an agent that came late has it since an earlier broker
        Cause.FAIL: State.FAILED,  # nobody knows its function
    },
    State.ASSIGNED: {**_OPEN_ENDS, Cause.START: State.RUNNING},
    State.RUNNING: _OPEN_ENDS,
    State.DONE: {},
    State.FAILED: {},
    State.CANCELLED: {},
    State.EXPIRED: {},
    State.LOST: {},
}

TERMINAL: Final = frozenset(state for state, steps in TRANSITIONS.items() if not steps)
OPEN: Final = frozenset({State.ASSIGNED, State.RUNNING})

# Ends after which people may want to look, and to try again.
LETTERS: Final = frozenset({State.FAILED, State.LOST, State.EXPIRED})

# How the ends are called in messages.
TERMINAL_CODES: Final[dict[State, int]] = {
    State.DONE: m.TERMINAL_DONE,
    State.FAILED: m.TERMINAL_FAILED,
    State.CANCELLED: m.TERMINAL_CANCELLED,
    State.EXPIRED: m.TERMINAL_EXPIRED,
    State.LOST: m.TERMINAL_LOST,
}
