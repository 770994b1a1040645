"""What happens to the agent: the input of `AgentCore.step`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from evener_wire.messages import Options
from evener_worker.channel import Frame

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


@dataclass(frozen=True, slots=True)
class StartFailed:
    """A worker could not get ready, for a reason it could tell (its own traceback)."""

    slot: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker finished attempts, in the order in which they were handed to it."""

    slot: int
    results: Sequence[Frame]


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
    """A worker process ended. `started` is the number of the attempt it started last."""

    slot: int
    started: int
    exit_code: int | None
    signal: int | None
    lines: Sequence[str] = ()
    note: str = ""  # why the shell killed it, if it did


class Page(NamedTuple):
    """What a worker noted in its shared page: number of what it started last, start of its item."""

    started: int
    started_ns: int


@dataclass(frozen=True, slots=True)
class Tick:
    """A timer is due. `pages` has the page of every living worker, by slot."""

    pages: Mapping[int, Page]


@dataclass(frozen=True, slots=True)
class Measured:
    """Memory and processor time of the living workers, by slot: (rss_bytes, cpu_ms)."""

    usage: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody wants the agent to stop: a signal by name, or the end of whoever started it."""

    why: str
    exit_code: int
    at_once: bool = False


Event: TypeAlias = (
    Received
    | Malformed
    | SendFailed
    | Writable
    | Spawned
    | Ready
    | StartFailed
    | Finished
    | Dropped
    | TakenBack
    | Died
    | Tick
    | Measured
    | StopAsked
)

Report: TypeAlias = Mapping[str, Any]
"""A line for whoever started the agent, as JSON."""
