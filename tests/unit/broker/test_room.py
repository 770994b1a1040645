"""Functions whose tasks take a part of a worker: how much of it an agent gets, and who waits."""

from __future__ import annotations

import pytest

from evener_broker import room
from evener_broker.watching import LATE_NS
from evener_broker.why import why
from evener_wire import messages as m
from evener_wire.limits import MILLISECOND_NS, SHARES_MAX, WORKER_UNITS
from tests.unit.broker.world import Agent, World

LONG_US = 1_000_000
BOTH = ("demo.add", "demo.fetch")


def agent_with(world: World, at_once: int, slots: int = 1, name: str = "agent") -> Agent:
    """It runs `demo.add` alone, and so many of `demo.fetch` at once in each worker."""
    return world.agent(name, slots=slots, functions=BOTH, shares=(("demo.fetch", at_once),))


def fetch(world: World, client: str, *numbers: int) -> None:
    (known,) = [peer for peer in world.peers if peer.name == client]
    items = [(n.to_bytes(16, "big"), "demo.fetch", b"\x92\x90\xc0", None) for n in numbers]
    known.say(m.Submit(items))


@pytest.mark.parametrize("at_once", [*range(1, 258 - 1)])
def test_a_worker_has_room_for_just_so_many(at_once: int) -> None:
    """What rounding leaves over is never enough for one more."""
    cost = WORKER_UNITS - room.spared_by(at_once)
    assert at_once * cost <= WORKER_UNITS < (at_once + 1) * cost
    assert 1 <= at_once <= SHARES_MAX


@pytest.mark.parametrize(("at_once", "slots"), [(1, 2), (2, 1), (3, 2), (50, 2), (256, 1)])
def test_each_worker_gets_so_many_and_no_more(at_once: int, slots: int) -> None:
    """I10, in units."""
    world = World()
    agent, most = agent_with(world, at_once, slots), at_once * slots
    world.client()
    fetch(world, "client", *range(1, most + 4))
    assert agent.numbers() == [*range(1, most + 1)]
    agent.done(1, run_us=LONG_US)
    assert agent.numbers() == [*range(2, most + 2)]


def test_the_room_is_back_when_all_have_ended() -> None:
    """I20, in units: however they ended."""
    world = World()
    agent, client = agent_with(world, 3, 2), world.client()
    fetch(world, "client", *range(1, 7))
    for number, outcome in enumerate((m.FAILED, m.LOST, m.RETURNED, m.CANCELLED, m.TIMED_OUT), 1):
        client.cancel(number)
        agent.ends(number, outcome, {})
    agent.done(6)
    assert (agent.record.shared, agent.record.spared, agent.record.held()) == ({}, 0, 0)
    assert room.free_workers(agent.record) == 2


def test_a_task_that_needs_a_whole_worker_gets_one_and_nothing_passes_it() -> None:
    world = World()
    agent, client = agent_with(world, 4), world.client()
    fetch(world, "client", 1, 2)
    client.submit(3)
    fetch(world, "client", 4, 5)
    assert agent.numbers() == [1, 2], "3 is next, and the worker is not free for it"
    agent.done(1, run_us=LONG_US)
    assert agent.numbers() == [2]
    agent.done(2, run_us=LONG_US)
    assert agent.numbers() == [3], "alone"
    agent.done(3, run_us=LONG_US)
    assert agent.numbers() == [4, 5]


def test_shares_do_not_go_to_a_worker_that_has_a_whole_task() -> None:
    world = World()
    agent, client = agent_with(world, 4, 2), world.client()
    client.submit(1)
    fetch(world, "client", *range(2, 8))
    assert agent.numbers() == [1, 2, 3, 4, 5]
    agent.done(1, run_us=LONG_US)
    assert agent.numbers() == [2, 3, 4, 5, 6, 7]


def test_a_whole_task_goes_to_an_agent_that_has_a_worker_free() -> None:
    world = World()
    first, client = agent_with(world, 4, name="first"), world.client()
    fetch(world, "client", 1)
    second = agent_with(world, 4, name="second")
    client.submit(2)
    assert (first.numbers(), second.numbers()) == ([1], [2])


def test_other_queues_do_not_keep_a_whole_task_waiting_for_ever() -> None:
    """While shares of one queue come and go, the worker is kept for the head of another."""
    world = World()
    agent = world.agent(queues=("shares", "default"), functions=BOTH, shares=(("demo.fetch", 2),))
    client = world.client()
    client.submit(1, 2, function="demo.fetch", queue="shares")
    client.submit(3)
    client.submit(4, 5, function="demo.fetch", queue="shares")
    agent.done(1, run_us=LONG_US)
    assert agent.numbers() == [2], "4 would have room"
    agent.done(2, run_us=LONG_US)
    assert sorted(agent.numbers()) in ([3], [4, 5])
    while 3 not in agent.numbers():
        agent.done(agent.numbers()[0], run_us=LONG_US)
    assert agent.numbers() == [3]


def test_what_a_worker_was_kept_for_may_be_cancelled() -> None:
    world = World()
    agent = world.agent(queues=("shares", "default"), functions=BOTH, shares=(("demo.fetch", 2),))
    client = world.client()
    client.submit(1, function="demo.fetch", queue="shares")
    client.submit(2)
    client.submit(3, function="demo.fetch", queue="shares")
    assert agent.numbers() == [1]
    client.cancel(2)
    assert agent.numbers() == [1, 3]


def test_a_lower_priority_does_not_pass_a_whole_task() -> None:
    world = World()
    agent, client = agent_with(world, 4), world.client()
    fetch(world, "client", 1)
    client.submit(2, priority=9)
    fetch(world, "client", 3)
    assert agent.numbers() == [1]


def test_no_work_goes_ahead_where_tasks_run_side_by_side() -> None:
    world = World()
    agent, client = agent_with(world, 2, 1), world.client()
    client.submit(1)
    agent.done(1, run_us=10)
    client.submit(2, 3)
    assert agent.numbers() == [2, 3], "its time is known, and short"
    agent.done(2, 3, run_us=10)
    fetch(world, "client", 4)
    agent.done(4, run_us=10)
    fetch(world, "client", 5, 6, 7)
    client.submit(8)
    assert agent.numbers() == [5, 6], "shares are never sent ahead, nor anything behind them"


def test_a_whole_task_that_waits_at_its_agent_is_recalled_for_a_free_one() -> None:
    """Attempts that ended may leave gaps in all workers of an agent."""
    world = World()
    first, client = agent_with(world, 2, 2, "first"), world.client()
    fetch(world, "client", 1, 2, 3, 4)
    first.done(2, 4, run_us=LONG_US)
    client.submit(5)
    assert first.numbers() == [1, 3, 5], "as if 1 and 3 stood in one worker"
    second = agent_with(world, 2, 1, "second")
    first.starts(1, 3)
    told = world.pass_ms(2 * LATE_NS / MILLISECOND_NS)
    assert [message.items for peer, message in told if isinstance(message, m.Recall)] == [
        [(bytes(15) + b"\5", first.fence(5))]
    ]
    first.ends(5, m.RETURNED)
    assert second.numbers() == [5]


def test_adopted_attempts_count_in_units_and_unclaimed_ones_as_whole_workers() -> None:
    """I20, I23: after a restart of the broker."""
    world = World()
    agent, client = agent_with(world, 4), world.client()
    fetch(world, "client", 1, 2)
    world.restart()
    agent.come_back()
    assert room.free_workers(agent.record) == -1, "nobody knows yet what they are"
    client.move()
    client.hello()
    items = [(n.to_bytes(16, "big"), "demo.fetch", b"\x92\x90\xc0", None) for n in (1, 2)]
    client.say(m.Submit(items, True))
    assert len(agent.record.shared) == 2
    fetch(world, "client", 3, 4, 5)
    assert agent.numbers() == [1, 2, 3, 4]
    agent.done(1, 2, 3, 4, run_us=LONG_US)
    agent.done(5)
    assert (agent.record.spared, agent.record.held()) == (0, 0)


def test_what_runs_keeps_its_share_when_the_offer_changes() -> None:
    world = World()
    agent, _ = agent_with(world, 4), world.client()
    fetch(world, "client", 1, 2)
    agent.shares = ()
    agent.come_back()
    fetch(world, "client", 3)
    assert agent.numbers() == [1, 2], "half a worker is free, and now it takes a whole one"
    agent.done(1, 2, run_us=LONG_US)
    assert agent.numbers() == [3]
    assert agent.record.shared == {}


def test_why_says_that_all_workers_are_busy() -> None:
    world = World()
    agent, client = agent_with(world, 2), world.client()
    fetch(world, "client", 1)
    client.submit(2)
    answer = ask_why(world, 2)
    assert answer["reason"] == "busy"
    agent.done(1, run_us=LONG_US)
    assert agent.numbers() == [2]


def test_why_names_the_worker_of_each_that_runs_beside_others() -> None:
    world = World()
    agent, _ = agent_with(world, 2), world.client()
    fetch(world, "client", 1, 2)
    agent.starts(1, 2)
    ids = [n.to_bytes(16, "big") for n in (1, 2)]
    facts = {"name": "agent:1", "pid": 77, "task": ids[0], "at_once": 2, "beside": (ids[1],)}
    agent.say(m.Heartbeat((), (facts,)))
    assert [ask_why(world, n)["pid"] for n in (1, 2)] == [77, 77]
    agent.say(m.Heartbeat((), ({"name": "agent:1", "pid": 77, "beside": "no list"},)))
    assert "pid" not in ask_why(world, 2)


def ask_why(world: World, number: int) -> dict[str, object]:
    return dict(why(world.core.tables, {"id": number.to_bytes(16, "big").hex()}))
