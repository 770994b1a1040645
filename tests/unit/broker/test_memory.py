"""What is over leaves no trace: no task, no payload, no record of who is gone (I20, I21)."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from evener_broker.records import Task
from evener_broker.tables import Bounds
from evener_wire import messages as m
from tests.unit.broker.world import World

# Not even for those who ask later (`test_retention.py`).
NOTHING_KEPT = Bounds(retained_tasks=0, letters=0)


def tasks_of(world: World) -> int:
    """How many tasks of this world anything still refers to."""
    gc.collect()
    functions = world.core.tables.functions
    tasks = (thing for thing in gc.get_objects() if type(thing) is Task)
    return sum(functions.get(task.function.name) is task.function for task in tasks)


def test_no_task_is_left_when_its_end_was_taken() -> None:
    world = World(bounds=NOTHING_KEPT)
    agent, client = world.agent(slots=100), world.client()
    client.submit(*range(100), retries=1)
    agent.done(*range(50))
    for number in range(50, 60):
        agent.ends(number, m.FAILED)
    client.cancel(*range(60, 100))
    for number in range(60, 100):
        agent.ends(number, m.CANCELLED)
    world.pass_ms(200)
    agent.done(*range(50, 60))
    client.acknowledge()
    tables = world.core.tables
    assert (tables.tasks, tables.bytes, tables.open_tasks) == ({}, 0, 0)
    assert tasks_of(world) == 0


def test_tasks_that_ended_in_line_are_swept_out() -> None:
    """Cancelled and expired tasks do not pile up behind one that nobody serves."""
    world = World(bounds=NOTHING_KEPT)
    client = world.client()
    client.submit(9_999, queue="unserved")
    for start in range(0, 5_000, 500):
        client.submit(*range(start, start + 500), queue="unserved")
        client.cancel(*range(start, start + 500))
        client.acknowledge()
    assert tasks_of(world) < 200


@pytest.mark.parametrize("limit", ["deadline_ms", "expires_ms"])
def test_limits_far_in_the_future_keep_no_ended_task(limit: str) -> None:
    """A timer set for tomorrow does not hold the result of today."""
    world = World(bounds=NOTHING_KEPT)
    agent, client = world.agent(slots=100), world.client()
    chosen: Any = {limit: 86_400_000}
    for start in range(0, 5_000, 100):
        client.submit(*range(start, start + 100), **chosen)
        agent.done(*range(start, start + 100))
        client.acknowledge()
    assert tasks_of(world) <= 1_000
    assert len(world.core.tables.timers) <= 1_010


def test_timers_that_still_matter_survive_the_sweep() -> None:
    world = World()
    agent, client = world.agent(slots=100), world.client()
    client.submit(9_999, queue="unserved", expires_ms=60_000)
    for start in range(0, 3_000, 100):
        client.submit(*range(start, start + 100), deadline_ms=86_400_000)
        agent.done(*range(start, start + 100))
        client.acknowledge()
    world.pass_ms(60_000)
    assert client.end(9_999) == "expired"


def test_agents_that_come_and_go_leave_no_trace() -> None:
    world = World()
    for number in range(30):
        agent = world.agent(f"a{number}", functions=[f"demo.f{number}"])
        agent.say(m.Goodbye("stopped"))
    world.pass_ms(10_000)
    tables = world.core.tables
    assert (tables.agents, tables.sessions) == ({}, {})
    assert not any(function.agents for function in tables.functions.values())
    assert not any(queue.agents for queue in tables.queues.values())
    assert len(tables.timers) == 0


def test_an_idle_broker_owes_nothing() -> None:
    world = World()
    assert world.core.wake_at() is None
    agent = world.agent()
    agent.say(m.Goodbye("stopped"))
    world.pass_ms(10_000)
    assert world.core.wake_at() is None


def test_queue_and_wake_times_do_not_grow_with_silence() -> None:
    """Idle peers cost one timer each."""
    world = World()
    for number in range(10):
        world.agent(f"a{number}")
    world.pass_ms(30_000)
    assert len(world.core.tables.timers) <= 11
