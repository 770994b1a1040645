"""Questions that an agent answers: every one of them ends, whatever becomes of those involved."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from evener_broker.relay import ANSWER_NS, CLIENT_QUESTIONS_MAX
from evener_wire import messages as m
from evener_wire.limits import MILLISECOND_NS
from tests.unit.broker.world import Agent, Client, World, task_id

BODY = msgpack.packb({"stack": "Thread 0x1"})


def world_of() -> tuple[World, Agent, Client]:
    """A client, and an agent that told of its workers."""
    world = World()
    agent, client = world.agent("host", slots=2), world.client()
    tell(agent, 41, 42)
    return world, agent, client


def tell(agent: Agent, *pids: object) -> None:
    agent.say(
        m.Heartbeat([], [{"name": f"{agent.name}:{n}", "pid": pid} for n, pid in enumerate(pids)])
    )


def ask(client: Client, worker: object, number: int = 7) -> None:
    client.say(m.Query(number, "stack", {"worker": worker}))


def asked(agent: Agent) -> m.Query:
    (query,) = agent.got(m.Query)
    return query


def refusal(client: Client, number: int = 7) -> str:
    """The text of the one answer, which is no."""
    (answer,) = client.got(m.Answer)
    assert (answer.number, answer.ok) == (number, False)
    assert isinstance(answer.body, bytes)
    text: str = msgpack.unpackb(answer.body)
    return text


# --- The way there and back -----------------------------------------------------------------------


def test_a_question_and_its_answer_pass_as_they_are() -> None:
    _, agent, client = world_of()
    ask(client, "42", 9)
    query = asked(agent)
    assert (query.what, query.arguments) == ("stack", {"pid": 42})
    agent.say(m.Answer(query.number, True, BODY))
    assert client.got(m.Answer) == [m.Answer(9, True, BODY)]


def test_the_no_of_an_agent_is_passed_on() -> None:
    _, agent, client = world_of()
    ask(client, "42")
    agent.say(m.Answer(asked(agent).number, False, msgpack.packb("no such worker")))
    assert refusal(client) == "no such worker"


@pytest.mark.parametrize("worker", ["41", "host/41", "host:0"])
def test_ways_to_name_a_worker(worker: str) -> None:
    _, agent, client = world_of()
    ask(client, worker)
    assert asked(agent).arguments == {"pid": 41}


def test_a_worker_by_the_task_that_it_runs() -> None:
    _, agent, client = world_of()
    other = b"\xab" * 16
    client.say(m.Submit([(other, "demo.add", b"", None)]))
    ask(client, "abab")
    fence = agent.hand[other][1]
    assert asked(agent).arguments == {"task": other, "fence": fence}


def test_a_pid_on_two_hosts_has_to_be_told_apart() -> None:
    world, agent, client = world_of()
    other = world.agent("other")
    tell(other, 41)
    ask(client, "41")
    assert refusal(client) == '2 workers are meant by "41": host/41, other/41'
    ask(client, "other/41")
    assert asked(other).arguments == {"pid": 41}
    assert agent.got(m.Query) == []


@pytest.mark.parametrize(
    "worker", ["43", "other/41", "host:9", "abcd", "x" * 5_000, "9" * 5_000, "²", "/", "/41x"]
)
def test_a_worker_that_is_not_there(worker: str) -> None:
    _, agent, client = world_of()
    ask(client, worker)
    assert "no worker has the pid or name" in refusal(client)
    assert agent.got(m.Query) == []


@pytest.mark.parametrize("worker", ["", None, 41, b"41", ("41",)])
def test_what_names_no_worker(worker: object) -> None:
    _, _, client = world_of()
    ask(client, worker)
    assert refusal(client).startswith("which worker?")


def test_facts_of_any_type_do_no_harm() -> None:
    _, agent, client = world_of()
    tell(agent, "41", None, 4.5, True, -1, b"x", 0)
    for worker in ("41", "1", "0"):
        ask(client, worker)
        assert "no worker has" in refusal(client)
    ask(client, "host:1")
    assert refusal(client) == "worker host:1 has no process at the moment"


# --- Every question ends --------------------------------------------------------------------------


def test_an_agent_that_does_not_answer() -> None:
    world, agent, client = world_of()
    ask(client, "41")
    world.pass_ms(ANSWER_NS // MILLISECOND_NS - 1)
    assert client.got(m.Answer) == []
    world.pass_ms(1)
    assert refusal(client) == "the agent on host did not answer within 4 s"
    agent.say(m.Answer(asked(agent).number, True, BODY))
    assert client.got(m.Answer) == []
    assert world.counter("answers_stale") == 1


def test_an_agent_that_is_not_connected() -> None:
    _, agent, client = world_of()
    agent.vanish()
    ask(client, "41")
    assert refusal(client) == "the agent on host is not connected at the moment"


@pytest.mark.parametrize("end", ["vanish", "goodbye", "hello", "garble"])
def test_an_agent_whose_session_ends(end: str) -> None:
    _, agent, client = world_of()
    ask(client, "41")
    if end == "goodbye":
        agent.say(m.Goodbye("stopped"))
    else:
        getattr(agent, end)()
    assert refusal(client) == "the agent on host lost its connection before it answered"


def test_an_agent_that_falls_silent_is_late_first() -> None:
    world, agent, client = world_of()
    world.pass_ms(3_000, silent=[agent])
    ask(client, "41")
    world.pass_ms(2_000, silent=[agent])
    assert "lost its connection" in refusal(client)


def test_a_client_that_goes_away_asks_again_in_its_next_session() -> None:
    world, agent, client = world_of()
    ask(client, "41")
    first = asked(agent)
    client.vanish()
    client.move()
    client.hello()
    ask(client, "41")
    second = asked(agent)
    assert second.number != first.number
    agent.say(m.Answer(first.number, True, BODY))
    assert client.got(m.Answer) == []
    agent.say(m.Answer(second.number, True, BODY))
    assert len(client.got(m.Answer)) == 1
    assert world.counter("answers_stale") == 1


def test_another_agent_cannot_answer() -> None:
    world, agent, client = world_of()
    other = world.agent("other")
    ask(client, "41")
    number = asked(agent).number
    other.say(m.Answer(number, True, b"\xa5wrong"))
    assert client.got(m.Answer) == []
    agent.say(m.Answer(number, True, BODY))
    agent.say(m.Answer(number, True, BODY))
    assert client.got(m.Answer) == [m.Answer(7, True, BODY)]
    assert world.counter("answers_stale") == 2


def test_a_client_may_not_answer_and_an_agent_may_not_ask() -> None:
    world, agent, client = world_of()
    client.say(m.Answer(1, True, BODY))
    assert client.got(m.Refused)
    agent.say(m.Query(1, "status", {}))
    assert agent.got(m.Refused)
    assert world.counter("violations") == 2


# --- Bounds ---------------------------------------------------------------------------------------


def test_questions_of_one_client_are_bounded() -> None:
    world, agent, client = world_of()
    for number in range(CLIENT_QUESTIONS_MAX):
        ask(client, "41", number)
    ask(client, "41", 99)
    assert "too many questions wait for agents: 32 of this client" in refusal(client, 99)
    ask(world.client("other"), "41")
    queries = agent.got(m.Query)
    assert len({query.number for query in queries}) == CLIENT_QUESTIONS_MAX + 1
    agent.say(m.Answer(queries[0].number, True, BODY))
    ask(client, "41", 100)
    assert asked(agent).what == "stack"


def test_questions_of_all_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evener_broker.relay.QUESTIONS_MAX", 3)
    world, _, client = world_of()
    for number in range(2):
        ask(client, "41", number)
    other = world.client("other")
    ask(other, "41", 1)
    ask(other, "41", 2)
    assert "too many questions" in refusal(other, 2)


def test_an_answer_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evener_broker.relay._ANSWER_BYTES_MAX", 10)
    _, agent, client = world_of()
    ask(client, "41")
    agent.say(m.Answer(asked(agent).number, True, b"x" * 11))
    assert refusal(client) == "the answer of the agent on host is too large (11 bytes)"


def test_any_order_of_ends_leaves_nothing_open() -> None:
    world, agent, client = world_of()
    done: list[Any] = []
    for number in range(6):
        ask(client, "41", number)
    queries = agent.got(m.Query)
    agent.say(m.Answer(queries[3].number, True, BODY))
    agent.vanish()
    done += client.got(m.Answer)
    world.pass_ms(5_000)
    done += client.got(m.Answer)
    assert sorted(answer.number for answer in done) == list(range(6))
    assert [answer.number for answer in done if answer.ok] == [3]
    assert task_id(1) not in world.core.tables.tasks
