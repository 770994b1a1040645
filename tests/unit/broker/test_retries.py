"""Retries of exceptions: how often, after what delay, and of which types."""

from __future__ import annotations

import pytest

from evener_wire import messages as m
from tests.unit.broker.world import World, task_id

TYPES = ("demo.Late", "builtins.OSError", "OSError", "builtins.Exception", "Exception")


def test_without_retries_the_first_exception_is_the_end() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    failed = agent.result(1, m.FAILED, b"trace", facts={"type": "E", "message": "no", "host": "h"})
    agent.say(failed)
    assert client.ends[task_id(1)] == (
        task_id(1),
        m.TERMINAL_FAILED,
        b"trace",
        {"attempt": 1, "attempts": 1, "type": "E", "message": "no"},
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_delay_doubles_and_has_jitter(seed: int) -> None:
    """Between half of it and all of it, so that what failed together does not come together."""
    world = World(seed=seed)
    agent, client = world.agent(), world.client()
    client.submit(1, retries=4, retry_delay_ms=200)
    for delay_ms in (200, 400, 800, 1_600):
        agent.ends(1, m.FAILED)
        began_ns = world.now_ns
        assert world.state(1) == "held"
        world.pass_ms(delay_ms / 2 - 1)
        assert world.state(1) == "held"
        world.pass_ms(delay_ms / 2 + 2)
        assert agent.numbers() == [1], (world.now_ns - began_ns) / 1e6
    agent.ends(1, m.FAILED)
    assert client.end(1) == "failed"
    assert client.facts(1) == {"attempt": 5, "attempts": 5}


def test_delays_of_different_tasks_differ() -> None:
    world = World()
    agent, client = world.agent(slots=20), world.client()
    client.submit(*range(20), retries=1, retry_delay_ms=1_000)
    for number in range(20):
        agent.ends(number, m.FAILED)
    world.pass_ms(750)
    assert 2 <= len(agent.numbers()) <= 18


def test_no_delay_means_at_once() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=1, retry_delay_ms=0)
    agent.ends(1, m.FAILED)
    assert agent.numbers() == [1]


def test_the_delay_has_an_end() -> None:
    """However often it doubled, five minutes at most."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=1_000, retry_delay_ms=10_000)
    for _ in range(60):
        agent.ends(1, m.FAILED)
        world.pass_ms(300_001)
        assert agent.numbers() == [1]


def test_a_retried_task_keeps_its_place_and_gets_a_new_attempt() -> None:
    """I13, I9."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, 2, 3, retries=1)
    agent.say(agent.result(1, m.FAILED, run_us=10**6))
    assert agent.numbers() == [2]
    world.pass_ms(200)
    agent.done(2, run_us=10**6)
    assert agent.numbers() == [1]
    assert agent.fence(1) == m.fence_of(1, 2)


def test_success_after_a_failure_is_success() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=1)
    agent.ends(1, m.FAILED)
    world.pass_ms(200)
    agent.done(1)
    assert client.end(1) == "done"


@pytest.mark.parametrize("name", ["OSError", "demo.Late", "Exception"])
def test_retry_on_matches_the_names_of_a_type_and_its_bases(name: str) -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=1, retry_on=("KeyError", name))
    agent.ends(1, m.FAILED, {"types": TYPES})
    assert world.state(1) == "held"


@pytest.mark.parametrize("facts", [{"types": TYPES}, {"types": "OSError"}, {}, None])
def test_what_retry_on_does_not_name_is_not_retried(facts: m.Facts | None) -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=3, retry_on=("KeyError", "OSErro"))
    agent.ends(1, m.FAILED, facts)
    assert client.end(1) == "failed"
    assert client.facts(1)["attempts"] == 4


def test_losses_and_exceptions_are_counted_apart() -> None:
    """I12: retries bound exceptions, `max_starts` bounds losses."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=1, max_starts=3)
    agent.ends(1, m.LOST)
    agent.ends(1, m.FAILED)
    world.pass_ms(200)
    agent.ends(1, m.LOST)
    world.pass_ms(200)
    agent.ends(1, m.FAILED)
    assert client.end(1) == "failed"


def test_a_failed_attempt_is_not_adopted_when_its_agent_reports_it_again() -> None:
    """I8: the agent did not get the ACK, so it still lists the attempt, and tells its end again."""
    world = World(epoch=2)
    agent, client = world.agent(), world.client()
    client.submit(1, again=True)
    old = (task_id(1), m.fence_of(1, 4))
    agent.vanish()
    agent.move()
    agent.hello()
    agent.offer(held=[old])
    assert world.state(1) == "running"
    failed = m.Result([(*old, m.FAILED, b"", 1, None)])
    client.cancel(1)
    agent.say(failed)
    assert client.end(1) == "failed"
    agent.vanish()
    agent.move()
    agent.hello()
    agent.offer(held=[old])
    agent.say(failed)
    assert world.counter("results_stale") == 1


def test_a_held_retry_of_an_adopted_attempt_is_not_adopted_again() -> None:
    """I8, I9: held for its back-off is not held for recovery."""
    world = World(epoch=2)
    agent, client = world.agent(), world.client()
    client.submit(1, again=True, retries=3, retry_delay_ms=60_000)
    old = (task_id(1), m.fence_of(1, 4))
    agent.say(m.Offer(1, False, ("default",), agent.functions, [old]))
    failed = m.Result([(*old, m.FAILED, b"", 1, None)])
    agent.say(failed)
    assert world.state(1) == "held"
    agent.move()
    agent.hello()
    agent.offer(held=[old])
    assert world.state(1) == "held"
    assert agent.got(m.Cancel) == [m.Cancel([old])]
    agent.say(failed)
    assert world.task(1).tries.failures == 1
    world.pass_ms(2_000)
    assert world.state(1) == "held", "nor does the end of the recovery time cut its delay short"
    world.pass_ms(60_000)
    assert agent.fence(1) == m.fence_of(2, 1)
