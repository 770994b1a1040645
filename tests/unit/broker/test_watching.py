"""What a person should hear of: a queue that nobody serves, told once to whom it concerns."""

from __future__ import annotations

from evener_wire import messages as m
from tests.unit.broker.world import Client, World


def notices(client: Client) -> list[str]:
    return [notice.text for notice in client.got(m.Notice)]


def test_a_queue_that_nobody_serves_is_told_after_three_seconds_and_once() -> None:
    world = World()
    world.agent(queues=["default", "cpu"])
    client = world.client()
    client.submit(*range(120), queue="gpu")
    world.pass_ms(2_999)
    assert notices(client) == []
    world.pass_ms(2)
    text = (
        '120 tasks wait for queue "gpu" but no connected worker serves it '
        "(workers serve: cpu, default)"
    )
    assert notices(client) == [text]
    assert world.texts("warning") == [text]
    client.submit(1_000, queue="gpu")
    world.pass_ms(60_000)
    assert notices(client) == []
    assert world.texts("warning") == [text]


def test_without_any_worker_the_notice_says_so() -> None:
    world = World()
    client = world.client()
    client.submit(1)
    world.pass_ms(3_001)
    (text,) = notices(client)
    assert text.endswith("(no worker is connected)")


def test_a_client_that_comes_later_hears_it_too_and_the_first_not_again() -> None:
    """UX: nobody waits in silence."""
    world = World()
    first, second = world.client("first"), world.client("second")
    first.submit(1, queue="gpu")
    world.pass_ms(5_000)
    second.submit(2, queue="gpu")
    world.pass_ms(3_001)
    assert (len(notices(first)), len(notices(second))) == (1, 1)
    assert len(world.texts("warning")) == 1
    world.pass_ms(10_000)
    assert notices(first) == notices(second) == []


def test_clients_without_tasks_there_hear_nothing() -> None:
    world = World()
    first, second = world.client("first"), world.client("second")
    first.submit(1, queue="gpu")
    world.pass_ms(5_000)
    assert notices(second) == []


def test_a_client_that_was_away_hears_it_when_it_is_back() -> None:
    world = World()
    client = world.client()
    client.submit(1, queue="gpu")
    client.vanish()
    world.pass_ms(5_000)
    client.move()
    client.hello()
    world.pass_ms(3_001)
    assert len(notices(client)) == 1


def test_a_queue_that_is_served_in_time_is_not_told() -> None:
    world = World()
    client = world.client()
    client.submit(1)
    world.pass_ms(2_000)
    agent = world.agent()
    agent.say(m.Goodbye("stopped"))
    world.pass_ms(2_999)
    assert notices(client) == []
    world.pass_ms(2)
    assert len(notices(client)) == 1, "three seconds from when the last one left"


def test_a_queue_that_was_served_again_is_told_again() -> None:
    world = World()
    client = world.client()
    client.submit(1)
    world.pass_ms(4_000)
    agent = world.agent(slots=0)
    world.pass_ms(4_000)
    agent.say(m.Goodbye("stopped"))
    world.pass_ms(4_000)
    assert len(notices(client)) == 2


def test_a_queue_that_runs_empty_is_not_told() -> None:
    world = World()
    client = world.client()
    client.submit(1)
    world.pass_ms(2_000)
    client.cancel(1)
    world.pass_ms(10_000)
    assert notices(client) == []
    client.submit(2)
    world.pass_ms(3_001)
    assert len(notices(client)) == 1
