"""Each peer's share of the broker's time: who is put off, when it goes on, who loses its line."""

from __future__ import annotations

from evener_broker.shares import Shares
from evener_wire.limits import (
    MILLISECOND_NS,
    PUT_OFF_BYTES_MAX,
    PUT_OFF_MAX,
    PUT_OFF_TOTAL_BYTES_MAX,
    SECOND_NS,
)

GREEDY, GOOD, THIRD = b"greedy", b"good", b"third"


class Scene:
    """A clock that stands until it is told to go on, and a broker that does what it is told."""

    def __init__(self) -> None:
        self.shares = Shares()
        self.now_ns = 1_000 * SECOND_NS

    def handle(self, peer: bytes, ms: float, *, wants: bool = True) -> None:
        """A message of this peer takes so long."""
        spent_ns = int(ms * MILLISECOND_NS)
        self.now_ns += spent_ns
        self.shares.charge(peer, spent_ns, self.now_ns, wants=wants)

    def pass_ms(self, ms: float) -> None:
        self.now_ns += int(ms * MILLISECOND_NS)

    def is_due(self, peer: bytes) -> bool:
        return self.shares.is_due(peer, self.now_ns)

    def put_off(self, peer: bytes, number: int, size: int = 10) -> list[bytes]:
        return self.shares.put_off(peer, [number.to_bytes(4, "big") + bytes(size)])

    def next(self) -> tuple[bytes, int] | None:
        found = self.shares.next(self.now_ns)
        return None if found is None else (found[0], int.from_bytes(found[1][0][:4], "big"))

    def overdraw(self, peer: bytes) -> None:
        """Have a peer take more than it may at once."""
        while self.is_due(peer):
            self.handle(peer, 1)


def test_who_takes_little_is_never_put_off() -> None:
    scene = Scene()
    for _ in range(10_000):
        scene.handle(GOOD, 0.2)
        assert scene.is_due(GOOD)
        scene.pass_ms(1)


def test_a_burst_is_handled_at_once() -> None:
    scene = Scene()
    for _ in range(19):
        scene.handle(GOOD, 1)
        assert scene.is_due(GOOD)


def test_who_takes_more_than_its_share_is_put_off_and_others_are_not() -> None:
    scene = Scene()
    scene.overdraw(GREEDY)
    assert not scene.is_due(GREEDY)
    assert scene.is_due(GOOD)
    assert scene.is_due(THIRD)


def test_while_others_want_something_it_goes_on_at_the_pace_of_its_share() -> None:
    scene = Scene()
    scene.overdraw(GREEDY)
    for number in range(200):
        scene.put_off(GREEDY, number)
    began_ns, taken = scene.now_ns, 0
    while scene.now_ns < began_ns + 300 * MILLISECOND_NS:
        scene.handle(GOOD, 0.01)
        if scene.next() is not None:
            scene.handle(GREEDY, 1)
            taken += 1
        scene.pass_ms(0.1)
    assert 90 <= taken <= 101, "a third of 300 ms"


def test_when_nobody_else_wants_anything_it_goes_on_as_fast_as_it_goes() -> None:
    scene = Scene()
    scene.handle(GOOD, 0.1)
    scene.overdraw(GREEDY)
    for number in range(100):
        scene.put_off(GREEDY, number)
    scene.pass_ms(51)
    began_ns = scene.now_ns
    for number in range(100):
        assert scene.next() == (GREEDY, number)
        scene.handle(GREEDY, 1)
    assert scene.now_ns == began_ns + 100 * MILLISECOND_NS
    assert len(scene.shares) == 0


def test_however_much_it_took_alone_little_of_it_is_held_against_it() -> None:
    scene = Scene()
    for number in range(1_000):
        scene.put_off(GREEDY, number)
        assert scene.next() == (GREEDY, number)
        scene.handle(GREEDY, 1)
    scene.put_off(GREEDY, 0)
    scene.handle(GOOD, 0.1)
    scene.pass_ms(32)
    scene.handle(GOOD, 0.1)
    assert scene.next() is None
    scene.pass_ms(1)
    assert scene.next() == (GREEDY, 0)


def test_nobody_is_put_off_for_long_because_the_broker_stood_still() -> None:
    """It was stopped for an hour, while it handled a message that costs nothing."""
    scene = Scene()
    scene.handle(GOOD, 3_600_000)
    assert not scene.is_due(GOOD)
    scene.put_off(GOOD, 1)
    for _ in range(25):
        scene.handle(THIRD, 0.01)
        assert scene.next() is None
        scene.pass_ms(9)
    scene.pass_ms(20)
    assert scene.next() == (GOOD, 1)


def test_a_small_charge_forgives_nothing() -> None:
    scene = Scene()
    scene.overdraw(GREEDY)
    scene.handle(GREEDY, 2)
    scene.handle(GOOD, 0)
    scene.put_off(GREEDY, 0)
    before = scene.shares.wait_ns(scene.now_ns)
    scene.handle(GREEDY, 0, wants=False)
    assert scene.shares.wait_ns(scene.now_ns) == before


def test_signs_of_life_of_others_hold_nobody_up() -> None:
    scene = Scene()
    scene.overdraw(GREEDY)
    scene.put_off(GREEDY, 1)
    scene.pass_ms(51)
    scene.handle(GOOD, 0.1, wants=False)
    assert scene.next() == (GREEDY, 1)


def test_two_that_are_greedy_take_turns() -> None:
    scene = Scene()
    for peer in (GREEDY, THIRD):
        scene.overdraw(peer)
    scene.pass_ms(51)
    for number in range(3):
        scene.put_off(GREEDY, number)
    for number in range(3):
        scene.put_off(THIRD, number)
    taken = [scene.next() for _ in range(7)]
    assert taken == [
        (GREEDY, 0),
        (THIRD, 0),
        (GREEDY, 1),
        (THIRD, 1),
        (GREEDY, 2),
        (THIRD, 2),
        None,
    ]


def test_what_comes_after_a_message_that_waits_waits_behind_it() -> None:
    scene = Scene()
    scene.overdraw(GREEDY)
    scene.put_off(GREEDY, 1)
    scene.pass_ms(1_000)
    assert not scene.is_due(GREEDY), "it is within its share again, but order is kept"
    assert scene.next() == (GREEDY, 1)
    assert scene.is_due(GREEDY)


def test_after_a_while_it_is_even() -> None:
    scene = Scene()
    scene.overdraw(GREEDY)
    scene.pass_ms(100)
    assert scene.is_due(GREEDY)


def test_how_long_there_is_nothing_to_do() -> None:
    scene = Scene()
    assert scene.shares.wait_ns(scene.now_ns) is None
    scene.overdraw(GREEDY)
    scene.handle(GOOD, 0)
    scene.put_off(GREEDY, 1)
    wait_ns = scene.shares.wait_ns(scene.now_ns)
    assert wait_ns is not None
    assert 0 < wait_ns <= 3 * MILLISECOND_NS
    scene.now_ns += wait_ns - 1
    assert scene.next() is None
    scene.now_ns += 1
    assert scene.shares.wait_ns(scene.now_ns) == 0
    assert scene.next() == (GREEDY, 1)


def test_who_lets_too_many_messages_wait_loses_them_and_nobody_else_does() -> None:
    scene = Scene()
    scene.overdraw(GREEDY)
    scene.overdraw(THIRD)
    assert scene.put_off(THIRD, 0) == []
    for number in range(PUT_OFF_MAX):
        assert scene.put_off(GREEDY, number) == []
    assert scene.put_off(GREEDY, PUT_OFF_MAX) == [GREEDY]
    scene.pass_ms(51)
    assert [scene.next(), scene.next()] == [(THIRD, 0), None]


def test_a_few_messages_may_have_any_size_and_many_may_not() -> None:
    scene = Scene()
    scene.overdraw(GREEDY)
    for number in range(16):
        assert scene.put_off(GREEDY, number, PUT_OFF_BYTES_MAX // 8) == []
    assert scene.put_off(GREEDY, 16) == [GREEDY]


def test_all_lines_together_are_bounded_and_the_longest_goes() -> None:
    scene = Scene()
    size = PUT_OFF_BYTES_MAX // 16
    lost: list[bytes] = []
    for number in range(PUT_OFF_TOTAL_BYTES_MAX // (2 * size) + 1):
        peer = number.to_bytes(4, "big")
        lost += scene.put_off(peer, 0, size)
        lost += scene.put_off(GREEDY, number, size) if number < 14 else []
        lost += scene.put_off(peer, 1, size)
    assert lost[0] == GREEDY


def test_nobody_reads_more_of_a_peer_that_alone_wants_something() -> None:
    scene = Scene()
    scene.overdraw(GREEDY)
    scene.pass_ms(51)
    for number in range(63):
        scene.put_off(GREEDY, number)
        assert not scene.shares.is_enough(GREEDY, scene.now_ns)
    scene.put_off(GREEDY, 63)
    assert scene.shares.is_enough(GREEDY, scene.now_ns)
    scene.handle(GOOD, 0.1)
    assert not scene.shares.is_enough(GREEDY, scene.now_ns), "others have to be looked for"


def test_accounts_that_are_even_are_forgotten() -> None:
    scene = Scene()
    for number in range(50_000):
        scene.handle(number.to_bytes(4, "big"), 0.1)
    assert scene.shares.accounts() < 2_000
