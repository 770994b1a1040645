"""What one client or agent may take of the broker: its memory, its time, its timers (I21, I22)."""

from __future__ import annotations

from collections.abc import Callable

import msgpack

from evener_broker.core import BrokerCore
from evener_broker.events import MemoryShort
from evener_broker.tables import Bounds
from evener_wire import messages as m
from evener_wire.limits import KIB, SESSION_QUESTIONS_MAX
from tests.unit.broker.peers import Agent, Client
from tests.unit.broker.world import World


def body(answer: m.Answer) -> object:
    assert type(answer.body) is bytes
    return msgpack.unpackb(answer.body)


# --- Results that outgrow the bounds --------------------------------------------------------------


def finish(agent: Agent, size: int) -> None:
    """Whatever the agent has returns so many bytes."""
    for number in agent.numbers():
        agent.say(agent.result(number, payload=bytes(size)))


def test_whoever_does_not_take_its_results_gets_no_more_of_them() -> None:
    world = World(bounds=Bounds(client_bytes=10 * KIB))
    agent, hoarder, other = world.agent(), world.client("hoarder"), world.client("other")
    hoarder.submit(1, 2, 3)
    finish(agent, 11 * KIB)
    assert agent.numbers() == [], "its next task waits until it takes the result"
    other.submit(4)
    assert agent.numbers() == [4]
    finish(agent, 5)
    assert agent.numbers() == []
    world.core.check()
    hoarder.acknowledge()
    assert agent.numbers() == [2, 3]
    world.core.check()


def test_when_all_together_are_too_much_those_go_on_that_take_theirs() -> None:
    world = World(bounds=Bounds(payload_bytes=20 * KIB, client_bytes=15 * KIB))
    agent, hoarder, other = world.agent(), world.client("hoarder"), world.client("other")
    hoarder.submit(1, 2, 3)
    other.submit(4, 5, 6)
    for _ in range(10):
        finish(agent, 14 * KIB)
        other.acknowledge()
        world.core.check()
    assert [other.end(n) for n in (4, 5, 6)] == ["done"] * 3
    hoarder.acknowledge()
    for _ in range(4):
        finish(agent, 14 * KIB)
        hoarder.acknowledge()
    assert [hoarder.end(n) for n in (1, 2, 3)] == ["done"] * 3
    assert world.core.tables.bytes == 0


# --- The size of the process ----------------------------------------------------------------------


def test_a_broker_short_of_memory_takes_on_nothing_new() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    world.turn(MemoryShort("it is full"))
    client.submit(2)
    (rejected,) = client.got(m.Rejected)
    assert rejected.items[0][1:] == ("queue_full", "it is full")
    agent.done(1)
    assert client.end(1) == "done", "what it has goes on"
    world.turn(MemoryShort(""))
    client.submit(2)
    agent.done(2)
    assert client.end(2) == "done"


# --- Questions ------------------------------------------------------------------------------------


def ask(client: Client, *numbers: int, what: str = "status") -> None:
    client.say(*[m.Query(number, what, {}) for number in numbers])


def test_one_question_is_answered_in_a_turn_and_sessions_take_turns() -> None:
    world = World()
    greedy, other = world.client("greedy"), world.client("other")
    ask(greedy, 1, 2, 3, 4)
    assert [a.number for a in greedy.got(m.Answer)] == [1]
    ask(other, 9)
    world.turn()
    assert [a.number for a in greedy.got(m.Answer)] == [2]
    assert [a.number for a in other.got(m.Answer)] == [9]
    assert world.core.wake_at() == world.now_ns, "the rest follows at once"
    world.turn()
    world.turn()
    assert [a.number for a in greedy.got(m.Answer)] == [3, 4]


def test_too_many_questions_are_refused_with_a_reason() -> None:
    world = World()
    client = world.client()
    ask(client, *range(1, SESSION_QUESTIONS_MAX + 3))
    answers = client.got(m.Answer)
    refused = [answer for answer in answers if not answer.ok]
    assert len(answers) == 3
    assert len(refused) == 2
    assert "too many questions" in str(body(refused[0]))


def test_questions_go_with_their_session() -> None:
    world = World()
    client = world.client()
    ask(client, 1, 2, 3)
    client.say(m.Goodbye("enough"))
    world.turn()
    world.turn()
    assert world.core.wake_at() != world.now_ns


# --- Timers ---------------------------------------------------------------------------------------


def timers_after(core: BrokerCore, act: Callable[[], object], times: int) -> int:
    for _ in range(3):
        act()
    before = len(core.tables.timers)
    for _ in range(times):
        act()
    return len(core.tables.timers) - before


def test_a_client_that_comes_and_goes_leaves_one_timer() -> None:
    """Each stayed for an hour: a thousand returns a second were three million."""
    world = World()
    client = world.client()
    client.submit(1)

    def come_and_go() -> None:
        client.say(m.Goodbye("back soon"))
        client.hello()
        world.pass_ms(1_100)

    assert timers_after(world.core, come_and_go, 20) <= 2


def test_an_agent_that_offers_again_and_again_leaves_one_timer() -> None:
    world = World()
    agent = world.agent()
    offer = m.Offer(1, False, ("default",), [("demo.add", None)])
    assert timers_after(world.core, lambda: agent.say(offer), 20) <= 1


def test_queues_that_nobody_uses_any_more_are_forgotten() -> None:
    """Each turn looks at every queue, so a peer could slow down all turns for ever."""
    world = World()
    world.agent()
    for number in range(100):
        visitor = world.agent(f"visitor {number}", queues=(f"queue-{number}",))
        visitor.say(m.Goodbye("that was all"))
    assert len(world.core.tables.queues) == 101
    world.pass_ms(12_000)
    assert len(world.core.tables.queues) <= 65
    assert "default" in world.core.tables.queues
