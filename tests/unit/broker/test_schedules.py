"""Schedules in the core: each due time once, whoever offers it, and the policies as told."""

from __future__ import annotations

from typing import Any

import pytest

from evener_broker.schedule_records import SCHEDULER, read_id
from evener_wire import messages as m
from evener_wire.limits import BROKER_SCHEDULES_MAX, SECOND_NS
from tests.unit.broker.fake_journal import FakeJournal
from tests.unit.broker.schedule_clock import DAWN_NS, NAME, Clock, cron, end, every, ids
from tests.unit.broker.world import CALL

# --- Due times ------------------------------------------------------------------------------------


def test_an_interval_runs_one_interval_after_it_was_first_offered_and_then_each_time() -> None:
    clock = Clock()
    agent = clock.agent(every())
    clock.pass_s(59)
    assert ids(agent) == []
    clock.pass_s(2)
    first = ids(agent)
    assert len(first) == 1
    assert agent.hand[first[0]][2:4] == (NAME, CALL)
    end(agent)
    clock.pass_s(60)
    second = ids(agent)
    assert len(second) == 1
    assert second != first
    due = [read_id(task_id)[1] for task_id in (*first, *second)]
    assert due == [DAWN_NS + 60 * SECOND_NS, DAWN_NS + 120 * SECOND_NS]


def test_cron_runs_when_the_wall_clock_says_so() -> None:
    clock = Clock()
    agent = clock.agent(cron())
    clock.pass_s(29)
    assert ids(agent) == []
    clock.pass_s(1)
    (task_id,) = ids(agent)
    assert read_id(task_id)[1] == DAWN_NS + 30 * SECOND_NS


def test_cron_knows_its_time_zone() -> None:
    clock = Clock()
    clock.agent(cron("0 15 * * *", zone="Europe/Vienna"))  # 13:00 in UTC, in summer
    assert clock.schedule().due_ns == DAWN_NS + (59 * 60 + 30) * SECOND_NS


@pytest.mark.parametrize("spec", [every(), cron()])
def test_a_due_time_is_one_task_however_many_agents_offer_it(spec: m.Schedule) -> None:
    clock = Clock()
    agents = [clock.agent(spec, name=f"agent-{n}") for n in range(3)]
    clock.pass_s(61)
    assert len(ids(*agents)) == 1
    agents[0].come_back()
    clock.pass_s(1)
    assert len(ids(*agents)) == 1
    assert clock.schedule().runs == 1


def test_jitter_makes_a_run_later_and_no_due_time_is_left_out() -> None:
    clock = Clock()
    agent = clock.agent(every(jitter_ms=30_000, overlap="queue"), slots=100)
    clock.pass_s(10 * 60 + 30)
    due = [read_id(task_id)[1] for task_id in ids(agent)]
    assert due == [DAWN_NS + n * 60 * SECOND_NS for n in range(1, 11)]


def test_another_interval_of_the_same_name_replaces_the_one_before() -> None:
    clock = Clock()
    agent = clock.agent(every())
    agent.schedules = (every(10_000),)
    agent.offer(held=())
    clock.pass_s(11)
    assert len(ids(agent)) == 1


def test_what_an_agent_offers_no_more_is_run_no_more() -> None:
    clock = Clock()
    agent = clock.agent(every())
    agent.schedules = ()
    agent.offer(held=())
    clock.pass_s(120)
    assert ids(agent) == []


# --- Overlap --------------------------------------------------------------------------------------


def test_skip_leaves_out_what_is_due_while_the_last_run_is_open() -> None:
    clock = Clock()
    agent = clock.agent(every())
    clock.pass_s(200)
    assert len(ids(agent)) == 1
    assert clock.schedule().skipped == 2
    end(agent)
    clock.pass_s(60)
    assert len(ids(agent)) == 1


def test_queue_lets_runs_wait_in_line() -> None:
    clock = Clock()
    agent = clock.agent(every(overlap="queue"), slots=1)
    clock.pass_s(181)
    assert len(ids(agent)) == 1
    assert clock.world.core.tables.queues["default"].count == 2


def test_of_runs_that_are_due_in_one_turn_none_is_made_after_a_later_one() -> None:
    """Found by simulation: the broker stood still for a moment. A run that waited for the end of
    one that never started was made after the one that came behind it."""
    clock = Clock()
    agent = clock.agent(every(300, overlap="cancel"), slots=0)
    clock.pass_s(0.2)
    clock.world.stand_still_ms(800)
    clock.pass_s(0.01)
    agent.offer(slots=5)
    due = [read_id(task_id)[1] for task_id in ids(agent)]
    assert due == [DAWN_NS + 900 * SECOND_NS // 1_000]
    end(agent)
    assert ids(agent) == [], "that moment is over"
    assert clock.schedule().skipped == 1


def test_cancel_ends_the_last_run_and_begins_the_next_after_it() -> None:
    clock = Clock()
    agent = clock.agent(every(overlap="cancel"))
    clock.pass_s(61)
    first = ids(agent)
    clock.pass_s(60)
    assert ids(agent) == first, "they would run at the same time"
    end(agent, m.CANCELLED)
    assert len(ids(agent)) == 1
    assert ids(agent) != first
    assert clock.world.core.tables.tasks[first[0]].state.value == "cancelled"


# --- Missed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "runs"), [("once", 1), ("skip", 0)])
@pytest.mark.parametrize("make", [every, cron])
def test_what_was_missed_while_no_agent_was_there(make: Any, late: str, runs: int) -> None:
    clock = Clock()
    agent = clock.agent(make(late=late))
    agent.say(m.Goodbye("stopped"))
    agent.sequence = None
    clock.pass_s(10 * 60)
    assert clock.schedule().runs == 0
    other = clock.agent(make(late=late), name="other")
    assert len(ids(other)) == runs
    assert clock.schedule().missed == 1
    end(other)
    clock.pass_s(61)
    assert len(ids(other)) == 1, "and then it goes on as ever"


def test_a_broker_that_stood_still_makes_one_run_of_many() -> None:
    clock = Clock()
    agent = clock.agent(every(1_000))
    clock.world.stand_still_ms(5_000)
    clock.pass_s(0.5)
    assert len(ids(agent)) == 1
    assert clock.schedule().skipped == 0


# --- The wall clock jumps -------------------------------------------------------------------------


def test_what_the_wall_clock_jumps_over_is_left_out() -> None:
    clock = Clock()
    agent = clock.agent(cron("0 * * * *"))
    clock.set_by(3 * 3_600)
    clock.pass_s(60)
    assert ids(agent) == []
    assert clock.schedule().skipped == 1
    assert clock.schedule().due_ns == DAWN_NS + (3 * 3_600 + 59 * 60 + 30) * SECOND_NS


def test_a_clock_that_is_set_forward_a_little_leaves_nothing_out() -> None:
    clock = Clock()
    agent = clock.agent(cron())
    clock.set_by(40)
    assert len(ids(agent)) == 1


def test_nothing_runs_twice_when_the_wall_clock_goes_back() -> None:
    clock = Clock()
    agent = clock.agent(cron())
    clock.pass_s(31)
    assert len(ids(agent)) == 1
    end(agent)
    clock.set_by(-120)
    clock.pass_s(170)
    assert ids(agent) == []
    clock.pass_s(10)
    assert len(ids(agent)) == 1


def test_a_clock_that_was_a_year_ahead_does_not_stop_a_schedule_for_a_year() -> None:
    clock = Clock()
    clock.set_by(365 * 86_400)
    agent = clock.agent(cron())
    clock.pass_s(61)
    end(agent)
    clock.set_by(-365 * 86_400)
    clock.pass_s(61)
    assert len(ids(agent)) == 1


def test_intervals_do_not_look_at_the_wall_clock() -> None:
    clock = Clock()
    agent = clock.agent(every())
    clock.set_by(86_400 * 30)
    clock.set_by(-86_400 * 90)
    clock.pass_s(59)
    assert ids(agent) == []
    clock.pass_s(2)
    assert len(ids(agent)) == 1


def test_cron_waits_until_the_wall_clock_was_heard_of() -> None:
    clock = Clock()
    clock.world.core.tables.wall_ahead_ns = None
    agent = clock.agent(cron())
    assert clock.schedule().due_ns is None
    clock.tell()
    clock.pass_s(61)
    assert len(ids(agent)) == 1


# --- Restarts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [every(), cron()])
def test_with_a_journal_a_due_time_is_one_task_also_across_restarts(spec: m.Schedule) -> None:
    clock = Clock(FakeJournal())
    agent = clock.agent(spec)
    clock.pass_s(61)
    before = ids(agent)
    clock.world.restart()
    clock.tell()
    agent.come_back()
    clock.pass_s(20)
    assert ids(agent) == before
    end(agent)
    clock.pass_s(60)
    assert len(ids(agent)) == 1
    due = [read_id(task_id)[1] for task_id in (*before, *ids(agent))]
    assert due[0] is not None
    assert due[1] == due[0] + 60 * SECOND_NS


@pytest.mark.parametrize("spec", [every(), cron()])
def test_with_a_journal_what_was_missed_without_a_broker_runs_once(spec: m.Schedule) -> None:
    clock = Clock(FakeJournal())
    agent = clock.agent(spec)
    clock.pass_s(61)
    before = ids(agent)
    end(agent)
    clock.pass_s(1)
    clock.world.stand_still_ms(86_400_000)
    clock.world.restart()
    clock.tell()
    agent.come_back()
    clock.pass_s(1)
    assert len(ids(agent)) == 1
    assert ids(agent) != before
    assert clock.schedule().missed == 1


def test_the_last_end_outlives_the_time_for_which_results_are_kept() -> None:
    clock = Clock(FakeJournal())
    agent = clock.agent(cron("1 12 * * *"))
    clock.pass_s(31)
    (task_id,) = ids(agent)
    end(agent)
    agent.say(m.Goodbye("stopped"))
    agent.sequence = None
    clock.pass_s(5 * 3_600)
    clock.world.restart()
    clock.tell()
    assert task_id in clock.world.core.tables.tasks
    clock.pass_s(5 * 3_600)
    assert task_id in clock.world.core.tables.tasks


def test_without_a_journal_an_interval_begins_anew_and_cron_goes_on() -> None:
    clock = Clock()
    agent = clock.agent(every(), cron(name="c"))
    clock.pass_s(50)
    clock.world.restart()
    clock.tell()
    agent.hand.clear()
    agent.come_back()
    clock.pass_s(39)
    assert {name: clock.schedule(name).runs for name in (NAME, "c")} == {NAME: 0, "c": 0}
    clock.pass_s(2)
    assert {name: clock.schedule(name).runs for name in (NAME, "c")} == {NAME: 0, "c": 1}
    clock.pass_s(20)
    assert clock.schedule().runs == 1


# --- What people do -------------------------------------------------------------------------------


def test_it_can_be_run_paused_and_resumed() -> None:
    clock = Clock()
    agent = clock.agent(every())
    assert clock.ask(NAME, "pause")[1]["state"] == "paused"
    clock.pass_s(70)
    assert ids(agent) == []
    ok, view = clock.ask(NAME, "run")
    assert ok
    clock.pass_s(0.1)
    assert view["last_id"] == ids(agent)[0].hex()
    assert clock.ask(NAME, "run") == (
        False,
        f"its last run is still open: task {ids(agent)[0].hex()}",
    )
    end(agent)
    assert clock.ask(NAME, "resume")[1]["state"] == "active"
    clock.pass_s(60)
    assert len(ids(agent)) == 1
    assert clock.ask("demo.other", "run")[0] is False
    assert clock.ask(NAME, "dance")[0] is False


def test_a_run_that_failed_is_a_dead_letter() -> None:
    clock = Clock()
    agent = clock.agent(every())
    clock.pass_s(61)
    (task_id,) = ids(agent)
    end(agent, m.FAILED)
    clock.pass_s(1)
    view = clock.ask(NAME, "pause")[1]
    assert (view["last_state"], view["last_id"]) == ("failed", task_id.hex())
    client = clock.world.client("retrier")
    told = client.say(m.Query(7, "call", {"id": task_id}))
    assert [message.ok for _, message in told if type(message) is m.Answer] == [True]
    told = client.say(m.Query(8, "purge", {"id": task_id}))
    assert [message.ok for _, message in told if type(message) is m.Answer] == [True]


def test_a_journal_that_cannot_be_written_leaves_runs_out() -> None:
    journal = FakeJournal()
    clock = Clock(journal)
    agent = clock.agent(every())
    journal.auto = False
    clock.pass_s(60.5)
    clock.world.fail()
    assert ids(agent) == []
    journal.auto = True
    clock.pass_s(61)
    assert len(ids(agent)) == 1


def test_a_broken_expression_is_told_and_harms_nothing_else() -> None:
    clock = Clock()
    agent = clock.agent(
        cron("nonsense", name="bad"), cron(zone="Mars/Crater", name="mars"), every()
    )
    clock.pass_s(61)
    assert len(ids(agent)) == 1
    assert "nonsense" in clock.schedule("bad").error
    assert "Mars/Crater" in clock.schedule("mars").error
    assert len(clock.world.texts("error")) == 2


def test_names_that_agents_make_up_are_bounded() -> None:
    clock = Clock()
    for round_ in range(6):
        specs = [every(name=f"s{round_}-{number}") for number in range(256)]
        clock.agent(*specs, name=f"agent-{round_}")
    assert len(clock.world.core.tables.schedules) == BROKER_SCHEDULES_MAX
    assert clock.world.counter("names_left_out") == 6 * 256 - BROKER_SCHEDULES_MAX


def test_nobody_else_can_be_the_client_of_schedules() -> None:
    clock = Clock()
    client = clock.world.client("thief")
    client.instance = SCHEDULER
    told = client.hello()
    assert [type(message) for _, message in told] == [m.Refused]
