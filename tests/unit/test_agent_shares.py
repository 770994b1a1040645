"""An agent whose workers run several attempts at once: who gets them, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from evener_wire import messages as m
from evener_wire.limits import SHARES_MAX
from evener_worker import channel as c
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.slots import SlotState
from tests.agent_harness import MS, SECOND, Bench, handed, item, key, only, results, sent

FUNCTIONS: Sequence[tuple[str, m.Options | None]] = [("t.f", None), ("t.s", None), ("t.w", None)]


class Shares(Bench):
    """Workers that run four of `t.s` at once, two of `t.w`, and `t.f` alone."""

    def __init__(self, workers: int = 2, **settings: Any) -> None:
        super().__init__(workers, **settings)
        # By slot: what each lane says that it started last.
        self.lanes: dict[int, dict[int, int]] = {}

    def ready(self, slot: int) -> list[f.Effect]:
        self.started[slot] = self.handed[slot] = 0
        self.lanes[slot] = {}
        ready = e.Ready(slot, FUNCTIONS, {}, (), {"t.s": 4, "t.w": 2})
        return self.step(e.Spawned(slot, 100 + slot), ready)

    def run(self, *numbers: int, function: str = "t.s", **limits: int) -> list[f.Effect]:
        """The broker sends tasks."""
        return self.say(m.Run([item(number, function, **limits) for number in numbers]))

    def begin(self, *numbers: int) -> None:
        """Workers start these attempts: each has its permit, and its lane says so."""
        for number in numbers:
            attempt = self.core.ledger.open[key(number)]
            lane = self.core.pool.slots[attempt.slot].lane_of(attempt)
            self.lanes[attempt.slot][lane] = attempt.sequence
            self.started[attempt.slot] = attempt.sequence

    def tick(self, after_ms: int) -> list[f.Effect]:
        self.now_ns += after_ms * MS
        pages: dict[int, e.Page] = {}
        wanted = self.core.pool.lanes()
        for slot in self.core.pool.slots.values():
            own = {
                lane: e.Page(self.lanes[slot.number].get(lane, 0), self.now_ns - after_ms * MS)
                for lane in wanted.get(slot.number, ())
            }
            pages[slot.number] = e.Page(self.started[slot.number], slot.head_since_ns, None, own)
        return self.step(e.Tick(pages))

    def die(self, slot: int, signal: int = 9) -> list[f.Effect]:
        died = e.Died(slot, 0, None, signal, ("last words",), lanes=self.lanes[slot])
        return self.step(died)

    def has(self, slot: int) -> list[int]:
        """Which tasks a worker has, alone or side by side."""
        found = self.core.pool.slots[slot]
        attempts = [*found.handed, *(it.attempt for it in found.shared.values())]
        return [int.from_bytes(attempt.key[0], "big") for attempt in attempts]


def opened(workers: int = 2, **settings: Any) -> Shares:
    bench = Shares(workers, **settings)
    bench.open()
    return bench


def test_it_offers_how_many_run_at_once() -> None:
    bench = opened(1)
    (offer,) = [x for x in sent(bench.effects) if isinstance(x, m.Offer) and x.functions]
    assert (offer.slots, offer.shares) == (1, (("t.s", 4), ("t.w", 2)))


def test_one_worker_is_filled_before_the_next_gets_any() -> None:
    """So whole workers stay free for tasks that need one."""
    bench = opened()
    effects = bench.run(1, 2, 3)
    assert only(effects, f.Hand) == [f.Hand(1, 1, only(effects, f.Hand)[0].attempts, [1, 2, 3])]
    assert handed(bench.run(4, 5)) == {1: [4], 2: [5]}


def test_shares_of_several_functions_fill_a_worker_together() -> None:
    bench = opened(1)
    bench.run(1, function="t.w")
    bench.run(2, 3, 4)
    assert bench.has(1) == [1, 2, 3]
    assert len(bench.core.ledger.waiting) == 1, "a half and two quarters are the whole"


def test_a_worker_has_a_lane_for_each_of_as_many_as_there_can_be() -> None:
    bench = Shares(1)
    bench.welcome()
    bench.started[1] = bench.handed[1] = 0
    bench.step(e.Spawned(1, 9), e.Ready(1, [("t.s", None)], {}, (), {"t.s": SHARES_MAX}))
    (hand,) = only(bench.run(*range(SHARES_MAX + 1)), f.Hand)
    assert list(hand.lanes) == [*range(1, SHARES_MAX + 1)]


def test_lanes_that_are_free_again_are_used_first() -> None:
    bench = opened(1)
    bench.run(1, 2, 3)
    bench.finish(1, 2)
    (hand,) = only(bench.run(4, 5), f.Hand)
    assert list(hand.lanes) == [2, 4]


def test_attempts_side_by_side_end_in_any_order() -> None:
    bench = opened(1)
    bench.run(1, 2, 3)
    assert results(bench.finish(1, 3, 1)) == [(3, m.DONE), (1, m.DONE)]
    assert bench.has(1) == [2]
    assert results(bench.finish(1, 2)) == [(2, m.DONE)]
    assert bench.core.pool.slots[1].load == 0


def test_whole_tasks_and_shares_never_stand_in_one_worker() -> None:
    bench = opened()
    bench.run(1, function="t.f")
    bench.run(2, 3)
    bench.run(4, function="t.f")
    assert (bench.has(1), bench.has(2)) == ([1], [2, 3])
    assert handed(bench.finish(1, 1)) == {1: [4]}


def test_what_needs_a_whole_worker_is_not_passed_by_shares() -> None:
    bench = opened(1)
    bench.run(1, 2)
    bench.run(3, function="t.f")
    assert handed(bench.run(4)) == {}, "there is room, and it is not its turn"
    assert handed(bench.finish(1, 1)) == {}
    assert handed(bench.finish(1, 2)) == {1: [3]}
    assert handed(bench.finish(1, 3)) == {1: [4]}


def test_a_result_that_nobody_asked_for_ends_its_worker() -> None:
    bench = opened(1)
    bench.run(1, 2)
    body = msgpack.packb((*key(1), m.DONE, b"r", 1, None))
    effects = bench.step(e.Finished(1, [c.Frame(c.RESULT, 77, m.DONE, 1, body)]))
    assert only(effects, f.Kill) == [f.Kill(1)]


def test_only_those_that_started_are_charged_for_a_death() -> None:
    bench = opened(1)
    bench.run(1, 2, 3, 4)
    bench.begin(1, 3)
    effects = bench.die(1)
    assert results(effects) == [(1, m.LOST), (2, m.RETURNED), (3, m.LOST), (4, m.RETURNED)]
    (log,) = [x.text for x in only(effects, f.Log) if "died" in x.text]
    assert "and 1 more, which go back to the broker" in log


def test_an_older_attempt_on_the_same_lane_charges_nobody() -> None:
    bench = opened(1)
    bench.run(1)
    bench.begin(1)
    bench.finish(1, 1)
    bench.run(2)
    assert results(bench.die(1)) == [(2, m.RETURNED)]


def test_a_restarted_worker_begins_with_empty_lanes() -> None:
    bench = opened(1)
    bench.run(1, 2)
    bench.begin(1, 2)
    bench.die(1)
    bench.ready(1)
    (hand,) = only(bench.run(3), f.Hand)
    assert (hand.first, list(hand.lanes)) == (1, [1])


def test_a_cancel_ends_one_and_leaves_the_others() -> None:
    bench = opened(1)
    bench.run(1, 2, 3)
    bench.begin(1, 2, 3)
    effects = bench.say(m.Cancel([key(2)]))
    assert only(effects, f.Flag) == [f.Flag(1, 2, m.CANCELLED, 2)]
    assert only(bench.tick(50), f.Interrupt) == []
    assert only(bench.tick(60), f.Interrupt) == [f.Interrupt(1, 2)]
    assert not only(bench.effects, f.Terminate)
    assert bench.has(1) == [1, 2, 3]
    assert only(bench.tick(2_100), f.Kill) == [f.Kill(1)]


def test_what_dies_of_the_stubbornness_of_another_is_told_so() -> None:
    bench = opened(1)
    bench.run(1, 2)
    bench.begin(1, 2)
    bench.say(m.Cancel([key(1)]))
    bench.tick(200)
    bench.tick(2_100)
    effects = bench.die(1)
    assert results(effects) == [(1, m.CANCELLED), (2, m.LOST)]
    (told,) = only(effects, f.SendResults)
    reasons = [msgpack.unpackb(attempt.packed)[5]["reason"] for attempt in told.attempts]
    stubborn = f"t.s[{key(1)[0].hex()[:8]}]"
    assert reasons == [f"died by SIGKILL ({stubborn} did not stop when it was told to)"] * 2


def test_a_cancel_of_what_has_not_started_takes_back_what_is_behind_it() -> None:
    bench = opened(1)
    bench.run(1, 2, 3)
    bench.begin(1)
    effects = bench.say(m.Cancel([key(2)]))
    assert only(effects, f.TakeBack) == [f.TakeBack(1, 2)]
    assert results(effects) == [(2, m.CANCELLED)]
    assert bench.has(1) == [1]
    assert [a.key for a in bench.core.ledger.waiting] == [key(3)], "until the worker noticed"
    assert handed(bench.step(e.Dropped(1, 3))) == {1: [3]}


def test_a_recall_is_answered_by_what_started() -> None:
    bench = opened(1)
    bench.run(1, 2)
    bench.begin(1)
    effects = bench.say(m.Recall([key(1), key(2)]))
    assert results(effects) == [(2, m.RETURNED)]
    assert m.Started([key(1)]) in sent(effects)


def test_the_time_of_one_is_over() -> None:
    bench = opened(1)
    bench.run(1)
    bench.run(2, timeout_ms=30)
    bench.begin(1, 2)
    assert only(bench.tick(20), f.Flag) == []
    assert only(bench.tick(40), f.Flag) == [f.Flag(1, 2, m.TIMED_OUT, 2)]


def test_those_that_run_for_a_while_are_told_as_started_and_others_are_not() -> None:
    bench = opened(1)
    bench.run(1, 2, 3)
    bench.begin(1, 3)
    effects = bench.tick(60)
    assert m.Started([key(1), key(3)]) in sent(effects)
    bench.now_ns += 2 * SECOND
    beats = [x for x in sent(bench.tick(1)) if isinstance(x, m.Heartbeat)]
    assert [task[:2] for task in beats[0].running] == [key(1), key(3)]
    (facts,) = beats[0].workers or [{}]
    assert (facts["task"], facts["at_once"]) == (key(1)[0], 3)
    assert facts["beside"] == (key(2)[0], key(3)[0])


def test_what_a_busy_loop_does_not_begin_goes_where_there_is_room() -> None:
    bench = opened()
    bench.run(1, 2)
    bench.begin(1)
    assert only(bench.tick(200), f.TakeBack) == []
    effects = bench.tick(100)
    assert only(effects, f.TakeBack) == [f.TakeBack(1, 1)]
    assert handed(effects) == {2: [2]}


def test_it_stays_where_nobody_else_has_room() -> None:
    bench = opened(1)
    bench.run(1, 2)
    bench.begin(1)
    assert only(bench.tick(300), f.TakeBack) == []


def test_a_fenced_agent_takes_back_what_has_not_begun() -> None:
    bench = opened(1)
    bench.run(1, 2)
    bench.begin(1)
    effects = bench.tick(3_500)
    assert only(effects, f.TakeBack) == [f.TakeBack(1, 1)]
    assert [a.key for a in bench.core.ledger.waiting] == [key(2)]


def test_draining_gives_back_what_has_not_begun_and_waits_for_the_rest() -> None:
    bench = opened(1)
    bench.run(1, 2, 3)
    bench.begin(1, 2)
    effects = bench.step(e.StopAsked("SIGTERM", 143))
    assert "stopping: 3 tasks still running" in only(effects, f.Log)[0].text
    assert results(effects) == [(3, m.RETURNED)]
    assert only(bench.finish(1, 1), f.Leave) == []
    assert only(bench.finish(1, 2), f.Leave) == [f.Leave(1)]


def test_a_worker_that_is_to_leave_gets_nothing_new_and_counts_no_more() -> None:
    bench = opened(2)
    bench.run(1, 2)
    bench.begin(1, 2)
    bench.core.care.scale(1)
    bench.core.pool.dismiss(bench.core.pool.slots[1])
    effects = bench.step()
    assert [x.slots for x in sent(effects) if isinstance(x, m.Offer)] == [0]
    assert bench.core.pool.slots[1].state is SlotState.RETIRING
    assert handed(bench.run(3)) == {}


def test_a_worker_is_replaced_after_so_many_tasks() -> None:
    bench = opened(1, max_tasks_per_worker=2)
    effects = bench.run(1, 2, 3)
    assert handed(effects) == {1: [1, 2]}
    bench.begin(1, 2)
    assert only(bench.finish(1, 1), f.Leave) == []
    assert bench.core.pool.slots[1].state is SlotState.RETIRING
    assert only(bench.finish(1, 2), f.Leave) == [f.Leave(1)]


def test_workers_that_run_many_are_pinged_and_those_that_run_one_are_not() -> None:
    bench = opened(3, ping_seconds=3.0)
    bench.run(1, function="t.f")
    bench.run(2, 3)
    bench.begin(2, 3)
    effects = bench.step(e.Measured({}))
    assert [ping.slot for ping in only(effects, f.Ping)] == [2, 3]
    pings = only(effects, f.Ping)
    for _ in range(3):
        bench.now_ns += SECOND
        bench.step(e.Ponged(3, pings[1].number))
        effects = bench.step(e.Measured({}))
        pings = [*pings[:1], *only(effects, f.Ping)]
    assert only(bench.effects, f.Kill) == [f.Kill(2)]
    assert any("runs 2 at once and does not answer" in x.text for x in only(bench.effects, f.Log))


def test_a_ping_that_was_asked_for_is_answered_by_the_loop() -> None:
    bench = opened(1)
    bench.run(1, 2)
    effects = bench.say(m.Query(5, "ping", {"pid": 101}))
    (ping,) = only(effects, f.Ping)
    (answer,) = [x for x in sent(bench.step(e.Ponged(1, ping.number))) if isinstance(x, m.Answer)]
    assert isinstance(answer.body, bytes)
    told = msgpack.unpackb(answer.body)
    assert (told["busy"], told["function"]) == (False, "t.s")
