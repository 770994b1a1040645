"""The lines of peers that are full: bounded each, bounded together, and never out of order."""

from __future__ import annotations

from evener_broker.parking import Parking
from evener_wire.limits import KIB


def test_what_waits_leaves_in_order() -> None:
    parking = Parking()
    for number in range(5):
        assert parking.park(b"a", [b"%d" % number]) == []
    left: list[bytes] = []
    while (frames := parking.first(b"a")) is not None:
        left.append(frames[0])
        parking.sent(b"a")
    assert left == [b"0", b"1", b"2", b"3", b"4"]
    assert len(parking) == 0
    assert parking.size == 0


def test_a_line_is_bounded_in_messages() -> None:
    parking = Parking(peer_messages=3)
    assert [parking.park(b"a", [b""]) for _ in range(4)] == [[], [], [], [b"a"]]
    assert b"a" not in parking
    assert parking.size == 0


def test_a_line_is_bounded_in_bytes() -> None:
    parking = Parking(peer_bytes=10 * KIB)
    assert parking.park(b"a", [bytes(6 * KIB)]) == []
    assert parking.park(b"a", [bytes(6 * KIB)]) == [b"a"]
    assert parking.size == 0


def test_one_message_alone_may_be_larger() -> None:
    parking = Parking(peer_bytes=KIB)
    assert parking.park(b"a", [bytes(6 * KIB)]) == []
    assert parking.first(b"a") is not None


def test_all_lines_are_bounded_together_and_the_longest_pays() -> None:
    parking = Parking(total_bytes=20 * KIB)
    assert parking.park(b"small", [bytes(KIB)]) == []
    assert parking.park(b"large", [bytes(12 * KIB)]) == []
    assert parking.park(b"other", [bytes(9 * KIB)]) == [b"large"]
    assert list(parking) == [b"small", b"other"]
    assert parking.size <= 20 * KIB


def test_payloads_that_the_tables_hold_are_not_counted_twice() -> None:
    parking = Parking(peer_bytes=KIB)
    large = memoryview(bytes(100 * KIB))
    assert [parking.park(b"a", [b"head", large]) for _ in range(3)] == [[], [], []]
    assert parking.size < 2 * KIB


def test_lines_may_end_while_somebody_goes_through_them() -> None:
    parking = Parking()
    for peer in (b"a", b"b", b"c"):
        parking.park(peer, [b""])
    for peer in parking:
        parking.sent(peer)
    assert len(parking) == 0
    parking.drop(b"never known")
