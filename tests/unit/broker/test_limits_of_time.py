"""Limits of time that callers set: wait in the queue, run time of one attempt, and all together."""

from __future__ import annotations

import pytest

from evener_wire import messages as m
from tests.unit.broker.world import World


def test_a_task_expires_in_its_queue() -> None:
    world = World()
    client = world.client()
    client.submit(1, expires_ms=500)
    world.pass_ms(499)
    assert world.state(1) == "queued"
    world.pass_ms(1)
    assert client.end(1) == "expired"
    assert client.facts(1) == {"limit": "queue", "ms": 500}
    assert world.agent().numbers() == []


def test_a_task_that_was_sent_in_time_does_not_expire() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, expires_ms=500)
    world.pass_ms(1_000)
    assert world.state(1) == "assigned"
    agent.done(1)
    assert client.end(1) == "done"


def test_a_task_that_comes_back_unstarted_expires_if_its_time_is_over() -> None:
    """I11, I19: it never started, and no timer is left for it."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, 2, expires_ms=500)
    agent.offer(draining=True)
    world.pass_ms(400)
    agent.ends(1, m.RETURNED)
    assert world.state(1) == "queued"
    world.pass_ms(100)
    assert client.end(1) == client.end(2) == "expired"


def test_a_task_that_comes_back_late_expires_at_once() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, expires_ms=500)
    world.pass_ms(600)
    agent.ends(1, m.RETURNED)
    assert client.end(1) == "expired"


@pytest.mark.parametrize("outcome", [m.FAILED, m.LOST])
def test_a_task_that_started_does_not_expire_in_its_queue_any_more(outcome: int) -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, expires_ms=500, retries=1)
    agent.offer(draining=True)
    agent.ends(1, outcome)
    world.pass_ms(2_000)
    assert world.state(1) == "queued"


def test_the_deadline_ends_a_task_that_waits() -> None:
    world = World()
    client = world.client()
    client.submit(1, deadline_ms=500)
    world.pass_ms(500)
    assert client.end(1) == "expired"
    assert client.facts(1) == {"limit": "total", "ms": 500}


def test_the_deadline_ends_a_task_that_is_held_for_its_next_try() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, deadline_ms=500, retries=5, retry_delay_ms=5_000)
    agent.ends(1, m.FAILED)
    world.pass_ms(500)
    assert client.facts(1)["limit"] == "total"


def test_the_agent_is_told_how_much_time_is_left() -> None:
    world = World()
    client = world.client()
    client.submit(1, deadline_ms=500, timeout_ms=70)
    world.pass_ms(100)
    agent = world.agent()
    assert agent.hand[(1).to_bytes(16, "big")][4:] == (70, 400)


@pytest.mark.parametrize("outcome", [m.CANCELLED, m.TIMED_OUT, m.RETURNED, m.LOST])
def test_an_attempt_stopped_by_the_deadline_ends_the_task_as_expired(outcome: int) -> None:
    """However the agent ends it: nobody cancelled it, and it must not run again."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, deadline_ms=500, retries=5)
    fence = agent.fence(1)
    world.pass_ms(500)
    assert agent.got(m.Cancel) == [m.Cancel([((1).to_bytes(16, "big"), fence)])]
    assert world.state(1) == "assigned"
    agent.ends(1, outcome)
    assert client.end(1) == "expired"
    assert client.facts(1) == {"limit": "total", "ms": 500}


@pytest.mark.parametrize(("outcome", "end"), [(m.DONE, "done"), (m.FAILED, "failed")])
def test_what_crosses_the_deadline_counts_and_is_not_retried(outcome: int, end: str) -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, deadline_ms=500, retries=5)
    world.pass_ms(500)
    agent.ends(1, outcome)
    assert client.end(1) == end


def test_the_deadline_counts_when_the_agent_is_lost() -> None:
    """I19."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, deadline_ms=500)
    agent.vanish()
    world.pass_ms(2_000)
    assert client.end(1) == "expired"


def test_an_agent_that_comes_back_after_the_deadline_is_told_to_stop() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, deadline_ms=500)
    agent.starts(1)
    agent.vanish()
    world.pass_ms(600)
    agent.come_back()
    assert len(agent.got(m.Cancel)) == 1
    agent.ends(1, m.CANCELLED)
    assert client.facts(1)["limit"] == "total"


def test_an_agents_clock_may_be_a_little_ahead() -> None:
    """It stopped the attempt for the deadline just before the broker's own timer."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, deadline_ms=500, retries=3)
    world.pass_ms(499)
    agent.ends(1, m.TIMED_OUT)
    assert client.end(1) == "expired"
    assert client.facts(1) == {"limit": "total", "ms": 500}


def test_a_run_timeout_without_retries_is_the_end() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, timeout_ms=100)
    agent.ends(1, m.TIMED_OUT)
    assert client.end(1) == "expired"
    assert client.facts(1) == {"limit": "run", "ms": 100}


def test_a_run_timeout_is_retried_like_an_exception() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, timeout_ms=100, retries=1, retry_on=("TimeoutError",))
    client.submit(2, timeout_ms=100, retries=1, retry_on=("ValueError",))
    agent.ends(1, m.TIMED_OUT)
    assert world.state(1) == "held"
    agent.ends(2, m.TIMED_OUT)
    assert client.end(2) == "expired"
    world.pass_ms(100)
    agent.ends(1, m.TIMED_OUT)
    assert client.facts(1) == {"limit": "run", "ms": 100}
