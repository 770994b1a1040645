"""Starts, restarts and the end: worker processes and the agent itself."""

from __future__ import annotations

from evener_wire import messages as m
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.limits import START_FAILURES_MAX
from evener_worker.slots import SlotState
from tests.agent_harness import SECOND, Bench, item, only, results, sent


def texts(effects: list[f.Effect]) -> list[str]:
    """The lines for the operator."""
    return [log.text for log in only(effects, f.Log)]


# --- Restarts -------------------------------------------------------------------------------------


def test_the_first_restart_comes_at_once_and_the_next_later() -> None:
    bench = Bench(1).open()
    assert only(bench.die(1), f.StartWorker) == [f.StartWorker(1, "n:1")]
    delays: list[float] = []
    for _ in range(12):
        bench.ready(1)
        assert not only(bench.die(1), f.StartWorker)
        delays.append((bench.core.pool.slots[1].start_at_ns - bench.now_ns) / SECOND)
        bench.now_ns = bench.core.pool.slots[1].start_at_ns
        assert only(bench.tick(0), f.StartWorker)
    for number, delay in enumerate(delays):
        assert min(0.1 * 2**number, 30) / 2 <= delay <= min(0.1 * 2**number, 30)


def test_a_long_life_is_forgiven() -> None:
    bench = Bench(1).open()
    for _ in range(3):
        bench.now_ns += 10 * SECOND
        bench.say(m.Heartbeat())
        assert only(bench.die(1), f.StartWorker)
        bench.ready(1)


def test_a_worker_that_never_gets_ready_is_given_up() -> None:
    bench = Bench(2)
    bench.welcome()
    bench.ready(2)
    effects: list[f.Effect] = []
    for _ in range(START_FAILURES_MAX):
        effects = bench.step(e.Died(1, 0, 3, None))
        bench.now_ns = max(bench.now_ns, bench.core.pool.slots[1].start_at_ns)
        bench.tick(0)
    assert bench.core.pool.slots[1].state is SlotState.STOPPED
    assert "ended 5 times before it was ready (last: ended with exit code 3)" in texts(effects)[0]
    assert not only(effects, f.Exit), "another worker still serves"


def test_none_that_gets_ready_ends_the_agent() -> None:
    bench = Bench(1)
    effects: list[f.Effect] = []
    for _ in range(START_FAILURES_MAX):
        effects = bench.step(e.Died(1, 0, 3, None))
        bench.now_ns = max(bench.now_ns, bench.core.pool.slots[1].start_at_ns)
        bench.tick(0)
    assert only(effects, f.Exit) == [f.Exit(1)]
    assert only(effects, f.Tell)[0].report["event"] == "error"


def test_an_app_that_does_not_import_is_told_once_and_ends_it() -> None:
    effects = Bench(2).step(
        e.StartFailed(1, "Traceback: theirs"), e.StartFailed(2, "Traceback: theirs")
    )
    assert texts(effects) == ["Traceback: theirs"]
    assert only(effects, f.Exit)[0] == f.Exit(1)


# --- The end --------------------------------------------------------------------------------------


def stop(bench: Bench) -> list[f.Effect]:
    """The first signal."""
    return bench.step(e.StopAsked("SIGINT", 130))


def test_the_first_signal_drains() -> None:
    bench = Bench(2).open()
    bench.say(m.Run([item(n) for n in range(1, 5)]))
    bench.start(1, 1)
    effects = stop(bench)
    assert texts(effects) == [
        "stopping: 2 tasks still running, up to 30 s (Ctrl-C again to stop now)"
    ]
    assert sent(effects) == [m.Offer(0, True, ("default",), [("t.f", None)], None)]
    assert sorted(results(effects)) == [(2, m.RETURNED), (3, m.RETURNED), (4, m.RETURNED)]
    assert only(effects, f.Leave) == [f.Leave(2)]
    effects = bench.finish(1, 1)
    assert results(effects) == [(1, m.DONE)]
    assert only(effects, f.Leave) == [f.Leave(1)]
    bench.step(e.Died(2, 0, 0, None))
    assert not only(bench.step(e.Died(1, 1, 0, None)), f.Exit), "results are not taken yet"
    effects = bench.say(m.Ack(100))
    assert sent(effects) == [m.Goodbye("stopped")]
    assert texts(effects) == ["done: 1 ok, 0 failed, 3 returned to the queue"]
    assert only(effects, f.Exit) == [f.Exit(0)]


def test_a_second_signal_kills_and_a_double_tap_does_not() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    bench.start(1, 1)
    stop(bench)
    bench.now_ns += SECOND // 5
    assert not only(stop(bench), f.Kill)
    bench.now_ns += SECOND // 5
    assert only(stop(bench), f.Kill) == [f.Kill(1)]
    assert results(bench.die(1)) == [(1, m.LOST)]
    effects = bench.tick(1_000)
    assert texts(effects) == ["done: 0 ok, 0 failed, 1 stopped"]
    assert only(effects, f.Exit) == [f.Exit(130)]


def test_what_runs_on_after_the_drain_is_killed() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    bench.start(1, 1)
    stop(bench)
    assert bench.core.wake_at() is not None
    for _ in range(10):
        bench.say(m.Heartbeat())
        bench.tick(2_900)
    bench.say(m.Heartbeat())
    effects = bench.tick(1_000)
    assert texts(effects) == ["still running after 30 s: killed"]
    assert only(effects, f.Kill) == [f.Kill(1)]


def test_the_end_of_the_parent_kills_at_once() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    effects = bench.step(e.StopAsked("parent", 0, at_once=True))
    assert only(effects, f.Kill) == [f.Kill(1)]


def test_without_its_parent_it_waits_for_nobody_to_take_results() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    bench.start(1, 1)
    bench.step(e.StopAsked("parent", 0, at_once=True))
    effects = bench.die(1)
    assert results(effects) == [(1, m.LOST)]
    assert sent(effects)[-1] == m.Goodbye("stopped")
    assert only(effects, f.Exit) == [f.Exit(0)]


def test_a_worker_that_does_not_leave_is_killed() -> None:
    bench = Bench(1).open()
    assert only(stop(bench), f.Leave) == [f.Leave(1)]
    assert not only(bench.tick(4_999), f.Kill)
    effects = bench.tick(1)
    assert only(effects, f.Kill) == [f.Kill(1)]
    assert texts(effects) == ["worker n:1 did not finish its stop hooks in time: killed"]


def test_the_end_of_the_drain_time_is_not_that_of_stop_hooks() -> None:
    bench = Bench(2, stop_seconds=60).open()
    bench.say(m.Run([item(1), item(2)]))
    bench.start(1, 1)
    bench.start(2, 1)
    stop(bench)
    for _ in range(10):
        bench.say(m.Heartbeat())
        bench.tick(2_900)
    effects = bench.finish(1, 1)
    assert only(effects, f.Leave) == [f.Leave(1)]
    bench.say(m.Heartbeat())
    assert only(bench.tick(1_000), f.Kill) == [f.Kill(2)]


def test_a_worker_that_is_not_ready_in_time_is_killed() -> None:
    bench = Bench(1, start_seconds=60)
    bench.welcome()
    effects: list[f.Effect] = []
    for _ in range(24):
        bench.say(m.Heartbeat())
        effects = bench.tick(2_500)
    assert texts(effects) == ["worker n:1 was not ready in time: killed"]
    assert only(effects, f.Kill) == [f.Kill(1)]
    again = bench.step(e.Died(1, 0, None, 9))
    assert only(again, f.StartWorker) == [f.StartWorker(1, "n:1")]
    bench.ready(1)
    assert not only(bench.tick(60_000), f.Kill)


def test_a_worker_that_says_why_it_cannot_start_is_tried_again() -> None:
    bench = Bench(2).open()
    bench.die(1)
    said: list[str] = []
    for _ in range(4 * START_FAILURES_MAX):
        said += texts(bench.step(e.StartFailed(1, "on_worker_start hook connect failed")))
        bench.step(e.Died(1, 0, 1, None))
        bench.now_ns = max(bench.now_ns, bench.core.pool.slots[1].start_at_ns)
        bench.tick(0)
    assert bench.core.pool.slots[1].state is SlotState.STARTING
    assert said == ["on_worker_start hook connect failed"]


def test_the_broker_may_ask_for_it() -> None:
    bench = Bench(1).open()
    assert only(bench.say(m.Drain("maintenance")), f.Leave) == [f.Leave(1)]
    assert only(bench.step(e.Died(1, 0, 0, None)), f.Exit) == [f.Exit(0)]


def test_without_a_broker_it_ends_after_a_moment() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    bench.finish(1, 1)
    stop(bench)
    assert not only(bench.step(e.Died(1, 1, 0, None)), f.Exit)
    assert only(bench.tick(1_000), f.Exit) == [f.Exit(0)]
