"""What tasks write: fenced, asked for, bounded, in order, and no trace of it afterwards."""

from __future__ import annotations

from typing import Any

from evener_wire import messages as m
from evener_wire.limits import (
    OUTPUT_BYTES_MAX,
    OUTPUT_CLIENT_BYTES_MAX,
    OUTPUT_FLIGHT_BYTES_MAX,
    SECOND_NS,
)
from tests.unit.broker.peers import Agent, Client
from tests.unit.broker.world import World, task_id


def running(tasks: int = 1) -> tuple[World, Agent, Client]:
    world = World()
    agent, client = world.agent(slots=tasks), world.client()
    client.submit(*range(1, tasks + 1), forward_output=True)
    return world, agent, client


def item(agent: Agent, number: int, first: int, text: str) -> tuple[bytes, int, int, int, str, str]:
    return task_id(number), agent.fence(number), first, 1, "agent:1", text


def write(agent: Agent, number: int, first: int, text: str = "x\n") -> Any:
    return agent.say(m.Output([item(agent, number, first, text)]))


def told(client: Client) -> list[tuple[int, int]]:
    """Task and number of the first line of all that came since the last look."""
    items = [item for message in client.got(m.Output) for item in message.items]
    return [(int.from_bytes(item[0], "big"), item[2]) for item in items]


def take(client: Client) -> None:
    """Acknowledge all that came."""
    assert client.sequence is not None
    client.say(m.Ack(client.sequence.received))


def test_an_agent_learns_whose_output_is_wanted() -> None:
    world = World()
    agent, client = world.agent(slots=3), world.client()
    client.submit(1)
    [run] = agent.got(m.Run)
    assert run.forward == ()
    client.submit(2, forward_output=True)
    [run] = agent.got(m.Run)
    assert [run.items[place][0] for place in run.forward] == [task_id(2)]


def test_one_message_says_of_which_of_its_attempts() -> None:
    world = World()
    client = world.client()
    client.submit(1)
    client.submit(2, forward_output=True)
    client.submit(3)
    agent = world.agent(slots=3)
    [run] = agent.got(m.Run)
    assert [item[0] for item in run.items] == [task_id(1), task_id(2), task_id(3)]
    assert list(run.forward) == [1]


def test_it_reaches_the_client_as_it_is() -> None:
    world, agent, client = running()
    wrote = item(agent, 1, 0, "one\ntwo\n")
    assert agent.say(m.Output([wrote])) == [(client, m.Output([wrote]))]
    assert world.state(1) == "running", "who writes has started"


def test_the_last_lines_come_before_the_end() -> None:
    _, agent, client = running()
    fence = agent.fence(1)
    sent = agent.say(
        m.Output([item(agent, 1, 0, "last words\n")]),
        m.Result([(task_id(1), fence, m.DONE, b"v", 1, None)]),
    )
    kinds = [type(message) for peer, message in sent if peer is client]
    assert kinds == [m.Output, m.Terminal]


def test_what_is_stale_or_was_not_asked_for_changes_nothing_but_a_counter() -> None:
    """I8."""
    world, agent, client = running()
    client.submit(2)
    other = world.agent("other")
    fence, unasked = agent.fence(1), other.fence(2)
    for wrong in (0, fence + 1, m.fence_of(2, 1)):
        assert agent.say(m.Output([(task_id(1), wrong, 0, 1, "w", "x\n")])) == []
    assert other.say(m.Output([(task_id(1), fence, 0, 1, "w", "x\n")])) == []
    assert other.say(m.Output([(task_id(2), unasked, 0, 1, "w", "x\n")])) == []
    assert world.counter("output_stale") == 5
    assert world.state(1) == world.state(2) == "assigned"
    assert told(client) == []


def test_a_client_that_does_not_read_gets_no_more_and_keeps_the_last() -> None:
    world, agent, client = running()
    text = "x" * 15_999 + "\n"
    for number in range(100):
        write(agent, 1, number, text)
    sent = told(client)
    assert len(sent) * len(text) < OUTPUT_FLIGHT_BYTES_MAX + 2 * len(text)
    take(client)
    kept: list[tuple[int, int]] = []
    while came := told(client):
        kept += came
        take(client)
    assert kept[-1] == (1, 99), "the last line is kept"
    assert kept == [(1, first) for first in range(100 - len(kept), 100)], "the oldest went"
    assert (len(kept) - 1) * len(text) < OUTPUT_CLIENT_BYTES_MAX
    assert world.counter("output_lines_dropped") == 100 - len(sent) - len(kept)
    assert world.core.tables.outbox.forwarding._written == {}  # pyright: ignore[reportPrivateUsage]


def test_before_the_end_goes_what_waits_and_in_any_case_how_much_there_was() -> None:
    world, agent, client = running(3)
    text = "x" * 15_999 + "\n"
    for number in (1, 2):
        for first in range(12):
            write(agent, number, first, text)
        write(agent, number, 12, "")
    before = len(told(client))
    agent.done(1)
    kinds = [type(it) for it in client.inbox]
    assert kinds == [m.Output] * (len(kinds) - 1) + [m.Terminal], "all of it before the end"
    came = told(client)
    assert before + len(came) < 24, "what is on the way is bounded"
    for first in range(12):
        write(agent, 3, first, text)
    write(agent, 3, 12, "")
    agent.done(3)
    assert told(client)[-1] == (3, 12), "the count, though nobody reads"
    agent.done(2)
    take(client)
    assert world.core.tables.outbox.forwarding._written == {}  # pyright: ignore[reportPrivateUsage]


def test_of_all_clients_that_goes_whose_lines_wait_longest() -> None:
    world = World()
    each = OUTPUT_CLIENT_BYTES_MAX * 9 // 10
    many = OUTPUT_BYTES_MAX // each + 3
    agent = world.agent(slots=many)
    clients = [world.client(f"client-{number}") for number in range(many)]
    text = "ü" * (each // 16 - 1) + "\n"
    for number, client in enumerate(clients):
        client.submit(number + 1, forward_output=True)
        client.vanish()
        agent.say(m.Output([item(agent, number + 1, part, text) for part in range(4)]))
    assert 4 <= world.counter("output_lines_dropped") <= 4 * 4
    clients[0].hello()
    clients[-1].hello()
    took: list[int] = []
    for client in (clients[0], clients[-1]):
        took.append(0)
        while came := told(client):
            took[-1] += len(came)
            take(client)
    assert took == [0, 4], "who waits longest has lost it, and nobody else"


def test_it_waits_for_a_client_that_was_away_and_is_not_told_twice() -> None:
    _, agent, client = running()
    write(agent, 1, 0)
    assert told(client) == [(1, 0)]
    client.vanish()
    write(agent, 1, 1)
    client.hello()
    assert told(client) == [(1, 1)]


def test_nothing_is_kept_for_a_client_that_left() -> None:
    world, agent, client = running(2)
    client.vanish()
    write(agent, 1, 0, "x\n" * 100)
    client.hello()
    client.say(m.Goodbye("closed"))
    write(agent, 1, 100, "x\n" * 11)
    assert world.counter("output_lines_dropped") == 11
    assert world.core.tables.outbox.forwarding._written == {}  # pyright: ignore[reportPrivateUsage]


def test_nothing_is_left_of_a_client_that_is_forgotten() -> None:
    world, agent, client = running()
    client.vanish()
    write(agent, 1, 0)
    agent.done(1)
    world.pass_ms(world.core.tables.bounds.retention_ns / 1e6 + 1, silent=[client])
    assert world.core.tables.clients == {}
    assert world.core.tables.outbox.forwarding._written == {}  # pyright: ignore[reportPrivateUsage]
    assert world.now_ns > world.core.tables.bounds.retention_ns // SECOND_NS


def test_another_try_is_of_another_fence() -> None:
    _, agent, client = running()
    before = agent.fence(1)
    write(agent, 1, 0)
    agent.ends(1, m.LOST)
    [first] = client.got(m.Output)
    agent.world.pass_ms(1_000)
    assert agent.fence(1) > before
    write(agent, 1, 0)
    [second] = client.got(m.Output)
    assert second.items[0][1] > first.items[0][1]
