"""Who gets what: rotation over agents, turns between clients, priorities, order, requirements."""

from __future__ import annotations

from evener_wire import messages as m
from evener_wire.limits import AGEING_NS
from tests.unit.broker.world import Agent, Told, World

AGEING_MS = AGEING_NS / 1_000_000


def runs(told: Told) -> list[tuple[str, int]]:
    """Which agents got which tasks, in the order of the messages."""
    return [
        (peer.name, int.from_bytes(item[0], "big"))
        for peer, message in told
        if type(message) is m.Run
        for item in message.items
    ]


def order_of(world: World, agent: Agent) -> list[int]:
    """The order in which one worker gets what waits."""
    found: list[int] = []
    while agent.numbers():
        (number,) = agent.numbers()
        found.append(number)
        agent.done(number, run_us=1_000_000)
    return found


def test_free_workers_of_all_agents_take_turns() -> None:
    world = World()
    agents = [world.agent(name, slots=2) for name in "abc"]
    client = world.client()
    client.submit(1, 2, 3, 4)
    assert [agent.numbers() for agent in agents] == [[1, 4], [2], [3]]
    client.submit(5)
    assert agents[1].numbers() == [2, 5], "the rotation goes on where it stopped"


def test_an_agent_gets_one_task_for_each_free_worker_and_no_more() -> None:
    """I10: functions of unknown run time are never sent ahead."""
    world = World()
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2, 3)
    assert agent.numbers() == [1, 2]
    assert agent.done(1)[0] == (
        agent,
        m.Run([(b"\0" * 15 + b"\3", m.fence_of(1, 1), "demo.add", b"\x92\x90\xc0", 0, 0)]),
    )


def test_more_slots_are_used_at_once_and_fewer_take_nothing_back() -> None:
    """I10."""
    world = World()
    agent, client = world.agent(slots=1), world.client()
    client.submit(1, 2, 3, 4)
    agent.offer(slots=3)
    assert agent.numbers() == [1, 2, 3]
    agent.offer(slots=1)
    agent.done(1, run_us=10**6)
    agent.done(2, run_us=10**6)
    assert agent.numbers() == [3]
    agent.done(3, run_us=10**6)
    assert agent.numbers() == [4]


def test_an_agent_without_workers_gets_nothing() -> None:
    world = World()
    agent, client = world.agent(slots=0), world.client()
    client.submit(1)
    assert agent.numbers() == []


def test_a_draining_agent_gets_nothing_until_it_drains_no_more() -> None:
    """I10."""
    world = World()
    agent, client = world.agent(slots=2), world.client()
    agent.offer(draining=True)
    client.submit(1)
    assert agent.numbers() == []
    agent.offer(draining=False)
    assert agent.numbers() == [1]


def test_an_agent_gets_nothing_before_it_offered_something() -> None:
    """I7: a RUN that crossed its inventory would look as if lost, and run twice."""
    world = World()
    agent, client = world.agent(slots=2), world.client()
    agent.vanish()
    agent.move()
    agent.hello()
    assert runs(client.submit(1)) == []
    assert runs(agent.offer(held=[])) == [("agent", 1)]


def test_an_unclaimed_attempt_that_is_claimed_gives_no_credit_before_the_offer() -> None:
    """I7, I10: the same, when a client claims what the agent held in its last session."""
    world = World(epoch=2)
    agent, client = world.agent(slots=2), world.client()
    agent.vanish()
    agent.come_back()
    agent.move()
    agent.hello()
    agent.offer(held=[(b"\0" * 15 + b"\1", m.fence_of(1, 1))])
    agent.vanish()
    agent.move()
    agent.hello()
    client.submit(1, again=True)
    assert runs(client.submit(2)) == []


def test_queues_are_served_by_those_who_said_so() -> None:
    world = World()
    first = world.agent("first", slots=9, queues=["a"])
    second = world.agent("second", slots=9, queues=["b", "a"])
    client = world.client()
    client.submit(1, 2, queue="b")
    client.submit(3, 4, queue="a")
    client.submit(5, queue="c")
    assert second.numbers() == [1, 2, 4]
    assert first.numbers() == [3]
    assert world.state(5) == "queued"


def test_the_higher_priority_goes_first() -> None:
    world = World()
    client = world.client()
    for number, priority in enumerate([5, 0, 9, 5, 9, 0]):
        client.submit(number, priority=priority)
    assert order_of(world, world.agent()) == [2, 4, 0, 3, 1, 5]


def test_first_in_first_out_inside_a_client() -> None:
    """I13."""
    world = World()
    client = world.client()
    client.submit(*range(20))
    assert order_of(world, world.agent()) == list(range(20))


def test_clients_take_turns() -> None:
    """I14: of two clients each gets every second dispatch, however much one submits."""
    world = World()
    first, second = world.client("first"), world.client("second")
    first.submit(*range(10))
    second.submit(100, 101, 102)
    assert order_of(world, world.agent()) == [0, 100, 1, 101, 2, 102, *range(3, 10)]


def test_a_client_that_comes_later_has_its_turn_within_one_round() -> None:
    """I14."""
    world = World()
    clients = [world.client(f"c{n}") for n in range(4)]
    for index, client in enumerate(clients):
        client.submit(*range(index * 100, index * 100 + 5))
    agent = world.agent()
    late = world.client("late")
    late.submit(999)
    assert 999 in order_of(world, agent)[:6]


def test_a_low_priority_goes_first_once_it_waited_long_enough() -> None:
    """I14: ageing."""
    world = World()
    client = world.client()
    client.submit(1, priority=0)
    world.pass_ms(AGEING_MS + 1_000)
    client.submit(2, 3, priority=9)
    client.submit(4, priority=0)
    assert order_of(world, world.agent()) == [1, 2, 3, 4], "the overdue one, not all of its level"


def test_before_the_ageing_time_priority_is_strict() -> None:
    world = World()
    client = world.client()
    client.submit(1, priority=0)
    world.pass_ms(AGEING_MS - 1_000)
    client.submit(2, priority=9)
    assert order_of(world, world.agent()) == [2, 1]


def test_an_overdue_task_that_nobody_can_run_lifts_no_other() -> None:
    world = World()
    client = world.client()
    client.submit(1, function="demo.gone", priority=0)
    world.core.tables.functions["demo.gone"].runs = 1  # known from before: it is only away
    agent = world.agent(functions=["demo.add"], slots=0)
    client.submit(2, priority=0)
    world.pass_ms(AGEING_MS + 1_000)
    client.submit(3, priority=9)
    agent.offer(slots=1)
    assert order_of(world, agent) == [2, 3]
    client.submit(4, priority=0)
    client.submit(5, priority=9)
    (number,) = agent.numbers()
    agent.done(number)
    assert (number, agent.numbers()) == (4, [5])
    client.submit(6, priority=0)
    client.submit(7, priority=9)
    assert order_of(world, agent) == [5, 7, 6]


def test_overdue_tasks_of_several_clients_all_come() -> None:
    """I14: a client whose turn it is and whose task is fresh does not stand in the way."""
    world = World()
    first, second = world.client("first"), world.client("second")
    third = world.client("third")
    second.submit(1, priority=0)
    world.pass_ms(AGEING_MS + 1_000)
    first.submit(2, priority=0)
    third.submit(3, 4, priority=9)
    assert order_of(world, world.agent()) == [1, 3, 4, 2]


def test_returned_tasks_are_back_at_their_original_places() -> None:
    """I11, I13: by acceptance, not by the order of return."""
    world = World()
    agent, client = world.agent("a", slots=4), world.client()
    client.submit(1, 2, 3, 4, 5, 6)
    agent.offer(draining=True)
    for number in (3, 1, 4, 2):
        agent.ends(number, m.RETURNED)
    assert [world.task(n).tries.starts for n in range(1, 5)] == [0, 0, 0, 0]
    assert order_of(world, world.agent("b")) == [1, 2, 3, 4, 5, 6]


def test_functions_that_only_some_agents_offer_hold_up_nobody() -> None:
    """I13: order is promised only among tasks that the same workers can run."""
    world = World()
    client = world.client()
    world.agent("rare", functions=["demo.rare", "demo.add"], slots=0)
    agent = world.agent("common", functions=["demo.add"])
    client.submit(1, 2, function="demo.rare")
    client.submit(3, 4)
    assert order_of(world, agent) == [3, 4]
    assert world.state(1) == world.state(2) == "queued"
    both = world.agent("both", functions=["demo.rare", "demo.add"])
    client.submit(5)
    assert agent.numbers() == [5]
    assert order_of(world, both) == [1, 2]


def test_order_holds_when_what_agents_offer_changes_while_tasks_wait() -> None:
    """I13: tasks that stood in the line of all, and tasks that stood aside, keep their order."""
    world = World()
    client = world.client()
    client.submit(1, 2, function="demo.rare")
    world.agent("idle", functions=["demo.rare", "demo.add"], slots=0)
    client.submit(3, function="demo.rare")
    client.submit(4)
    plain = world.agent("plain", functions=["demo.add"])
    client.submit(5, function="demo.rare")
    client.submit(6)
    assert order_of(world, plain) == [4, 6]
    assert order_of(world, world.agent("able", functions=["demo.rare"])) == [1, 2, 3, 5]


def test_functions_by_value_run_anywhere_and_keep_their_order() -> None:
    world = World()
    client = world.client()
    client.submit(1, function="~__main__.f")
    client.submit(2)
    client.submit(3, function="~__main__.g")
    assert order_of(world, world.agent()) == [1, 2, 3]


def test_a_cancelled_task_leaves_no_hole_in_the_line() -> None:
    world = World()
    client = world.client()
    client.submit(*range(200))
    client.cancel(*range(0, 200, 2))
    client.cancel(*range(1, 150, 2))
    assert order_of(world, world.agent()) == list(range(151, 200, 2))
