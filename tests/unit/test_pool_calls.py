"""The machine of a pool in a program: calls, room for them, deadlines."""

from __future__ import annotations

import pytest

from evener_wire.messages import DONE
from evener_worker.channel import MESSAGE, REQUEST
from evener_worker.limits import POOL_HANDED_MAX
from evener_worker.local import stimuli as s
from evener_worker.local.errors import (
    PoolFull,
    RequestTimeout,
)
from tests.pool_harness import Bench, failures, handed, only

# --- Calls ----------------------------------------------------------------------------------------


def test_items_go_one_at_a_time_and_messages_pass_them() -> None:
    bench = Bench(1).start()
    first, second = bench.ask(), bench.ask()
    request = bench.ask(REQUEST)
    place = bench.place(1)
    assert handed(bench.effects) == [(place, request)]
    effects = bench.step(s.Replied(place, first.number, DONE, b"r"))
    assert only(effects, s.Answer) == [s.Answer(first, DONE, b"r")]
    assert handed(effects) == [(place, second)]


def test_concurrency_is_what_the_worker_said() -> None:
    bench = Bench(1).start(concurrency=3)
    calls = [bench.ask() for _ in range(5)]
    assert [c.place for c in calls] == [bench.place(1)] * 3 + [0, 0]


def test_items_for_any_go_round() -> None:
    bench = Bench(3).start()
    calls = [bench.ask(seat=0) for _ in range(4)]
    places = [bench.place(number) for number in (1, 2, 3)]
    assert [c.place for c in calls] == [*places, 0]
    effects = bench.step(s.Replied(places[1], calls[1].number, DONE, b""))
    assert handed(effects) == [(places[1], calls[3])]


def test_only_so_many_messages_lie_in_a_process() -> None:
    bench = Bench(1).start()
    calls = [bench.ask(MESSAGE) for _ in range(POOL_HANDED_MAX + 1)]
    assert [c.place != 0 for c in calls] == [True] * POOL_HANDED_MAX + [False]
    effects = bench.step(s.Replied(bench.place(1), calls[0].number, DONE, b""))
    assert only(effects, s.Answer) == []  # a message has none
    assert handed(effects) == [(bench.place(1), calls[-1])]


@pytest.mark.parametrize(("count", "nbytes"), [(2, 10), (100, 50)])
def test_beyond_the_bound_callers_wait_or_are_refused(count: int, nbytes: int) -> None:
    bench = Bench(1, calls_max=count, bytes_max=100).start()
    first, _ = (bench.ask(nbytes=nbytes) for _ in range(2))
    third = bench.ask(nbytes=nbytes)
    assert third.parked
    assert only(bench.effects, s.Admit) == []
    bench.ask(nbytes=nbytes, at_once=True)
    assert failures(bench.effects) == [PoolFull]
    effects = bench.step(s.Replied(bench.place(1), first.number, DONE, b""))
    assert [admit.call for admit in only(effects, s.Admit)] == [third]


def test_one_call_larger_than_the_bound_goes_alone() -> None:
    bench = Bench(1, bytes_max=100).start()
    assert not bench.ask(nbytes=1_000).parked
    assert bench.ask(nbytes=1).parked


def test_a_deadline_ends_each_call_by_what_it_waits_for() -> None:
    bench = Bench(1, calls_max=2).start()
    runs = bench.ask(deadline_s=1)
    waits = bench.ask(deadline_s=2)
    parked = bench.ask(deadline_s=3)
    effects = bench.step(after_s=1)
    assert failures(effects) == [RequestTimeout]
    assert only(effects, s.Forget) == [s.Forget(bench.place(1), runs.number)]
    assert parked.parked  # what runs has its room until the worker is done with it
    effects = bench.step(after_s=1)
    assert [fail.asked for fail in only(effects, s.Fail)] == [waits]
    assert not parked.parked
    effects = bench.step(s.Replied(bench.place(1), runs.number, DONE, b"late"))
    assert only(effects, s.Answer) == []
    assert handed(effects) == [(bench.place(1), parked)]


def test_who_finds_no_room_in_time_is_told_so() -> None:
    bench = Bench(1, calls_max=1).start()
    bench.ask()
    parked = bench.ask(MESSAGE, deadline_s=1)
    effects = bench.step(after_s=1)
    assert [(fail.asked, type(fail.error)) for fail in only(effects, s.Fail)] == [
        (parked, PoolFull)
    ]


def test_giving_up_withdraws_what_was_not_begun() -> None:
    bench = Bench(1).start()
    bench.ask()
    second = bench.ask()
    bench.step(s.GaveUp(second))
    assert second not in bench.machine.all_open()
    bench.step(s.GaveUp(second))


def test_timers_of_ended_calls_are_forgotten() -> None:
    bench = Bench(1).start()
    for _ in range(1_000):
        asked = bench.ask(deadline_s=3_600)
        bench.step(s.Replied(bench.place(1), asked.number, DONE, b""))
    assert len(bench.machine._ledger._timers) < 100
