"""The machine of a pool that is fed from a source: exact effects, and its laws under any order."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from evener.errors import TaskTimeout
from evener_worker.local import feed_steps as s
from evener_worker.local.errors import PoolClosed
from evener_worker.local.feeding import Feeding
from evener_worker.local.outcome import Outcome, PoolBroken
from evener_worker.slots import SlotState

SECOND = 1_000_000_000


def fed(size: int = 1, **options: Any) -> Feeding:
    """A machine whose workers are ready, and that has begun."""
    feeding = Feeding(size, random.Random(0))
    effects = feeding.handle(s.Begin(**options), 0)
    assert effects == [s.Start(number, number + 1) for number in range(size)]
    for number in range(size):
        feeding.handle(s.Ready(number, number + 1), 0)
    return feeding


def test_an_item_is_pulled_when_a_worker_is_ready_and_not_before() -> None:
    feeding = Feeding(1, random.Random(0))
    assert feeding.handle(s.Begin(), 0) == [s.Start(0, 1)]
    assert feeding.handle(s.Ready(0, 1), 1) == [s.Pull(1)]
    assert feeding.handle(s.Pulled(1, "a"), 2) == [s.Execute(0, 1, "a")]
    delivered = s.Deliver(Outcome(0, "a", "A"))
    assert feeding.handle(s.Executed(0, 1, "A"), 3) == [delivered]  # and it waits to be taken
    assert feeding.handle(s.Taken(), 4) == [s.Pull(1)]
    assert feeding.handle(s.SourceEnded(1), 5) == [s.StopPulling(1), s.Finish(None)]
    feeding.check()


def test_where_order_matters_an_outcome_waits_for_its_turn() -> None:
    feeding = fed(2, ordered=True, ahead=1)
    feeding.handle(s.Pulled(1, "a"), 0)
    feeding.handle(s.Pulled(1, "b"), 0)
    assert feeding.handle(s.Executed(1, 2, "B"), 1) == [s.Pull(1)]
    assert feeding.handle(s.Pulled(1, "c"), 1) == [s.Execute(1, 2, "c")]
    # Three are open: two workers and one ahead.
    assert feeding.handle(s.Executed(1, 2, "C"), 2) == []
    assert feeding.handle(s.Executed(0, 1, "A"), 3) == [
        s.Deliver(Outcome(0, "a", "A")),
        s.Deliver(Outcome(1, "b", "B")),
        s.Deliver(Outcome(2, "c", "C")),
    ]
    feeding.check()


def test_an_error_of_the_item_keeps_the_worker() -> None:
    feeding = fed(ahead=1)
    feeding.handle(s.Pulled(1, "a"), 0)
    error = ValueError("a")
    assert feeding.handle(s.Raised(0, 1, error), 1) == [
        s.Deliver(Outcome(0, "a", None, error)),
        s.Pull(1),
    ]


def test_a_worker_that_fails_is_replaced_and_its_item_tried_again() -> None:
    feeding = fed(retries=1)
    feeding.handle(s.Pulled(1, "a"), 0)
    error = OSError("broken")
    assert feeding.handle(s.Raised(0, 1, error, active=False), 1) == [s.Destroy(0, 1)]
    assert feeding.handle(s.Destroyed(0, 1), 2) == [s.Start(0, 2)]
    assert feeding.handle(s.Ready(0, 2), 3) == [s.Execute(0, 2, "a")]
    assert feeding.handle(s.Raised(0, 2, error, active=False), 4) == [
        s.Destroy(0, 2),
        s.Deliver(Outcome(0, "a", None, error, 2)),
    ]
    # The second death in a row is not followed at once.
    assert feeding.handle(s.Destroyed(0, 2), 5) == []
    due_ns = feeding.next_due_ns
    assert due_ns is not None
    assert feeding.handle(s.Tick(), due_ns) == [s.Start(0, 3)]


def test_items_that_are_tried_again_keep_their_order() -> None:
    feeding = fed(3, retries=1)
    for item in "abc":
        feeding.handle(s.Pulled(1, item), 0)
    for number in (1, 0, 2):
        feeding.handle(s.Raised(number, number + 1, OSError(), active=False), 1)
        feeding.handle(s.Destroyed(number, number + 1), 2)
    begun = [feeding.handle(s.Ready(number, life), 3) for number, life in ((1, 4), (0, 5), (2, 6))]
    assert begun == [[s.Execute(1, 4, "a")], [s.Execute(0, 5, "b")], [s.Execute(2, 6, "c")]]


def test_a_worker_found_dead_costs_the_item_no_try() -> None:
    feeding = fed(retries=0)
    feeding.handle(s.Pulled(1, "a"), 0)
    dead = s.Raised(0, 1, OSError(), active=False, ran=False)
    assert feeding.handle(dead, 1) == [s.Destroy(0, 1)]
    feeding.handle(s.Destroyed(0, 1), 2)
    assert feeding.handle(s.Ready(0, 2), 3) == [s.Execute(0, 2, "a")]


def test_an_item_that_takes_too_long_ends_with_its_worker() -> None:
    feeding = fed(timeout_ns=SECOND, retries=5)
    feeding.handle(s.Pulled(1, "a"), 10)
    assert feeding.next_due_ns == SECOND + 10
    destroy, deliver = feeding.handle(s.Tick(), SECOND + 10)
    assert destroy == s.Destroy(0, 1)
    assert isinstance(deliver, s.Deliver)
    assert isinstance(deliver.outcome.error, TaskTimeout)
    # What it says afterwards comes too late.
    assert feeding.handle(s.Executed(0, 1, "A"), SECOND + 11) == []
    assert feeding.handle(s.Destroyed(0, 1), SECOND + 12) == [s.Start(0, 2)]
    assert feeding.handle(s.Executed(0, 1, "A"), SECOND + 13) == []


def test_when_no_worker_can_be_started_the_source_ends_with_that() -> None:
    feeding = Feeding(1, random.Random(0))
    feeding.handle(s.Begin(), 0)
    now_ns, life = 0, 1
    effects: list[s.Effect] = []
    while not any(isinstance(effect, s.Finish) for effect in effects):
        feeding.handle(s.StartFailed(0, life, OSError("no program")), now_ns)
        effects = feeding.handle(s.Destroyed(0, life), now_ns)
        if feeding.next_due_ns is not None:
            now_ns = feeding.next_due_ns
            effects += feeding.handle(s.Tick(), now_ns)
        life += 1
    finish = effects[-1]
    assert isinstance(finish, s.Finish)
    assert isinstance(finish.error, PoolBroken)
    assert "OSError: no program" in str(finish.error)
    # A new source is a new chance.
    assert feeding.handle(s.Begin(), now_ns) == [s.Start(0, life)]


def test_an_early_end_waits_for_what_runs_and_gives_back_what_was_not_begun() -> None:
    feeding = fed(2, ahead=2)
    feeding.handle(s.Pulled(1, "a"), 0)
    assert feeding.handle(s.Stop(), 1) == [s.Destroy(0, 1)]
    assert feeding.handle(s.Pulled(1, "b"), 2) == [s.GiveBack(1, "b")]
    assert feeding.handle(s.Destroyed(0, 1), 3) == [s.StopPulling(1), s.Finish(None)]
    assert feeding.count(SlotState.READY) == 1
    # The idle one was kept; the other one is started for the next source.
    assert feeding.handle(s.Begin(), 4) == [s.Start(0, 3), s.Pull(2)]


def test_what_no_worker_began_is_given_back_in_its_order() -> None:
    feeding = fed(2)
    for number, item in ((0, "a"), (1, "b")):
        feeding.handle(s.Pulled(1, item), 0)
        dead = s.Raised(number, number + 1, OSError(), active=False, ran=False)
        feeding.handle(dead, 1)
    # Given back one by one, each before what is there: the first one comes last.
    assert feeding.handle(s.Stop(), 2) == [s.GiveBack(1, "b"), s.GiveBack(1, "a")]


def test_idle_workers_get_their_share_in_turn() -> None:
    feeding = fed(3)
    began: list[int] = []
    for item in range(6):
        (execute, *_) = feeding.handle(s.Pulled(1, item), 0)
        assert isinstance(execute, s.Execute)
        began.append(execute.station)
        feeding.handle(s.Executed(execute.station, execute.life, item), 0)
        feeding.handle(s.Taken(), 0)
    assert began == [0, 1, 2, 0, 1, 2]


def test_shutdown_ends_all_and_tells_who_iterates() -> None:
    feeding = fed(2)
    feeding.handle(s.Pulled(1, "a"), 0)
    assert feeding.handle(s.Shutdown(), 1) == [s.Destroy(0, 1), s.Destroy(1, 2)]
    assert feeding.handle(s.Destroyed(1, 2), 2) == []
    stop, finish, closed = feeding.handle(s.Destroyed(0, 1), 3)
    assert (stop, closed) == (s.StopPulling(1), s.Closed())
    assert isinstance(finish, s.Finish)
    assert isinstance(finish.error, PoolClosed)


class World:
    """Workers, a source and a consumer that do what they may, in an order that was drawn."""

    def __init__(self, size: int, items: int, begin: s.Begin) -> None:
        self.feeding = Feeding(size, random.Random(0))
        self.begin = begin
        self.items = items
        self.now_ns = 0
        self.asked = False  # for an item
        self.pulled = 0
        self.starting: set[tuple[int, int]] = set()
        self.idle: set[tuple[int, int]] = set()
        self.busy: dict[tuple[int, int], int] = {}
        self.dying: set[tuple[int, int]] = set()
        self.gone: set[tuple[int, int]] = set()
        self.outcomes: list[Outcome[Any, Any]] = []
        self.untaken = 0
        self.finish: s.Finish | None = None
        self.send(begin)

    def send(self, event: s.Event) -> None:
        self.now_ns += 1_000
        for effect in self.feeding.handle(event, self.now_ns):
            self.perform(effect)
        self.feeding.check()

    def perform(self, effect: s.Effect) -> None:
        match effect:
            case s.Start(station, life):
                lives = [*self.starting, *self.idle, *self.busy, *self.dying]
                assert station not in {key[0] for key in lives}, "two workers at one place"
                self.starting.add((station, life))
            case s.Pull():
                assert not self.asked
                assert self.idle, "nobody could begin it"
                self.asked = True
            case s.Execute(station, life, item):
                self.idle.remove((station, life))
                self.busy[station, life] = item
            case s.Destroy(station, life):
                key = (station, life)
                self.starting.discard(key)
                self.idle.discard(key)
                self.busy.pop(key, None)
                self.dying.add(key)
            case s.Deliver(outcome):
                self.outcomes.append(outcome)
                self.untaken += 1
            case s.Finish():
                assert not self.busy
                self.finish = effect
            case s.GiveBack() | s.StopPulling() | s.Closed():
                pass

    def choices(self) -> list[tuple[str, Any]]:
        """What could happen next."""
        found: list[tuple[str, Any]] = [("ready", key) for key in sorted(self.starting)]
        found += [("done", key) for key in sorted(self.busy)]
        found += [("destroyed", key) for key in sorted(self.dying)]
        if self.asked:
            found.append(("pulled", None))
        if self.untaken:
            found.append(("taken", None))
        if self.feeding.next_due_ns is not None:
            found.append(("tick", None))
        return found

    def faults(self) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = [("start failed", key) for key in sorted(self.starting)]
        for key in sorted(self.busy):
            found += [("raised", key), ("broke", key), ("found dead", key), ("done and over", key)]
        found += [("late", key) for key in sorted(self.gone | self.dying)]
        return found

    def act(self, what: str, key: Any) -> None:
        station, life = key or (0, 0)
        if what in ("raised", "done"):
            self.busy.pop(key)
            self.idle.add(key)
        match what:
            case "ready":
                self.starting.remove(key)
                self.idle.add(key)
                self.send(s.Ready(station, life))
            case "start failed":
                self.send(s.StartFailed(station, life, OSError("start")))
            case "done":
                self.send(s.Executed(station, life, "value"))
            case "done and over":
                self.send(s.Executed(station, life, "value", active=False))
            case "raised":
                self.send(s.Raised(station, life, ValueError("item")))
            case "broke":
                self.send(s.Raised(station, life, OSError("worker"), active=False))
            case "found dead":
                self.send(s.Raised(station, life, OSError("dead"), active=False, ran=False))
            case "late":
                self.send(s.Executed(station, life, "too late"))
            case "destroyed":
                self.dying.remove(key)
                self.gone.add(key)
                self.send(s.Destroyed(station, life))
            case "pulled":
                self.asked = False
                if self.pulled < self.items:
                    self.pulled += 1
                    self.send(s.Pulled(1, self.pulled - 1))
                else:
                    self.send(s.SourceEnded(1))
            case "taken":
                self.untaken -= 1
                self.send(s.Taken())
            case _:
                assert what == "tick"
                self.now_ns = max(self.now_ns, self.feeding.next_due_ns or 0)
                self.send(s.Tick())


def begun(data: st.DataObject) -> World:
    begin = s.Begin(
        ordered=data.draw(st.booleans()),
        ahead=data.draw(st.integers(0, 3)),
        timeout_ns=data.draw(st.sampled_from([None, 5_000, SECOND])),
        retries=data.draw(st.integers(0, 2)),
    )
    return World(data.draw(st.integers(1, 3)), data.draw(st.integers(0, 8)), begin)


def trouble(world: World, data: st.DataObject, steps: int) -> None:
    for _ in range(data.draw(st.integers(0, steps))):
        choices = world.choices() + world.faults()
        if world.finish is not None or not choices:
            return
        world.act(*choices[data.draw(st.integers(0, len(choices) - 1))])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_item_has_one_outcome_whatever_happens(data: st.DataObject) -> None:
    world = begun(data)
    trouble(world, data, 60)
    # From here on all goes well, and the pool must come to its end.
    for _ in range(300):
        if world.finish is not None:
            break
        choices = world.choices()
        others = [choice for choice in choices if choice[0] != "tick"]
        world.act(*(others or choices)[0])
    assert world.finish is not None
    indices = [outcome.index for outcome in world.outcomes]
    if world.finish.error is None:
        assert sorted(indices) == list(range(world.items))
    else:
        assert isinstance(world.finish.error, PoolBroken)
        assert len(set(indices)) == len(indices)
    if world.begin.ordered:
        assert indices == sorted(indices)
    assert all(outcome.item == outcome.index for outcome in world.outcomes)
    assert all(1 <= outcome.tries <= world.begin.retries + 1 for outcome in world.outcomes)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_an_end_from_outside_comes_whenever_it_is_asked_for(data: st.DataObject) -> None:
    world = begun(data)
    trouble(world, data, 40)
    stop: s.Event = s.Shutdown() if data.draw(st.booleans()) else s.Stop()
    world.send(stop)
    while world.dying:
        world.act("destroyed", min(world.dying))
    assert world.finish is not None
    assert not world.busy
    if isinstance(stop, s.Shutdown):
        assert world.feeding.closed
        assert world.feeding.count(SlotState.STOPPED) == world.feeding.size
