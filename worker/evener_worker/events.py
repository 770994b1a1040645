"""What happens to the agent: the input of `AgentCore.step`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from evener_wire.messages import Options, Payload, Schedule
from evener_worker.channel import Frame
from evener_worker.page import Said

if TYPE_CHECKING:
    from evener_wire.codec import Envelope


@dataclass(frozen=True, slots=True)
class Received:
    """A well-formed message came from the broker."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes came that are no message."""

    reason: str


@dataclass(frozen=True, slots=True)
class SendFailed:
    """The connection took no message: there is none at the moment."""


@dataclass(frozen=True, slots=True)
class Writable:
    """After `SendFailed`: the connection takes messages again."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """The process of a slot exists now. It is not ready yet."""

    slot: int
    pid: int


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker imported its app, ran its start hooks, and can run these functions."""

    slot: int
    functions: Sequence[tuple[str, Options | None]]
    graces_ms: Mapping[str, int] = field(default_factory=dict[str, int])  # of those that have one
    schedules: Sequence[Schedule] = ()
    shares: Mapping[str, int] = field(default_factory=dict[str, int])  # at once, of those that have


@dataclass(frozen=True, slots=True)
class StartFailed:
    """A worker could not get ready, for a reason it could tell (its own traceback)."""

    slot: int
    text: str
    watched: bool = False  # whether it told files, so that their change will be noticed


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker finished attempts: in the order in which they were handed to it, or side by side."""

    slot: int
    results: Sequence[Frame]


@dataclass(frozen=True, slots=True)
class Yielded:
    """The attempt that a worker runs, number `sequence`, yielded a value, or has no more."""

    slot: int
    sequence: int
    index: int
    more: bool
    payload: Payload


@dataclass(frozen=True, slots=True)
class Dropped:
    """A worker found that the rest of a batch, up to number `last`, was taken back."""

    slot: int
    last: int


@dataclass(frozen=True, slots=True)
class TakenBack:
    """Answer to `TakeBack`: the last `count` attempts of the slot never start."""

    slot: int
    count: int


@dataclass(frozen=True, slots=True)
class Died:
    """A worker process ended. `started` is the number of the attempt it started last.

    `lanes`: the same for attempts side by side, by lane.
    """

    slot: int
    started: int
    exit_code: int | None
    signal: int | None
    lines: Sequence[str] = ()
    note: str = ""  # why the shell killed it, if it did
    spawned: bool = True  # False: there was no process at all, and `note` says why
    lanes: Mapping[int, int] = field(default_factory=dict[int, int])


@dataclass(frozen=True, slots=True)
class Printed:
    """A worker wrote lines to its stdout (1) or stderr (2), each of the task in front of it."""

    slot: int
    stream: int
    lines: Sequence[tuple[str, str]]


class Page(NamedTuple):
    """What a worker noted in its shared page: number of what it started last, start of its item."""

    started: int
    started_ns: int
    report: Said | None = None  # of its progress, if it said something since the last look
    lanes: Mapping[int, Page] | None = None  # of the lanes that were asked for, if any were


@dataclass(frozen=True, slots=True)
class Tick:
    """A timer is due. `pages` has the page of every living worker, by slot."""

    pages: Mapping[int, Page]


@dataclass(frozen=True, slots=True)
class Measured:
    """Memory and processor time of the living workers, by slot: (rss_bytes, cpu_ms)."""

    usage: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class LogRead:
    """Answer to `ReadLog`: lines, if there are any, and where to go on."""

    number: int
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dumped:
    """Answer to `Dump`: the stack, or why there is none, and where the kernel sees the process."""

    number: int
    stack: str
    reason: str  # empty: the stack is complete
    kernel: Mapping[str, str | int | None]


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody wants the agent to stop: a signal by name, or the end of whoever started it."""

    why: str
    exit_code: int
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Ponged:
    """A worker answered a `Ping`."""

    slot: int
    number: int


@dataclass(frozen=True, slots=True)
class RestartAsked:
    """Somebody on this host wants the workers to import their code anew."""

    why: str


Event: TypeAlias = (
    Received
    | Malformed
    | SendFailed
    | Writable
    | Spawned
    | Ready
    | StartFailed
    | Finished
    | Yielded
    | Printed
    | Dropped
    | TakenBack
    | Died
    | Tick
    | Measured
    | Dumped
    | LogRead
    | StopAsked
    | Ponged
    | RestartAsked
)

Report: TypeAlias = Mapping[str, Any]
"""A line for whoever started the agent, as JSON."""
