"""The broker's core as a target: what several peers send, cut connections, time, and a journal.

An input is a msgpack array of actions, each an array that begins with its kind:

    [0, peer, [frames]]            any frames
    [1, peer, fields]              a message, given its session and the next number
    [2, ms]                        time passes
    [3, peer]                      its connection breaks
    [4, peer, outcome, place]      the result of an attempt that an agent holds
    [5, count], [6]                so many transactions are on disk; the others failed
    [7, peer]                      too many of its messages wait

Peers 0 and 1 are clients, 2 and 3 agents. What is no action does nothing. After each action the
core recounts itself (`check`), and whatever it sends must be a message within all bounds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import msgpack

from evener_broker.core import BrokerCore
from evener_broker.effects import Append, Effect, Log, NoteAgent, Send
from evener_broker.events import (
    CommitFailed,
    Committed,
    Event,
    Flooding,
    Malformed,
    PeerGone,
    Received,
)
from evener_broker.journaling import Contents
from evener_broker.tables import Bounds
from evener_wire import messages as m
from evener_wire.codec import decode, encode
from evener_wire.errors import PeerError
from evener_wire.limits import MIB, MILLISECOND_NS, SECOND_NS
from tests.fuzz.guided import Target, untraced
from tests.fuzz.test_decoder import change

PEERS: Final = 4
_ACTIONS_MAX: Final = 60
_BOUNDS: Final = Bounds(tasks=40, payload_bytes=MIB, client_tasks=25, client_bytes=MIB)


class Peer:
    """What a peer of the broker knows: its connection, its session, and what it was given."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.role: m.Role = "client" if index < 2 else "agent"
        self.connection = bytes([0, index])
        self.session = 0
        self.number = 0
        self.received = 0
        self.held: list[tuple[bytes, int]] = []


class Run:
    """One core and its peers."""

    def __init__(self, durable: bool) -> None:
        contents = Contents(0, 0, 1 << 30) if durable else None
        self.core = BrokerCore(
            b"b" * 16, 5, random.Random(0), _BOUNDS, {"pid": 1}, contents=contents
        )
        self.peers = [Peer(index) for index in range(PEERS)]
        self.now_ns = 1_000 * SECOND_NS
        self.unsaved: list[int] = []
        self.committed = 0
        self.failed = False
        self.connections = PEERS

    # --- Actions ----------------------------------------------------------------------------------

    def act(self, action: list[Any]) -> None:
        match action:
            case [0, int(peer), [*frames]]:
                self.frames(self.peers[peer % PEERS], [f for f in frames if type(f) is bytes])
            case [1, int(peer), [int(kind), *fields]]:
                self.message(self.peers[peer % PEERS], kind, fields)
            case [2, int(ms)]:
                self.now_ns += max(0, min(ms, 100_000)) * MILLISECOND_NS
                self.step()
            case [3, int(peer)]:
                self.cut(self.peers[peer % PEERS])
            case [4, int(peer), int(outcome), int(place)]:
                self.result(self.peers[peer % PEERS], outcome, place)
            case [5, int(count)]:
                self.commit(count)
            case [6, 1, *_]:
                self.fail(unknown=1)
            case [6, *_]:
                self.fail()
            case [7, int(peer)]:
                self.step(Flooding(self.peers[peer % PEERS].connection))
            case _:
                pass

    def frames(self, peer: Peer, frames: list[bytes]) -> None:
        try:
            self.step(Received(peer.connection, decode(frames)))
        except PeerError as error:
            self.step(Malformed(peer.connection, str(error)))

    def message(self, peer: Peer, kind: int, fields: list[Any]) -> None:
        session, number = 0, 0
        if kind not in (m.Hello.KIND, m.Resync.KIND):
            peer.number += 1
            session, number = peer.session, peer.number
        try:
            head = msgpack.packb([kind, session, number, *fields])
        except (TypeError, ValueError, OverflowError):
            return
        self.frames(peer, [head])

    def cut(self, peer: Peer) -> None:
        gone, peer.session = peer.connection, 0
        self.connections += 1
        peer.connection = self.connections.to_bytes(4, "big")
        self.step(PeerGone(gone))

    def result(self, peer: Peer, outcome: int, place: int) -> None:
        if peer.held:
            task_id, fence = peer.held.pop(place % len(peer.held))
            item = [task_id, fence, outcome, b"\x91\x01", 100, {"types": ["ValueError"]}]
            self.message(peer, m.Result.KIND, [[item]])

    def commit(self, count: int) -> None:
        done = self.unsaved[: max(0, count)]
        if done and not self.failed:
            del self.unsaved[: len(done)]
            self.committed = done[-1]
            self.step(Committed(done[-1], 1_000))

    def fail(self, unknown: int = 0) -> None:
        if self.unsaved and not self.failed:
            self.failed = True
            txn = self.unsaved[0]
            self.unsaved.clear()
            self.step(CommitFailed(txn, "the disk is full", unknown and txn))

    # --- Steps ------------------------------------------------------------------------------------

    def step(self, *events: Event) -> None:
        effects = self.core.step(self.now_ns, events)
        with untraced():
            self.core.check()
        for effect in effects:
            self.perform(effect)

    def perform(self, effect: Effect) -> None:
        if isinstance(effect, Log):
            assert effect.text.isprintable()
            assert len(effect.text) < 600
        elif isinstance(effect, Append):
            if effect.resume:
                self.failed = False
            if not self.failed:
                self.unsaved.append(effect.txn)
        elif isinstance(effect, NoteAgent):
            raise AssertionError("a core without a roster notes nobody")
        else:
            self.send(effect)

    def send(self, effect: Send) -> None:
        assert effect.after <= self.committed, effect
        frames = encode(effect.message, effect.session, effect.number)
        # Whatever leaves the broker is a message that its peers can take.
        message = decode(frames).message
        for peer in self.peers:
            if peer.connection == effect.peer:
                self.receive(peer, effect, message)

    def receive(self, peer: Peer, effect: Send, message: m.Message) -> None:
        if isinstance(message, m.Welcome):
            peer.session, peer.number, peer.received = effect.session, 0, 0
        if effect.session == peer.session != 0:
            peer.received += 1
            assert effect.number == peer.received
        if isinstance(message, m.Run):
            peer.held += [(item[0], item[1]) for item in message.items]
        elif isinstance(message, m.Terminal):
            for _, state, _, _ in message.items:
                assert 0 <= state <= m.TERMINAL_LOST

    def finish(self) -> None:
        """Nothing more is said: the core comes to rest, and its tables agree."""
        for wait_ms in (100, 1_000, 5_000, 100_000):
            self.commit(1_000)
            self.now_ns += wait_ms * MILLISECOND_NS
            self.step()


def actions_of(data: bytes) -> list[Any]:
    """The actions that an input stands for; the first item says whether there is a journal."""
    try:
        found = msgpack.unpackb(data, strict_map_key=False)
    except Exception:
        return []
    return found if isinstance(found, list) else []


def run(data: bytes) -> None:
    """A broker from its start, through all actions, to rest."""
    durable, *actions = actions_of(data) or [False]
    one = Run(durable is True)
    one.step()
    for action in actions[:_ACTIONS_MAX]:
        if isinstance(action, list):
            one.act(action)
    one.finish()


# --- Inputs ---------------------------------------------------------------------------------------

IDS: Final = [bytes([number]) * 16 for number in range(6)]
_NAMES: Final = ("f.a", "f.b", "~c")
_QUEUES: Final = ("default", "q")


def _hello(peer: int) -> list[Any]:
    role = "client" if peer < 2 else "agent"
    return [1, peer, [m.Hello.KIND, 1, 1, role, bytes([peer]) * 16, f"p{peer}", 0, bytes(16), {}]]


def _offer(peer: int, slots: int = 1, held: list[Any] | None = None) -> list[Any]:
    functions = [["f.a", None], ["f.b", None]]
    return [1, peer, [m.Offer.KIND, slots, False, ["default"], functions, held or []]]


def _shared_offer(peer: int, slots: int, at_once: int) -> list[Any]:
    _, _, fields = _offer(peer, slots)
    return [1, peer, [*fields[:-1], None, [], [["f.b", at_once]]]]


def _submit(peer: int, *ids: bytes, name: str = "f.a", options: Any = None) -> list[Any]:
    items = [[task_id, name, b"\x92\x90\xc0", options] for task_id in ids]
    return [1, peer, [m.Submit.KIND, items, False]]


def seeds() -> Iterator[bytes]:
    """A life of a broker in one go, with and without a journal, and its parts."""
    begin = [*map(_hello, range(PEERS)), _offer(2), _offer(3, 2)]
    work = [_submit(0, *IDS[:3]), _submit(1, IDS[3], name="~c"), [5, 9], [4, 2, 0, 0], [5, 9]]
    limits = ["default", 9, 1, 100, ["ValueError"], 2, 1_000, 5_000, 9_000, False]
    trouble = [
        _submit(0, IDS[4], options=limits),
        [5, 9],
        [4, 3, 1, 0],
        [4, 3, 2, 0],
        [1, 0, [m.Cancel.KIND, [[IDS[0], 0]]]],
        [3, 3],
        [2, 2_000],
        [6],
        [2, 5_000],
        _hello(0),
        [1, 0, [m.Ack.KIND, 9]],
        [1, 1, [m.Query.KIND, 1, "status", {}]],
        [1, 2, [m.Heartbeat.KIND, [[IDS[1], m.fence_of(5, 1), 5]], [{"pid": 1}]]],
        [1, 2, [m.Started.KIND, [[IDS[1], m.fence_of(5, 1)]]]],
        [1, 2, [m.Goodbye.KIND, "bye"]],
        [0, 1, [b"\xc1"]],
    ]
    for durable in (False, True):
        yield _packed([durable, *begin, *work])
        yield _packed([durable, *begin, *work, *trouble])
        yield _packed([durable, *trouble])
        shared = [*begin, _shared_offer(2, 1, 2), *(_submit(0, i, name="f.b") for i in IDS)]
        yield _packed([durable, *shared, [5, 9], _submit(1, IDS[3]), [4, 2, 0, 0], [5, 9]])


def _packed(actions: list[Any]) -> bytes:
    return bytes(msgpack.packb(actions))


def alter(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Take out, double, move, insert or change actions; or go on with those of another input."""
    durable, *actions = actions_of(data) or [False]
    for _ in range(rng.randrange(1, 4)):
        action = rng.randrange(8)
        place = rng.randrange(len(actions) + 1)
        if action == 0 and place < len(actions):
            del actions[place]
        elif action == 1 and place < len(actions):
            actions.insert(rng.randrange(len(actions) + 1), actions[place])
        elif action == 2:
            theirs = actions_of(other)[1:]
            actions[place:] = theirs[rng.randrange(len(theirs) + 1) :] if theirs else []
        elif action in (3, 4):
            actions.insert(place, _fresh(rng))
        elif place < len(actions):
            actions[place] = change(rng, actions[place], 1)
    if rng.random() < 0.02:
        durable = not durable
    try:
        return _packed([durable is True, *actions[:_ACTIONS_MAX]])
    except (OverflowError, ValueError):
        return data


def _fresh(rng: random.Random) -> list[Any]:
    """An action that means something."""
    peer, task_id, other = rng.randrange(PEERS), rng.choice(IDS), rng.choice(IDS)
    fence = m.fence_of(rng.choice((4, 5, 5, 6)), rng.randrange(4))
    limits: list[Any] = [
        rng.choice(_QUEUES),
        rng.randrange(10),
        rng.randrange(3),
        rng.choice((0, 100)),
        [],
        rng.randrange(1, 4),
        *(rng.choice((0, 0, 10, 5_000)) for _ in range(3)),
        rng.random() < 0.2,
    ]
    submit = [[i, rng.choice(_NAMES), b"x", rng.choice((None, limits))] for i in (task_id, other)]
    return rng.choice(
        (
            _hello(peer),
            [1, peer, [m.Submit.KIND, submit, rng.random() < 0.4]],
            _offer(peer, rng.randrange(3), [[task_id, fence]]),
            [1, peer, [m.Offer.KIND, rng.randrange(3), rng.random() < 0.3, ["q"], None, None]],
            _shared_offer(peer, rng.randrange(3), rng.choice((1, 2, 50))),
            [1, peer, [m.Cancel.KIND, [[task_id, 0]]]],
            [1, peer, [m.Ack.KIND, rng.randrange(20)]],
            [1, peer, [m.Result.KIND, [[task_id, fence, rng.randrange(6), b"\x91\x01", 5, None]]]],
            [1, peer, [m.Started.KIND, [[task_id, fence]]]],
            [1, peer, [m.Query.KIND, 7, *_question(rng, task_id)]],
            [1, peer, [m.Heartbeat.KIND, [], []]],
            [1, peer, [m.Goodbye.KIND, "x"]],
            [2, rng.choice((1, 100, 1_000, 2_000, 4_100, 70_000))],
            [3, peer],
            [4, peer, rng.randrange(6), rng.randrange(3)],
            [5, rng.choice((1, 9))],
            [6],
            [7, peer],
        )
    )


def _question(rng: random.Random, task_id: bytes) -> tuple[str, dict[str, Any]]:
    what = rng.choice(("status", "ls", "why", "fetch", "show", "call", "purge", "stack"))
    kind = rng.choice(("tasks", "hosts", "queues", "lost", "failed", "workers"))
    return what, {"kind": kind, "id": task_id.hex(), "worker": "p2/1"}


_FILES: Final = (
    *("core", "sessions", "lifecycle", "placing", "recovery", "watching", "lines", "tables"),
    *("outbox", "answers", "admission", "retention", "saving", "commits", "requests", "relay"),
    *("why", "restore", "quarantine", "manners", "rates", "logbook"),
)

TARGET: Final = Target(
    "core", run, seeds, alter, tuple(f"evener_broker/{name}.py" for name in _FILES)
)
