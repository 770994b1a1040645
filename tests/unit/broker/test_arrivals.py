"""Arrivals: how many peers come in at once, when the others have their turn, and who waits for them
(I25)."""

from __future__ import annotations

import random

from evener_broker.arrivals import Arrivals
from evener_broker.tables import Bounds
from evener_wire import messages as m
from evener_wire.limits import (
    HELLOS_OF_PEER_MAX,
    RECONNECT_GRACE_NS,
    RETRY_AFTER_MAX_NS,
)
from tests.unit.broker.world import Agent, Client, Peer, World, task_id

MS = 1_000_000
SECOND = 1_000 * MS


def named(number: int) -> bytes:
    return number.to_bytes(16, "big")


class Crowd:
    """Peers that come when they are told to, each on a connection of its own."""

    def __init__(self, per_second: int = 100, at_once: int = 10) -> None:
        self.arrivals = Arrivals(per_second, at_once, random.Random(1))
        self.asked = 0

    def wait_ns(self, number: int, now_ns: int, *, is_agent: bool = True) -> int:
        self.asked += 1
        peer = self.asked.to_bytes(5, "big")
        return self.arrivals.wait_ns(peer, named(number), now_ns, is_agent=is_agent)


def test_some_come_in_at_once_and_the_others_one_after_the_other() -> None:
    crowd = Crowd()
    waits = [crowd.wait_ns(number, SECOND) for number in range(30)]
    assert waits[:11] == [0] * 11
    assert waits[11:] == [10 * MS * turn for turn in range(1, 20)]


def test_a_turn_that_was_named_is_kept() -> None:
    crowd = Crowd()
    waits = {number: crowd.wait_ns(number, SECOND) for number in range(30)}
    # A second crowd comes before the first one had its turns: it stands behind.
    assert min(crowd.wait_ns(number, SECOND + MS) for number in range(100, 110)) > 190 * MS
    for number, wait_ns in waits.items():
        if wait_ns:
            assert crowd.wait_ns(number, SECOND + wait_ns // 2) <= wait_ns
            assert crowd.wait_ns(number, SECOND + wait_ns) == 0


def test_after_a_rest_as_many_come_in_at_once_as_before() -> None:
    crowd = Crowd()
    assert [crowd.wait_ns(number, SECOND) for number in range(11)] == [0] * 11
    assert crowd.wait_ns(11, SECOND) == 10 * MS
    waits = [crowd.wait_ns(number, 3 * SECOND) for number in range(20, 31)]
    assert waits == [0] * 11


def test_agents_do_not_see_how_many_clients_wait_but_clients_see_agents() -> None:
    crowd = Crowd()
    for number in range(50):
        crowd.wait_ns(number, SECOND, is_agent=False)
    assert crowd.wait_ns(100, SECOND) == 0
    for number in range(101, 111):
        crowd.wait_ns(number, SECOND)
    assert crowd.wait_ns(200, SECOND) == 10 * MS
    # 50 clients and 12 agents, of which 11 did not have to wait.
    assert crowd.wait_ns(201, SECOND, is_agent=False) == 520 * MS


def test_no_turn_is_promised_that_is_too_far_away_and_all_come_in_anyhow() -> None:
    crowd = Crowd(per_second=10, at_once=1)
    at_ns = dict.fromkeys(range(100), SECOND)
    now_ns = SECOND
    served: list[int] = []
    while at_ns:
        number = min(at_ns, key=lambda n: at_ns[n])
        now_ns = at_ns[number]
        wait_ns = crowd.wait_ns(number, now_ns)
        assert wait_ns <= RETRY_AFTER_MAX_NS
        if wait_ns:
            at_ns[number] += wait_ns
        else:
            served.append(now_ns)
            del at_ns[number]
        assert len(crowd.arrivals) <= 45
    assert now_ns < 14 * SECOND, "the rate is used"
    for first_ns, last_ns in zip(served, served[12:], strict=False):
        assert last_ns - first_ns >= SECOND, "and kept"


def test_turns_of_those_who_never_come_are_forgotten() -> None:
    crowd = Crowd()
    for number in range(100):
        crowd.wait_ns(number, SECOND)
    assert len(crowd.arrivals) == 89
    for number in range(200, 212):
        crowd.wait_ns(number, 10 * SECOND)
    assert len(crowd.arrivals) == 1


def test_a_connection_that_says_hello_all_the_time_takes_nobodys_turn() -> None:
    arrivals = Arrivals(1_000, 100, random.Random(1))
    waits = [arrivals.wait_ns(b"flood", named(n), SECOND, is_agent=True) for n in range(1_000)]
    assert min(waits[HELLOS_OF_PEER_MAX:]) >= RETRY_AFTER_MAX_NS // 2
    assert arrivals.wait_ns(b"other", named(5_000), SECOND, is_agent=True) == 0
    assert len(arrivals) == 0


# --- The broker -----------------------------------------------------------------------------------


def waits_of(world: World, *peers: Peer) -> dict[str, int]:
    """What peers are told that say HELLO in one step."""
    told = world.turn(*[peer.hello_event() for peer in peers])
    refused = {
        peer.name: message.wait_ms for peer, message in told if isinstance(message, m.Refused)
    }
    assert all(isinstance(message, (m.Refused, m.Welcome)) for _, message in told)
    return refused


def small(**bounds: int) -> Bounds:
    return Bounds(hellos_at_once=1, hellos_per_second=1, **bounds)


def test_a_crowd_is_told_to_come_again_and_does() -> None:
    world = World(bounds=Bounds(hellos_at_once=2, hellos_per_second=10))
    agents = [Agent(world, f"host{number}") for number in range(5)]
    waits = waits_of(world, *agents)
    assert waits == {"host3": 100, "host4": 200}
    assert world.counter("sessions_deferred") == 2
    assert world.counter("sessions_refused") == 0
    assert not world.texts("warning")
    world.pass_ms(100)
    assert waits_of(world, agents[3]) == {}
    assert waits_of(world, agents[4]) == {"host4": 100}
    world.pass_ms(100)
    assert waits_of(world, agents[4]) == {}


def test_a_session_goes_on_while_its_peer_is_told_to_wait() -> None:
    world = World(bounds=small())
    world.agent()
    client = world.client()
    for number in range(2):
        Client(world, f"other{number}").hello()
    client.say(m.Heartbeat())
    assert waits_of(world, client)
    client.submit(1)
    assert world.state(1) == "assigned"


def test_recovery_waits_for_agents_that_were_told_to_wait() -> None:
    """I23: what they hold would run twice otherwise."""
    world = World(epoch=2, bounds=small())
    client = world.client()
    first = world.agent("first")
    world.agent("second")
    client.submit(1, again=True)
    late = Agent(world, "late")
    later = Agent(world, "later")
    assert waits_of(world, late, later) == {"late": 1_000, "later": 2_000}
    world.pass_ms(2_001)
    assert first.numbers() == [], "the window is over, but not for whom it was told to wait"
    assert waits_of(world, later) == {}
    later.offer(held=[(task_id(1), m.fence_of(1, 1))])
    assert world.counter("attempts_adopted") == 1
    client.submit(2, again=True)
    assert world.state(2) == "held"
    world.pass_ms(1_000)
    assert first.numbers() == [2], "and whoever does not come is not waited for any longer"


def test_an_agent_that_is_told_to_wait_keeps_its_work_meanwhile() -> None:
    world = World(bounds=small())
    agent = world.agent()
    client = world.client()
    client.submit(1)
    assert agent.numbers() == [1]
    for number in range(2):
        Agent(world, f"other{number}").hello()
    agent.vanish()
    agent.move()
    world.pass_ms(RECONNECT_GRACE_NS / MS - 100)
    (wait_ms,) = waits_of(world, agent).values()
    world.pass_ms(wait_ms)
    assert world.counter("agents_lost") == 0
    assert waits_of(world, agent) == {}
    agent.offer(held=agent.held())
    agent.say(agent.result(1))
    assert client.end(1) == "done"
    assert world.counter("agents_lost") == 0


def test_an_agent_that_was_told_to_wait_and_never_comes_is_lost_after_its_grace() -> None:
    world = World(bounds=small())
    agent = world.agent()
    client = world.client()
    client.submit(1)
    for number in range(2):
        Agent(world, f"other{number}").hello()
    agent.vanish()
    agent.move()
    assert waits_of(world, agent)
    world.pass_ms(2 * RETRY_AFTER_MAX_NS / MS + RECONNECT_GRACE_NS / MS)
    assert world.counter("agents_lost") == 1
    assert world.state(1) == "queued"
    assert task_id(1) in world.core.tables.tasks
