"""Results: only the open attempt counts, each task ends once, and its end is told until taken."""

from __future__ import annotations

import pytest

from evener_wire import messages as m
from evener_wire.limits import BATCH_BYTES_TARGET, BATCH_ITEMS_MAX, FLIGHT_BYTES_MAX, FLIGHTS_MAX
from tests.unit.broker.world import VALUE, World, task_id


def result(number: int, fence: int, outcome: int = m.DONE, payload: bytes = VALUE) -> m.Result:
    return m.Result([(task_id(number), fence, outcome, payload, 10, None)])


def test_the_end_is_told_and_put_aside_when_taken() -> None:
    """I1, I20."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    told = agent.done(1)
    assert told == [(client, m.Terminal([(task_id(1), m.TERMINAL_DONE, VALUE, None)]))]
    assert world.state(1) == "done"
    assert client.acknowledge() == []
    assert world.state(1) == "taken"
    assert world.core.tables.bytes == 0


@pytest.mark.parametrize("outcome", range(len(m.OUTCOMES)))
def test_a_result_with_another_fence_changes_nothing_but_a_counter(outcome: int) -> None:
    """I8."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    for fence in (0, m.fence_of(1, 0), m.fence_of(1, 2), m.fence_of(0, 1), m.fence_of(2, 1)):
        assert agent.say(result(1, fence, outcome)) == []
    assert world.counter("results_stale") == 5
    assert world.state(1) == "assigned"


def test_a_result_from_another_agent_changes_nothing() -> None:
    """I8, I27: nobody speaks for another's attempt."""
    world = World()
    agent, other, client = world.agent("a"), world.agent("b"), world.client()
    client.submit(1)
    assert other.say(result(1, agent.fence(1))) == []
    assert world.counter("results_stale") == 1
    assert client.end(1) == "open"


def test_a_result_after_the_task_went_to_another_agent_changes_nothing() -> None:
    """I8: late results of an agent that was given up."""
    world = World()
    agent, client = world.agent("a"), world.client()
    client.submit(1)
    late = agent.result(1, payload=b"late")
    agent.vanish()
    world.pass_ms(2_000)
    other = world.agent("b")
    agent.move()
    agent.hello()
    agent.say(m.Offer(1, False, ("default",), agent.functions, [late.items[0][:2]]), late)
    assert agent.got(m.Cancel) == [m.Cancel([late.items[0][:2]])]
    assert world.counter("results_stale") == 1
    other.done(1)
    assert client.ends[task_id(1)][2] == VALUE


def test_a_result_for_a_task_that_ended_changes_nothing() -> None:
    """I1."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    fence = agent.fence(1)
    agent.done(1)
    for outcome in range(len(m.OUTCOMES)):
        agent.say(result(1, fence, outcome, b"other"))
    assert client.ends[task_id(1)] == (task_id(1), m.TERMINAL_DONE, VALUE, None)


def test_a_result_for_a_task_nobody_knows_changes_nothing() -> None:
    world = World()
    agent = world.agent()
    assert agent.say(result(1, m.fence_of(1, 1))) == []
    assert world.counter("results_stale") == 1


def test_the_same_result_twice_in_one_message_counts_once() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    item = agent.result(1, payload=VALUE).items[0]
    agent.say(m.Result([item, item]))
    assert world.counter("results_stale") == 1
    assert client.end(1) == "done"


def test_results_are_acknowledged_after_a_short_while() -> None:
    world = World()
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2)
    agent.done(1)
    agent.done(2)
    agent.got(m.Ack)
    world.pass_ms(49)
    assert agent.got(m.Ack) == []
    world.pass_ms(2)
    assert agent.got(m.Ack) == [m.Ack(3)], "one for both: the OFFER was number 1"


def test_many_results_are_acknowledged_at_once() -> None:
    world = World()
    agent, client = world.agent(slots=100), world.client()
    client.submit(*range(100))
    for number in range(63):
        agent.done(number)
    assert agent.got(m.Ack) == []
    agent.done(63)
    assert agent.got(m.Ack) == [m.Ack(65)]


def test_stale_results_are_acknowledged_too() -> None:
    """Otherwise their agent would keep them for ever."""
    world = World()
    agent = world.agent()
    agent.say(result(1, m.fence_of(1, 1)))
    world.pass_ms(51)
    assert agent.got(m.Ack) == [m.Ack(2)]


def test_results_go_to_the_client_that_submitted() -> None:
    """I3."""
    world = World()
    agent, first, second = world.agent(slots=2), world.client("first"), world.client("second")
    first.submit(1)
    second.submit(2)
    agent.done(2, 1)
    assert set(first.ends) == {task_id(1)}
    assert set(second.ends) == {task_id(2)}


def test_an_end_is_told_again_after_each_reconnect_until_it_is_taken() -> None:
    """I2: byte-equal repeats; the world compares them."""
    world = World()
    agent, client = world.agent(slots=3), world.client()
    client.submit(1, 2, 3)
    agent.done(1, 2)
    client.vanish()
    agent.done(3)
    for _ in range(2):
        client.move()
        told = client.hello()
        items = [(task_id(n), m.TERMINAL_DONE, VALUE, None) for n in (1, 2, 3)]
        assert told[1:] == [(client, m.Terminal(items))]
    client.acknowledge()
    client.move()
    assert len(client.hello()) == 1, "only the WELCOME"


def test_what_was_taken_before_the_reconnect_is_not_told_again() -> None:
    world = World()
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2)
    agent.done(1)
    client.acknowledge()
    agent.done(2)
    client.move()
    told = client.hello()
    assert told[1:] == [(client, m.Terminal([(task_id(2), m.TERMINAL_DONE, VALUE, None)]))]


def test_an_acknowledgement_covers_only_what_was_sent_before_it() -> None:
    world = World()
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2)
    agent.done(1)
    taken = m.Ack(client.last_terminal)
    agent.done(2)
    client.say(taken)
    assert (world.state(1), world.state(2)) == ("taken", "done")
    client.say(taken, m.Ack(10**9))
    assert world.state(2) == "taken"


def test_a_client_that_takes_nothing_gets_a_bounded_number_of_messages() -> None:
    """I21, I22."""
    world = World()
    count = FLIGHTS_MAX + 5
    agent, client = world.agent(slots=count), world.client()
    client.submit(*range(count))
    for number in range(count):
        agent.done(number)
    assert len(client.got(m.Terminal)) == FLIGHTS_MAX
    client.acknowledge()
    (rest,) = client.got(m.Terminal)
    assert [item[0] for item in rest.items] == [task_id(n) for n in range(FLIGHTS_MAX, count)]
    client.acknowledge()
    assert world.core.tables.held_tasks() == 0


def test_ends_of_one_step_leave_in_batches_of_bounded_size() -> None:
    world = World()
    agent, client = world.agent(slots=12), world.client()
    client.submit(*range(12))
    payload = bytes(60_000)
    events = [agent.envelope(agent.result(number, payload=payload)) for number in range(12)]
    world.turn(*events)
    sizes = [len(terminal.items) for terminal in client.got(m.Terminal)]
    assert sum(sizes) == 12
    assert max(sizes) <= BATCH_BYTES_TARGET // 60_000 + 1


def test_long_facts_count_as_size() -> None:
    """A batch of failures with long texts stays within what the client accepts as a head."""
    world = World()
    count = BATCH_ITEMS_MAX // 2
    agent, client = world.agent(slots=count), world.client()
    client.submit(*range(count))
    facts = {"type": "ValueError", "message": "é" * 5_000}
    events = [agent.envelope(agent.result(n, m.FAILED, facts=facts)) for n in range(count)]
    world.turn(*events)
    told = client.got(m.Terminal)
    assert max(len(terminal.items) for terminal in told) <= BATCH_BYTES_TARGET // 10_000 + 1
    while told:
        client.acknowledge()
        told = client.got(m.Terminal)
    assert len(client.ends) == count
    assert world.core.tables.held_tasks() == 0


def test_work_of_one_step_leaves_in_batches_of_bounded_size() -> None:
    world = World()
    agent, client = world.agent(slots=4_000), world.client()
    submits = [
        m.Submit([(task_id(n), "demo.add", bytes(1_000), None) for n in range(k, k + 1_000)])
        for k in (0, 1_000, 2_000)
    ]
    client.say(*submits)
    runs = agent.got(m.Run)
    assert sum(len(run.items) for run in runs) == 3_000
    assert max(len(run.items) for run in runs) <= BATCH_BYTES_TARGET // 1_000


def test_a_client_that_takes_nothing_gets_a_bounded_number_of_bytes() -> None:
    """I21: large results wait at the broker, where they are counted."""
    world = World()
    large = m.Frames([bytes(FLIGHT_BYTES_MAX // 4)])
    agent, client = world.agent(slots=10), world.client()
    client.submit(*range(10))
    for number in range(10):
        agent.say(agent.result(number, payload=large))
    assert len(client.got(m.Terminal)) == 4
    client.acknowledge()
    assert len(client.got(m.Terminal)) == 4
    world.core.check()
    client.move()
    client.hello()
    assert len(client.got(m.Terminal)) == 4
    world.core.check()


def test_an_end_that_is_larger_than_all_that_may_be_on_the_way_is_told_alone() -> None:
    world = World()
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2)
    for number in (1, 2):
        agent.say(agent.result(number, payload=m.Frames([bytes(FLIGHT_BYTES_MAX + 1)])))
    assert len(client.got(m.Terminal)) == 1
    client.acknowledge()
    assert len(client.got(m.Terminal)) == 1
