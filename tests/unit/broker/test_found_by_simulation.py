"""What the simulation found in the broker's core, each as the shortest story that shows it."""

from __future__ import annotations

from evener_broker.tables import Bounds
from evener_wire import messages as m
from tests.unit.broker.world import Agent, Client, World, task_id


def test_an_unacknowledged_older_result_does_not_hide_the_running_attempt() -> None:
    """I7: an agent that reports two attempts of one task has the newer one in hand."""
    world = World()
    client, agent = world.client(), world.agent()
    client.submit(1, retries=1, retry_delay_ms=0)
    first = agent.fence(1)
    agent.ends(1, m.FAILED)
    world.pass_ms(1)
    assert agent.numbers() == [1]
    second = agent.fence(1)
    agent.move()
    agent.hello()
    # As agents do: what runs first, then results that nobody acknowledged.
    agent.offer(held=[(task_id(1), second), (task_id(1), first)])
    assert [item[1] for run in agent.got(m.Run) for item in run.items] == [first, second]
    agent.done(1)
    assert client.end(1) == "done"


def test_a_call_that_never_fits_is_refused_for_that() -> None:
    """I19: "full" would let the client wait for room that cannot come."""
    world = World(bounds=Bounds(client_bytes=25))
    client = world.client()
    client.submit(1, payload=bytes(26))
    assert [item[1] for message in client.got(m.Rejected) for item in message.items] == [
        "too_large"
    ]
    client.submit(2, payload=bytes(25))
    assert world.state(2) == "queued"


def _adopted(deadline_ms: int = 0) -> tuple[World, Client, Agent]:
    """A task that a broker which restarted adopted from an agent."""
    world = World()
    client, agent = world.client(), world.agent()
    client.submit(1, deadline_ms=deadline_ms)
    held = agent.held()
    world.restart()
    client.move()
    client.hello()
    client.submit(1, again=True, deadline_ms=deadline_ms)
    agent.move()
    agent.hello()
    agent.offer(held=held)
    assert world.state(1) == "running"
    return world, client, agent


def test_what_an_earlier_broker_stopped_is_not_told_as_cancelled() -> None:
    """I3: it had given the task to somebody else; no caller asked for the cancel."""
    _, client, agent = _adopted()
    agent.ends(1, m.CANCELLED)
    assert client.end(1) == "open"
    agent.done(1)
    assert client.end(1) == "done"


def test_what_an_earlier_broker_stopped_at_its_deadline_is_told_as_expired() -> None:
    """I3: the deadline began with the first submission."""
    _, client, agent = _adopted(deadline_ms=60_000)
    agent.ends(1, m.CANCELLED)
    assert client.end(1) == "expired"
    assert client.facts(1)["limit"] == "total"


def test_a_new_task_does_not_get_the_attempt_of_another_with_its_id() -> None:
    """I3: who says nothing of an earlier submission has none."""
    world = World()
    client, agent = world.client(), world.agent()
    client.submit(1)
    held = agent.held()
    world.restart()
    agent.move()
    agent.hello()
    agent.offer(held=held)
    other = world.client("other")
    other.submit(1)
    assert [item[1] for message in other.got(m.Rejected) for item in message.items] == ["conflict"]
    client.move()
    client.hello()
    client.submit(1, again=True)
    agent.done(1)
    assert client.end(1) == "done"
