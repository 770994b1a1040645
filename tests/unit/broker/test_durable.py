"""The core with a journal: what waits for it, what a failure takes back, what a restart finds."""

from __future__ import annotations

import pytest

from evener_wire import messages as m
from tests.unit.broker.fake_journal import FakeJournal
from tests.unit.broker.world import VALUE, Agent, Client, Told, World, task_id


def world_of(*, auto: bool = False, bytes_max: int = 1 << 30) -> tuple[World, Agent, Client]:
    """A broker whose journal has seen its agent, and is otherwise empty."""
    journal = FakeJournal(bytes_max=bytes_max)
    world = World(journal=journal)
    agent, client = world.agent(slots=2), world.client()
    journal.auto = auto
    return world, agent, client


def kinds(told: Told) -> list[type]:
    return [type(message) for _, message in told]


def test_the_greeting_tells_that_the_broker_is_durable() -> None:
    world = World(journal=FakeJournal())
    client = world.client()
    assert client.got(m.Welcome)[-1].durable
    assert not World().client().got(m.Welcome)[-1].durable


def test_a_task_is_accepted_and_sent_once_it_is_on_disk() -> None:
    """I5."""
    world, agent, client = world_of()
    assert client.submit(1) == []
    assert world.state(1) == "assigned"
    assert agent.hand == {}
    told = world.commit()
    assert kinds(told) == [m.Run, m.Accepted]


def test_an_end_is_told_and_its_result_acknowledged_once_it_is_on_disk() -> None:
    """I5: and the agent keeps the result until then."""
    world, agent, client = world_of()
    client.submit(1)
    world.commit()
    assert agent.done(1) == []
    assert m.Ack not in kinds(world.pass_ms(100))
    assert client.end(1) == "open"
    told = world.commit()
    assert kinds(told) == [m.Ack, m.Terminal]
    assert client.end(1) == "done"


def test_heartbeats_and_answers_do_not_wait_for_the_journal() -> None:
    world, _, client = world_of()
    client.submit(1)
    assert m.Answer in kinds(client.say(m.Query(1, "status", {})))
    told = world.turn()
    world.now_ns += 1_100_000_000
    told = world.turn()
    assert m.Heartbeat in kinds(told)


def test_what_was_there_before_is_accepted_with_what_is_under_way() -> None:
    """A repeated submission promises as much as the first, so it waits as long."""
    world, _, client = world_of()
    client.submit(1)
    assert client.submit(1) == []
    assert m.Accepted in kinds(world.commit())
    assert kinds(client.submit(1)) == [m.Accepted]


def test_transactions_are_kept_one_by_one() -> None:
    world, agent, client = world_of()
    client.submit(1)
    client.submit(2)
    world.commit(1)
    assert list(agent.hand) == [task_id(1)]
    world.commit(1)
    assert list(agent.hand) == [task_id(1), task_id(2)]


def test_a_failed_transaction_takes_its_tasks_back() -> None:
    """I29: no worker saw them, and their client hears why."""
    world, agent, client = world_of()
    client.submit(1, 2, 3)
    told = world.fail()
    assert kinds(told) == [m.Rejected, m.Accepted]
    (rejected,) = client.got(m.Rejected)
    assert [(item[0], item[1]) for item in rejected.items] == [
        (task_id(n), "journal") for n in (1, 2, 3)
    ]
    assert "No space left on device" in rejected.items[0][2]
    assert [world.state(n) for n in (1, 2, 3)] == ["forgotten"] * 3
    assert agent.hand == {}
    assert world.core.tables.open_tasks == 0
    assert any("cannot write the journal" in text for text in world.texts("error"))


def test_while_the_journal_fails_new_tasks_are_rejected_at_once() -> None:
    world, _, client = world_of()
    client.submit(1)
    world.fail()
    assert kinds(client.submit(2)) == [m.Rejected, m.Accepted]
    world.pass_ms(1_100)
    world.commit()
    client.submit(3)
    assert kinds(world.commit())[-1:] == [m.Accepted]
    assert world.texts("info")[-1] == "the journal can be written again"


def test_a_failed_end_is_written_again_until_it_is_on_disk() -> None:
    world, agent, client = world_of()
    client.submit(1)
    world.commit()
    agent.done(1)
    world.fail()
    assert client.end(1) == "open"
    world.pass_ms(1_100)
    world.fail()
    world.pass_ms(1_100)
    world.commit()
    assert client.end(1) == "done"
    assert world.journal is not None
    assert world.journal.tasks[1].result == VALUE


@pytest.mark.parametrize("written", [False, True])
def test_a_task_that_may_be_on_disk_is_neither_accepted_nor_rejected(written: bool) -> None:
    """I24: told as rejected it might run all the same, if the next broker found it."""
    world, agent, client = world_of()
    client.submit(1)
    client.submit(2)
    told = world.fail(written=written, unknown=True)
    assert kinds(told) == [m.Rejected], "what was behind it was not written for sure"
    (rejected,) = client.got(m.Rejected)
    assert [(item[0], item[1]) for item in rejected.items] == [(task_id(2), "journal")]
    assert (world.state(1), world.state(2)) == ("assigned", "forgotten")
    assert agent.hand == {}
    other = world.client("other")
    assert kinds(client.submit(3)) == [m.Rejected], "ACCEPTED would speak of the first, too"
    assert kinds(other.submit(4)) == [m.Rejected, m.Accepted]
    world.pass_ms(1_100)
    assert kinds(world.fail()) == [], "it is written for sure, or not known for ever"
    world.pass_ms(1_100)
    told = world.commit()
    assert m.Accepted(3) in [message for _, message in told]
    assert agent.numbers() == [1]
    agent.done(1)
    world.commit()
    assert client.end(1) == "done"


@pytest.mark.parametrize("written", [False, True])
def test_a_broker_that_dies_meanwhile_leaves_nothing_rejected_behind(written: bool) -> None:
    world, _, client = world_of()
    client.submit(1)
    client.submit(2)
    world.fail(written=written, unknown=True)
    assert world.journal is not None
    assert [kept.id for kept in world.journal.tasks.values()] == [task_id(1)] * written
    assert [item[0] for message in client.got(m.Rejected) for item in message.items] == [task_id(2)]


@pytest.mark.parametrize("written", [False, True])
def test_a_task_that_may_be_on_disk_may_end_meanwhile(written: bool) -> None:
    world, agent, client = world_of()
    client.submit(1)
    client.cancel(1)
    world.fail(written=written, unknown=True)
    assert client.end(1) == "open"
    world.pass_ms(1_100)
    world.commit()
    assert client.end(1) == "cancelled"
    assert agent.hand == {}


def test_a_task_that_ended_before_it_was_saved_is_taken_back_as_well() -> None:
    world, _, client = world_of()
    client.submit(1)
    client.cancel(1)
    world.fail()
    assert world.state(1) == "forgotten"
    world.pass_ms(1_100)
    world.commit()
    assert client.end(1) == "open", "it is rejected, and nothing else"


def test_a_cancel_before_the_run_left_ends_the_task_without_the_agent() -> None:
    """I16."""
    world, agent, client = world_of()
    client.submit(1)
    client.cancel(1)
    told = world.commit()
    assert m.Run not in kinds(told)
    assert client.end(1) == "cancelled"
    assert agent.hand == {}


def test_what_the_journal_cannot_take_is_full() -> None:
    """I21: ends still fit when no new task does."""
    _, agent, client = world_of(auto=True, bytes_max=2_000)
    rejected: list[str] = []
    for number in range(20):
        client.submit(number, payload=b"x" * 200)
        rejected += [code for message in client.got(m.Rejected) for _, code, _ in message.items]
        client.inbox.clear()
    assert set(rejected) == {"queue_full"}
    accepted = 20 - len(rejected)
    assert 2 <= accepted <= 8
    for _ in range(accepted):
        agent.done(*agent.numbers())
    assert sum(client.end(n) == "done" for n in range(20)) == accepted
