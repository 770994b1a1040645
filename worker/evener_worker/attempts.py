"""An attempt as the agent holds it, and every legal step of its life.

Rules of this file: data and one table; a missing key is the error path.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntEnum
from typing import Final, TypeAlias

import msgpack

from evener_wire.messages import Buffer, Facts, Payload

Key: TypeAlias = tuple[bytes, int]
"""Task id and fence: no two attempts share it."""

Item: TypeAlias = tuple[bytes, int, str, Payload, int, int]
"""As in RUN: (task id, fence, function, payload, timeout_ms, deadline, a moment in ns)."""


class State(IntEnum):
    """Where an attempt is. Integers, because every task looks each of its states up in a table."""

    WAITING = 0  # in the agent; no worker has it
    HANDED = 1  # a worker has it, and may have started it
    ENDED = 2  # its result waits until the broker took it
    GONE = 3  # the broker took its result, or wants none


# Enum members are looked up by attribute at each use; these names stand on the path of every task.
WAITING: Final = State.WAITING
HANDED: Final = State.HANDED
ENDED: Final = State.ENDED
GONE: Final = State.GONE

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    WAITING: frozenset({HANDED, ENDED, GONE}),
    HANDED: frozenset({WAITING, ENDED, GONE}),
    ENDED: frozenset({GONE}),
    GONE: frozenset(),
}


class Wish(Enum):
    """What the broker wants of an attempt that may not have started."""

    RETURN = "return"
    CANCEL = "cancel"
    FORGET = "forget"  # a broker that no longer exists sent it


class Attempt:
    """One try to run a task here. `item` is dropped when it ends, `packed` comes instead."""

    __slots__ = (
        "buffers",
        "deadline_ns",
        "escalate_at_ns",
        "estimate_ns",
        "forward",
        "item",
        "key",
        "packed",
        "sequence",
        "slot",
        "started_told",
        "state",
        "step",
        "stop_outcome",
        "timeout_ns",
        "wish",
    )

    def __init__(self, key: Key, item: Item) -> None:
        self.key: Final = key
        self.item: Item | None = item
        self.state = WAITING
        self.slot = 0  # of its worker, while handed
        self.sequence = 0  # its number there
        self.estimate_ns = 0
        self.timeout_ns = 0
        self.deadline_ns = 0
        self.wish: Wish | None = None
        self.stop_outcome: int | None = None  # CANCELLED or TIMED_OUT, once it is being stopped
        self.step = 0  # of the ladder: 1 flagged, 2 SIGTERM, 3 SIGKILL
        self.escalate_at_ns = 0
        self.started_told = False
        self.forward = False  # whether its client wants to see what it writes
        self.packed = b""
        self.buffers: Sequence[Buffer] = ()

    @property
    def function(self) -> str:
        """The name of its function; empty once it ended."""
        return "" if self.item is None else self.item[2]

    def result_bytes(self) -> int:
        """What its result takes, once it ended."""
        size = len(self.packed)
        if self.buffers:
            size += sum(memoryview(buffer).nbytes for buffer in self.buffers)
        return size

    def end(self, outcome: int, run_us: int = 0, facts: Facts | None = None) -> None:
        """Take down a result that the agent itself states."""
        self.packed = msgpack.packb((*self.key, outcome, b"", run_us, facts))
        self.buffers = ()

    def __repr__(self) -> str:
        task_id, fence = self.key
        return f"<Attempt {task_id.hex()[:8]}/{fence} {self.state.name.lower()}>"
