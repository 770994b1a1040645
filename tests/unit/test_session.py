"""The numbering of messages: each side takes exactly the next number of its own session."""

from __future__ import annotations

import random

import pytest

from evener_wire.session import Sequence, Verdict

SESSION = 4711


def test_numbers_start_at_one_and_have_no_gap() -> None:
    sequence = Sequence(SESSION)
    assert [sequence.next_number() for _ in range(3)] == [1, 2, 3]


def test_sending_and_receiving_count_apart() -> None:
    sequence = Sequence(SESSION)
    sequence.next_number()
    sequence.next_number()
    assert sequence.judge(SESSION, 1) is Verdict.TAKE
    assert (sequence.sent, sequence.received) == (2, 1)


def test_the_next_number_is_taken_and_counted() -> None:
    sequence = Sequence(SESSION)
    assert [sequence.judge(SESSION, number) for number in (1, 2, 3)] == [Verdict.TAKE] * 3
    assert sequence.received == 3


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_old_number_is_dropped_and_changes_nothing(number: int) -> None:
    sequence = Sequence(SESSION)
    sequence.judge(SESSION, 1)
    sequence.judge(SESSION, 2)
    assert sequence.judge(SESSION, number) is Verdict.DROP
    assert sequence.received == 2


@pytest.mark.parametrize("number", [2, 3, (1 << 63) - 1])
def test_a_gap_asks_for_a_new_session_and_changes_nothing(number: int) -> None:
    sequence = Sequence(SESSION)
    assert sequence.judge(SESSION, number) is Verdict.RESYNC
    assert sequence.received == 0


@pytest.mark.parametrize("session", [0, SESSION - 1, SESSION + 1])
def test_another_session_asks_for_a_new_one_even_with_the_right_number(session: int) -> None:
    sequence = Sequence(SESSION)
    assert sequence.judge(session, 1) is Verdict.RESYNC
    assert sequence.received == 0


@pytest.mark.parametrize("session", [0, -1])
def test_a_session_is_never_zero_or_less(session: int) -> None:
    with pytest.raises(AssertionError):
        Sequence(session)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_transport_does_what_is_taken_is_in_order_and_without_gaps(seed: int) -> None:
    rng = random.Random(seed)
    sequence = Sequence(SESSION)
    messages = [number for number in range(1, 60) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
    for _ in range(rng.randrange(10)):
        one, other = rng.randrange(len(messages)), rng.randrange(len(messages))
        messages[one], messages[other] = messages[other], messages[one]
    taken = [number for number in messages if sequence.judge(SESSION, number) is Verdict.TAKE]
    assert taken == list(range(1, len(taken) + 1))
