"""T17, T19, T20: more than anybody should send, well-formed, and peers that never read.

The bound is what is asserted, not the pace: what is beyond it is refused or dropped and counted,
and the broker's memory stays below its ceiling.
"""

from __future__ import annotations

import os
import struct
from typing import Any, Final

import msgpack

from evener_wire import messages as m
from evener_wire.codec import Envelope
from evener_wire.limits import (
    BATCH_ITEMS_MAX,
    BROKER_FUNCTIONS_MAX,
    BROKER_QUEUES_MAX,
    FUNCTIONS_MAX,
    MILLISECOND_NS,
    QUEUES_MAX,
)
from evener_wire.limits import DURATION_NS_MAX as DURATION_MAX
from tests.bad_inputs import zmtp
from tests.bad_inputs.attackers import Attacker
from tests.bad_inputs.live import Live
from tests.support import wait_until

CALL: Final = b"\x92\x90\xc0"
NOBODY: Final = m.Options(queue="nobody")


def _submit(peer: Attacker, count: int, payload: m.Payload = b"") -> None:
    for _ in range(0, count, BATCH_ITEMS_MAX):
        peer.say(
            m.Submit([(os.urandom(16), "b.echo", payload, NOBODY) for _ in range(BATCH_ITEMS_MAX)])
        )


# --- T17 ------------------------------------------------------------------------------------------


def test_t17_a_hundred_thousand_tasks_of_nothing(own: Live) -> None:
    """They wait, each costs less than a kilobyte, and others go on."""
    count = 49 * BATCH_ITEMS_MAX
    before = own.memory_mib()
    with own.attacked(sessions_opened=1) as attacker:
        peer = attacker()
        peer.hello()
        _submit(peer, count)
        peer.sync()
        assert own.status()["tasks"]["queued"] >= count
        assert own.memory_mib() - before < count / 1_024 + 60
        assert own.flow is not None
        own.flow.wait_for_more()
        # None of them is wanted any more, and their ends are taken.
        ended = 0
        while ended < count:
            peer.say(m.Query(1, "ls", {"kind": "tasks", "limit": 1_000, "state": "queued"}))
            body = peer.expect(m.Answer).body
            stream = body.buffers[0] if isinstance(body, m.Frames) else body
            rows = msgpack.unpackb(stream)["rows"]
            ids = [bytes.fromhex(row["id"]) for row in rows if row["queue"] == "nobody"]
            peer.say(m.Cancel([(task_id, 0) for task_id in ids]))
            taken = 0
            while taken < len(ids):
                taken += _acknowledge(peer, peer.hear())
            ended += taken
        peer.leave()


def _acknowledge(peer: Attacker, envelope: Envelope) -> int:
    """Take the ends in a message, if it has some; how many there were."""
    if not isinstance(envelope.message, m.Terminal):
        return 0
    peer.say(m.Ack(envelope.number))
    return len(envelope.message.items)


def test_t17_cancels_of_nothing(live: Live) -> None:
    batches = 50
    with live.attacked(sessions_opened=1, cancels_stale=batches * BATCH_ITEMS_MAX) as attacker:
        peer = attacker()
        peer.hello()
        for _ in range(batches):
            peer.say(m.Cancel([(os.urandom(16), 0)] * BATCH_ITEMS_MAX))
        peer.sync()
        peer.leave()


def test_t17_questions_whose_answers_nobody_reads(live: Live) -> None:
    """Answers wait for their reader up to a bound; then its session ends.

    Where the broker is busy it takes the many questions themselves for a flood.
    """
    maybe = ("messages_unknown_peer", "questions_refused", "floods", "messages_quarantined")
    with (
        live.attacked(*maybe, "resyncs_withheld", sessions_opened=1),
        zmtp.connect(live.port) as made,
    ):
        # Nothing is read here but what greets, and the number of the session.
        zmtp.greet(made)
        made.sendall(zmtp.message(zmtp.hello()))
        session = _session_of(made.recv(4_096))
        for number in range(1, 20_001):
            query = m.Query(number, "ls", {"kind": "hosts"})
            zmtp.try_send(made, zmtp.message(query, session, number))
            if number % 1_000 == 0 and live.state()["sessions"] == 2:
                break
        wait_until(lambda: live.status()["broker"]["sessions"] >= 2, 10, "an answer to others")


def _session_of(stream: bytes) -> int:
    """The number of the session, out of a WELCOME as it came."""
    place = stream.index(b"\x02\xcf") + 2
    return int(struct.unpack(">Q", stream[place : place + 8])[0])


def test_t17_limits_that_nobody_can_mean(live: Live) -> None:
    """A deadline in the past, one beyond a hundred years, priorities out of the world."""
    ms = DURATION_MAX // MILLISECOND_NS
    wrong: list[list[Any]] = [
        *[["q", n] for n in (-1, 10, (1 << 63) - 1, -(1 << 63))],
        *[["q", 5, n] for n in (-1, 1_001)],
        *[["q", 5, 0, n] for n in (-1, ms + 1)],
        *[["q", 5, 0, 100, [], n] for n in (0, 1_001)],
        *[["q", 5, 0, 100, [], 3, 0, 0, n] for n in (-1, ms + 1, 1 << 63)],
        ["q", 5, 0, 100, ["x"] * 33],
        ["q", 5, 0, 100, ["x" * 257]],
    ]
    count = len(wrong)
    with live.attacked(
        sessions_opened=count, messages_malformed=count, violations=count
    ) as attacker:
        for options in wrong:
            peer = attacker()
            peer.hello()
            item = [bytes(16), "b.echo", CALL, options]
            peer.frames(msgpack.packb([m.Submit.KIND, peer.session, 1, [item], False]))
            assert peer.expect(m.Refused).code == "violation"


# --- T19 ------------------------------------------------------------------------------------------


def test_t19_connections_that_come_and_go_with_another_instance_each(live: Live) -> None:
    """Each leaves a HELLO and messages behind; the tables are as before when they are over."""
    before = live.memory_mib()
    maybe = ("sessions_opened", "messages_unknown_peer", "messages_out_of_step")
    with live.attacked(*maybe, "sessions_out_of_step", "resyncs_withheld"):
        for _ in range(500):
            with zmtp.connect(live.port) as made:
                zmtp.greet(made)
                hello = zmtp.message(zmtp.hello(instance=os.urandom(16)))
                made.sendall(hello + zmtp.message(m.Cancel([(bytes(16), 0)]), 1, 1) * 100)
        assert live.flow is not None
        live.flow.wait_for_more()
    assert live.memory_mib() < before + 100


# --- T20 ------------------------------------------------------------------------------------------


def test_t20_registrations_one_after_the_other_on_one_connection(live: Live) -> None:
    """Each takes the place of the one before, which is forgotten when its grace is over."""
    count = 3_000
    before = live.counters()
    with live.attacked("sessions_opened", "agents_lost") as attacker:
        peer = attacker()
        for number in range(count):
            instance = number.to_bytes(16, "big")
            peer.outside(m.Hello(1, 1, "agent", instance, f"a{number}", 0, bytes(16), {}))
        answers = 0
        while answers < count:
            answers += isinstance(peer.hear().message, m.Welcome | m.Refused)
        assert live.status()["broker"]["sessions"] <= 3
    grown = live.counters() - before
    assert 0 < grown["sessions_opened"] == grown["agents_lost"] <= count


def test_t20_names_that_differ_by_one_byte(own: Live) -> None:
    """Offers fill the tables of names to their bound, and no further; then the agent is gone."""
    offers = BROKER_FUNCTIONS_MAX // FUNCTIONS_MAX + 2
    known = len(own.client.query("ls", kind="functions", limit=1_000)["rows"])
    queues = len(own.status()["queues"])
    left_out = offers * FUNCTIONS_MAX + known - BROKER_FUNCTIONS_MAX
    left_out += max(0, offers * QUEUES_MAX + queues - BROKER_QUEUES_MAX)
    with own.attacked(
        sessions_opened=offers, agents_lost=offers, names_left_out=left_out
    ) as attacker:
        for number in range(offers):
            agent = attacker()
            agent.hello("agent")
            functions = [(f"f{number:03}{n:05}", None) for n in range(FUNCTIONS_MAX)]
            names = [f"q{number:03}{n:03}" for n in range(QUEUES_MAX)]
            agent.say(m.Offer(1, False, names, functions, ()))
        wait_until(
            lambda: own.counters()["names_left_out"] == left_out, 20, "all offers to be taken"
        )
        totals = own.client.query("ls", kind="functions", limit=1)["total"]
        assert totals == BROKER_FUNCTIONS_MAX
        assert own.client.query("ls", kind="queues", limit=1)["total"] <= BROKER_QUEUES_MAX
        for agent in attacker.made:
            agent.leave()
