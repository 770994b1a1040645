"""What the agent wants done: the output of `AgentCore.step`, performed by the shell in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

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
    """Close the connection to the broker and open a new one."""


@dataclass(frozen=True, slots=True)
class Hand:
    """Give a worker these attempts, numbered from `first`, with one permit each."""

    slot: int
    first: int
    attempts: Sequence[Attempt]


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Take up to `count` permits back. Comes back as `TakenBack`, before anything else."""

    slot: int
    count: int


@dataclass(frozen=True, slots=True)
class Flag:
    """Note in the worker's page that attempt `sequence` shall end with `outcome`."""

    slot: int
    sequence: int
    outcome: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """SIGTERM to the worker process, which ends the attempt that is flagged."""

    slot: int


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
    | Terminate
    | Kill
    | StartWorker
    | Leave
    | Tell
    | Log
    | Exit
)
