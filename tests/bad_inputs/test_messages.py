"""T6, T7, T9: frames and heads that are no message, and messages at the wrong place.

Each is refused as a whole and counted once; a connection that goes on is not read for a while, so
that every attacker here sends no more than it may, but where that is the point.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import msgpack
import pytest

from evener_wire import messages as m
from evener_wire.codec import encode
from evener_wire.limits import FRAME_BYTES_MAX, FRAMES_MAX, HEAD_BYTES_MAX, PROTOCOL_ERRORS_MAX
from tests.bad_inputs import zmtp
from tests.bad_inputs.attackers import AttackerMaker
from tests.bad_inputs.live import Live
from tests.support import wait_until
from tests.unit.test_codec_hostile import AHEAD, HOSTILE
from tests.wire_samples import SAMPLES


def send_all(maker: AttackerMaker, inputs: Sequence[Sequence[m.Buffer]]) -> None:
    """Send each of these messages, from as many connections as it takes to be read."""
    for start in range(0, len(inputs), PROTOCOL_ERRORS_MAX):
        attacker = maker()
        for frames in inputs[start : start + PROTOCOL_ERRORS_MAX]:
            attacker.frames(*frames)


# --- T6: frames -----------------------------------------------------------------------------------

HEARTBEAT: Final = bytes(encode(m.Heartbeat())[0])


def test_t6_numbers_of_frames(live: Live) -> None:
    """None, one, some, the most, one more, and far more than a message has."""
    inputs: list[list[m.Buffer]] = [
        [b""],
        [b"", b""],
        [b""] * 9,
        [HEARTBEAT, b"x"],
        [HEARTBEAT] * 9,
        [HEARTBEAT, *[b""] * (FRAMES_MAX - 1)],
        [HEARTBEAT, *[b""] * FRAMES_MAX],
    ]
    with live.attacked(messages_malformed=len(inputs)) as attacker:
        send_all(attacker, inputs)


def test_t6_a_message_of_far_too_many_frames(live: Live) -> None:
    """It is passed over in parts, so that others have their turn in between."""
    with live.attacked(messages_malformed=1), zmtp.connect(live.port, 30) as made:
        zmtp.greet(made)
        made.sendall(zmtp.frame(HEARTBEAT, zmtp.MORE))
        for _ in range(100):
            made.sendall(zmtp.frame(b"x", zmtp.MORE) * 3_000)
        made.sendall(zmtp.frame(b"the last"))
        wait_until(lambda: live.counters()["messages_malformed"], 20, "the message")


def _padded_hello(instance: bytes, size: int) -> bytes:
    """HELLO with a head of exactly this size."""

    def head(pad: int) -> bytes:
        facts = {"pad": "x" * pad}
        return bytes(encode(m.Hello(1, 1, "client", instance, "padded", 0, bytes(16), facts))[0])

    around = len(head(100_000)) - 100_000
    return head(size - around)


def test_t6_a_head_at_its_limit_and_beyond(live: Live) -> None:
    with live.attacked(sessions_opened=2, messages_malformed=2) as attacker:
        for size in (HEAD_BYTES_MAX - 1, HEAD_BYTES_MAX):
            peer = attacker()
            peer.frames(_padded_hello(peer.instance, size))
            peer.expect(m.Welcome)
        hosts = [row["facts"] for row in live.status()["clients"] if row["name"] == "padded"]
        assert hosts == [{}, {}], "what is too long is not kept"
        for size in (HEAD_BYTES_MAX + 1, 8 * HEAD_BYTES_MAX):
            peer = attacker()
            peer.frames(_padded_hello(peer.instance, size))


def test_t6_a_frame_above_the_limit_ends_the_connection(live: Live) -> None:
    """libzmq looks at the length before it takes memory, and below the limit takes none at once."""
    before = live.memory_mib()
    with live.attacked():
        with zmtp.connect(live.port) as made:
            zmtp.greet(made)
            made.sendall(b"\x02" + struct.pack(">Q", FRAME_BYTES_MAX + 1) + b"x" * 100)
            wait_until(lambda: zmtp.is_closed(made), 10, "the broker to end the connection")
        waiting = [zmtp.connect(live.port) for _ in range(20)]
        for connection in waiting:
            zmtp.greet(connection)
            connection.sendall(b"\x02" + struct.pack(">Q", FRAME_BYTES_MAX) + b"x" * 1_000)
        assert live.flow is not None
        live.flow.wait_for_more()
        assert live.memory_mib() < before + 50
        for connection in waiting:
            connection.close()


# --- T7: msgpack ----------------------------------------------------------------------------------


def _odd_heads() -> list[list[m.Buffer]]:
    heads = [
        AHEAD[place] + HOSTILE[name] + rest
        for place in AHEAD
        for name in HOSTILE
        for rest in (b"", b"\xc0" * 8)
        if (place, name) != ("ignored", "bytes as key")
    ]
    return [[head] for head in heads]


def test_t7_hostile_values_wherever_they_stand(live: Live) -> None:
    inputs = _odd_heads()
    with live.attacked(messages_malformed=len(inputs)) as attacker:
        send_all(attacker, inputs)


def _nested(kind: bytes, depth: int) -> list[m.Buffer]:
    return [b"\x95\x10\x01\x01" + kind * depth + b"\xc0\xc2"]


def test_t7_depth_and_breadth(live: Live) -> None:
    """A million empty things in a megabyte, and depths around every limit there is."""
    depths = (8, 9, 1_023, 1_024, 1_025, 100_000)
    inputs = [_nested(kind, depth) for depth in depths for kind in (b"\x91", b"\x81\xa0")]
    million = HEAD_BYTES_MAX - 64
    for empty in (b"\x90", b"\x80", b"\xc0", b"\xa0"):
        inputs.append([b"\x95\x10\x01\x01\xdd" + struct.pack(">I", million) + empty * million])
        inputs.append([b"\x95\x07\x01\x01\x01\xdd" + struct.pack(">I", million) + empty * million])
    for many in (b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdf\xff\xff\xff\xff"):
        inputs.append([b"\x95\x10\x01\x01" + many * 1_000])
        inputs.append([many * 200_000])
    before = live.memory_mib("VmHWM")
    with live.attacked(messages_malformed=len(inputs)) as attacker:
        send_all(attacker, inputs)
    assert live.memory_mib("VmHWM") < before + 100


NUMBERS: Final[dict[str, Any]] = {
    "2^64 - 1": (1 << 64) - 1,
    "2^63": 1 << 63,
    "-1": -1,
    "-2^63": -(1 << 63),
    "1.0": 1.0,
    "nan": float("nan"),
    "infinite": float("inf"),
    "true": True,
    "text": "1",
    "nil": None,
}


def test_t7_what_stands_for_a_number_and_is_none(live: Live) -> None:
    """In the head, in fields, in facts: each is refused, none is taken for a number."""
    inputs: list[list[m.Buffer]] = []
    for value in NUMBERS.values():
        inputs.append([msgpack.packb([m.Ack.KIND, value, 1, 1])])
        inputs.append([msgpack.packb([m.Ack.KIND, 1, value, 1])])
        inputs.append([msgpack.packb([m.Ack.KIND, 1, 1, value])])
        inputs.append([msgpack.packb([value, 1, 1, 1])])
        inputs.append([msgpack.packb([m.Offer.KIND, 1, 1, value, False, [], None, None])])
        inputs.append([msgpack.packb([m.Cancel.KIND, 1, 1, [[bytes(16), value]]])])
    for fact in (float("nan"), float("inf"), {"a": 1}, [[1]]):
        inputs.append([msgpack.packb([m.Query.KIND, 1, 1, 1, "status", {"a": fact}])])
    with live.attacked(messages_malformed=len(inputs)) as attacker:
        send_all(attacker, inputs)


def test_t7_every_truncation_of_every_message(live: Live) -> None:
    """Beyond what a connection may send in error, the rest is dropped unread; all is counted."""
    inputs = [
        [first[:length], *others]
        for _, session, number, message in SAMPLES
        for first, *others in [[bytes(f) for f in encode(message, session, number)]]
        for length in range(len(first))
    ]
    unread = len(inputs) - PROTOCOL_ERRORS_MAX - 1
    with live.attacked(
        messages_malformed=PROTOCOL_ERRORS_MAX + 1, messages_quarantined=unread, quarantines=1
    ) as attacker:
        peer = attacker()
        for frames in inputs:
            peer.frames(*frames)


# --- T9: messages at the wrong place --------------------------------------------------------------


@pytest.mark.parametrize("versions", [(0, 0), (2, 2), (7, 65_535)])
def test_t9_an_unknown_version_is_refused_by_name(live: Live, versions: tuple[int, int]) -> None:
    with live.attacked(sessions_refused=1) as attacker:
        peer = attacker()
        peer.outside(m.Hello(*versions, "client", peer.instance, "old", 0, bytes(16), {}))
        assert peer.expect(m.Refused).code == "protocol"


def test_t9_kinds_that_do_not_exist(live: Live) -> None:
    kinds: list[Any] = [0, 8, 15, 31, 38, 127, 255, 256, 1 << 32, -1, None, True, "1", b"1", [], {}]
    inputs: list[list[m.Buffer]] = [[msgpack.packb([kind, 1, 1, []])] for kind in kinds]
    with live.attacked(messages_malformed=len(inputs)) as attacker:
        send_all(attacker, inputs)


def test_t9_missing_and_wrong_fields_of_every_message(live: Live) -> None:
    inputs: list[list[m.Buffer]] = []
    for name, session, number, message in SAMPLES:
        first, *others = encode(message, session, number)
        fields = msgpack.unpackb(first, strict_map_key=False)
        # The last fields of these may be missing.
        if not isinstance(message, m.Refused | m.Rejected | m.Offer | m.Run):
            inputs.append([msgpack.packb(fields[:-1]), *others])
        for place in range(3, len(fields)):
            # No field of any message may be a map within arrays like this.
            wrong = [*fields[:place], [[{"x": 1}]], *fields[place + 1 :]]
            inputs.append([msgpack.packb(wrong), *others])
        assert inputs[-1], name
    with live.attacked(messages_malformed=len(inputs)) as attacker:
        send_all(attacker, inputs)


def test_t9_messages_before_hello(live: Live) -> None:
    """They are answered by RESYNC and change nothing, whatever they are."""
    said = [message for _, _, _, message in SAMPLES if not isinstance(message, m.Hello | m.Resync)]
    with live.attacked(messages_unknown_peer=len(said)) as attacker:
        for message in said:
            peer = attacker()  # one connection hears it only now and then
            peer.outside(message, 5, 1)
            assert peer.expect(m.Resync).reason == "unknown session"


@pytest.mark.parametrize("role", ["client", "agent"])
def test_t9_messages_of_the_wrong_side(live: Live, role: m.Role) -> None:
    """What only the broker or the other role says ends the session."""
    mine = (m.Submit, m.Ack, m.Cancel, m.Query, m.Heartbeat, m.Goodbye, m.Answer, m.Taken)
    results = (m.Result, m.Progress, m.Values, m.Output)
    theirs = (*results, m.Offer, m.Started, m.Heartbeat, m.Goodbye, m.Answer)
    allowed = (*(mine if role == "client" else theirs), m.Hello)
    said = {type(x): x for _, _, _, x in SAMPLES if not isinstance(x, allowed)}
    lost = {"agents_lost": len(said)} if role == "agent" else {}
    with live.attacked(
        sessions_opened=len(said), messages_forbidden=len(said), violations=len(said), **lost
    ) as attacker:
        for message in said.values():
            peer = attacker()
            peer.hello(role)
            peer.say(message)
            assert peer.expect(m.Refused).code == "violation"


def test_t9_hello_twice_is_a_new_session(live: Live) -> None:
    with live.attacked(
        sessions_opened=2, messages_out_of_step=1, sessions_out_of_step=1
    ) as attacker:
        peer = attacker()
        peer.hello()
        first = peer.session
        peer.say(m.Heartbeat())
        peer.hello()
        assert peer.session != first
        peer.outside(m.Heartbeat(), first, 1)
        assert peer.expect(m.Resync).reason == "out of step"


def test_t9_two_sessions_with_swapped_numbers(live: Live) -> None:
    with live.attacked(
        sessions_opened=2, messages_out_of_step=2, sessions_out_of_step=2
    ) as attacker:
        one, other = attacker(), attacker()
        one.hello()
        other.hello()
        one.outside(m.Heartbeat(), other.session, 1)
        other.outside(m.Heartbeat(), one.session, 1)
        for peer in (one, other):
            assert peer.expect(m.Resync).reason == "out of step"


def test_t9_a_session_in_quarantine_is_not_heard(live: Live) -> None:
    """Rule 6: after more errors than it may, a connection is not read, whatever it says."""
    errors = PROTOCOL_ERRORS_MAX + 1
    with live.attacked(
        messages_malformed=errors, quarantines=1, messages_quarantined=501, sessions_opened=1
    ) as attacker:
        peer, other = attacker(), attacker()
        for _ in range(errors):
            peer.frames(b"\xc1")
        for _ in range(250):
            peer.frames(b"\xc1")
            peer.frames(HEARTBEAT)
        peer.outside(m.Hello(1, 1, "client", peer.instance, "late", 0, bytes(16), {}))
        # Others are heard as ever, the same program on another connection included.
        other.instance = peer.instance
        other.hello()
        other.sync()
        other.leave()
        assert peer.heard() == []
