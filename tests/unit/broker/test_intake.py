"""What a turn takes in, and in which order, when thousands of messages of one peer wait.

The sockets are real and within the process, so that all messages lie there before the first turn;
the clock is scripted: a message takes as long as the test says.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import zmq

from evener_broker.core import BrokerCore
from evener_broker.events import Event, Flooding, Malformed, Received
from evener_broker.intake import Intake
from evener_wire import codec
from evener_wire import messages as m
from evener_wire.limits import FRAMES_MAX, MILLISECOND_NS, PUT_OFF_MAX, TURN_MESSAGES_MAX

FLOOD, GOOD = b"flood", b"good"


class Bench:
    """A ROUTER with peers that send whatever they like; no core handles it."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.RCVHWM, 0)
        self.router.bind("inproc://broker")
        self.core = BrokerCore(bytes(16), 1, random.Random(1))
        self.now_ns = 10**12
        self.intake = Intake(self.core, self.router, lambda: self.now_ns)
        self.peers = {name: self._peer(name) for name in (FLOOD, GOOD)}
        self.took_ms = {FLOOD: 1.0, GOOD: 0.1}

    def _peer(self, name: bytes) -> zmq.Socket[bytes]:
        peer = self.context.socket(zmq.DEALER)
        peer.setsockopt(zmq.ROUTING_ID, name)
        peer.setsockopt(zmq.SNDHWM, 0)
        peer.connect("inproc://broker")
        return peer

    def send(self, name: bytes, first: int, count: int = 1) -> None:
        """Messages of this peer, numbered."""
        for number in range(first, first + count):
            self.peers[name].send_multipart(codec.encode(m.Ack(number), 1, number))

    def turn(self) -> list[tuple[bytes, int] | Event]:
        """What is handled in one turn: who sent it, and its number."""
        self.intake.look()
        handled: list[tuple[bytes, int] | Event] = []
        for event in self.intake.take():
            if isinstance(event, Received):
                handled.append((event.peer, event.envelope.number))
                self.now_ns += int(self.took_ms[event.peer] * MILLISECOND_NS)
            else:
                handled.append(event)
        self.intake.settle()
        return handled

    def overdraw(self) -> int:
        """Have the flooder use up its share, while the other wants something; returns how many."""
        number = 0
        while True:
            number += 1
            self.send(FLOOD, number)
            self.send(GOOD, number)
            if (FLOOD, number) not in self.turn():
                return number

    def close(self) -> None:
        for socket in (self.router, *self.peers.values()):
            socket.close(0)
        self.context.term()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_a_single_message_is_second_behind_ten_thousand(bench: Bench) -> None:
    bench.send(FLOOD, 1, 10_000)
    bench.send(GOOD, 1)
    assert (GOOD, 1) in bench.turn()[:2]


def test_a_turn_of_cheap_messages_ends_after_so_many(bench: Bench) -> None:
    bench.took_ms[FLOOD] = 0
    bench.send(FLOOD, 1, 10_000)
    assert bench.turn() == [(FLOOD, n) for n in range(1, TURN_MESSAGES_MAX + 1)]


def test_a_turn_of_dear_messages_ends_early_when_others_wait_for_answers(bench: Bench) -> None:
    bench.took_ms = {FLOOD: 0.3, GOOD: 0.3}
    for name in (FLOOD, GOOD):
        bench.send(name, 1, 1_000)
    bench.turn()
    handled = bench.turn()
    assert len(handled) == 4, "a millisecond"
    assert {item[0] for item in handled if isinstance(item, tuple)} == {FLOOD, GOOD}


def test_each_message_of_others_goes_before_what_is_put_off(bench: Bench) -> None:
    first = bench.overdraw()
    bench.send(FLOOD, first + 1, 5_000)
    behind = 0
    for number in range(1_000, 1_100):
        bench.send(GOOD, number)
        turns = 1
        while (GOOD, number) not in (handled := bench.turn()):
            behind += len(handled)
            turns += 1
        assert turns <= 2
        assert handled[0] == (GOOD, number)
    # 100 messages of 0.1 ms leave a third of the time to the others, one of 1 ms in each turn.
    assert behind <= 5


def test_whoever_is_put_off_is_handled_in_its_order_and_to_the_last(bench: Bench) -> None:
    first = bench.overdraw()
    bench.send(FLOOD, first + 1, 200)
    handled: list[tuple[bytes, int] | Event] = []
    while len(handled) < 201:
        handled += bench.turn()
        bench.now_ns += MILLISECOND_NS
    assert handled == [(FLOOD, number) for number in range(first, first + 201)]


def test_its_answers_leave_before_anything_that_was_put_off(bench: Bench) -> None:
    """A turn in which others were handled ends with them; the next one is for who waits."""
    first = bench.overdraw()
    bench.send(FLOOD, first + 1, 10)
    bench.now_ns += 10 * MILLISECOND_NS
    bench.send(GOOD, 1_000)
    assert bench.turn() == [(GOOD, 1_000)]
    assert bench.turn()[0] == (FLOOD, first)


def test_who_lets_thousands_wait_and_goes_on_is_reported_and_not_read_any_more(
    bench: Bench,
) -> None:
    first = bench.overdraw()
    bench.took_ms[GOOD] = 0.001
    bench.send(FLOOD, first + 1, PUT_OFF_MAX + 100)
    told: list[Event] = []
    number = 1_000
    while Flooding(FLOOD) not in told:
        number += 1
        bench.send(GOOD, number)
        handled = bench.turn()
        assert (GOOD, number) in handled
        told += [item for item in handled if isinstance(item, Flooding)]
    bench.core.step(bench.now_ns, told)
    assert FLOOD in bench.core.quarantined
    assert bench.core.tables.counters["floods"] == 1
    bench.send(FLOOD, 1, 100)
    bench.send(GOOD, 1)
    seen: list[tuple[bytes, int] | Event] = []
    while bench.intake.more:
        seen += bench.turn()
    assert (GOOD, 1) in seen[:17]
    assert set(seen) == {(GOOD, 1), Malformed(FLOOD, "not read")}


def test_nothing_is_to_be_taken_in_when_all_that_came_is_passed_over(bench: Bench) -> None:
    bench.core.quarantined[FLOOD] = bench.now_ns
    bench.send(FLOOD, 1, 20)
    assert not bench.intake.look()
    assert bench.intake.passed_over == 16
    assert not bench.intake.look()
    assert bench.intake.passed_over == 4
    assert bench.turn() == [Malformed(FLOOD, "not read")] * 20
    bench.send(GOOD, 1)
    assert bench.intake.look()


def test_what_is_no_message_is_told_to_the_core(bench: Bench) -> None:
    bench.peers[GOOD].send(b"?")
    bench.peers[GOOD].send_multipart([b"x"] * (FRAMES_MAX + 1))
    bench.send(GOOD, 7)
    seen: list[tuple[bytes, int] | Event] = []
    for _ in range(4):
        seen += bench.turn()
    assert [type(item) for item in seen] == [Malformed, Malformed, tuple]
    assert (GOOD, 7) in seen
