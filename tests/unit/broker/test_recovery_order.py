"""Recovery: what waits, for whom, and what stays behind it (I7, I13)."""

from __future__ import annotations

import pytest

from evener_wire import messages as m
from tests.unit.broker.test_recovery import OLD, WINDOW_MS, held, reporting, result
from tests.unit.broker.world import Client, World, task_id


@pytest.fixture
def world() -> World:
    return World(epoch=2)


def test_new_tasks_wait_behind_those_of_their_line_that_wait_for_the_recovery(
    world: World,
) -> None:
    """I13."""
    agent, client, other = world.agent(slots=1), world.client(), world.client("other")
    client.submit(1, again=True)
    client.submit(2)
    client.submit(3, at_most_once=True)
    assert [world.state(n) for n in (1, 2, 3)] == ["held"] * 3
    other.submit(4)
    assert agent.numbers() == [4]
    agent.done(4, run_us=100_000)
    world.pass_ms(WINDOW_MS + 1)
    assert agent.numbers() == [1]
    agent.done(1, run_us=100_000)
    assert agent.numbers() == [2]
    agent.done(2, run_us=100_000)
    assert agent.numbers() == [3]


def test_an_attempt_that_comes_back_waits_for_others_to_tell_of_a_later_one(world: World) -> None:
    """I7: the broker that died had given it to another agent, which has not told yet."""
    first, client = reporting(world, held()), world.client()
    client.submit(1, again=True)
    assert world.state(1) == "running"
    first.say(result(outcome=m.RETURNED))
    assert world.state(1) == "held"
    client.submit(2)
    assert world.state(2) == "held", "its place is behind that (I13)"
    second = reporting(world, held(fence=OLD + 1), name="other")
    assert world.task(1).fence == OLD + 1
    second.done(1)
    assert client.end(1) == "done"


@pytest.mark.parametrize("outcome", [m.RETURNED, m.LOST, m.CANCELLED, m.FAILED, m.TIMED_OUT])
def test_whatever_an_old_attempt_came_to_a_later_one_that_is_told_of_goes_on(
    world: World, outcome: int
) -> None:
    """I7, I23: the task runs again only when nobody has it. Found by simulation."""
    first, client = reporting(world, held()), world.client()
    client.submit(1, again=True, retries=3, retry_delay_ms=0)
    first.say(result(outcome=outcome))
    assert world.state(1) == "held"
    second = reporting(world, held(fence=OLD + 1), name="other")
    assert world.task(1).fence == OLD + 1
    second.done(1)
    assert client.end(1) == "done"


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_late_agent_goes_on_only_with_what_the_last_broker_of_the_client_began(
    epoch: int,
) -> None:
    """I7. Found by simulation: what broker 1 began, broker 2 had given to another agent."""
    world = World(epoch=3)
    client = Client(world, "client")
    client.epoch = 2
    client.hello()
    client.submit(1, again=True)
    world.pass_ms(WINDOW_MS + 1)
    assert world.state(1) == "queued"
    agent = reporting(world, held(fence=m.fence_of(epoch, 1)))
    assert world.state(1) == ("assigned" if epoch == 1 else "running")
    assert bool(agent.got(m.Cancel)) == (epoch == 1)


def test_the_delay_of_a_retry_is_no_shorter_because_others_are_waited_for(world: World) -> None:
    first, client = reporting(world, held()), world.client()
    client.submit(1, again=True, retries=3, retry_delay_ms=20_000)
    first.say(result(outcome=m.FAILED))
    world.pass_ms(9_900)
    assert world.state(1) == "held"
    world.pass_ms(10_200)
    assert m.epoch_of(world.task(1).fence) == 2
    assert world.state(1) == "assigned"


def test_an_attempt_that_comes_back_and_that_nobody_else_has_runs_again(world: World) -> None:
    agent, client = reporting(world, held()), world.client()
    client.submit(1, again=True)
    del agent.hand[task_id(1)]
    agent.say(result(outcome=m.RETURNED))
    assert agent.numbers() == []
    world.pass_ms(WINDOW_MS + 1)
    assert agent.fence(1) == m.fence_of(2, 1)
