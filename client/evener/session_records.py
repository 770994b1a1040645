"""What goes into a client's session and what comes out: events, effects, states.

Rules of this file: data only. A batch of tasks is one event or effect, never one per task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, Protocol, TypeAlias

from evener_wire.codec import Envelope
from evener_wire.messages import Facts, Message, Options, Payload

Item: TypeAlias = tuple[bytes, str, Payload, Options | None]
"""A task as SUBMIT carries it: id, function, payload, options."""

TerminalItem: TypeAlias = tuple[bytes, int, Payload, Facts | None]
"""The end of a task as TERMINAL carries it: id, terminal state, payload, facts."""

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


class Ticket(Protocol):
    """A task that the session keeps until it has ended. The caller's future is one."""

    item: Item


class Readable(Ticket, Protocol):
    """What a ticket has to say once values of its task come."""

    unread: bool
    """Nobody reads them: they are dropped as they come."""
    dropped: bool
    """Some were."""


class State(Enum):
    """What the session has of a broker."""

    CONNECTING = auto()  # no connection, or none that a message could leave by
    GREETING = auto()  # HELLO said, or about to be said again
    OPEN = auto()
    REFUSED = auto()  # for good
    CLOSED = auto()  # on purpose


class Cause(Enum):
    """Why the state changes."""

    CONNECTED = auto()
    WELCOMED = auto()
    OUT_OF_STEP = auto()
    LOST = auto()
    REFUSED = auto()
    CLOSED = auto()


# A pair that is not here is a mistake in this program, and ends it loudly.
TRANSITIONS: dict[tuple[State, Cause], State] = {
    (State.CONNECTING, Cause.CONNECTED): State.GREETING,
    (State.CONNECTING, Cause.CLOSED): State.CLOSED,
    (State.GREETING, Cause.WELCOMED): State.OPEN,
    (State.GREETING, Cause.LOST): State.CONNECTING,
    (State.GREETING, Cause.REFUSED): State.REFUSED,
    (State.GREETING, Cause.CLOSED): State.CLOSED,
    (State.OPEN, Cause.WELCOMED): State.OPEN,  # the answer to a HELLO that was repeated
    (State.OPEN, Cause.OUT_OF_STEP): State.GREETING,
    (State.OPEN, Cause.LOST): State.CONNECTING,
    (State.OPEN, Cause.REFUSED): State.REFUSED,
    (State.OPEN, Cause.CLOSED): State.CLOSED,
    (State.REFUSED, Cause.CLOSED): State.CLOSED,
}


# --- Events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    """The program wants these tasks done, in this order."""

    tickets: Sequence[Ticket]


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """The program wants these tasks stopped, wherever they are."""

    task_ids: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Took:
    """The program took all values of this attempt below `upto`; None: whatever has come."""

    task_id: bytes
    fence: int
    upto: int | None


@dataclass(frozen=True, slots=True)
class Asked:
    """The program has a question about the cluster. `timeout_ns` None: it can wait."""

    number: int
    what: str
    arguments: Facts
    timeout_ns: int | None


@dataclass(frozen=True, slots=True)
class Received:
    """A well-formed message came."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes came that are no message."""

    reason: str


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection can take messages."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection cannot take messages any more; what was being sent may be lost."""

    reason: str


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """The program leaves. Tasks not yet accepted have `timeout_ns` to become so."""

    timeout_ns: int


Event: TypeAlias = (
    Submitted
    | CancelAsked
    | Took
    | Asked
    | Received
    | Malformed
    | Connected
    | Disconnected
    | CloseAsked
)


# --- Effects --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Encode and send one message. A send that fails comes back as `Disconnected`."""

    session: int
    number: int
    message: Message


@dataclass(frozen=True, slots=True)
class Resolve:
    """These tasks have ended, as the broker says."""

    endings: Sequence[tuple[Ticket, TerminalItem]]


@dataclass(frozen=True, slots=True)
class Reported:
    """These tasks said how far they are: (ticket, fence, done, total, note)."""

    reports: Sequence[tuple[Ticket, int, float, float | None, str]]


@dataclass(frozen=True, slots=True)
class Valued:
    """These tasks yielded, in this order, each value once: (ticket, fence, payload or the end)."""

    values: Sequence[tuple[Ticket, int, Payload | None]]


Part: TypeAlias = tuple[Ticket, int, str, int, int, Sequence[str]]
"""Lines of a task: ticket, fence, worker, how many are missing before them, stream, texts."""


@dataclass(frozen=True, slots=True)
class Wrote:
    """These tasks wrote lines."""

    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Reject:
    """The broker did not take these tasks: (ticket, code, text, facts or None)."""

    tickets: Sequence[tuple[Ticket, str, str, Facts | None]]


@dataclass(frozen=True, slots=True)
class Abandon:
    """The session ended before these tasks did. `refusal`: (code, text), or None when closed."""

    tickets: Sequence[Ticket]
    refusal: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a question; `body` is None when it did not come in time."""

    number: int
    ok: bool
    body: Payload | None


@dataclass(frozen=True, slots=True)
class Reopen:
    """Close the connection and open a new one, which tries within this window."""

    window_ns: int


@dataclass(frozen=True, slots=True)
class Log:
    """One line for the person who runs the program."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class StateChanged:
    """Somebody may wait for this."""

    state: State


Effect: TypeAlias = (
    Send
    | Resolve
    | Reported
    | Valued
    | Wrote
    | Reject
    | Abandon
    | Answered
    | Reopen
    | Log
    | StateChanged
)
