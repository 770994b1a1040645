"""What the simulation found in the broker's core, each as the shortest story that shows it."""

from __future__ import annotations

from evener_broker.tables import Bounds
from evener_wire import messages as m
from tests.unit.broker.fake_journal import FakeJournal
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
    world, client, agent = _adopted()
    agent.ends(1, m.CANCELLED)
    assert client.end(1) == "open"
    world.pass_ms(2_000)  # nobody tells that he has it
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


def test_what_is_kept_for_others_does_not_take_the_journal_from_new_tasks() -> None:
    """I19: for as long as results are kept, nothing new would have been accepted."""
    world = World(journal=FakeJournal(bytes_max=10_000))
    client, agent = world.client(), world.agent()
    for number in range(200):
        client.submit(number, payload=bytes(100))
        agent.ends(number, m.FAILED)
        assert client.end(number) == "failed"
        client.acknowledge()
    assert client.got(m.Rejected) == []
    assert world.core.tables.retained > 10


def test_a_large_task_gets_the_room_of_what_is_only_kept() -> None:
    """I19: refused, and soon not any more, though nothing else happened."""
    world = World(journal=FakeJournal(bytes_max=10_000))
    client, agent = world.client(), world.agent()
    for number in range(50):
        client.submit(number, payload=bytes(100))
        agent.ends(number, m.FAILED)
        client.acknowledge()
    assert world.core.tables.retained == 50
    refused = 0
    while client.end(100) == "open" and refused < 20:
        client.submit(100, payload=bytes(5_000))
        if client.got(m.Rejected):
            refused += 1
        else:
            agent.done(100)
    assert 0 < refused < 20
    assert client.end(100) == "done"


def test_a_loss_that_the_journal_has_is_not_counted_again_when_it_is_told_again() -> None:
    """I12: its acknowledgement was lost with the broker, so the agent tells it once more."""
    world = World(journal=FakeJournal())
    client, agent = world.client(), world.agent()
    client.submit(1, max_starts=2)
    first = agent.fence(1)
    agent.ends(1, m.LOST)
    world.restart()
    agent.move()
    agent.hello()
    agent.offer(held=[(task_id(1), first)])
    agent.say(m.Result([(task_id(1), first, m.LOST, b"", 0, None)]))
    world.pass_ms(2_000)
    agent.done(1)
    client.move()
    client.hello()
    assert client.end(1) == "done"


def test_what_was_adopted_out_of_its_line_stands_there_once_when_it_comes_back() -> None:
    """I7: twice in line, it was handed out twice."""
    world = World()
    client, agent = world.client(), world.agent(slots=2)
    client.submit(1, 2, 3)
    held = agent.held()
    world.restart()
    client.move()
    client.hello()
    client.submit(1, 2, 3, again=True)
    world.pass_ms(2_000)
    assert world.state(1) == "queued"
    agent.move()
    agent.hello()
    agent.offer(held=held)
    assert world.state(1) == "running"
    agent.offer(slots=0)
    agent.ends(1, m.RETURNED)
    agent.ends(2, m.RETURNED)
    assert world.state(1) == "queued"
    agent.offer(slots=2)
    assert sorted(agent.numbers()) == [1, 2]
    agent.done(1, 2)
    agent.done(3)
    assert client.end(1) == client.end(2) == "done"


def test_an_agent_that_comes_as_the_journal_is_tried_again_is_named_before_it_gets_work() -> None:
    """I23: a broker that comes after us must know whom to ask."""
    journal = FakeJournal(auto=False)
    world = World(journal=journal)
    client = world.client()
    client.submit(1)
    world.commit()
    client.submit(2)
    world.turn(journal.fail())
    world.now_ns += 1_000_000_000
    agent = Agent(world, "late")
    agent.slots, agent.queues = 1, ("default",)
    agent.functions = [("demo.add", None)]
    agent.hello()  # in the turn in which the journal is tried again
    world.commit(1)
    agent.offer(held=())
    assert not agent.hand or agent.instance in journal.agents
    while journal.pending:
        world.commit()
    assert agent.numbers() == [1]
    assert agent.instance in journal.agents


def test_a_cancel_calls_back_what_waits_for_the_name_of_its_agent() -> None:
    """I16: the agent heard of the cancel before it got the attempt, and ran it."""
    journal = FakeJournal(auto=False)
    world = World(journal=journal)
    client = world.client()
    client.submit(1)
    world.commit()
    agent = world.agent()
    assert world.state(1) == "assigned"
    assert not agent.hand
    client.cancel(1)
    while journal.pending:
        world.commit()
    assert not agent.hand
    assert client.end(1) == "cancelled"
