"""What the agent does with attempts: handing out, taking back, stopping, deaths."""

from __future__ import annotations

import msgpack
import pytest

from evener_wire import messages as m
from evener_worker import channel as c
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.attempts import TRANSITIONS, Attempt, State
from evener_worker.estimates import Estimates
from evener_worker.limits import ESTIMATES_MAX, HANDOUT_TASKS_MAX, RESULT_BYTES_MAX
from tests.agent_harness import Bench, handed, item, key, only, results, sent


def quick(workers: int = 2) -> Bench:
    """A bench whose function is known to be short."""
    bench = Bench(workers).open()
    bench.core.handout.estimates.observe("t.f", 10)
    return bench


# --- Handing out ----------------------------------------------------------------------------------


def test_an_unmeasured_function_goes_one_at_a_time() -> None:
    bench = Bench(2).open()
    assert handed(bench.say(m.Run([item(n) for n in range(1, 6)]))) == {1: [1], 2: [2]}
    assert len(bench.core.ledger.waiting) == 3


def test_a_measured_one_goes_in_batches_of_about_a_millisecond() -> None:
    bench = quick(1)
    batch = handed(bench.say(m.Run([item(n) for n in range(1, 201)])))[1]
    assert batch == list(range(1, HANDOUT_TASKS_MAX + 1))
    bench = Bench(1).open()
    bench.core.handout.estimates.observe("t.f", 300)
    assert handed(bench.say(m.Run([item(n) for n in range(1, 201)])))[1] == [1, 2, 3]


def test_long_ones_go_one_at_a_time() -> None:
    bench = Bench(1).open()
    bench.core.handout.estimates.observe("t.f", 50_000)
    assert handed(bench.say(m.Run([item(1), item(2)]))) == {1: [1]}
    assert handed(bench.finish(1, 1)) == {1: [2]}


def test_nothing_is_started_while_results_fill_the_memory() -> None:
    """I21: they stay until the broker has them, and each may have gigabytes."""
    bench = Bench(1).open()
    bench.say(m.Run([item(n) for n in range(1, 4)]))
    ledger = bench.core.ledger
    large = memoryview(bytes(RESULT_BYTES_MAX))
    done = c.Frame(c.RESULT, 1, m.DONE, 10, b"", (large,))
    assert handed(bench.step(e.Finished(1, [done]))) == {}
    bench.core.check()
    assert ledger.result_bytes == RESULT_BYTES_MAX
    number = bench.core.session.unacked[0][0]
    assert handed(bench.say(m.Ack(number))) == {1: [2, 3]}
    assert ledger.result_bytes == 0


def test_work_is_spread_before_it_is_heaped() -> None:
    assert handed(quick(2).say(m.Run([item(n) for n in range(1, 7)]))) == {
        1: [1, 2, 3],
        2: [4, 5, 6],
    }


def test_workers_take_turns() -> None:
    bench = quick(3)
    slots: list[int] = []
    for number in range(1, 7):
        slots += handed(bench.say(m.Run([item(number)])))
        bench.finish(slots[-1], number)
    assert slots == [1, 2, 3, 1, 2, 3]


def test_the_line_keeps_its_order() -> None:
    bench = quick(1)
    effects = bench.say(m.Run([item(n) for n in range(1, 201)]))
    order = handed(effects)[1]
    while order[-1] < 200:
        done = order[len(order) - len(bench.core.pool.slots[1].handed) :]
        order += handed(bench.finish(1, *done)).get(1, [])
    assert order == list(range(1, 201))


def test_the_same_attempt_twice_is_one() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    assert handed(bench.say(m.Run([item(1)]))) == {}
    assert len(bench.core.ledger.open) == 1


def test_a_worker_that_sends_what_it_was_not_asked_for_is_killed() -> None:
    bench = Bench(1).open()
    effects = bench.step(e.Finished(1, [c.Frame(c.RESULT, 5, m.DONE, 1, b"")]))
    assert only(effects, f.Kill) == [f.Kill(1)]


# --- Taking back ----------------------------------------------------------------------------------


def test_nothing_waits_behind_a_long_task_while_a_neighbour_is_free() -> None:
    bench = quick(2)
    bench.say(m.Run([item(n) for n in range(1, 5)]))
    bench.start(1, 1)
    bench.finish(2, 3, 4)
    effects = bench.tick(5)
    assert only(effects, f.TakeBack) == [f.TakeBack(1, 2)]
    assert handed(effects) == {2: [2]}


def test_a_worker_gets_nothing_until_it_noticed_what_was_taken_back() -> None:
    bench = quick(1)
    bench.say(m.Run([item(n) for n in range(1, 4)]))
    bench.start(1, 1)
    bench.tick(5)
    assert not only(bench.finish(1, 1), f.Hand), "its permits would start what was taken back"
    assert not only(bench.step(e.Dropped(1, 2)), f.Hand), "an earlier batch"
    assert handed(bench.step(e.Dropped(1, 3))) == {1: [2, 3]}


def test_recall_of_what_waits_is_answered_at_once() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1), item(2)]))
    assert results(bench.say(m.Recall([key(2)]))) == [(2, m.RETURNED)]


def test_recall_of_what_a_worker_has_is_answered_at_once() -> None:
    bench = quick(1)
    bench.say(m.Run([item(n) for n in range(1, 5)]))
    bench.start(1, 1)
    effects = bench.say(m.Recall([key(1), key(3)]))
    assert sent(effects) == [m.Started([key(1)])]
    assert results(effects) == [(3, m.RETURNED)]
    assert [attempt.key for attempt in bench.core.ledger.waiting] == [key(2), key(4)]


def test_recall_of_what_ended_is_no_news() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    bench.finish(1, 1)
    assert bench.say(m.Recall([key(1), key(9)])) == []


# --- Stopping an attempt --------------------------------------------------------------------------


def test_cancel_before_the_start() -> None:
    bench = quick(1)
    bench.say(m.Run([item(n) for n in range(1, 4)]))
    bench.start(1, 1)
    assert results(bench.say(m.Cancel([key(3)]))) == [(3, m.CANCELLED)]


def test_cancel_of_what_runs_climbs_the_ladder() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    bench.start(1, 1)
    assert only(bench.say(m.Cancel([key(1)])), f.Flag) == [f.Flag(1, 1, m.CANCELLED)]
    assert not only(bench.tick(99), f.Terminate)
    assert only(bench.tick(1), f.Terminate) == [f.Terminate(1)]
    assert not only(bench.tick(1_999), f.Kill)
    assert only(bench.tick(1), f.Kill) == [f.Kill(1)]
    assert results(bench.die(1)) == [(1, m.CANCELLED)]


def test_a_run_timeout_climbs_it_too() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1, timeout_ms=500)]))
    bench.start(1, 1)
    bench.tick(5)
    assert not only(bench.tick(490), f.Flag)
    assert bench.core.wake_at() == bench.now_ns + 5_000_000
    assert only(bench.tick(5), f.Flag) == [f.Flag(1, 1, m.TIMED_OUT)]
    assert only(bench.tick(100), f.Terminate) == [f.Terminate(1)]
    bench.tick(2_000)
    assert results(bench.die(1)) == [(1, m.TIMED_OUT)]
    assert only(bench.effects, f.StartWorker)[-1] == f.StartWorker(1, "n:1"), "the slot comes back"


def test_a_function_may_have_a_grace_of_its_own() -> None:
    bench = Bench(1)
    bench.welcome()
    bench.started[1] = bench.handed[1] = 0
    bench.step(e.Spawned(1, 101), e.Ready(1, [("t.f", None), ("t.g", None)], {"t.g": 5_000}))
    bench.say(m.Run([item(1, "t.g", timeout_ms=500)]))
    bench.start(1, 1)
    assert only(bench.tick(500), f.Flag) == [f.Flag(1, 1, m.TIMED_OUT)]
    assert not only(bench.tick(4_999), f.Terminate)
    assert only(bench.tick(1), f.Terminate) == [f.Terminate(1)]
    assert not only(bench.tick(1_999), f.Kill)
    assert only(bench.tick(1), f.Kill) == [f.Kill(1)]


def test_a_worker_is_handed_the_moment_of_a_deadline() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1, deadline_ms=50), item(2)]))
    (hand,) = only(bench.effects, f.Hand)
    assert [attempt.item for attempt in hand.attempts] == [
        (*item(1)[:5], bench.now_ns + 50_000_000)
    ]


def test_a_deadline_counts_from_arrival() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1, deadline_ms=50)]))
    bench.start(1, 1)
    bench.tick(5)
    assert only(bench.tick(45), f.Flag) == [f.Flag(1, 1, m.TIMED_OUT)]


def test_an_attempt_that_has_not_started_has_not_run_out_of_time() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1, timeout_ms=10)]))
    assert not only(bench.tick(50), f.Flag)


def test_what_runs_long_is_told_as_started_once() -> None:
    bench = Bench(1).open()
    assert [type(message) for message in sent(bench.tick(1))] == [m.Heartbeat]
    bench.say(m.Run([item(1)]))
    bench.start(1, 1)
    assert sent(bench.tick(50)) == []
    assert sent(bench.tick(5)) == [m.Started([key(1)])]
    assert sent(bench.tick(5)) == []


# --- Deaths ---------------------------------------------------------------------------------------


def test_only_what_ran_is_charged() -> None:
    bench = quick(1)
    bench.say(m.Run([item(n) for n in range(1, 4)]))
    bench.start(1, 1)
    bench.step(e.Measured({1: (7_000, 1)}))
    bench.now_ns += 3_000_000
    effects = bench.die(1)
    assert results(effects) == [(1, m.LOST), (2, m.RETURNED), (3, m.RETURNED)]
    lost = only(effects, f.SendResults)[0].attempts[0]
    assert msgpack.unpackb(lost.packed, use_list=False)[5] == {
        "reason": "died by SIGKILL",
        "worker": "n:1",
        "pid": 101,
        "exit_code": None,
        "signal": 9,
        "rss_bytes": 7_000,
        "age_ms": 3,
        "ran_ms": 3,
        "lines": ("last words",),
    }
    assert sent(effects) == [m.Offer(0, False, ("default",), [("t.f", None)], None)]
    assert only(effects, f.Log)[0].text == (
        f"worker n:1 died by SIGKILL while running t.f[{key(1)[0].hex()[:8]}],"
        " which goes back to the broker; starts again now"
    )


def test_a_worker_that_died_before_its_first_permit_is_not_to_blame() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    assert results(bench.die(1)) == [(1, m.RETURNED)]


def test_what_it_finished_before_it_died_is_finished() -> None:
    bench = quick(1)
    bench.say(m.Run([item(1), item(2)]))
    bench.finish(1, 1)
    bench.start(1, 2)
    assert results(bench.die(1)) == [(2, m.LOST)]


# --- Tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(State))
def test_an_illegal_step_is_an_error_with_the_story(state: State) -> None:
    bench = Bench(1).open()
    attempt = Attempt(key(1), item(1))
    attempt.state = state
    for other in set(State) - TRANSITIONS[state]:
        with pytest.raises(AssertionError):
            bench.core.ledger.move(attempt, other)


def test_the_story_of_an_attempt() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    (told,) = only(bench.finish(1, 1), f.SendResults)
    bench.say(m.Ack(told.number))
    story = [word for _, word in bench.core.ledger.story(key(1))]
    assert story == ["waiting", "handed", "ended", "gone"]


def test_estimates_follow_and_are_bounded() -> None:
    estimates = Estimates()
    assert estimates.get("f") is None
    estimates.observe("f", 100)
    estimates.observe("f", 500)
    assert estimates.get("f") == 200_000
    for number in range(ESTIMATES_MAX):
        estimates.observe(f"f{number}", 1)
    assert estimates.get("f") is None
