"""What the parts say to each other: one class per message, nothing else crosses a connection.

Rules of this file: data only. A message that carries work is a batch: its `items` are plain tuples
in the order given beside each class, so that a batch of a thousand tasks is one object, not a
thousand. Durations are milliseconds, 0 means "no limit".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeAlias

from evener_wire.fences import ATTEMPTS_MAX as ATTEMPTS_MAX
from evener_wire.fences import EPOCH_MAX as EPOCH_MAX
from evener_wire.fences import attempt_of as attempt_of
from evener_wire.fences import epoch_of as epoch_of
from evener_wire.fences import fence_of as fence_of
from evener_wire.limits import MAX_STARTS_DEFAULT, PRIORITY_DEFAULT
from evener_wire.payloads import Buffer as Buffer
from evener_wire.payloads import Frames as Frames
from evener_wire.payloads import Payload as Payload
from evener_wire.payloads import weight_of as weight_of

Facts: TypeAlias = Mapping[str, Any]
"""Short texts and numbers by name, for people and for records; no decision rests on them."""

Role: TypeAlias = Literal["client", "agent"]

# --- How an attempt ended, as the agent tells it (RESULT) -----------------------------------------

DONE: Final = 0
FAILED: Final = 1  # the function raised
LOST: Final = 2  # the worker died while it ran this attempt
RETURNED: Final = 3  # never started: recalled, drained, or its worker died before its turn
CANCELLED: Final = 4
TIMED_OUT: Final = 5  # stopped because it ran longer than it may

OUTCOMES: Final = ("done", "failed", "lost", "returned", "cancelled", "timed_out")

# --- How a task ended, for good (TERMINAL) --------------------------------------------------------

TERMINAL_DONE: Final = 0
TERMINAL_FAILED: Final = 1
TERMINAL_CANCELLED: Final = 2
TERMINAL_EXPIRED: Final = 3
TERMINAL_LOST: Final = 4

TERMINAL_STATES: Final = ("done", "failed", "cancelled", "expired", "lost")


class Options(NamedTuple):
    """How a task wants to be treated. Absent on the wire (nil) when nothing differs from here."""

    queue: str = "default"
    priority: int = PRIORITY_DEFAULT  # 0-9, 9 goes first
    retries: int = 0  # more tries after an exception
    retry_delay_ms: int = 100  # before the first of them; doubles, with jitter
    retry_on: tuple[str, ...] = ()  # names of exception types; empty: any
    max_starts: int = MAX_STARTS_DEFAULT  # how many workers it may take down
    timeout_ms: int = 0  # run time of one attempt
    expires_ms: int = 0  # wait for the first start
    deadline_ms: int = 0  # from submission to the end
    at_most_once: bool = False  # never a second dispatch
    forward_output: bool = False  # what it writes goes to its client, too


DEFAULT_OPTIONS: Final = Options()


class Schedule(NamedTuple):
    """When the broker makes a task by itself: each `every_ms`, or (0) by `cron` in time `zone`."""

    name: str
    function: str
    every_ms: int
    cron: str
    zone: str
    overlap: str  # one of `checks.OVERLAPS`
    late: str  # one of `checks.LATES`
    jitter_ms: int
    call: bytes


# --- A session begins and ends --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """Peer to broker, first and after each RESYNC. `epoch` and `broker` are the last known."""

    KIND: ClassVar[int] = 1
    protocol_min: int
    protocol_max: int
    role: Role
    instance: bytes
    name: str
    epoch: int
    broker: bytes
    facts: Facts


@dataclass(frozen=True, slots=True)
class Welcome:
    """Broker to peer: the session exists; its number stands in the head of every later message."""

    KIND: ClassVar[int] = 2
    protocol: int
    epoch: int
    broker: bytes
    heartbeat_ms: int
    silence_ms: int
    tasks_max: int
    bytes_max: int
    durable: bool
    facts: Facts


@dataclass(frozen=True, slots=True)
class Resync:
    """Either way: "I do not know this session, or I missed something: say HELLO"."""

    KIND: ClassVar[int] = 3
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Broker to peer: no session. Saying HELLO again helps after `wait_ms`; 0: nobody knows."""

    KIND: ClassVar[int] = 4
    code: str
    text: str
    wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Either way, when idle. `running`: (task id, fence, age_ms); `workers`: facts of each."""

    KIND: ClassVar[int] = 5
    running: Sequence[tuple[bytes, int, int]] = ()
    workers: Sequence[Facts] = ()


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Either way: the sender ends the session on purpose."""

    KIND: ClassVar[int] = 6
    reason: str


@dataclass(frozen=True, slots=True)
class Ack:
    """Either way: RESULTs, or TERMINALs, PROGRESS, OUTPUT, in messages up to `upto` are taken."""

    KIND: ClassVar[int] = 7
    upto: int


# --- Client and broker ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submit:
    """Client to broker. Item: (task id, function, payload, options or None).

    `again` says that an earlier broker may have these tasks already, and may have started them.
    """

    KIND: ClassVar[int] = 16
    items: Sequence[tuple[bytes, str, Payload, Options | None]]
    again: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """Broker to client: every task in your messages up to `upto` is accepted, but the REJECTED."""

    KIND: ClassVar[int] = 17
    upto: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """Broker to client, before the ACCEPTED that covers them. Item: (task id, code, text).
    `details`: what programs may want of the texts; items beyond its end have none."""

    KIND: ClassVar[int] = 18
    items: Sequence[tuple[bytes, str, str]]
    details: Sequence[Facts | None] = ()


@dataclass(frozen=True, slots=True)
class Terminal:
    """Broker to client. Item: (task id, terminal state, payload, facts or None)."""

    KIND: ClassVar[int] = 19
    items: Sequence[tuple[bytes, int, Payload, Facts | None]]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Client to broker (fence 0: the task), or broker to agent. Item: (task id, fence)."""

    KIND: ClassVar[int] = 20
    items: Sequence[tuple[bytes, int]]


@dataclass(frozen=True, slots=True)
class Notice:
    """Broker to client: something a person should read once, such as a queue nobody serves."""

    KIND: ClassVar[int] = 21
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """Client to broker: a question about the cluster, answered by one ANSWER with its number."""

    KIND: ClassVar[int] = 22
    number: int
    what: str
    arguments: Facts


@dataclass(frozen=True, slots=True)
class Answer:
    """Broker to client. `body` is msgpack; on `ok` false it is a text."""

    KIND: ClassVar[int] = 23
    number: int
    ok: bool
    body: Payload


@dataclass(frozen=True, slots=True)
class Progress:
    """Agent to broker, broker to client: how far attempts are. Replaces what was said before.

    Item: (task id, fence, done, total or None, note). A client acknowledges it.
    """

    KIND: ClassVar[int] = 24
    items: Sequence[tuple[bytes, int, int | float, int | float | None, str]]


@dataclass(frozen=True, slots=True)
class Values:
    """Agent to broker, broker to client. Item: (task id, fence, index, more, payload)."""

    KIND: ClassVar[int] = 25
    items: Sequence[tuple[bytes, int, int, bool, Payload]]


@dataclass(frozen=True, slots=True)
class Taken:
    """Client to broker, broker to agent. Item: (task id, fence, upto, again)."""

    KIND: ClassVar[int] = 26
    items: Sequence[tuple[bytes, int, int, bool]]


@dataclass(frozen=True, slots=True)
class Output:
    """Agent to broker, broker to client: what attempts wrote. A client acknowledges it.

    Item: (task id, fence, first, stream, worker, text): whole lines, each with its line feed; the
    first one is number `first` of the attempt. Without text: there were so many in all.
    """

    KIND: ClassVar[int] = 27
    items: Sequence[tuple[bytes, int, int, int, str, str]]


# --- Broker and agent -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offer:
    """Agent to broker: what its workers can do now. None: as told before.

    `functions`: (name, registered options or None), and with them `schedules` and `shares`, (name,
    how many tasks of it a worker runs at once) of those that run beside others. `held`, in the
    first OFFER of a session: every attempt that the agent has, running or not yet acknowledged.
    """

    KIND: ClassVar[int] = 32
    slots: int
    draining: bool
    queues: Sequence[str]
    functions: Sequence[tuple[str, Options | None]] | None = None
    held: Sequence[tuple[bytes, int]] | None = None
    schedules: Sequence[Schedule] = ()
    shares: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Broker to agent. Item: (task id, fence, function, payload, timeout_ms, deadline_ms).

    `forward`: the places in `items` of those whose output their client wants.
    """

    KIND: ClassVar[int] = 33
    items: Sequence[tuple[bytes, int, str, Payload, int, int]]
    forward: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """Agent to broker: these attempts run. After a while, or as the "no" to a RECALL."""

    KIND: ClassVar[int] = 34
    items: Sequence[tuple[bytes, int]]


@dataclass(frozen=True, slots=True)
class Result:
    """Agent to broker. Item: (task id, fence, outcome, payload, run_us, facts or None)."""

    KIND: ClassVar[int] = 35
    items: Sequence[tuple[bytes, int, int, Payload, int, Facts | None]]


@dataclass(frozen=True, slots=True)
class Recall:
    """Broker to agent: give these back if they have not started. Item: (task id, fence)."""

    KIND: ClassVar[int] = 36
    items: Sequence[tuple[bytes, int]]


@dataclass(frozen=True, slots=True)
class Drain:
    """Broker to agent: finish what runs, give back the rest, and say GOODBYE."""

    KIND: ClassVar[int] = 37
    reason: str


Message: TypeAlias = (
    Hello
    | Welcome
    | Resync
    | Refused
    | Heartbeat
    | Goodbye
    | Ack
    | Submit
    | Accepted
    | Rejected
    | Terminal
    | Cancel
    | Notice
    | Query
    | Answer
    | Progress
    | Values
    | Taken
    | Output
    | Offer
    | Run
    | Started
    | Result
    | Recall
    | Drain
)
