"""Losses: who is blamed, where lost work goes, and how a task that kills workers ends."""

from __future__ import annotations

import pytest

from evener_wire import messages as m
from evener_wire.limits import FREE_RETURNS_MAX
from tests.unit.broker.world import Agent, World

CERTIFICATE = {"worker": "w1", "pid": 99, "signal": 11, "rss_bytes": 1 << 20, "output": ("Boom",)}


def lose(agent: Agent, number: int = 1) -> None:
    agent.ends(number, m.LOST, CERTIFICATE)


def test_the_first_loss_is_followed_by_a_second_try_at_once() -> None:
    world = World()
    agent, other, client = world.agent("a"), world.agent("b"), world.client()
    client.submit(1)
    lose(agent)
    assert other.numbers() == [1]
    assert other.fence(1) == m.fence_of(1, 2)
    assert world.task(1).tries.starts == 1


@pytest.mark.parametrize("seed", range(5))
def test_later_losses_are_followed_by_a_back_off(seed: int) -> None:
    """I12: 50 to 100 ms after the second, four times as long after each further one."""
    world = World(seed=seed)
    agent, client = world.agent(), world.client()
    client.submit(1, max_starts=5)
    lose(agent)
    for most_ms in (100, 400, 1_600):
        lose(agent)
        assert world.state(1) == "held"
        world.pass_ms(most_ms / 2 - 1)
        assert world.state(1) == "held"
        world.pass_ms(most_ms / 2 + 2)
        assert agent.numbers() == [1]


def test_a_task_that_kills_workers_is_lost_after_max_starts() -> None:
    """I12: and its end tells how the last one died."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    for _ in range(3):
        world.pass_ms(1_000)
        lose(agent)
    assert client.end(1) == "lost"
    assert client.facts(1) == {
        **CERTIFICATE,
        "reason": "poison",
        "text": "3 workers died while they ran it",
        "starts": 3,
    }
    world.pass_ms(10_000)
    assert agent.numbers() == []


def test_max_starts_of_one_gives_no_second_try() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, max_starts=1)
    lose(agent)
    assert client.end(1) == "lost"
    assert client.facts(1)["text"] == "1 worker died while it ran it"


def test_only_the_attempt_that_ran_is_charged() -> None:
    """I11: its neighbours go back to their places free of blame."""
    world = World()
    agent, client = world.agent(slots=3), world.client()
    client.submit(1, 2, 3)
    agent.say(
        m.Result(
            [
                agent.result(1, m.LOST).items[0],
                agent.result(2, m.RETURNED).items[0],
                agent.result(3, m.RETURNED).items[0],
            ]
        )
    )
    assert [world.task(n).tries.starts for n in (1, 2, 3)] == [1, 0, 0]
    assert sorted(agent.numbers()) == [1, 2, 3]


def test_with_an_agent_its_running_attempts_are_charged_and_the_others_are_not() -> None:
    """I11."""
    world = World()
    agent, client = world.agent("a", slots=2), world.client()
    client.submit(1, 2)
    agent.starts(1)
    agent.say(m.Goodbye("killed"))
    assert (world.task(1).tries.starts, world.task(2).tries.starts) == (1, 0)
    other = world.agent("b", slots=2)
    assert other.numbers() == [1, 2]


def test_a_heartbeat_says_what_runs() -> None:
    """I11."""
    world = World()
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2)
    agent.say(m.Heartbeat([(b"\0" * 15 + b"\2", agent.fence(2), 500)], ({"pid": 5},)))
    assert (world.state(1), world.state(2)) == ("assigned", "running")
    assert agent.record.workers == ({"pid": 5},)
    agent.say(m.Heartbeat([(b"\0" * 15 + b"\1", m.fence_of(1, 9), 500)]))
    assert world.state(1) == "assigned", "another attempt's start is not this one's (I8)"


def test_free_returns_are_bounded() -> None:
    """I12: also a task that takes whole hosts down, before anybody can say it ran, ends."""
    world = World()
    client = world.client()
    client.submit(1)
    for gone in range(FREE_RETURNS_MAX * 3):
        assert client.end(1) == "open", gone
        agent = world.agent(f"a{gone}")
        world.pass_ms(500)
        assert agent.numbers() == [1]
        agent.say(m.Goodbye("power failure"))
    assert client.end(1) == "lost"
    assert client.facts(1)["reason"] == "poison"


def test_a_task_returned_by_its_agent_is_not_counted() -> None:
    """I11: recall and drain cost nothing, however often."""
    world = World()
    client = world.client()
    client.submit(1)
    for number in range(50):
        agent = world.agent(f"a{number}")
        agent.offer(draining=True)
        agent.ends(1, m.RETURNED)
    assert (world.state(1), world.task(1).tries.starts) == ("queued", 0)


@pytest.mark.parametrize("started", [False, True])
def test_at_most_once_work_of_a_lost_agent_is_lost(started: bool) -> None:
    """I15, I11: nobody can tell whether it ran."""
    world = World()
    agent, client = world.agent("a"), world.client()
    client.submit(1, at_most_once=True)
    if started:
        agent.starts(1)
    world.agent("b")
    agent.say(m.Goodbye("killed"))
    assert client.end(1) == "lost"
    assert client.facts(1)["reason"] == "unknown"


@pytest.mark.parametrize("outcome", [m.LOST, m.RETURNED])
def test_at_most_once_work_is_never_sent_again(outcome: int) -> None:
    """I15."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, at_most_once=True, max_starts=9, retries=9)
    agent.ends(1, outcome)
    assert client.end(1) == "lost"
    assert client.facts(1)["reason"] == "unknown"


def test_at_most_once_work_that_ends_well_ends_well() -> None:
    world = World()
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2, at_most_once=True, retries=5)
    agent.done(1)
    agent.ends(2, m.FAILED)
    assert (client.end(1), client.end(2)) == ("done", "failed")


def test_attempt_numbers_do_not_run_into_the_next_epoch() -> None:
    """I9: fences have room for a number of attempts; a task that needs more is lost."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    subject = agent.numbers()[0]
    task = world.task(subject)
    task.fence = m.fence_of(1, m.ATTEMPTS_MAX)
    item = agent.result(1, m.RETURNED).items[0]
    agent.say(m.Result([(item[0], task.fence, *item[2:])]))
    assert client.end(1) == "lost"
    assert client.facts(1)["reason"] == "attempts"


def test_what_is_told_of_a_death_stays_within_a_message() -> None:
    """The world decodes all that the broker sends: facts are cut, in number and length."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, max_starts=1)
    facts = {"signal": 9, "output": ("x" * 300_000,), **{f"k{n}": "y" * 2_000 for n in range(30)}}
    agent.ends(1, m.LOST, facts)
    told = client.facts(1)
    assert told["signal"] == 9
    assert told["reason"] == "poison"
    assert "output" not in told
    assert len(told) < 32
