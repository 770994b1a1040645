"""Progress: fenced, one message on the way to a client, and no trace of it afterwards."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from evener_wire import messages as m
from evener_wire.limits import CLIENT_AWAY_NS
from tests.unit.broker.peers import Agent, Client
from tests.unit.broker.world import World, task_id


def running(tasks: int = 1) -> tuple[World, Agent, Client]:
    world = World()
    agent, client = world.agent(slots=tasks), world.client()
    client.submit(*range(1, tasks + 1))
    return world, agent, client


def report(
    agent: Agent, number: int, done: float, total: float | None = None, note: str = ""
) -> Any:
    item = task_id(number), agent.fence(number), done, total, note
    return agent.say(m.Progress([item]))


def told(client: Client) -> list[tuple[int, float]]:
    """Task and `done` of all that came since the last look."""
    items = [item for message in client.got(m.Progress) for item in message.items]
    return [(int.from_bytes(item[0], "big"), item[2]) for item in items]


def take(client: Client) -> None:
    """Acknowledge all that came."""
    assert client.sequence is not None
    client.say(m.Ack(client.sequence.received))


def test_it_reaches_the_client_as_it_is() -> None:
    world, agent, client = running()
    item = task_id(1), agent.fence(1), 7, 20, "page 7"
    assert agent.say(m.Progress([item])) == [(client, m.Progress([item]))]
    assert world.state(1) == "running", "who reports has started"


def test_what_a_client_does_not_take_is_replaced() -> None:
    world, agent, client = running(2)
    for done in range(5):
        report(agent, 1, done)
    report(agent, 2, 7)
    assert told(client) == [(1, 0)]
    assert world.counter("progress_replaced") == 3
    take(client)
    assert told(client) == [(1, 4), (2, 7)]
    take(client)
    assert told(client) == []


def test_an_older_acknowledgement_makes_no_room() -> None:
    _, agent, client = running(2)
    agent.done(2)
    before = client.last_terminal
    report(agent, 1, 1)
    client.say(m.Ack(before))
    report(agent, 1, 2)
    assert told(client) == [(1, 1)]


def test_stale_ones_change_nothing_but_a_counter() -> None:
    """I8."""
    world, agent, client = running()
    other = world.agent("other")
    fence = agent.fence(1)
    for wrong in (0, fence + 1, m.fence_of(2, 1)):
        assert agent.say(m.Progress([(task_id(1), wrong, 1, None, "")])) == []
    assert other.say(m.Progress([(task_id(1), fence, 1, None, "")])) == []
    assert agent.say(m.Progress([(task_id(9), fence, 1, None, "")])) == []
    assert world.counter("progress_stale") == 5
    assert world.state(1) == "assigned"
    agent.done(1)
    assert agent.say(m.Progress([(task_id(1), fence, 1, None, "")])) == []
    assert world.counter("progress_stale") == 6
    assert told(client) == []


def test_nothing_is_left_of_an_attempt_that_ended() -> None:
    _, agent, client = running(2)
    report(agent, 1, 1)
    report(agent, 2, 1)
    report(agent, 2, 2)
    agent.done(2)
    agent.ends(1, m.LOST)
    take(client)
    assert told(client) == [(1, 1)]
    # The next attempt begins from nothing, under its own fence.
    report(agent, 1, 0)
    (message,) = client.got(m.Progress)
    assert message.items[0][1] == agent.fence(1) == m.fence_of(1, 2)


def test_a_new_session_hears_the_last_of_each_again() -> None:
    _, agent, client = running(2)
    report(agent, 1, 1)
    client.vanish()
    report(agent, 1, 2)
    report(agent, 2, 3)
    client.move()
    client.hello()
    assert sorted(told(client)[-2:]) == [(1, 2), (2, 3)]


def test_a_client_may_not_send_it() -> None:
    world, _, client = running()
    client.say(m.Progress([(task_id(1), 1, 1, None, "")]))
    assert world.counter("messages_forbidden") == 1


def test_questions_show_it() -> None:
    _, agent, client = running()

    def ask(what: str, **arguments: object) -> Any:
        client.say(m.Query(1, what, arguments))
        (answer,) = client.got(m.Answer)
        assert answer.ok
        assert isinstance(answer.body, bytes)
        return msgpack.unpackb(answer.body)

    whole = task_id(1).hex()
    assert ask("ls", kind="tasks")["rows"][0]["progress"] is None
    report(agent, 1, 1_250, 5_000, "page 7")
    shown = {"done": 1_250, "total": 5_000, "note": "page 7"}
    assert ask("show", id=whole)["progress"] == shown
    assert ask("ls", kind="tasks")["rows"][0]["progress"] == shown
    why = ask("why", id=whole)
    assert why["progress"] == shown
    assert ", and is at 1,250 of 5,000 (page 7)" in why["text"]
    # What would steer a terminal is not repeated.
    report(agent, 1, 0.5, None, "\x1b[2J")
    assert ", and is at 0.5;" in ask("why", id=whole)["text"] + ";"


# --- Values ---------------------------------------------------------------------------------------


def values(agent: Agent, number: int, *indexes: int) -> Any:
    item = task_id(number), agent.fence(number)
    return agent.say(m.Values([(*item, index, True, b"v") for index in indexes]))


def test_values_and_what_is_taken_of_them_are_passed_on() -> None:
    world, agent, client = running()
    fence = agent.fence(1)
    assert values(agent, 1, 0, 1) == [
        (client, m.Values([(task_id(1), fence, 0, True, b"v"), (task_id(1), fence, 1, True, b"v")]))
    ]
    assert world.state(1) == "running"
    taken = m.Taken([(task_id(1), fence, 2, False)])
    assert client.say(taken) == [(agent, taken)]


def test_word_of_an_earlier_attempt_asks_for_this_one() -> None:
    _, agent, client = running()
    agent.ends(1, m.LOST)
    fence = agent.fence(1)
    assert client.say(m.Taken([(task_id(1), fence - 1, 9, False)])) == []
    assert client.say(m.Taken([(task_id(1), fence - 1, 9, True)])) == [
        (agent, m.Taken([(task_id(1), fence, 0, True)]))
    ]


def test_values_of_what_is_not_open_and_word_of_others_are_counted() -> None:
    """I8, I27."""
    world, agent, client = running()
    fence = agent.fence(1)
    assert agent.say(m.Values([(task_id(1), fence + 1, 0, True, b"v")])) == []
    assert world.agent("other").say(m.Values([(task_id(1), fence, 0, True, b"v")])) == []
    assert world.client("another").say(m.Taken([(task_id(1), fence, 1, True)])) == []
    agent.done(1)
    assert client.say(m.Taken([(task_id(1), fence, 1, True)])) == []
    assert world.counter("values_stale") == 4


def test_a_client_that_was_away_gets_them_again() -> None:
    _, agent, client = running()
    client.vanish()
    assert values(agent, 1, 0) == []
    client.move()
    again = (agent, m.Taken([(task_id(1), agent.fence(1), 0, True)]))
    assert again in client.hello()


def test_a_client_that_left_takes_them_all() -> None:
    world, agent, client = running()
    fence = agent.fence(1)
    values(agent, 1, 0)
    assert client.say(m.Goodbye("closed")) == [(agent, m.Taken([(task_id(1), fence, 0, True)]))]
    assert values(agent, 1, 0, 1) == [
        (agent, m.Taken([(task_id(1), fence, 1, False), (task_id(1), fence, 2, False)]))
    ]
    assert world.counter("values_unread") == 2


def test_a_client_that_stays_away_takes_them_all_and_hears_of_it() -> None:
    world, agent, client = running(2)
    fence = agent.fence(1)
    values(agent, 1, 0)
    client.vanish()
    world.pass_ms(CLIENT_AWAY_NS / 1e6 - 100, silent=[client])
    assert values(agent, 1, 1) == [], "it may be back soon"
    asked = (agent, m.Taken([(task_id(1), fence, 0, True)]))
    assert asked in world.pass_ms(200, silent=[client])
    assert values(agent, 1, 0, 1) == [
        (agent, m.Taken([(task_id(1), fence, 1, False), (task_id(1), fence, 2, False)]))
    ]
    client.hello()
    assert values(agent, 1, 2) == [(agent, m.Taken([(task_id(1), fence, 3, False)]))], "void now"
    fresh = m.Values([(task_id(2), agent.fence(2), 0, True, b"v")])
    assert agent.say(fresh) == [(client, fresh)], "of a task that began afterwards it gets all"
    agent.done(1, 2)
    assert client.facts(1) == {"values_dropped": True}
    assert client.ends[task_id(2)][3] is None


def test_another_attempt_yields_to_a_client_that_is_back() -> None:
    """I22. Found by simulation: what was dropped of one attempt was dropped of the next, too."""
    world, agent, client = running()
    values(agent, 1, 0)
    client.vanish()
    world.pass_ms(CLIENT_AWAY_NS / 1e6 + 100, silent=[client])
    assert values(agent, 1, 0) == [
        (agent, m.Taken([(task_id(1), agent.fence(1), 1, False)])),
    ]
    client.hello()
    agent.ends(1, m.LOST, {"signal": 9})
    fresh = m.Values([(task_id(1), agent.fence(1), 0, True, b"v")])
    assert agent.say(fresh) == [(client, fresh)]
    agent.done(1)
    assert client.end(1) == "done"
    assert "values_dropped" not in client.facts(1)


def test_a_client_that_comes_back_in_time_is_waited_for_anew() -> None:
    world, agent, client = running()
    values(agent, 1, 0)
    for _ in range(3):
        client.vanish()
        world.pass_ms(CLIENT_AWAY_NS / 1e6 * 0.6, silent=[client])
        client.hello()
        client.got(m.Values)
    sent = m.Values([(task_id(1), agent.fence(1), 1, True, b"v")])
    assert agent.say(sent) == [(client, sent)]
    client.vanish()
    world.pass_ms(CLIENT_AWAY_NS / 1e6 + 100, silent=[client])
    values(agent, 1, 2)
    assert world.counter("values_unread") == 1


def test_what_was_yielded_before_its_client_claimed_it_comes_again() -> None:
    """After a restart the agent may tell values before the client says which task they are of."""
    world = World(epoch=2)
    agent, fence = world.agent(slots=0), m.fence_of(1, 1)
    agent.come_back()
    agent.offer(held=[(task_id(1), fence)], slots=1)
    assert agent.say(m.Values([(task_id(1), fence, 0, True, b"v")])) == []
    assert world.counter("values_stale") == 0
    client = world.client()
    told = client.submit(1, again=True)
    assert (agent, m.Taken([(task_id(1), fence, 0, True)])) in told


def test_values_that_nobody_claims_do_not_hold_their_worker_for_ever() -> None:
    """Found by simulation: its client died, and then the broker; nobody was left to take them."""
    world = World(epoch=2)
    agent, fence = world.agent(slots=0), m.fence_of(1, 1)
    agent.come_back()
    agent.offer(held=[(task_id(1), fence)], slots=1)
    value = m.Values([(task_id(1), fence, 0, True, b"v")])
    agent.say(value)
    asked = (agent, m.Taken([(task_id(1), fence, 0, True)]))
    assert asked not in world.pass_ms(CLIENT_AWAY_NS / 1e6 - 100)
    assert asked in world.pass_ms(200)
    assert agent.say(value) == [(agent, m.Taken([(task_id(1), fence, 1, False)]))]
    assert world.counter("values_unread") == 1
    client = world.client()
    client.submit(1, again=True)
    agent.say(m.Result([(task_id(1), fence, m.DONE, b"all", 5, None)]))
    assert client.facts(1) == {"values_dropped": True}


@pytest.mark.parametrize("wait_ms", [0, CLIENT_AWAY_NS / 1e6])
def test_who_claims_a_generator_after_its_end_hears_whether_its_values_were_dropped(
    wait_ms: float,
) -> None:
    """I22. Found by simulation: it was told as done, and its reader had half of the values."""
    world = World(epoch=2)
    agent, fence = world.agent(slots=0), m.fence_of(1, 1)
    agent.come_back()
    agent.offer(held=[(task_id(1), fence)], slots=1)
    agent.say(m.Values([(task_id(1), fence, 0, True, b"v")]))
    world.pass_ms(wait_ms)
    agent.say(m.Result([(task_id(1), fence, m.DONE, b"all", 5, None)]))
    client = world.client()
    client.submit(1, again=True)
    assert client.end(1) == "done"
    assert client.facts(1) == ({"values_dropped": True} if wait_ms else {})
