"""What the agent wants done: the output of `AgentCore.step`, performed by the shell in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from evener_wire.messages import Message
from evener_worker.attempts import Attempt
from evener_worker.events import Report

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Send:
    """Encode and send one message. A failed send comes back as `SendFailed`."""

    session: int
    number: int
    message: Message


@dataclass(frozen=True, slots=True)
class SendResults:
    """Send one RESULT made of the attempts' items, which are packed already."""

    session: int
    number: int
    attempts: Sequence[Attempt]


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Close the connection to the broker and open a new one, which tries within this window."""

    window_ns: int


@dataclass(frozen=True, slots=True)
class Hand:
    """Give a worker these attempts, numbered from `first`, with one permit each.

    `lanes`: one for each of them, if they are to run side by side.
    """

    slot: int
    first: int
    attempts: Sequence[Attempt]
    lanes: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Take up to `count` permits back. Comes back as `TakenBack`, before anything else."""

    slot: int
    count: int


@dataclass(frozen=True, slots=True)
class Flag:
    """Note in the worker's page, or on a lane, that attempt `sequence` shall end with `outcome`."""

    slot: int
    sequence: int
    outcome: int
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Take:
    """Tell a worker that the first `upto` values of attempt `sequence` are taken."""

    slot: int
    sequence: int
    upto: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """SIGTERM to the worker process, which ends the attempt that is flagged."""

    slot: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Tell the worker process to end attempt `sequence`, which is flagged, beside others."""

    slot: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to the worker's process group."""

    slot: int


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start the process of a slot. Comes back as `Spawned`."""

    slot: int
    worker: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Ask an idle worker to run its stop hooks and end."""

    slot: int


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Look for lines of workers. Comes back as `LogRead`, within seconds."""

    number: int
    wanted: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dump:
    """Have a worker write its Python stack. Comes back as `Dumped`, within seconds."""

    slot: int
    number: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask a worker whether it is there. Comes back as `Ponged` between two tasks, or never."""

    slot: int
    number: int


@dataclass(frozen=True, slots=True)
class Tell:
    """One line for whoever started the agent."""

    report: Report


@dataclass(frozen=True, slots=True)
class Log:
    """One line for the operator."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Exit:
    """Nothing is left to do."""

    code: int


Effect: TypeAlias = (
    Send
    | SendResults
    | Reconnect
    | Hand
    | TakeBack
    | Flag
    | Take
    | Terminate
    | Interrupt
    | Kill
    | StartWorker
    | Leave
    | Dump
    | ReadLog
    | Ping
    | Tell
    | Log
    | Exit
)
