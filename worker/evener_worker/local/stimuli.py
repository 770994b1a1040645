"""What the machine of a pool is told, and what it wants done.

Rules of this file: data only; events are named for what happened, effects for what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from evener_wire.messages import Payload
from evener_worker.local.calls import Call, Wait

EventKind: TypeAlias = Literal["spawning", "online", "killing", "exit"]


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """What happened to the process of a worker.

    `pid` is 0 for `spawning`. `exit_code` or `signal`, and the last `lines` that it printed, come
    with `exit`; `reason` says in words why it is ended, or how it ended.
    """

    kind: EventKind
    worker: int
    pid: int = 0
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    lines: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class FromWorker:
    """A message or request of a worker."""

    place: int
    worker: int
    number: int
    kind: int
    payload: Payload


# --- Events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartAll:
    """Start all workers that have no process."""

    wait: Wait


@dataclass(frozen=True, slots=True)
class Restart:
    """End the process of a worker, and start it anew."""

    wait: Wait
    seat: int


@dataclass(frozen=True, slots=True)
class Replace:
    """Start a new process, and end the old one when the new one is ready."""

    wait: Wait
    seat: int


@dataclass(frozen=True, slots=True)
class KillWorker:
    """End the process of a worker now, and do not start it again."""

    wait: Wait
    seat: int


@dataclass(frozen=True, slots=True)
class AwaitReady:
    """Tell when a worker is ready; start it if it has no process."""

    wait: Wait
    seat: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End the pool: when all is done, or at once."""

    wait: Wait
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A call."""

    call: Call


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Nobody waits for the call any more."""

    call: Call


@dataclass(frozen=True, slots=True)
class Spawned:
    """The process exists."""

    place: int
    pid: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Its `start()` returned."""

    place: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """It tells why it cannot start; it ends itself."""

    place: int
    text: str


@dataclass(frozen=True, slots=True)
class Replied:
    """The answer to a call, or for a message that it was handled."""

    place: int
    number: int
    outcome: int
    payload: Payload


@dataclass(frozen=True, slots=True)
class Heard:
    """A message or request of the worker."""

    place: int
    number: int
    kind: int
    payload: Payload


@dataclass(frozen=True, slots=True)
class Died:
    """The process ended; all that it sent was told before."""

    place: int
    exit_code: int | None
    signal: int | None
    lines: tuple[str, ...]
    note: str


Event: TypeAlias = (
    StartAll
    | Restart
    | Replace
    | KillWorker
    | AwaitReady
    | Stop
    | Asked
    | GaveUp
    | Spawned
    | Ready
    | StartFailed
    | Replied
    | Heard
    | Died
)

# --- Effects --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process."""

    place: int
    seat: int


@dataclass(frozen=True, slots=True)
class Hand:
    """Send a call to a process."""

    place: int
    call: Call


@dataclass(frozen=True, slots=True)
class Forget:
    """Tell a process that nobody waits for a call any more."""

    place: int
    number: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Ask a process to end when what it has is done."""

    place: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to a process and all that it started."""

    place: int


@dataclass(frozen=True, slots=True)
class Admit:
    """There is room for the call."""

    call: Call


@dataclass(frozen=True, slots=True)
class Answer:
    """The call or wait ended."""

    asked: Call | Wait
    outcome: int
    payload: Payload


@dataclass(frozen=True, slots=True)
class Fail:
    """The call or wait will not be answered."""

    asked: Call | Wait
    error: Exception


@dataclass(frozen=True, slots=True)
class Tell:
    """For all who subscribed."""

    event: WorkerEvent | FromWorker


@dataclass(frozen=True, slots=True)
class End:
    """No process is left, and none will come."""


Effect: TypeAlias = Spawn | Hand | Forget | Leave | Kill | Admit | Answer | Fail | Tell | End
