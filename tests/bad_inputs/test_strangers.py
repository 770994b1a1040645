"""T1, T2, T5, T27: who reaches the port and speaks no evener, or no ZeroMQ, or nothing at all.

Without keys libzmq lets everybody in who greets it properly. What these tests hold: such peers cost
a descriptor for a while and nothing else; no session, no task, no answer to wait for.
"""

from __future__ import annotations

import random
import socket
import struct
from typing import Final

import pytest

from evener_wire import messages as m
from evener_wire.limits import PROTOCOL_ERRORS_MAX
from tests.bad_inputs import zmtp
from tests.bad_inputs.live import Live
from tests.support import wait_until

# Bytes that other programs send when they take the port for their own.
GREETINGS: Final = {
    "nothing": b"",
    "one byte": b"\xff",
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(507),
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "zmtp 1": b"\x01\x00",
    "zmtp 2": zmtp.SIGNATURE + b"\x01\x05\x00\x00",
    "zmtp 3 with another mechanism": (
        zmtp.SIGNATURE + b"\x03\x00" + b"PLAIN".ljust(20, b"\0") + bytes(32)
    ),
    "zmtp 3 with a mechanism that is none": zmtp.SIGNATURE + b"\x03\x00" + b"\xff" * 52,
    "zmtp 9": zmtp.SIGNATURE + b"\x09\x09" + b"NULL".ljust(20, b"\0") + bytes(32),
    "greeting, then garbage": zmtp.GREETING + b"\xee" * 200,
    "greeting, then a message without READY": zmtp.GREETING + zmtp.message(zmtp.hello()),
    "ready of a publisher": zmtp.GREETING + zmtp.ready({b"Socket-Type": b"PUB"}),
    "ready without a type": zmtp.GREETING + zmtp.frame(b"\x05READY", zmtp.COMMAND),
    "ready that declares 4 GiB": (
        zmtp.GREETING
        + zmtp.frame(b"\x05READY\x0bSocket-Type" + b"\xff\xff\xff\xff" + b"DEALER", zmtp.COMMAND)
    ),
    "command of 2^63 bytes": zmtp.GREETING + b"\x06" + struct.pack(">Q", 1 << 63),
    "error command": zmtp.GREETING + zmtp.frame(b"\x05ERROR\x03no!", zmtp.COMMAND),
}


@pytest.mark.parametrize("name", GREETINGS)
def test_t1_other_protocols_make_no_event(live: Live, name: str) -> None:
    with live.attacked():
        for _ in range(5):
            zmtp.send_and_leave(live.port, GREETINGS[name])


def test_t1_every_truncation_of_a_valid_greeting_makes_no_event(live: Live) -> None:
    whole = zmtp.GREETING + zmtp.ready()
    with live.attacked():
        for length in range(len(whole) + 1):
            zmtp.send_and_leave(live.port, whole[:length])


def test_t1_random_bytes_make_no_session(live: Live) -> None:
    """What begins by chance like a frame of ZMTP 1 is taken for one; it is malformed at most."""
    rng = random.Random(4)
    before, began = live.counters(), live.state()["sessions"]
    for _ in range(200):
        zmtp.send_and_leave(live.port, rng.randbytes(rng.randrange(1, 600)))
    grown = live.counters() - before
    assert grown.keys() <= {"messages_malformed", "messages_quarantined", "quarantines"}
    assert live.state()["sessions"] == began


def test_t1_a_long_http_request_is_malformed_at_most(live: Live) -> None:
    """libzmq takes it for ZMTP 1: its first byte is the length of a frame, and so on."""
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Filler: 0123456789\r\n" * 200
    before = live.counters()
    with zmtp.connect(live.port) as made:
        made.sendall(request)
        wait_until(lambda: (live.counters() - before)["messages_malformed"], 10, "the counter")
    grown = live.counters() - before
    assert grown.keys() <= {"messages_malformed", "messages_quarantined", "quarantines"}
    assert grown["messages_malformed"] <= PROTOCOL_ERRORS_MAX + 1


def test_t2_who_does_not_finish_the_handshake_is_closed(live: Live) -> None:
    """HANDSHAKE_IVL: silent ones, slow ones, and those that stop after the greeting."""
    descriptors = live.descriptors()
    whole = zmtp.GREETING + zmtp.ready()
    begun = [0, 1, len(zmtp.SIGNATURE), len(zmtp.GREETING) - 1, len(zmtp.GREETING), len(whole) - 1]
    with live.attacked():
        made: list[socket.socket] = []
        try:
            for number in range(300):
                connection = zmtp.connect(live.port)
                made.append(connection)
                connection.sendall(whole[: begun[number % len(begun)]])
            wait_until(lambda: live.descriptors() >= descriptors + 290, 10, "the connections")
            assert live.flow is not None
            live.flow.wait_for_more()
            slow = [zmtp.connect(live.port) for _ in range(20)]
            made += slow
            open_ones, sent = list(made), 0

            def all_closed() -> bool:
                nonlocal sent
                for connection in list(open_ones):
                    if zmtp.is_closed(connection):
                        open_ones.remove(connection)
                # Some send what they should, and never come to its end.
                for connection in slow:
                    if connection in open_ones and sent < len(whole) - 1:
                        zmtp.try_send(connection, whole[sent : sent + 1])
                sent += 1
                return not open_ones

            wait_until(all_closed, 20, "the broker to close them")
        finally:
            for connection in made:
                connection.close()
        wait_until(lambda: live.descriptors() <= descriptors + 2, 10, "descriptors to be free")


def test_t2_hello_then_silence_ends_the_session(live: Live) -> None:
    with live.attacked(sessions_opened=3, sessions_silent=3) as attacker:
        for _ in range(3):
            attacker().hello()


def test_t2_ready_then_silence_is_a_descriptor_and_nothing_more(live: Live) -> None:
    with live.attacked():
        made = [zmtp.connect(live.port) for _ in range(100)]
        for connection in made:
            connection.sendall(zmtp.GREETING + zmtp.ready())
        assert live.flow is not None
        live.flow.wait_for_more()
        for connection in made:
            connection.close()


def test_t5_a_stream_cut_at_every_byte(live: Live) -> None:
    """Only whole messages count, and each of them once, whatever begins after them.

    How a greeting is cut is in T1.
    """
    said = [zmtp.hello(), zmtp.hello(instance=b"cut".ljust(16, b"-"))]
    whole = b"".join(map(zmtp.message, said))
    ends = [len(whole) - len(zmtp.message(said[1])), len(whole)]
    opened = sum(length >= end for length in range(len(whole) + 1) for end in ends)
    with live.attacked(sessions_opened=opened):
        before, expected = live.counters(), 0
        for length in range(len(whole) + 1):
            expected += sum(length >= end for end in ends)
            with zmtp.connect(live.port) as made:
                zmtp.greet(made)
                made.sendall(whole[:length])
                # libzmq drops what it did not hand over when a connection ends, so wait for that.
                wait_until(
                    lambda n=expected: (live.counters() - before)["sessions_opened"] == n,  # type: ignore[misc]
                    10,
                    "the sessions",
                )


def test_t5_what_follows_a_session_on_another_connection_is_nobodys(live: Live) -> None:
    """The newest HELLO of an instance has the session; what the older connection says is void."""
    counted = {"sessions_opened": 2, "messages_unknown_peer": 2}
    with live.attacked("resyncs_withheld", **counted) as attacker:
        first, second = attacker(), attacker()
        second.instance = first.instance
        first.hello()
        second.hello()
        first.say(m.Cancel([(bytes(16), 0)]), m.Heartbeat())
        assert first.expect(m.Resync).reason == "unknown session"
        second.sync()
        second.leave()


def test_t5_messages_of_a_session_replayed_in_it_and_beside_it(live: Live) -> None:
    counted = {"sessions_opened": 1, "messages_repeated": 20, "cancels_stale": 1}
    with live.attacked("resyncs_withheld", messages_unknown_peer=20, **counted) as attacker:
        victim, thief = attacker(), attacker()
        victim.hello()
        victim.say(m.Cancel([(bytes(16), 0)]))
        for _ in range(20):
            victim.outside(m.Cancel([(bytes(16), 0)]), victim.session, 1)
            thief.outside(m.Cancel([(bytes(16), 0)]), victim.session, 2)
        thief.expect(m.Resync)
        victim.sync()
        victim.leave()


def test_t5_messages_out_of_order_end_the_session(live: Live) -> None:
    with live.attacked(
        sessions_opened=1,
        messages_out_of_step=1,
        sessions_out_of_step=1,
        messages_unknown_peer=1,
    ) as attacker:
        peer = attacker()
        peer.hello()
        peer.outside(m.Heartbeat(), peer.session, 2)
        peer.outside(m.Heartbeat(), peer.session, 1)
        assert peer.expect(m.Resync).reason == "out of step"
