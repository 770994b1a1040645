"""Code that is broken when an agent starts: the end of it, or with `--reload` a wait for better."""

from __future__ import annotations

from typing import Any

from evener_worker import effects as f
from evener_worker import events as e
from tests.agent_harness import Bench, only


def fails(bench: Bench, slot: int, *, watched: bool = True) -> list[f.Effect]:
    """A worker says that its code does not import, and ends."""
    effects = bench.step(e.Spawned(slot, 100 + slot), e.StartFailed(slot, "SyntaxError", watched))
    return effects + bench.step(e.Died(slot, 0, 1, None))


def states(bench: Bench) -> dict[int, str]:
    return {number: slot.state.value for number, slot in bench.core.pool.slots.items()}


def logged(effects: list[f.Effect]) -> list[str]:
    return [effect.text for effect in only(effects, f.Log)]


def told(effects: list[f.Effect], event: str) -> list[Any]:
    return [effect.report for effect in only(effects, f.Tell) if effect.report["event"] == event]


def changed(bench: Bench) -> list[f.Effect]:
    return bench.step(e.RestartAsked("changed: shop.py"))


def test_without_reload_it_is_the_end() -> None:
    bench = Bench(2)
    bench.welcome()
    assert only(fails(bench, 1), f.Exit) == [f.Exit(1)]


def test_with_reload_it_says_so_once_and_waits() -> None:
    bench = Bench(2, reload=True)
    bench.welcome()
    first = fails(bench, 1)
    assert logged(first) == ["SyntaxError", "no worker can start; waiting for its files to change"]
    assert only(fails(bench, 2), f.Exit) == only(first, f.Exit) == []
    assert states(bench) == {1: "stopped", 2: "stopped"}
    for _ in range(100):
        assert only(bench.tick(1_000), f.StartWorker) == []


def test_where_no_file_is_known_nobody_could_mend_it() -> None:
    bench = Bench(1, reload=True)
    bench.welcome()
    assert only(fails(bench, 1, watched=False), f.Exit) == [f.Exit(1)]


def test_mended_code_comes_in_and_all_are_ready_then() -> None:
    bench = Bench(2, reload=True)
    bench.welcome()
    fails(bench, 1)
    fails(bench, 2)
    assert [it.slot for it in only(changed(bench), f.StartWorker)] == [3]
    effects = bench.ready(3)
    assert told(effects, "ready") == []
    effects += bench.tick(1)
    assert states(bench) == {2: "stopped", 3: "ready", 4: "starting"}
    effects = bench.ready(4) + bench.tick(1)
    assert states(bench) == {3: "ready", 4: "ready"}
    assert told(effects, "ready") == [{"event": "ready", "workers": 2, "functions": ["t.f"]}]
    assert [slot.worker for slot in bench.core.pool.slots.values()] == ["n:1", "n:2"]


def test_code_that_is_still_broken_is_waited_for_again() -> None:
    bench = Bench(1, reload=True)
    bench.welcome()
    fails(bench, 1)
    for _ in range(3):
        changed(bench)
        (new,) = bench.core.pool.slots.keys() - {1}
        bench.step(e.Spawned(new, 200), e.StartFailed(new, "NameError", True))
        lines = logged(bench.step(e.Died(new, 0, 1, None)) + bench.tick(1))
        assert lines == [
            "restart stopped; no worker can start, waiting for its files to change: NameError"
        ]
        assert states(bench) == {1: "stopped"}
    changed(bench)
    (new,) = bench.core.pool.slots.keys() - {1}
    bench.ready(new)
    bench.tick(1)
    assert states(bench) == {new: "ready"}


def test_once_a_worker_was_ready_broken_code_is_tried_again_as_ever() -> None:
    bench = Bench(1, reload=True).open()
    bench.step(e.Died(1, 0, None, 9))
    fails(bench, 1)
    assert states(bench) == {1: "waiting"}


def test_it_can_be_stopped_while_it_waits() -> None:
    bench = Bench(1, reload=True)
    bench.welcome()
    fails(bench, 1)
    effects = bench.step(e.StopAsked("SIGTERM", 143))
    for _ in range(30):
        effects += bench.tick(100)
    assert only(effects, f.Exit) == [f.Exit(0)]
