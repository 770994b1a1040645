"""A system that gives no process: said, waited for, and never held against the code."""

from __future__ import annotations

import errno
import os

import pytest

from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.deaths import how_it_ended, why_not_started
from tests.agent_harness import SECOND, Bench, only

WHY = "could not be started: there is none"


def refused(bench: Bench, slot: int) -> list[f.Effect]:
    return bench.step(e.Died(slot, 0, None, None, note=WHY, spawned=False))


def test_it_is_tried_again_with_longer_and_longer_pauses_and_never_given_up() -> None:
    bench = Bench(1)
    bench.welcome()
    waited: list[float] = []
    effects = refused(bench, 1)
    assert len(only(effects, f.StartWorker)) == 1, "the first time at once"
    for _ in range(20):
        effects = refused(bench, 1)
        assert only(effects, f.Exit) == []
        begun = bench.now_ns
        while not only(effects, f.StartWorker):
            wake_at = bench.core.wake_at()
            assert wake_at is not None
            bench.now_ns = max(bench.now_ns + 1_000_000, wake_at)
            effects = bench.tick(0)
        waited.append((bench.now_ns - begun) / SECOND)
    assert waited[0] < 0.2
    assert all(14 < seconds < 31 for seconds in waited[-8:])
    bench.ready(1)
    assert bench.core.pool.slots[1].state.value == "ready"


def test_it_is_told_why_and_until_when() -> None:
    bench = Bench(1)
    bench.welcome()
    refused(bench, 1)
    (line,) = [effect.text for effect in only(refused(bench, 1), f.Log)]
    assert line.startswith(f"worker n:1 {WHY}; starts again in 0.")


def test_a_worker_on_trial_that_gets_no_process_ends_the_restart() -> None:
    bench = Bench(1).open()
    effects = bench.step(e.RestartAsked("SIGHUP"))
    (started,) = only(effects, f.StartWorker)
    lines = [it.text for it in only(refused(bench, started.slot) + bench.tick(1), f.Log)]
    assert any(WHY in line and "restart stopped, 1 workers go on" in line for line in lines)
    assert bench.core.pool.slots.keys() == {1}


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EAGAIN, "no more processes are allowed here; see ulimit -u, and pids.max of the"),
        (errno.EMFILE, "the agent may not open more files; see ulimit -n (EMFILE)"),
        (errno.ENFILE, "the system may not open more files"),
        (errno.ENOMEM, "there is no memory for one more process (ENOMEM)"),
        (errno.ENOENT, "No such file or directory (ENOENT)"),
    ],
)
def test_what_the_system_lacks_in_words(number: int, said: str) -> None:
    why = why_not_started(OSError(number, os.strerror(number)))
    assert said in why
    assert how_it_ended(e.Died(1, 0, None, None, note=why, spawned=False)) == why
