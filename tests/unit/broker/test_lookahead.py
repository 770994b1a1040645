"""Work ahead of free workers: only what is short, no more than is finished soon, and taken back."""

from __future__ import annotations

import pytest

from evener_wire import messages as m
from evener_wire.limits import HELD_MAX, LOOKAHEAD_TASKS_PER_SLOT
from tests.unit.broker.world import Agent, Client, World, task_id


def known(world: World, agent: Agent, client: Client, run_us: int, function: str = "") -> None:
    """Let the broker learn how long a function runs."""
    number = 100_000 + world.core.tables.accepted
    client.submit(number, function=function or "demo.add")
    agent.done(number, run_us=run_us)
    client.acknowledge()


def recalled(agent: Agent) -> list[int]:
    return [int.from_bytes(i, "big") for recall in agent.got(m.Recall) for i, _ in recall.items]


@pytest.fixture
def world() -> World:
    return World()


def test_short_functions_are_sent_ahead_up_to_ten_milliseconds_of_work(world: World) -> None:
    """I10."""
    agent, client = world.agent(slots=2), world.client()
    known(world, agent, client, run_us=1_000)
    client.submit(*range(100))
    assert len(agent.hand) == 20


def test_long_functions_are_never_sent_ahead(world: World) -> None:
    agent, client = world.agent(slots=2), world.client()
    known(world, agent, client, run_us=10_001)
    client.submit(*range(100))
    assert len(agent.hand) == 2


def test_next_to_nothing_still_counts_as_something(world: World) -> None:
    """Work ahead is bounded in number too."""
    agent, client = world.agent(slots=1), world.client()
    known(world, agent, client, run_us=0)
    client.submit(*range(2_000))
    assert len(agent.hand) == 1 + LOOKAHEAD_TASKS_PER_SLOT


def test_an_agent_never_holds_more_than_it_can_report(world: World) -> None:
    """I7: what is missing in an inventory counts as never arrived."""
    agent, client = world.agent(slots=200), world.client()
    known(world, agent, client, run_us=1)
    for start in range(0, 40_000, 2_000):
        items = [(task_id(n), "demo.add", b"", None) for n in range(start, start + 2_000)]
        world.core.step(world.now_ns, [client.envelope(m.Submit(items))])
    assert agent.record.held() == HELD_MAX // 2
    world.core.check()


def test_tasks_that_took_a_worker_down_or_run_once_are_not_sent_ahead(world: World) -> None:
    agent, client = world.agent(slots=1), world.client()
    known(world, agent, client, run_us=100)
    client.submit(1, 2)
    client.submit(3, at_most_once=True)
    client.submit(4)
    assert agent.numbers() == [1, 2], "and what comes behind keeps its place (I13)"
    agent.ends(1, m.LOST)
    agent.done(2)
    assert agent.numbers() == [1]


def test_a_long_task_is_not_sent_ahead_and_the_short_one_behind_it_waits(world: World) -> None:
    """I13."""
    agent, client = world.agent(slots=1, functions=["demo.add", "demo.long"]), world.client()
    known(world, agent, client, run_us=100)
    known(world, agent, client, run_us=10**6, function="demo.long")
    client.submit(1, function="demo.long")
    client.submit(2, function="demo.long")
    client.submit(3)
    assert agent.numbers() == [1]


def test_what_is_sent_ahead_is_bounded_in_bytes(world: World) -> None:
    """I21: however fast a function is, ten milliseconds of it are little more than a megabyte."""
    agent, client = world.agent(slots=1), world.client()
    known(world, agent, client, run_us=10)
    for start in range(0, 300, 15):
        client.submit(*range(start, start + 15), payload=bytes(60_000))
    assert 10 < len(agent.hand) < 25
    world.core.check()


def test_free_workers_come_before_work_ahead(world: World) -> None:
    first, second = world.agent("first", slots=2), world.agent("second", slots=2)
    client = world.client()
    known(world, first, client, run_us=4_000)
    client.submit(1, 2, 3, 4, 5)
    assert len(first.hand) + len(second.hand) == 5
    assert {len(first.hand), len(second.hand)} == {2, 3}


def test_free_workers_that_know_nothing_of_it_do_not_hinder_work_ahead(world: World) -> None:
    agent, client = world.agent("able", slots=1), world.client()
    world.agent("unable", slots=1, functions=["demo.other"])
    known(world, agent, client, run_us=1_000)
    client.submit(*range(30))
    assert len(agent.hand) == 10


def test_the_estimate_follows_what_is_measured(world: World) -> None:
    agent, client = world.agent(slots=1), world.client()
    known(world, agent, client, run_us=100_000)
    function = world.core.tables.functions["demo.add"]
    assert function.estimate_ns == 100_000_000
    known(world, agent, client, run_us=0)
    assert function.estimate_ns == 75_000_000
    for _ in range(60):
        known(world, agent, client, run_us=0)
    assert function.estimate_ns == 5_000, "an attempt never counts as nothing"


def late(world: World) -> tuple[Agent, Agent, Client]:
    """One agent with work ahead that turns out to be stuck, and one that becomes free."""
    busy, client = world.agent("busy", slots=1), world.client()
    known(world, busy, client, run_us=1_000)
    client.submit(1, 2, 3, 4)
    assert busy.numbers() == [1, 2, 3, 4]
    free = world.agent("free", slots=2)
    return busy, free, client


def test_work_ahead_that_is_late_is_recalled_for_free_workers(world: World) -> None:
    busy, free, _ = late(world)
    world.pass_ms(19)
    assert recalled(busy) == []
    world.pass_ms(2)
    assert recalled(busy) == [4, 3], "as many as there are free workers, the last ones first"
    busy.ends(4, m.RETURNED)
    busy.ends(3, m.RETURNED)
    assert free.numbers() == [4, 3]
    assert world.task(3).fence == m.fence_of(1, 2)
    assert world.task(3).tries.starts == 0, "free of blame (I11)"


def test_a_recall_is_said_once(world: World) -> None:
    busy, _, _ = late(world)
    world.pass_ms(25)
    assert len(recalled(busy)) == 2
    world.pass_ms(500)
    assert recalled(busy) == [], "nor is more recalled while the answer is owed"
    busy.starts(4)
    world.pass_ms(50)
    assert recalled(busy) == [2], "but another one in place of one that runs"


def test_started_is_a_no_to_the_recall(world: World) -> None:
    busy, free, client = late(world)
    world.pass_ms(25)
    busy.starts(3, 4)
    assert world.state(3) == "running"
    busy.done(1, 2, 3, 4)
    assert free.numbers() == []
    assert [client.end(n) for n in (1, 2, 3, 4)] == ["done"] * 4


def test_a_recall_that_got_lost_with_the_connection_is_said_again(world: World) -> None:
    busy, _, _ = late(world)
    world.pass_ms(25)
    recalled(busy)
    busy.vanish()
    busy.come_back()
    world.pass_ms(50)
    assert sorted(recalled(busy)) == [3, 4]


def test_a_waiting_task_that_nobody_free_can_run_does_not_hinder_recalls(world: World) -> None:
    busy, _, client = late(world)
    world.core.tables.function("demo.away").runs = 1
    client.submit(5, function="demo.away")
    world.pass_ms(25)
    assert recalled(busy) == [4, 3]


def test_what_free_workers_cannot_run_is_not_recalled(world: World) -> None:
    busy, client = world.agent("busy", slots=1), world.client()
    known(world, busy, client, run_us=1_000)
    client.submit(1, 2, 3)
    world.agent("free", functions=["demo.other"])
    world.pass_ms(100)
    assert recalled(busy) == []


def test_at_most_once_work_is_not_recalled(world: World) -> None:
    """I15: it could not be sent a second time."""
    agent, client = world.agent("busy", slots=2), world.client()
    client.submit(1, 2, at_most_once=True)
    agent.offer(slots=1)
    world.agent("free")
    world.pass_ms(100)
    assert recalled(agent) == []


def test_work_goes_back_to_those_with_most_work_ahead_first(world: World) -> None:
    """I30: and among equals by name and instance, never by chance."""
    busy = [world.agent(name, slots=1) for name in ("b", "a")]
    client = world.client()
    known(world, busy[0], client, run_us=1_000)
    client.submit(*range(1, 9))
    assert [len(agent.hand) for agent in busy] == [4, 4] or sum(len(a.hand) for a in busy) == 8
    most = max(busy, key=lambda agent: (len(agent.hand), agent.name == "a"))
    world.agent("free", slots=1)
    world.pass_ms(25)
    assert len(recalled(most)) == 1
