"""Care of workers: recycling in turns, rolling restart, scaling, draining."""

from __future__ import annotations

from evener_wire import messages as m
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.slots import SlotState
from tests.agent_harness import SECOND, Bench, item, only, results, sent


def states(bench: Bench) -> dict[int, str]:
    return {number: slot.state.value for number, slot in bench.core.pool.slots.items()}


def left(effects: list[f.Effect]) -> list[int]:
    return [effect.slot for effect in only(effects, f.Leave)]


def started(effects: list[f.Effect]) -> list[tuple[int, str]]:
    return [(effect.slot, effect.worker) for effect in only(effects, f.StartWorker)]


def leave(bench: Bench, slot: int) -> list[f.Effect]:
    """The process that was asked to does end."""
    return bench.step(e.Died(slot, bench.started[slot], 0, None))


def offers(effects: list[f.Effect]) -> list[int]:
    return [message.slots for message in sent(effects) if isinstance(message, m.Offer)]


def run(bench: Bench, *numbers: int) -> None:
    """These tasks one after the other, on whichever worker."""
    for number in numbers:
        bench.say(m.Run([item(number)]))
        slot = bench.slot_of(number)
        bench.start(slot, bench.core.ledger.open[item(number)[:2]].sequence)
        bench.finish(slot, number)


# --- Recycling ------------------------------------------------------------------------------------


def test_a_worker_that_ran_its_tasks_leaves_and_the_next_starts() -> None:
    bench = Bench(1, max_tasks_per_worker=1).open()
    bench.say(m.Run([item(1), item(2)]))
    assert bench.core.pool.slots[1].handed[0].key == item(1)[:2]
    effects = bench.finish(1, 1)
    assert left(effects) == [1]
    assert results(effects) == [(1, m.DONE)]
    assert offers(effects)[-1] == 0
    assert started(leave(bench, 1)) == [(1, "n:1")]
    assert only(bench.ready(1), f.Hand), "what waited goes to the new process"
    facts = bench.core.pool.facts()[0]
    assert (facts["recycled"], facts["restarts"], facts["tasks"]) == (1, 0, 1)


def test_no_more_is_handed_out_than_one_process_may_run() -> None:
    bench = Bench(1, max_tasks_per_worker=2).open()
    run(bench, 1)  # measured now, so that batches are large
    bench.say(m.Run([item(number) for number in range(2, 12)]))
    assert len(bench.core.pool.slots[1].handed) == 1


def test_one_at_a_time_leaves_and_the_others_go_on_meanwhile() -> None:
    bench = Bench(3, max_tasks_per_worker=1).open()
    bench.say(m.Run([item(1), item(2), item(3)]))
    first = [bench.slot_of(number) for number in (1, 2, 3)]
    assert left(bench.finish(first[0], 1)) == [first[0]]
    assert not left(bench.finish(first[1], 2))
    assert not left(bench.finish(first[2], 3))
    assert bench.core.handout.ready() == 2
    run(bench, 4, 5, 6)  # over their limit, but nobody else is there
    assert not left(leave(bench, first[0]))
    assert left(bench.ready(first[0])) == [first[1]]
    leave(bench, first[1])
    assert left(bench.ready(first[1])) == [first[2]]


def test_many_workers_leave_by_tenths() -> None:
    bench = Bench(30, max_worker_memory=1 << 20).open()
    effects = bench.step(e.Measured(dict.fromkeys(range(1, 31), (2 << 20, 5))))
    assert len(left(effects)) == 3
    assert bench.core.handout.ready() == 27


def test_age_ends_a_process_and_those_of_one_start_not_together() -> None:
    bench = Bench(4, max_worker_age_seconds=100.0).open()
    ends = [slot.age_at_ns - slot.ready_ns for slot in bench.core.pool.slots.values()]
    assert all(80 * SECOND <= end <= 100 * SECOND for end in ends)
    assert len(set(ends)) == 4
    wake_at = bench.core.care.wake_at()
    assert wake_at is not None
    assert wake_at - bench.now_ns == min(ends)
    bench.now_ns = wake_at
    bench.say(m.Heartbeat())
    assert len(left(bench.effects)) == 1


def test_memory_waits_for_the_end_of_the_task() -> None:
    bench = Bench(1, max_worker_memory=1 << 20).open()
    bench.say(m.Run([item(1)]))
    bench.start(1, 1)
    effects = bench.step(e.Measured({1: (2 << 20, 5)}))
    assert not left(effects)
    assert states(bench) == {1: "retiring"}
    assert offers(effects) == [1], "what it runs still has its place"
    assert left(bench.finish(1, 1)) == [1]


def test_what_has_not_started_goes_to_another_worker() -> None:
    bench = Bench(2, max_worker_memory=1 << 20).open()
    run(bench, 1, 2)
    bench.say(m.Run([item(3), item(4), item(5), item(6)]))
    slot = bench.slot_of(3)
    mine = [n for n in (3, 4, 5, 6) if bench.slot_of(n) == slot]
    assert len(mine) == 2
    bench.start(slot, bench.core.ledger.open[item(3)[:2]].sequence)
    bench.step(e.Measured({slot: (2 << 20, 5)}))
    assert bench.slot_of(mine[0]) == slot
    other = bench.core.ledger.open[item(mine[1])[:2]]
    assert other in bench.core.ledger.waiting or other.slot != slot


def test_a_long_task_does_not_hold_up_the_others() -> None:
    bench = Bench(3, max_worker_memory=1 << 20).open()
    bench.say(m.Run([item(1), item(2), item(3)]))
    for slot in (1, 2, 3):
        bench.start(slot, 1)
    large = dict.fromkeys((1, 2, 3), (2 << 20, 5))
    bench.step(e.Measured(large))
    assert sorted(states(bench).values()) == ["ready", "ready", "retiring"]
    bench.now_ns += SECOND
    bench.say(m.Heartbeat())
    assert sorted(states(bench).values()) == ["ready", "retiring", "retiring"]
    # Both end at the same time: one leaves, the other goes on until its turn.
    retiring = [n for n, state in states(bench).items() if state == "retiring"]
    effects = bench.step(*[event for slot in retiring for event in _finished(bench, slot)])
    assert len(left(effects)) == 1
    assert sorted(states(bench).values()) == ["leaving", "ready", "ready"] or sorted(
        states(bench).values()
    ) == ["leaving", "ready", "retiring"]


def _finished(bench: Bench, slot: int) -> list[e.Event]:
    import msgpack

    from evener_worker import channel as c

    attempt = bench.core.pool.slots[slot].handed[0]
    body = msgpack.packb((*attempt.key, m.DONE, b"r", 10, None))
    return [e.Finished(slot, [c.Frame(c.RESULT, attempt.sequence, m.DONE, 10, body)])]


def test_a_process_that_does_not_leave_is_killed() -> None:
    bench = Bench(1, max_tasks_per_worker=1).open()
    run(bench, 1)
    effects = bench.tick(5_001)
    assert only(effects, f.Kill) == [f.Kill(1)]
    effects = bench.die(1)
    assert started(effects) == [(1, "n:1")]
    assert bench.core.pool.slots[1].restarts == 0


def test_recycling_costs_no_back_off() -> None:
    bench = Bench(1, max_tasks_per_worker=1).open()
    for number in range(1, 30):
        run(bench, number)
        assert started(leave(bench, 1)) == [(1, "n:1")]
        bench.ready(1)


def test_a_death_while_it_is_to_leave_is_a_death() -> None:
    bench = Bench(1, max_worker_memory=1 << 20).open()
    bench.say(m.Run([item(1)]))
    bench.start(1, 1)
    bench.step(e.Measured({1: (2 << 20, 5)}))
    effects = bench.die(1)
    assert results(effects) == [(1, m.LOST)]
    assert started(effects) == [(1, "n:1")]
    assert bench.core.pool.slots[1].restarts == 1


def test_the_end_of_the_agent_takes_those_along_that_are_to_leave() -> None:
    bench = Bench(2, max_worker_memory=1 << 20).open()
    bench.say(m.Run([item(1)]))
    slot = bench.slot_of(1)
    bench.start(slot, 1)
    bench.step(e.Measured({slot: (2 << 20, 5)}))
    bench.step(e.StopAsked("SIGTERM", 143))
    effects = bench.finish(slot, 1)
    assert left(effects) == [slot]
    effects = leave(bench, slot) + leave(bench, 3 - slot)
    bench.say(m.Ack(100))
    assert bench.core.pool.slots[slot].state is SlotState.STOPPED
    assert only(bench.tick(1_001) + bench.effects, f.Exit)


# --- Rolling restart ------------------------------------------------------------------------------


def test_the_new_process_is_ready_before_the_old_one_leaves() -> None:
    bench = Bench(2).open()
    bench.core.care.rolling.ask("test")
    effects = bench.step()
    assert started(effects) == [(3, "n:1")]
    assert not left(effects)
    effects = bench.ready(3)
    assert left(effects) == [1]
    assert bench.core.handout.ready() == 2
    effects = leave(bench, 1)
    assert 1 not in bench.core.pool.slots
    assert started(effects) == [(4, "n:2")]
    assert left(bench.ready(4)) == [2]
    leave(bench, 2)
    facts = bench.core.care.rolling.facts()
    assert facts is not None
    assert (facts["state"], facts["done"], facts["total"]) == ("done", 2, 2)
    assert states(bench) == {3: "ready", 4: "ready"}
    assert [w["recycled"] for w in bench.core.pool.facts()] == [1, 1]


def test_new_code_that_does_not_import_stops_it_and_the_old_workers_go_on() -> None:
    bench = Bench(2).open()
    bench.core.care.rolling.ask("test")
    bench.step()
    effects = bench.step(e.Spawned(3, 9), e.StartFailed(3, "Traceback: theirs"))
    effects += bench.step(e.Died(3, 0, 1, None))
    assert not left(effects)
    assert not only(effects, f.Exit)
    assert states(bench) == {1: "ready", 2: "ready"}
    (log,) = only(effects, f.Log)
    assert log.level == "error"
    assert "2 workers go on with the code that they have: Traceback: theirs" in log.text
    facts = bench.core.care.rolling.facts()
    assert facts is not None
    assert (facts["state"], facts["error"]) == ("failed", "Traceback: theirs")
    assert not bench.core.care.rolling.active
    bench.core.care.rolling.ask("again")
    assert started(bench.step()) == [(4, "n:1")]


def test_a_new_process_that_dies_at_its_start_stops_it_with_its_last_lines() -> None:
    bench = Bench(1).open()
    bench.core.care.rolling.ask("test")
    bench.step()
    bench.step(e.Spawned(2, 9), e.Died(2, 0, None, 11, ("Fatal Python error",)))
    facts = bench.core.care.rolling.facts()
    assert facts is not None
    assert facts["error"] == "died by SIGSEGV\nFatal Python error"


def test_a_long_task_is_waited_for_beside_its_successor() -> None:
    bench = Bench(2).open()
    bench.say(m.Run([item(1), item(2)]))
    for slot in (1, 2):
        bench.start(slot, 1)
    bench.core.care.rolling.ask("test")
    bench.step()
    effects = bench.ready(3)
    assert offers(effects) == [3], "two ready, one runs its last task"
    assert not started(bench.step())
    bench.now_ns += SECOND
    assert started(bench.say(m.Heartbeat())) == [(4, "n:2")]
    bench.ready(4)
    facts = bench.core.care.rolling.facts()
    assert facts is not None
    assert (facts["state"], facts["finishing"]) == ("running", 2)
    bench.finish(1, 1)
    bench.finish(2, 2)
    leave(bench, 1)
    leave(bench, 2)
    assert not bench.core.care.rolling.active


def test_what_is_offered_follows_the_code() -> None:
    bench = Bench(2).open()
    bench.core.care.rolling.ask("test")
    bench.step()
    bench.started[3] = bench.handed[3] = 0
    new = [("t.f", None), ("t.g", None)]
    bench.step(e.Spawned(3, 9), e.Ready(3, new))
    assert bench.core.pool.functions == [("t.f", None)], "not all know the new one yet"
    leave(bench, 1)
    bench.started[4] = bench.handed[4] = 0
    effects = bench.step(e.Spawned(4, 10), e.Ready(4, new))
    assert bench.core.pool.functions == new
    (offer,) = [message for message in sent(effects) if isinstance(message, m.Offer)]
    assert offer.functions == new


def test_asked_twice_all_are_replaced_once_more() -> None:
    bench = Bench(1).open()
    bench.core.care.rolling.ask("one")
    bench.step()
    bench.core.care.rolling.ask("two")
    bench.ready(2)
    effects = leave(bench, 1)
    assert started(effects) == [(3, "n:1")]
    bench.ready(3)
    leave(bench, 2)
    assert not bench.core.care.rolling.active


def test_a_worker_that_was_given_up_gets_its_chance() -> None:
    bench = Bench(2).open()
    bench.core.pool.slots[2].state = SlotState.STOPPED
    bench.core.handout.remove(bench.core.pool.slots[2])
    bench.core.care.rolling.ask("test")
    assert started(bench.step()) == [(3, "n:1")]
    bench.ready(3)
    assert started(leave(bench, 1)) == [(4, "n:2")]
    bench.ready(4)
    assert states(bench) == {3: "ready", 4: "ready"}


# --- Scaling and draining -------------------------------------------------------------------------


def test_scaling_up_starts_and_down_waits_for_what_runs() -> None:
    bench = Bench(2).open()
    bench.core.care.scale(3)
    assert started(bench.step()) == [(3, "n:3")]
    assert offers(bench.ready(3)) == [3]
    bench.say(m.Run([item(1), item(2), item(3)]))
    for slot in (1, 2, 3):
        bench.start(slot, 1)
    bench.core.care.scale(1)
    effects = bench.step()
    assert states(bench) == {1: "ready", 2: "retiring", 3: "retiring"}
    assert not left(effects)
    assert left(bench.finish(bench.core.pool.slots[3].number, _task_of(bench, 3))) == [3]
    leave(bench, 3)
    assert states(bench) == {1: "ready", 2: "retiring"}
    bench.core.care.scale(2)
    bench.step()
    assert states(bench) == {1: "ready", 2: "ready"}, "it had not left"


def _task_of(bench: Bench, slot: int) -> int:
    return int.from_bytes(bench.core.pool.slots[slot].handed[0].key[0], "big")


def test_scaling_ends_a_start_that_is_not_wanted_any_more() -> None:
    bench = Bench(1).open()
    bench.core.care.scale(2)
    bench.step()
    bench.step(e.Spawned(2, 7))
    bench.core.care.scale(1)
    assert only(bench.step(), f.Kill) == [f.Kill(2)]
    bench.started[2] = 0
    bench.die(2)
    assert states(bench) == {1: "ready"}


def test_a_drained_host_gives_back_what_has_not_started() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1), item(2)]))
    bench.start(1, 1)
    bench.core.care.pause()
    effects = bench.step()
    assert results(effects) == [(2, m.RETURNED)]
    (offer,) = [message for message in sent(effects) if isinstance(message, m.Offer)]
    assert (offer.slots, offer.draining) == (0, True)
    assert results(bench.say(m.Run([item(3)]))) == [(3, m.RETURNED)]
    assert results(bench.finish(1, 1)) == [(1, m.DONE)]
    assert states(bench) == {1: "ready"}
    bench.core.care.resume()
    (offer,) = [message for message in sent(bench.step()) if isinstance(message, m.Offer)]
    assert (offer.slots, offer.draining) == (1, False)
