"""What really happens in the simulated world: tasks as their callers know them, and real runs.

Rules of this file: data, filled by the nodes, read by the checkers. Nothing here comes from the
books of a core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from evener_wire import messages as m
from tests.simulation.world import World

Key = tuple[bytes, int]

_LARGE: Final = 65 * 1024

# Who owns the runs of schedules.
SCHEDULES: Final = "schedules"


@dataclass(frozen=True, slots=True)
class Body:
    """What the function of a task does when it runs, by how often it ran before."""

    run_ns: int
    failures: int = 0  # so many first runs raise
    deaths: int = 0  # so many first runs take their worker down
    deaf: int = 0  # it ends at the flag (0), only at SIGTERM (1), only at SIGKILL (2)
    types: tuple[str, ...] = ("ValueError", "Exception")
    values: int = 0  # it is a generator, and yields so many on its way


class Run:
    """One real execution of a body by a worker process."""

    __slots__ = ("agent", "end_ns", "ended", "key", "over", "start_ns", "ticket", "yielded")

    def __init__(self, ticket: Ticket, key: Key, agent: str, start_ns: int) -> None:
        self.ticket: Final = ticket
        self.key: Final = key
        self.agent: Final = agent  # the process of the agent, as `name.life`
        self.start_ns: Final = start_ns
        self.end_ns: int | None = None
        self.ended = ""  # done, failed, stopped, died
        self.yielded = 0  # values, and their end
        self.over = False  # the end was among them

    def length_ns(self) -> int:
        """How long it took; 0 while it goes on."""
        return 0 if self.end_ns is None else self.end_ns - self.start_ns

    def __repr__(self) -> str:
        return f"<run {self.key[1] >> 16}/{self.key[1] & 0xFFFF} at {self.agent} {self.ended}>"


@dataclass(slots=True)
class Ticket:
    """A task as its caller knows it. `number` travels in its payload: ids may be used twice."""

    number: int
    owner: str  # the process of the client, as `name.life`
    item: Any
    body: Body
    options: m.Options
    submitted_ns: int
    # What happened to it.
    ends: list[tuple[str, Any]] = field(default_factory=list)
    cancel_asked: bool = False
    runs: list[Run] = field(default_factory=list)
    # (epoch, fence, agent process, whether its agent was given up) of each RUN that was sent.
    sent: list[Sent] = field(default_factory=list)
    # By epoch: what the broker said about its end.
    told: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    vanished: int = 0  # how often its agent was given up while it had it
    vanished_started: int = 0  # and how often it had really started there
    # By epoch: order of acceptance, and when; and whether an earlier broker had it then.
    accepted: dict[int, tuple[int, int, bool]] = field(default_factory=dict)
    cancelled_in: int = 0  # epoch in which the broker took a cancel of it
    cancelled_ns: int = 0  # and when, first
    alarming: bool = True  # its client lives, so it must end
    # How its program reads what it yields: the manner, and how many of each attempt it took.
    reads: str = "at once"
    read: dict[int, int] = field(default_factory=dict)
    unread: bool = False  # as the session asks it
    given_up: bool = False  # nobody came for its values, so they were dropped
    dropped: bool = False

    @property
    def id(self) -> bytes:
        """The id that its client chose."""
        return bytes(self.item[0])

    def __repr__(self) -> str:
        return f"<task {self.number} {self.item[1]} of {self.owner}>"

    def __hash__(self) -> int:
        return self.number

    def story(self) -> str:
        """Everything that is known, for a failure."""
        lines = [f"{self!r} id {self.id.hex()} {self.options} {self.body}"]
        lines.append(f"submitted {self.submitted_ns} accepted {self.accepted} ends {self.ends}")
        lines += [f"sent {sent}" for sent in self.sent]
        lines += [f"{run.start_ns}..{run.end_ns} {run}" for run in self.runs]
        lines += [f"told in epoch {epoch}: {told}" for epoch, told in self.told.items()]
        return "\n".join(lines)


@dataclass(slots=True)
class Sent:
    """A RUN as the broker sent it."""

    epoch: int
    fence: int
    agent: str
    at_ns: int
    given_up: bool = False
    given_up_in: int = 0  # in which epoch
    taken_in: int = 0  # in which epoch a broker took its RESULT
    taken_ns: int = 0  # and when


class Truth:
    """All tickets and runs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.tickets: Final[list[Ticket]] = []
        self.runs = 0
        self.progress = 0  # of these all but the runs of schedules, which go on by themselves
        # When a broker last took in a message of each client.
        self.heard_ns: dict[str, int] = {}
        self.running: dict[Run, None] = {}
        # Runs of schedules by their ids, and what such a run does, by the number in its call.
        self.scheduled: dict[int, Body] = {}
        self._due: dict[bytes, Ticket] = {}
        self.on_begin: Callable[[Run], None] = lambda run: None
        self.on_finish: Callable[[Run], None] = lambda run: None

    def ticket(
        self, owner: str, task_id: bytes, function: str, body: Body, options: m.Options, pad: int
    ) -> Ticket:
        """A task that a client is about to submit."""
        number = len(self.tickets)
        item = (task_id, function, call_of(number, pad), options)
        ticket = Ticket(number, owner, item, body, options, self._world.now)
        self.tickets.append(ticket)
        return ticket

    def of_payload(self, payload: m.Payload, task_id: bytes) -> Ticket:
        """The task whose call this is. Runs of one schedule have the same call, and other ids."""
        number: int = number_in(payload)[0]
        if number >= 0:
            return self.tickets[number]
        ticket = self._due.get(task_id)
        if ticket is None:
            body = self.scheduled[number]
            ticket = self.ticket(SCHEDULES, task_id, "app.due", body, m.Options(), 0)
            ticket.alarming = False
            self._due[task_id] = ticket
        return ticket

    def begin(self, payload: m.Payload, key: Key, agent: str) -> Run:
        """A worker starts a body."""
        ticket = self.of_payload(payload, key[0])
        run = Run(ticket, key, agent, self._world.now)
        ticket.runs.append(run)
        self.runs += 1
        self.progress += ticket.owner != SCHEDULES
        self.running[run] = None
        self.on_begin(run)
        return run

    def end(self, run: Run, ended: str) -> None:
        """The body does not run any more."""
        run.end_ns = self._world.now
        run.ended = ended
        del self.running[run]
        self.on_finish(run)


def call_of(number: int, pad: int) -> m.Payload:
    """A call that names its ticket."""
    return _payload([number], pad)


def result_of(run: Run, pad: int = 0) -> m.Payload:
    """A result that names the attempt it comes from."""
    return _payload([run.ticket.number, run.key[1]], pad)


def _payload(values: list[int], pad: int) -> m.Payload:
    if pad >= _LARGE:
        return m.Frames([msgpack.packb(values), bytes(pad)])
    return msgpack.packb([*values, bytes(pad)])


def number_in(payload: m.Payload) -> list[Any]:
    """The numbers that a call or a result carries."""
    head = payload if isinstance(payload, bytes) else bytes(payload.buffers[0])
    values: list[Any] = msgpack.unpackb(head)
    return values


def digest_of(payload: m.Payload) -> bytes:
    """Enough of a payload to tell whether two are the same."""
    if isinstance(payload, bytes):
        return payload
    return bytes(payload.buffers[0])
