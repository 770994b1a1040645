"""Recovery: what survives the restart of a broker, and what agents report (I9, I15, I23)."""

from __future__ import annotations

import pytest

from evener_broker.tables import Bounds
from evener_wire import messages as m
from evener_wire.limits import ORPHAN_NS, RECOVERY_NS
from tests.unit.broker.world import CALL, VALUE, Agent, Client, World, task_id

MS = 1_000_000
WINDOW_MS = RECOVERY_NS / MS
ORPHAN_MS = ORPHAN_NS / MS
OLD = m.fence_of(1, 3)


def held(number: int = 1, fence: int = OLD) -> tuple[bytes, int]:
    return task_id(number), fence


def result(number: int = 1, outcome: int = m.DONE, fence: int = OLD) -> m.Result:
    return m.Result([(task_id(number), fence, outcome, VALUE, 5, None)])


def reporting(world: World, *reports: tuple[bytes, int], name: str = "agent") -> Agent:
    """An agent that comes with attempts of an earlier broker in its hands."""
    agent = Agent(world, name)
    agent.slots = 2
    agent.functions = [("demo.add", None)]
    for subject, fence in reports:
        agent.hand[subject] = (subject, fence, "demo.add", CALL, 0, 0)
    agent.hello()
    agent.offer(held=reports)
    return agent


@pytest.fixture
def world() -> World:
    return World(epoch=2)


def test_what_a_client_submits_again_is_held_until_agents_had_time_to_report(world: World) -> None:
    """I23: recovery ends before new dispatch of the affected tasks."""
    client = world.client()
    agent = world.agent()
    assert client.submit(1, again=True) == [(client, m.Accepted(1))]
    assert world.state(1) == "held"
    world.pass_ms(WINDOW_MS - 1)
    assert agent.numbers() == []
    world.pass_ms(2)
    assert agent.fence(1) == m.fence_of(2, 1)


def test_the_window_opens_with_the_first_peer_and_not_with_each_task(world: World) -> None:
    client = world.client()
    agent = world.agent()
    world.pass_ms(WINDOW_MS - 100)
    client.submit(1, again=True)
    world.pass_ms(101)
    assert agent.numbers() == [1]
    client.submit(2, again=True)
    agent.done(1)
    assert agent.numbers() == [2]


def test_new_tasks_do_not_wait_for_the_recovery(world: World) -> None:
    agent, client = world.agent(), world.client()
    client.submit(1)
    assert agent.numbers() == [1]


def test_a_running_attempt_is_adopted_when_its_agent_comes_after_the_client(world: World) -> None:
    """I23: it does not run twice."""
    client = world.client()
    client.submit(1, again=True)
    agent = reporting(world, held())
    assert world.state(1) == "running"
    assert world.counter("attempts_adopted") == 1
    world.pass_ms(10_000)
    assert agent.got(m.Run) == []
    agent.say(result())
    assert client.end(1) == "done"


def test_a_running_attempt_is_adopted_when_its_agent_comes_before_the_client(world: World) -> None:
    """I23: however late the client is."""
    agent = reporting(world, held())
    world.pass_ms(ORPHAN_MS * 2)
    client = world.client()
    client.submit(1, again=True)
    assert world.state(1) == "running"
    assert world.counter("attempts_adopted") == 1
    agent.say(result())
    assert client.end(1) == "done"


def test_what_an_agent_still_runs_takes_a_worker(world: World) -> None:
    """I10: adopted or not claimed yet."""
    agent = reporting(world, held(1), held(2))
    client = world.client()
    client.submit(3)
    assert agent.got(m.Run) == []
    agent.say(result(2))
    assert len(agent.got(m.Run)) == 1


def test_a_result_that_comes_before_its_client_is_kept_for_it(world: World) -> None:
    agent = reporting(world, held())
    agent.say(result())
    client = world.client()
    client.submit(1, again=True)
    assert client.end(1) == "done"
    assert client.ends[task_id(1)][2] == VALUE


def test_a_result_is_kept_for_the_whole_time_from_its_coming(world: World) -> None:
    agent = reporting(world, held())
    world.pass_ms(ORPHAN_MS - 10)
    agent.say(result())
    world.pass_ms(ORPHAN_MS - 10)
    client = world.client()
    client.submit(1, again=True)
    assert client.end(1) == "done"


def test_a_result_that_nobody_claims_is_dropped(world: World) -> None:
    """I21: its task runs again if its client comes after all."""
    agent = reporting(world, held())
    agent.say(result())
    world.pass_ms(ORPHAN_MS + 1)
    client = world.client()
    client.submit(1, again=True)
    assert client.end(1) == "open"
    assert world.state(1) == "assigned"


def test_a_failed_result_that_comes_before_its_client_is_retried_by_its_options(
    world: World,
) -> None:
    agent = reporting(world, held(1), held(2))
    agent.say(result(1, m.FAILED), result(2, m.FAILED))
    client = world.client()
    client.submit(1, again=True)
    assert client.end(1) == "failed"
    client.submit(2, again=True, retries=1)
    assert world.state(2) == "held"
    world.pass_ms(200)
    assert world.state(2) == "held", "another agent may have a later attempt"
    world.pass_ms(WINDOW_MS)
    assert world.task(2).fence == m.fence_of(2, 1)


@pytest.mark.parametrize("outcome", [m.LOST, m.RETURNED, m.CANCELLED, m.TIMED_OUT])
def test_an_attempt_that_came_to_nothing_before_its_client_came_runs_again(
    world: World, outcome: int
) -> None:
    agent = reporting(world, held())
    agent.say(result(1, outcome))
    assert agent.record.held() == 0
    client = world.client()
    client.submit(1, again=True)
    world.pass_ms(WINDOW_MS)
    assert client.end(1) == "open"
    assert world.task(1).fence == m.fence_of(2, 1)


def test_the_attempt_after_an_adopted_one_has_the_new_epoch(world: World) -> None:
    """I9: no token is issued twice, also across restarts."""
    client = world.client()
    client.submit(1, again=True)
    agent = reporting(world, held())
    agent.ends(1, m.LOST)
    world.pass_ms(WINDOW_MS + 1)
    assert agent.fence(1) == m.fence_of(2, 1)


def test_adopted_attempts_survive_a_second_restart(world: World) -> None:
    client = world.client()
    client.submit(1, again=True)
    agent = reporting(world, held())
    world.restart()
    client.hello()
    client.submit(1, again=True)
    agent.come_back()
    assert world.state(1) == "running"
    agent.done(1)
    assert client.end(1) == "done"


def test_at_most_once_work_that_may_have_run_is_lost(world: World) -> None:
    """I15."""
    client = world.client()
    world.agent()
    client.submit(1, again=True, at_most_once=True)
    world.pass_ms(WINDOW_MS - 1)
    assert client.end(1) == "open"
    world.pass_ms(2)
    assert client.end(1) == "lost"
    assert client.facts(1)["reason"] == "unknown"


def test_at_most_once_work_that_still_runs_is_adopted(world: World) -> None:
    client = world.client()
    client.submit(1, again=True, at_most_once=True)
    agent = reporting(world, held())
    agent.done(1)
    assert client.end(1) == "done"


def test_a_report_after_the_recovery_is_stale(world: World) -> None:
    """I7, I23: its task goes to others, and the agent is told to stop."""
    client = world.client()
    client.submit(1, again=True)
    early = world.agent("early")
    world.pass_ms(WINDOW_MS + 1)
    assert early.fence(1) == m.fence_of(2, 1)
    agent = Agent(world, "late")
    agent.hello()
    agent.functions = [("demo.add", None)]
    told = agent.offer(held=[held()])
    assert (agent, m.Cancel([held()])) in told
    assert world.counter("attempts_stale") == 1
    assert early.fence(1) == m.fence_of(2, 1)


def test_a_report_of_this_epoch_that_is_not_open_is_stale(world: World) -> None:
    """I8: a lost agent comes back with what others have now."""
    agent = reporting(world, held(5, m.fence_of(2, 1)))
    assert agent.got(m.Cancel) == [m.Cancel([held(5, m.fence_of(2, 1))])]
    assert agent.record.held() == 0


def test_of_two_agents_with_the_same_task_the_newer_attempt_counts(world: World) -> None:
    """I7: whoever reports first."""
    newer = m.fence_of(1, 4)
    first = reporting(world, held(), name="first")
    second = reporting(world, held(1, newer), name="second")
    assert first.got(m.Cancel) == [m.Cancel([held()])]
    third = reporting(world, held(), name="third")
    assert third.got(m.Cancel) == [m.Cancel([held()])]
    client = world.client()
    client.submit(1, again=True)
    first.say(result())
    second.say(result(1, m.DONE, newer))
    assert client.end(1) == "done"
    assert world.counter("results_stale") == 1


def test_two_agents_with_the_same_unclaimed_task_may_both_go(world: World) -> None:
    first = reporting(world, held(), name="first")
    second = reporting(world, held(), name="second")
    first.say(m.Goodbye("stopped"))
    second.say(m.Goodbye("stopped"))
    assert world.core.tables.agents == {}


def test_unclaimed_attempts_of_a_lost_agent_are_forgotten(world: World) -> None:
    agent = reporting(world, held())
    agent.say(m.Goodbye("killed"))
    client = world.client()
    client.submit(1, again=True)
    world.pass_ms(WINDOW_MS)
    assert world.state(1) == "queued"


def test_a_run_that_never_arrived_goes_back_free_of_blame(world: World) -> None:
    """I11: the connection broke before the RUN was through."""
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2)
    agent.vanish()
    del agent.hand[task_id(2)]
    agent.come_back()
    assert world.task(1).fence == m.fence_of(2, 1)
    assert agent.fence(2) == m.fence_of(2, 2)
    assert world.task(2).tries.starts == 0


def test_tasks_that_come_again_are_not_refused_because_their_agent_is_slow(world: World) -> None:
    """I5: what one broker accepted the next does not refuse; agents come in any order."""
    world.agent("quick", functions=["demo.other"])
    client = world.client()
    assert client.submit(1, again=True) == [(client, m.Accepted(1))]
    world.pass_ms(WINDOW_MS + 100)
    slow = world.agent("slow")
    assert slow.numbers() == [1]


def test_tasks_that_come_again_and_that_nobody_knows_fail_in_the_end(world: World) -> None:
    """I19."""
    world.agent("other", functions=["demo.other"])
    world.pass_ms(20_000)
    client = world.client()
    client.submit(1, again=True)
    world.pass_ms(5_001)
    assert client.end(1) == "failed"


def test_a_task_whose_time_in_the_queue_ends_in_the_recovery_expires_after_it(
    world: World,
) -> None:
    """It may be running: that is known only when the recovery is over."""
    client = world.client()
    world.agent()
    client.submit(1, again=True, expires_ms=100)
    world.pass_ms(WINDOW_MS - 1)
    assert world.state(1) == "held"
    world.pass_ms(2)
    assert client.end(1) == "expired"


def test_a_cancel_in_the_recovery_stops_what_agents_report_later(world: World) -> None:
    """I16."""
    client = world.client()
    client.submit(1, again=True)
    client.cancel(1)
    assert client.end(1) == "open"  # or it would be forgotten before the agent comes
    agent = reporting(world, held())
    assert agent.got(m.Cancel) == [m.Cancel([held()])]
    agent.say(result(outcome=m.CANCELLED))
    assert client.end(1) == "cancelled"


def test_a_cancel_in_the_recovery_ends_with_it_when_nobody_reports(world: World) -> None:
    """I19."""
    client = world.client()
    client.submit(1, again=True, at_most_once=True)
    client.cancel(1)
    world.pass_ms(WINDOW_MS + 1)
    assert client.end(1) == "cancelled"


def test_unclaimed_results_are_bounded_in_bytes() -> None:
    """I21."""
    world = World(epoch=2, bounds=Bounds(payload_bytes=3))
    agent = reporting(world, held(1), held(2))
    agent.say(result(1), result(2))
    assert world.counter("results_unclaimed_dropped") == 1


def test_two_clients_cannot_claim_the_same_attempt(world: World) -> None:
    """I3."""
    agent = reporting(world, held())
    first, second = Client(world, "first"), Client(world, "second")
    first.hello()
    second.hello()
    first.submit(1, again=True)
    second.submit(1, again=True)
    agent.say(result())
    assert (first.end(1), second.end(1)) == ("done", "open")
    assert len(second.got(m.Rejected)) == 1


def test_an_attempt_told_after_the_window_is_adopted_while_nobody_else_has_the_task() -> None:
    """I7: its agent was only late."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    fence = agent.fence(1)
    world.restart()
    client.hello()
    client.submit(1, again=True)
    world.pass_ms(2_000)
    assert world.state(1) == "queued"
    agent.come_back()
    assert world.state(1) == "running"
    assert world.task(1).fence == fence
    agent.done(1)
    assert client.end(1) == "done"


def test_an_attempt_that_was_counted_is_not_adopted_when_it_is_told_again() -> None:
    """I12: one death of a worker counts once."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    held = agent.held()
    world.restart()
    client.hello()
    client.submit(1, again=True)
    agent.come_back()
    agent.offer(slots=0)
    agent.ends(1, m.LOST)
    assert world.state(1) == "held"
    agent.move()
    agent.hello()
    agent.offer(held=held)
    assert world.state(1) == "held"
    assert world.task(1).tries.starts == 1
