"""The peers of a small world: clients and agents without sockets, that say what a test wants."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import TYPE_CHECKING, Any, Final, TypeVar

from evener_broker.effects import Send
from evener_broker.events import Malformed, PeerGone, Received
from evener_broker.records import Agent as AgentRecord
from evener_wire import messages as m
from evener_wire.codec import Envelope
from evener_wire.limits import HEARTBEAT_NS
from evener_wire.session import Sequence, Verdict

if TYPE_CHECKING:
    from tests.unit.broker.world import World

CALL: Final = b"\x92\x90\xc0"
VALUE: Final = b"\x91\x03"

Told = list[tuple["Peer", m.Message]]
RunItem = tuple[bytes, int, str, m.Payload, int, int]
M = TypeVar("M", bound=m.Message)


def task_id(number: int) -> bytes:
    """The id of the n-th task of a test."""
    return number.to_bytes(16, "big")


def options(**chosen: Any) -> m.Options:
    """Options that differ from the defaults in what is named."""
    return m.Options(**chosen)


class Peer:
    """What clients and agents have in common: a connection, a session, and what they were told."""

    role: m.Role

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.instance = name.encode().ljust(16, b"-")[:16]
        self.connection = world.new_connection()
        self.sequence: Sequence | None = None
        self.epoch = 0  # of the last broker it knows
        self.broker = bytes(16)  # and its id
        self.inbox: list[m.Message] = []
        self.beat_ns = 0
        world.peers.append(self)

    def __repr__(self) -> str:
        return self.name

    def envelope(self, message: m.Message) -> Received:
        """The event that this message makes at the broker, with the next number."""
        assert self.sequence is not None, f"{self.name} has no session"
        number = self.sequence.next_number()
        return Received(self.connection, Envelope(self.sequence.session, number, message))

    def say(self, *said: m.Message) -> Told:
        """Send messages; the broker takes them in one step."""
        return self.world.turn(*map(self.envelope, said))

    def hello_event(self, versions: tuple[int, int] = (1, 1)) -> Received:
        """HELLO as an event."""
        hello = m.Hello(
            *versions, self.role, self.instance, self.name, self.epoch, self.broker, {"pid": 7}
        )
        return Received(self.connection, Envelope(0, 0, hello))

    def hello(self) -> Told:
        """Ask for a session on the present connection."""
        self.beat_ns = self.world.now_ns + HEARTBEAT_NS
        return self.world.turn(self.hello_event())

    def vanish(self) -> Told:
        """The connection breaks, and the broker notices at its next send."""
        self.sequence = None
        return self.world.turn(PeerGone(self.connection))

    def move(self) -> None:
        """A new connection, without a session yet; the broker knows nothing of it."""
        self.connection = self.world.new_connection()
        self.sequence = None

    def garble(self) -> Told:
        """Bytes that are no message."""
        return self.world.turn(Malformed(self.connection, "head is not msgpack"))

    def heartbeat(self) -> m.Heartbeat:
        """What this peer says when it has nothing to say."""
        return m.Heartbeat()

    def receive(self, effect: Send) -> None:
        """One message from the broker: it fits the session's numbering, and is kept."""
        if type(effect.message) is m.Welcome:
            self.sequence = Sequence(effect.session)
        if effect.session == 0:
            assert effect.number == 0
            message = effect.message
            put_off = type(message) is m.Refused and message.code == "retry_after"
            if type(message) in (m.Resync, m.Refused) and not put_off:
                self.sequence = None
        elif self.sequence is not None:
            assert self.sequence.judge(effect.session, effect.number) is Verdict.TAKE
        if type(effect.message) is m.Welcome:
            self.epoch, self.broker = effect.message.epoch, effect.message.broker
        self.inbox.append(effect.message)

    def got(self, kind: type[M]) -> list[M]:
        """The messages of one kind that came since the last look; all others are dropped."""
        inbox, self.inbox = self.inbox, []
        return [message for message in inbox if type(message) is kind]


class Client(Peer):
    """A program that submits tasks."""

    role: m.Role = "client"

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        # How each task ended. Repeats must say the same (I1, I2).
        self.ends: dict[bytes, tuple[bytes, int, m.Payload, m.Facts | None]] = {}
        self.last_terminal = 0

    def submit(
        self,
        *numbers: int,
        function: str = "demo.add",
        payload: m.Payload = CALL,
        again: bool = False,
        **chosen: Any,
    ) -> Told:
        """Submit tasks in one message, all alike."""
        wanted = options(**chosen) if chosen else None
        items = [(task_id(number), function, payload, wanted) for number in numbers]
        return self.say(m.Submit(items, again))

    def cancel(self, *numbers: int) -> Told:
        """Cancel tasks."""
        return self.say(m.Cancel([(task_id(number), 0) for number in numbers]))

    def acknowledge(self) -> Told:
        """Say that all ends told so far are taken."""
        return self.say(m.Ack(self.last_terminal))

    def receive(self, effect: Send) -> None:
        super().receive(effect)
        if type(effect.message) is m.Terminal:
            self.last_terminal = effect.number
            for item in effect.message.items:
                assert self.ends.setdefault(item[0], item) == item, "an end changed (I1, I2)"

    def end(self, number: int) -> str:
        """How a task ended, as a word, or "open"."""
        item = self.ends.get(task_id(number))
        return "open" if item is None else m.TERMINAL_STATES[item[1]]

    def facts(self, number: int) -> dict[str, Any]:
        """The facts of a task's end."""
        return dict(self.ends[task_id(number)][3] or {})


class Agent(Peer):
    """The agent of a host. It runs nothing: each test says how attempts end."""

    role: m.Role = "agent"

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.slots = 1
        self.queues: tuple[str, ...] = ("default",)
        self.functions: list[tuple[str, m.Options | None]] = []
        self.schedules: tuple[m.Schedule, ...] = ()
        self.shares: tuple[tuple[str, int], ...] = ()
        # Attempts in hand, in the order in which they came.
        self.hand: dict[bytes, RunItem] = {}

    @property
    def record(self) -> AgentRecord:
        """What the broker knows of it."""
        return self.world.core.tables.agents[self.instance]

    def offer(
        self,
        *,
        held: Items[tuple[bytes, int]] | None = None,
        slots: int | None = None,
        draining: bool = False,
    ) -> Told:
        """Say what its workers can do; `held` only in the first OFFER of a session."""
        self.slots = self.slots if slots is None else slots
        functions = self.functions if held is not None else None
        schedules = self.schedules if held is not None else ()
        shares = self.shares if held is not None else ()
        queues = self.queues
        return self.say(m.Offer(self.slots, draining, queues, functions, held, schedules, shares))

    def held(self) -> list[tuple[bytes, int]]:
        """What it would report: every attempt in hand."""
        return [(item[0], item[1]) for item in self.hand.values()]

    def come_back(self) -> Told:
        """A new connection, HELLO, and the inventory."""
        self.move()
        return self.hello() + self.offer(held=self.held())

    def numbers(self) -> list[int]:
        """Which tasks it has in hand."""
        return [int.from_bytes(subject, "big") for subject in self.hand]

    def fence(self, number: int) -> int:
        """The fence of the attempt in hand."""
        return self.hand[task_id(number)][1]

    def result(
        self,
        number: int,
        outcome: int = m.DONE,
        payload: m.Payload = b"",
        run_us: int = 100,
        facts: m.Facts | None = None,
    ) -> m.Result:
        """The RESULT of an attempt in hand, which it lets go of."""
        subject, fence = self.hand.pop(task_id(number))[:2]
        return m.Result([(subject, fence, outcome, payload, run_us, facts)])

    def done(self, *numbers: int, run_us: int = 100) -> Told:
        """Attempts return a value, all in one message."""
        items = [self.result(n, payload=VALUE, run_us=run_us).items[0] for n in numbers]
        return self.say(m.Result(items))

    def ends(self, number: int, outcome: int, facts: m.Facts | None = None) -> Told:
        """An attempt ends in another way."""
        return self.say(self.result(number, outcome, facts=facts))

    def starts(self, *numbers: int) -> Told:
        """Say that attempts run."""
        return self.say(m.Started([(task_id(n), self.fence(n)) for n in numbers]))

    def receive(self, effect: Send) -> None:
        super().receive(effect)
        if type(effect.message) is m.Run:
            for item in effect.message.items:
                self.hand[item[0]] = item
