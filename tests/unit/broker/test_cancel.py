"""Cancel: at once where nothing runs, by the agent's word where something may (I16)."""

from __future__ import annotations

import pytest

from evener_wire import messages as m
from tests.unit.broker.world import World, task_id


def test_a_waiting_task_is_cancelled_at_once() -> None:
    world = World()
    client = world.client()
    client.submit(1, 2, 3)
    assert client.cancel(2) == [
        (client, m.Terminal([(task_id(2), m.TERMINAL_CANCELLED, b"", None)]))
    ]
    assert world.agent(slots=3).numbers() == [1, 3]


def test_a_held_task_is_cancelled_at_once() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=1)
    agent.ends(1, m.FAILED)
    client.cancel(1)
    assert client.end(1) == "cancelled"
    world.pass_ms(1_000)
    assert agent.numbers() == []


@pytest.mark.parametrize("started", [False, True])
def test_an_open_attempt_is_stopped_by_its_agent(started: bool) -> None:
    """I16: its slot is free only when the attempt is closed."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, 2)
    if started:
        agent.starts(1)
    fence = agent.fence(1)
    assert client.cancel(1) == [(agent, m.Cancel([(task_id(1), fence)]))]
    assert client.end(1) == "open"
    assert agent.numbers() == [1]
    agent.ends(1, m.CANCELLED)
    assert client.end(1) == "cancelled"
    assert agent.numbers() == [2]


@pytest.mark.parametrize(
    ("outcome", "end"),
    [
        (m.DONE, "done"),
        (m.FAILED, "failed"),
        (m.CANCELLED, "cancelled"),
        (m.RETURNED, "cancelled"),
        (m.LOST, "cancelled"),
        (m.TIMED_OUT, "cancelled"),
    ],
)
def test_whatever_crosses_the_cancel_is_the_one_end(outcome: int, end: str) -> None:
    """I16: and nothing of it runs again."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=5, max_starts=5)
    client.cancel(1)
    agent.ends(1, outcome)
    assert client.end(1) == end
    world.pass_ms(5_000)
    assert agent.numbers() == []


def test_a_cancelled_task_of_a_lost_agent_is_cancelled() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    client.cancel(1)
    agent.say(m.Goodbye("killed"))
    assert client.end(1) == "cancelled"


def test_an_agent_that_was_away_hears_of_the_cancel_when_it_is_back() -> None:
    """I19: a cancel that got lost with the connection is not forgotten."""
    world = World()
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2)
    client.cancel(1)
    agent.vanish()
    assert client.cancel(2) == []
    agent.got(m.Cancel)
    fence = m.fence_of(1, 1)
    agent.come_back()
    assert agent.got(m.Cancel) == [m.Cancel([(task_id(1), fence), (task_id(2), fence)])]


def test_a_cancel_before_the_inventory_waits_for_it() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.vanish()
    agent.move()
    agent.hello()
    assert client.cancel(1) == []
    assert agent.offer(held=agent.held()) == [(agent, m.Cancel([(task_id(1), agent.fence(1))]))]


def test_a_cancelled_attempt_that_its_agent_never_got_is_cancelled() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    client.cancel(1)
    agent.vanish()
    agent.hand.clear()
    agent.come_back()
    assert client.end(1) == "cancelled"


def test_cancel_of_what_ended_or_never_was_changes_nothing() -> None:
    """I1."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.done(1)
    assert client.cancel(1, 2) == []
    assert client.end(1) == "done"


def test_a_result_after_cancelled_is_not_delivered() -> None:
    """I16."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    fence = agent.fence(1)
    client.cancel(1)
    agent.ends(1, m.CANCELLED)
    assert agent.say(m.Result([(task_id(1), fence, m.DONE, b"x", 1, None)])) == []
    assert world.counter("results_stale") == 1


def test_cancels_of_one_turn_go_to_the_agent_in_one_message() -> None:
    """I22: thousands of small messages would fill the line of an agent that did nothing wrong."""
    world = World()
    agent, client = world.agent(slots=100), world.client()
    client.submit(*range(100))
    client.cancel(*range(100))
    (cancel,) = agent.got(m.Cancel)
    assert len(cancel.items) == 100


def test_a_cancel_that_is_repeated_is_told_once() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    for _ in range(3):
        client.cancel(1, 1, 1)
    assert [len(cancel.items) for cancel in agent.got(m.Cancel)] == [1]
