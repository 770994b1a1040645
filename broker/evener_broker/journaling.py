"""What the broker and its journal say to each other: records to write, and what is read at start.

Rules of this file: data only. Records are plain tuples in the order given here, so that a turn of a
thousand tasks is one object; a task is named by its acceptance number, which is never used twice.
Writing the same records again changes nothing: after a failure they are repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from evener_wire import messages as m


class TaskSaved(NamedTuple):
    """A task was accepted."""

    number: int
    id: bytes
    client: bytes  # its instance
    function: str
    options: m.Options
    call: m.Payload
    digest: int


class TaskTried(NamedTuple):
    """What became of a task's attempts so far; the counts are totals.

    `dispatched` is kept for tasks that may be dispatched once: it is written before they are.
    `settled` is the fence of the last attempt that these counts include: told again, it is no news.
    """

    number: int
    starts: int
    failures: int
    returns: int
    dispatched: bool
    settled: int = 0


class TaskEnded(NamedTuple):
    """A task ended: `state` is a `TERMINAL_*` code. `keep_call` keeps what a retry needs.

    `order` grows from end to end; a client is told of its ends in this order.
    """

    number: int
    state: int
    result: m.Payload
    facts: m.Facts | None
    keep_call: bool
    order: int = 0


@dataclass(slots=True)
class Records:
    """What one transaction writes: per task in the order saved, tried, ended, forgotten."""

    clients: list[tuple[bytes, str]] = field(default_factory=list)  # instance, name; known from now
    clients_gone: list[bytes] = field(default_factory=list)
    agents: list[tuple[bytes, str]] = field(default_factory=list)
    agents_gone: list[bytes] = field(default_factory=list)
    saved: list[TaskSaved] = field(default_factory=list)
    tried: list[TaskTried] = field(default_factory=list)
    ended: list[TaskEnded] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    pauses: list[tuple[str, bool]] = field(default_factory=list)  # schedule; whether it is paused
    # Up to which `order` a client has taken its ends.
    taken: list[tuple[bytes, int]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)


class KeptTask(NamedTuple):
    """A task as the journal has it. `state` None: it has not ended, and `result` is empty."""

    number: int
    id: bytes
    client: bytes
    function: str
    options: m.Options
    call: m.Payload | None  # None where the end did not keep it
    digest: int
    starts: int
    failures: int
    returns: int
    dispatched: bool
    state: int | None
    result: m.Payload
    facts: m.Facts | None
    settled: int = 0
    order: int = 0


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a journal holds when a broker starts; `tasks` by growing number.

    `clients` are those that have open tasks, or ends that they did not take; who is not among them
    has taken all its ends.
    """

    accepted: int  # the last acceptance number ever given
    bytes_used: int
    bytes_max: int
    clients: Sequence[tuple[bytes, str]] = ()
    agents: Sequence[tuple[bytes, str]] = ()
    tasks: Sequence[KeptTask] = ()
    epoch: int = 0  # of the last broker that wrote to it; 0: none did
    taken: Sequence[tuple[bytes, int]] = ()
    paused: Sequence[str] = ()  # names of schedules
