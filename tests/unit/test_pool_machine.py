"""The machine of a pool in a program: starts, deaths, restarts, replacements, the end."""

from __future__ import annotations

from evener_wire.limits import SECOND_NS
from evener_wire.messages import DONE
from evener_worker.limits import POOL_DRAINING_MAX, START_FAILURES_MAX
from evener_worker.local import stimuli as s
from evener_worker.local.calls import Wait
from evener_worker.local.errors import (
    PoolClosed,
    PoolError,
    WorkerDied,
    WorkerStartError,
)
from tests.pool_harness import Bench, Nobody, at_ns, failures, handed, only, told

# --- Starting -------------------------------------------------------------------------------------


def test_spawning_is_told_before_there_is_a_process() -> None:
    bench = Bench(1)
    effects = bench.step(s.StartAll(Wait(Nobody(), "the start")))
    assert [type(effect) for effect in effects] == [s.Tell, s.Spawn]
    assert told(effects) == [("spawning", 1)]


def test_the_start_has_ended_when_all_are_ready() -> None:
    bench = Bench(2)
    wait = Wait(Nobody(), "the start")
    bench.step(s.StartAll(wait))
    first, second = bench.running
    assert only(bench.ready(first), s.Answer) == []
    effects = bench.ready(second)
    assert told(effects) == [("online", 2)]
    assert [answer.asked for answer in only(effects, s.Answer)] == [wait]


def test_a_worker_that_does_not_start_ends_the_wait_with_its_words() -> None:
    bench = Bench(1)
    bench.step(s.StartAll(Wait(Nobody(), "the start")))
    (place,) = bench.running
    bench.step(s.StartFailed(place, "start() raised KeyError: 'x'"))
    effects = bench.dies(place)
    (failed,) = only(effects, s.Fail)
    assert isinstance(failed.error, WorkerStartError)
    assert "start() raised KeyError" in str(failed.error)
    assert "last words" in str(failed.error)


def test_a_worker_that_is_late_is_killed_and_then_told() -> None:
    bench = Bench(1, ready_ns=3 * SECOND_NS)
    bench.step(s.StartAll(Wait(Nobody(), "the start")))
    (place,) = bench.running
    effects = bench.step(after_s=3)
    assert only(effects, s.Kill) == [s.Kill(place)]
    assert told(effects) == [("killing", 1)]
    (failed,) = only(bench.dies(place), s.Fail)
    assert "was not ready within 3 s" in str(failed.error)


def test_who_waits_less_long_has_it_killed_sooner() -> None:
    bench = Bench(1)
    bench.step(s.StartAll(Wait(Nobody(), "it", timeout_s=0.5, deadline_ns=at_ns(0.5))))
    (place,) = bench.running
    assert only(bench.step(after_s=0.5), s.Kill) == [s.Kill(place)]
    (failed,) = only(bench.dies(place), s.Fail)
    assert "was not ready within 0.5 s" in str(failed.error)


# --- Deaths ---------------------------------------------------------------------------------------


def test_a_death_fails_what_ran_and_nothing_that_waits() -> None:
    bench = Bench(1).start()
    first, second = bench.ask(), bench.ask()
    place = bench.place(1)
    effects = bench.dies(place)
    assert [fail.asked for fail in only(effects, s.Fail)] == [first]
    assert failures(effects) == [WorkerDied]
    assert told(effects) == [("exit", 1), ("spawning", 1)]
    assert handed(bench.ready(place)) == [(place, second)]


def test_restarts_wait_ever_longer_and_end() -> None:
    bench = Bench(1).start()
    place = bench.place(1)
    bench.dies(place)
    waits: list[float] = []
    for _ in range(START_FAILURES_MAX - 1):
        bench.dies(place)
        wake_at = bench.machine.wake_at()
        assert wake_at is not None
        waits.append((wake_at - bench.now_ns) / SECOND_NS)
        bench.step(after_s=waits[-1])
    assert waits[0] <= 0.1
    assert waits == sorted(waits)
    bench.dies(place)
    assert bench.machine.seats[1].state.value == "stopped"
    bench.ask()
    assert failures(bench.effects) == [PoolError]


def test_without_restarts_what_waits_fails_too() -> None:
    bench = Bench(1, restart=False).start()
    bench.ask()
    bench.ask()
    bench.ask(seat=0)
    effects = bench.dies(bench.place(1))
    assert failures(effects) == [WorkerDied] * 3
    assert bench.machine.all_open() == []


# --- Restart, replace, kill -----------------------------------------------------------------------


def test_a_restart_lets_it_finish() -> None:
    bench = Bench(1).start()
    bench.ask()
    wait = Wait(Nobody(), "the restart")
    effects = bench.step(s.Restart(wait, 1))
    place = bench.place(1)
    assert told(effects) == [("killing", 1)]
    assert only(effects, s.Leave) == [s.Leave(place)]
    later = bench.ask()
    assert handed(bench.effects) == []
    effects = bench.dies(place, 0)
    assert told(effects) == [("exit", 1), ("spawning", 1)]
    effects = bench.ready(place)
    assert [answer.asked for answer in only(effects, s.Answer)] == [wait]
    assert handed(effects) == [(place, later)]


def test_the_new_one_is_ready_before_the_old_one_leaves() -> None:
    bench = Bench(1).start()
    old = bench.place(1)
    running = bench.ask()
    wait = Wait(Nobody(), "the replacement")
    effects = bench.step(s.Replace(wait, 1))
    assert told(effects) == [("spawning", 1)]
    (new,) = set(bench.running) - {old}
    waiting = bench.ask()
    effects = bench.ready(new)
    assert told(effects) == [("online", 1), ("killing", 1)]
    assert only(effects, s.Leave) == [s.Leave(old)]
    assert handed(effects) == [(new, waiting)]
    effects = bench.step(s.Replied(old, running.number, DONE, b""))
    assert [answer.asked for answer in only(effects, s.Answer)] == [running]
    assert told(bench.dies(old, 0)) == [("exit", 1)]
    assert bench.machine.seats[1].draining == []


def test_if_the_new_one_fails_the_old_one_stays() -> None:
    bench = Bench(1).start()
    old = bench.place(1)
    bench.step(s.Replace(Wait(Nobody(), "the replacement"), 1))
    (new,) = set(bench.running) - {old}
    assert failures(bench.dies(new)) == [WorkerStartError]
    bench.ask()
    assert [place for place, _ in handed(bench.effects)] == [old]


def test_if_the_old_one_dies_first_both_go_on_to_one() -> None:
    bench = Bench(1).start()
    old = bench.place(1)
    bench.step(s.Replace(Wait(Nobody(), "the replacement"), 1))
    (new,) = set(bench.running) - {old}
    bench.dies(old)
    assert set(bench.running) == {old, new}
    effects = bench.ready(new)
    assert bench.place(1) == new
    assert only(effects, s.Leave) == [s.Leave(old)]


def test_old_ones_that_never_end_are_bounded_and_killed_in_the_end() -> None:
    bench = Bench(1, stop_ns=5 * SECOND_NS).start()
    for _ in range(POOL_DRAINING_MAX):
        before = set(bench.running)
        bench.step(s.Replace(Wait(Nobody(), "the replacement"), 1))
        bench.ready(*(set(bench.running) - before))
    effects = bench.step(s.Replace(Wait(Nobody(), "the replacement"), 1))
    assert failures(effects) == [PoolError]
    assert len(only(bench.step(after_s=5), s.Kill)) == POOL_DRAINING_MAX


def test_a_killed_worker_stays_down_until_it_is_started() -> None:
    bench = Bench(2).start()
    bench.ask()
    wait = Wait(Nobody(), "the end")
    place = bench.place(1)
    effects = bench.step(s.KillWorker(wait, 1))
    assert told(effects) == [("killing", 1)]
    assert only(effects, s.Kill) == [s.Kill(place)]
    effects = bench.dies(place, None)
    assert failures(effects) == [WorkerDied]
    assert [answer.asked for answer in only(effects, s.Answer)] == [wait]
    bench.ask()
    assert failures(bench.effects) == [PoolError]
    bench.step(s.Restart(Wait(Nobody(), "the restart"), 1))
    bench.ready(bench.place(1))
    bench.ask()
    assert len(handed(bench.effects)) == 1


# --- The end --------------------------------------------------------------------------------------


def test_the_end_waits_for_what_is_open() -> None:
    bench = Bench(2).start()
    running = bench.ask()
    effects = bench.step(s.Stop(Wait(Nobody(), "the end")))
    assert only(effects, s.Leave) == [s.Leave(bench.place(2))]
    bench.ask()
    assert failures(bench.effects) == [PoolClosed]
    effects = bench.step(s.Replied(bench.place(1), running.number, DONE, b""))
    assert only(effects, s.Leave) == [s.Leave(bench.place(1))]
    bench.dies(bench.place(2), 0)
    assert only(bench.dies(bench.place(1), 0), s.End) == [s.End()]


def test_the_end_does_not_wait_for_ever() -> None:
    bench = Bench(2).start()
    bench.ask()
    bench.step(s.Stop(Wait(Nobody(), "the end", timeout_s=2, deadline_ns=at_ns(2))))
    effects = bench.step(after_s=2)
    assert s.Kill(bench.place(1)) in effects
    bench.dies(bench.place(2), 0)
    effects = bench.dies(bench.place(1), None)
    assert failures(effects) == [WorkerDied]
    assert s.End() in effects


def test_the_end_at_once_kills_all_and_starts_none() -> None:
    bench = Bench(2)
    bench.step(s.StartAll(Wait(Nobody(), "the start")))
    effects = bench.step(s.Stop(Wait(Nobody(), "the end"), at_once=True))
    assert len(only(effects, s.Kill)) == 2
    first, second = [*bench.running]
    assert failures(bench.dies(first, None)) == [WorkerStartError]
    assert s.End() in bench.dies(second, None)
    assert bench.machine.all_open() == []


def test_a_pool_without_processes_ends_at_once() -> None:
    assert s.End() in Bench(2).step(s.Stop(Wait(Nobody(), "the end")))
