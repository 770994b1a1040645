"""How long the answer to a HELLO is waited for, before it is said again."""

from __future__ import annotations

from evener_wire.backoff import Patience


def test_each_wait_is_longer_up_to_the_longest() -> None:
    patience = Patience(10, 40)
    now, waits = 1_000, []
    for _ in range(4):
        again = patience.asked(now)
        waits.append(again - now)
        now = again
    assert waits == [10, 20, 40, 40]


def test_after_a_while_without_any_it_begins_anew() -> None:
    patience = Patience(10, 40)
    assert patience.asked(1_000) == 1_010
    assert patience.asked(1_010) == 1_030
    assert patience.asked(1_090) == 1_130
    assert patience.asked(1_171) == 1_181
