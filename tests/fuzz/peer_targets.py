"""The agent's core and the client's session as targets: a broker that says whatever it likes.

An input is a msgpack array of actions, each an array that begins with its kind:

    [0, [frames]]       any frames from the broker
    [1, fields]         a message, given its session and the next number; WELCOME begins a session
    [2, ms]             time passes
    [3]                 the connection breaks, and comes back
    [4, n]              client: n tasks are submitted; agent: a worker ends its first attempt
    [5, n]              client: a task is cancelled, or a question asked; agent: a worker dies
    [6, n]              the client is closed, or the agent is told to stop

What is no action does nothing. After each action the core recounts itself, whatever it sends must
be a message within all bounds, and no task ends twice.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgpack

from evener import session_records as r
from evener.session import ClientSession
from evener_wire import messages as m
from evener_wire.codec import Envelope, decode, encode
from evener_wire.errors import PeerError
from evener_wire.limits import MILLISECOND_NS, SECOND_NS
from evener_worker import channel as c
from evener_worker import effects as f
from evener_worker import events as e
from tests.agent_harness import Bench
from tests.fuzz.core_target import IDS, actions_of
from tests.fuzz.guided import Target
from tests.fuzz.test_decoder import change

_ACTIONS_MAX: Final = 60
_SESSION_MAX: Final = (1 << 63) - 1


class Peer:
    """What both have in common: bytes from the broker become events."""

    def __init__(self) -> None:
        self.session = 0
        self.number = 0

    def act(self, action: list[Any]) -> None:
        match action:
            case [0, [*frames]]:
                self.frames([frame for frame in frames if type(frame) is bytes])
            case [1, [int(kind), *fields]]:
                self.message(kind, fields)
            case [2, int(ms)]:
                self.wait(max(0, min(ms, 100_000)))
            case [3, *_]:
                self.cut()
            case [4, int(number)]:
                self.work(abs(number) % 1_000)
            case [5, int(number)]:
                self.disturb(abs(number) % 1_000)
            case [6, int(number)]:
                self.stop(number)
            case _:
                pass

    def frames(self, frames: list[bytes]) -> None:
        try:
            self.received(decode(frames))
        except PeerError as error:
            self.malformed(str(error))

    def message(self, kind: int, fields: list[Any]) -> None:
        session, number = 0, 0
        if kind == m.Welcome.KIND:
            self.session, self.number = self.session % _SESSION_MAX + 1, 0
        if kind not in (m.Resync.KIND, m.Refused.KIND):
            self.number += 1
            session, number = self.session, self.number
        try:
            head = msgpack.packb([kind, session, number, *fields])
        except (TypeError, ValueError, OverflowError):
            return
        self.frames([head])

    def received(self, envelope: Envelope) -> None:
        raise NotImplementedError

    def malformed(self, reason: str) -> None:
        raise NotImplementedError

    def wait(self, ms: int) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        raise NotImplementedError

    def work(self, number: int) -> None:
        raise NotImplementedError

    def disturb(self, number: int) -> None:
        raise NotImplementedError

    def stop(self, number: int) -> None:
        raise NotImplementedError


# --- The client -----------------------------------------------------------------------------------


class Ticket:
    """A task that somebody waits for."""

    unread = dropped = False

    def __init__(self, number: int) -> None:
        self.item: r.Item = (IDS[number % len(IDS)], "f.a", b"\x92\x90\xc0", None)


class Client(Peer):
    """A client's session, and the program behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.core = ClientSession(b"c" * 16, "client", {}, random.Random(0))
        self.now_ns = 100 * SECOND_NS
        self.submitted = 0
        self.ended: Counter[int] = Counter()
        self.step(r.Connected())

    def step(self, *events: r.Event) -> None:
        effects = self.core.step(self.now_ns, events)
        self.core.check()
        reopened = False
        for effect in effects:
            match effect:
                case r.Send():
                    decode(encode(effect.message, effect.session, effect.number))
                case r.Resolve():
                    self.ended.update(id(ticket) for ticket, _ in effect.endings)
                case r.Reject():
                    self.ended.update(id(ticket) for ticket, *_ in effect.tickets)
                case r.Abandon():
                    self.ended.update(id(ticket) for ticket in effect.tickets)
                case r.Reopen():
                    reopened = True
                case _:
                    pass
        assert all(count == 1 for count in self.ended.values())
        if reopened:
            self.cut()

    def received(self, envelope: Envelope) -> None:
        self.step(r.Received(envelope))

    def malformed(self, reason: str) -> None:
        self.step(r.Malformed(reason))

    def wait(self, ms: int) -> None:
        self.now_ns += ms * MILLISECOND_NS
        self.step()

    def cut(self) -> None:
        if self.core.state in (r.State.GREETING, r.State.OPEN):
            self.step(r.Disconnected("cut"))
        if self.core.state is r.State.CONNECTING:
            self.step(r.Connected())

    def work(self, number: int) -> None:
        # Each id once: a program draws them at random.
        fresh = min(number, len(IDS) - self.submitted)
        tickets = [Ticket(self.submitted + n) for n in range(fresh)]
        self.submitted += fresh
        self.tickets = [*getattr(self, "tickets", []), *tickets]  # kept, so that ids stay unique
        if tickets:
            self.step(r.Submitted(tickets))

    def disturb(self, number: int) -> None:
        if number % 2:
            self.step(r.CancelAsked([IDS[number % len(IDS)]]))
        else:
            self.step(r.Asked(number, "status", {}, SECOND_NS if number % 4 else None))

    def stop(self, number: int) -> None:
        self.step(r.CloseAsked(SECOND_NS))


# --- The agent ------------------------------------------------------------------------------------


class Agent(Peer):
    """An agent's core with two workers that are ready."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(2)
        for slot in self.bench.core.pool.slots:
            self.bench.ready(slot)

    def step(self, *events: e.Event) -> None:
        for effect in self.bench.step(*events):
            self.look(effect)

    def look(self, effect: f.Effect) -> None:
        if isinstance(effect, f.Send):
            decode(encode(effect.message, effect.session, effect.number))
        elif isinstance(effect, f.SendResults):
            items = [msgpack.unpackb(a.packed, use_list=False) for a in effect.attempts]
            decode(encode(m.Result(items), effect.session, effect.number))

    def received(self, envelope: Envelope) -> None:
        self.step(e.Received(envelope))

    def malformed(self, reason: str) -> None:
        self.step(e.Malformed(reason))

    def wait(self, ms: int) -> None:
        for effect in self.bench.tick(ms):
            self.look(effect)

    def cut(self) -> None:
        self.step(e.SendFailed())
        self.step(e.Writable())

    def work(self, number: int) -> None:
        slot = self.bench.core.pool.slots[number % 2 + 1]
        if slot.handed:
            attempt = slot.handed[0]
            outcome = number % 2  # done or failed
            body = msgpack.packb((*attempt.key, outcome, b"r", 10, None))
            self.bench.started[slot.number] = attempt.sequence
            frame = c.Frame(c.RESULT, attempt.sequence, outcome, 10, body)
            self.step(e.Finished(slot.number, [frame]))

    def disturb(self, number: int) -> None:
        slot = self.bench.core.pool.slots[number % 2 + 1]
        if slot.handed:
            if number % 4 > 1:
                self.bench.started[slot.number] = slot.handed[0].sequence
            self.step(e.Died(slot.number, self.bench.started[slot.number], None, 9, ("x",)))
            self.bench.tick(5_000)
            if slot.number in self.bench.core.pool.slots:
                self.bench.ready(slot.number)

    def stop(self, number: int) -> None:
        self.step(e.StopAsked("told to", 0, number % 2 == 1))


# --- Inputs ---------------------------------------------------------------------------------------

_WELCOME: Final = [1, [m.Welcome.KIND, 1, 5, b"b" * 16, 1_000, 4_000, 9, 999_999, False, {}]]
_FENCE: Final = m.fence_of(5, 1)


def _seeds(*lives: list[Any]) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([_packed([False, *life]) for life in lives])


def _packed(actions: list[Any]) -> bytes:
    return bytes(msgpack.packb(actions))


def _alter(fresh: Callable[[random.Random], list[Any]]) -> Callable[..., bytes]:
    def alter(rng: random.Random, data: bytes, other: bytes) -> bytes:
        first, *actions = actions_of(data) or [False]
        for _ in range(rng.randrange(1, 4)):
            action = rng.randrange(8)
            place = rng.randrange(len(actions) + 1)
            if action == 0 and place < len(actions):
                del actions[place]
            elif action == 1:
                theirs = actions_of(other)[1:]
                actions[place:] = theirs[rng.randrange(len(theirs) + 1) :] if theirs else []
            elif action < 5:
                actions.insert(place, fresh(rng))
            elif place < len(actions):
                actions[place] = change(rng, actions[place], 1)
        try:
            return _packed([first, *actions[:_ACTIONS_MAX]])
        except (OverflowError, ValueError):
            return data

    return alter


def _for_client(rng: random.Random) -> list[Any]:
    task_id, number = rng.choice(IDS), rng.randrange(8)
    facts = {"reason": "poison", "text": "x", "limit": "run", "ms": 5, "attempt": 1, "attempts": 2}
    terminal = [task_id, rng.randrange(5), b"\x91\x01", rng.choice((None, facts))]
    code = rng.choice(("queue_full", "conflict", "journal", "unknown_function", "too_large"))
    unknown = {"closest": ["demo.add"], "workers": 1, "functions": 2}
    details = rng.choice(([], [None], [unknown]))
    return rng.choice(
        (
            _WELCOME,
            [1, [m.Accepted.KIND, number]],
            [1, [m.Rejected.KIND, [[task_id, code, "no"]], details]],
            [1, [m.Terminal.KIND, [terminal]]],
            [1, [m.Progress.KIND, [[task_id, rng.randrange(9), 1, 2, "x"]]]],
            [1, [m.Values.KIND, [[task_id, rng.randrange(3), rng.randrange(3), True, b"x"]]]],
            [1, [m.Output.KIND, [[task_id, rng.randrange(3), rng.randrange(9), 1, "n", "x\n"]]]],
            [1, [m.Notice.KIND, "unserved_queue", "x"]],
            [1, [m.Answer.KIND, number, rng.random() < 0.5, b"\x80"]],
            [1, [m.Resync.KIND, "x"]],
            [1, [m.Refused.KIND, rng.choice(("busy", "violation", "retry_after")), "x", 200]],
            [1, [m.Goodbye.KIND, "x"]],
            [1, [m.Heartbeat.KIND, [], []]],
            [2, rng.choice((1, 100, 1_000, 4_100, 60_000))],
            [3],
            [4, rng.randrange(4)],
            [5, number],
            [6, 0],
        )
    )


def _for_agent(rng: random.Random) -> list[Any]:
    task_id, fence = rng.choice(IDS), m.fence_of(rng.choice((4, 5, 5, 6)), rng.randrange(4))
    limits = [rng.choice((0, 0, 10, 5_000)) for _ in range(2)]
    return rng.choice(
        (
            _WELCOME,
            [1, [m.Run.KIND, [[task_id, fence, rng.choice(("t.f", "~x", "no")), b"x", *limits]]]],
            [1, [m.Run.KIND, [[i, _FENCE, "t.f", b"x", 0, 0] for i in IDS], [0]]],
            [1, [m.Recall.KIND, [[task_id, fence]]]],
            [1, [m.Cancel.KIND, [[task_id, fence]]]],
            [1, [m.Ack.KIND, rng.randrange(9)]],
            [1, [m.Taken.KIND, [[task_id, fence, rng.randrange(3), rng.random() < 0.5]]]],
            [1, [m.Query.KIND, 1, "stack", {"worker": f"n:{rng.randrange(3)}"}]],
            [1, [m.Drain.KIND, "x"]],
            [1, [m.Resync.KIND, "x"]],
            [1, [m.Refused.KIND, rng.choice(("busy", "violation", "protocol")), "x", 200]],
            [1, [m.Heartbeat.KIND, [], []]],
            [2, rng.choice((1, 100, 1_000, 4_100, 60_000))],
            [3],
            [4, rng.randrange(8)],
            [5, rng.randrange(8)],
            [6, rng.randrange(2)],
        )
    )


def _run(make: Callable[[], Peer]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        peer = make()
        for action in actions_of(data)[1 : _ACTIONS_MAX + 1]:
            if isinstance(action, list):
                peer.act(action)
        peer.wait(10_000)

    return run


_CLIENT_FILES: Final = (
    *("session", "session_work", "submissions", "session_state", "expiry", "deadlines"),
)
_AGENT_FILES: Final = (
    *("core", "session", "handout", "stopping", "pool", "ending", "questions", "ledger"),
    "attempts",
)

CLIENT: Final = Target(
    "client",
    _run(Client),
    _seeds(
        [_WELCOME, [4, 3], [1, [m.Accepted.KIND, 1]], [5, 1], [3], _WELCOME, [2, 5_000]],
        [[4, 2], _WELCOME, [1, [m.Terminal.KIND, [[IDS[0], 0, b"\x91\x01", None]]]], [6, 0]],
    ),
    _alter(_for_client),
    tuple(
        f"evener/{name}.py"
        for name in (
            "session",
            "session_work",
            "submissions",
            "session_state",
            "expiry",
            "deadlines",
        )
    ),
)

AGENT: Final = Target(
    "agent",
    _run(Agent),
    _seeds(
        [_WELCOME, [1, [m.Run.KIND, [[IDS[0], _FENCE, "t.f", b"x", 0, 0]]]], [4, 0], [2, 5_000]],
        [
            _WELCOME,
            [1, [m.Run.KIND, [[i, _FENCE, "t.f", b"x", 9, 9] for i in IDS]]],
            [5, 3],
            [6, 0],
        ],
    ),
    _alter(_for_agent),
    tuple(f"evener_worker/{name}.py" for name in _AGENT_FILES),
)
