"""HELLOs that a peer repeated while the broker could not answer: one session comes of them."""

from __future__ import annotations

import pytest

from evener_broker.tables import Bounds
from evener_wire import messages as m
from evener_wire.limits import HELLO_REPEATED_NS
from tests.unit.broker.world import Agent, Client, World


@pytest.mark.parametrize("role", ["client", "agent"])
def test_hellos_that_waited_together_open_one_session(role: str) -> None:
    """A broker that stood still finds the HELLO of each second in its socket, and what follows."""
    world = World()
    peer = Client(world, "peer") if role == "client" else Agent(world, "peer")
    ((_, welcome),) = world.turn(*[peer.hello_event()] * 4)
    assert type(welcome) is m.Welcome
    world.pass_ms(HELLO_REPEATED_NS / 1e6 - 1, silent=[peer])
    assert world.turn(peer.hello_event()) == []
    assert world.counter("sessions_opened") == 1
    assert world.counter("messages_repeated") == 4
    # The session is the one of the first WELCOME.
    peer.say(peer.heartbeat())
    assert world.counter("messages_out_of_step") == 0
    assert len(world.core.tables.sessions) == 1


def test_hellos_that_waited_together_take_one_turn_and_are_not_put_off() -> None:
    world = World(bounds=Bounds(hellos_at_once=1, hellos_per_second=1))
    agent = Agent(world, "host")
    assert [type(message) for _, message in world.turn(*[agent.hello_event()] * 60)] == [m.Welcome]
    assert world.counter("sessions_deferred") == 0
    ((_, welcome),) = world.turn(Agent(world, "other").hello_event())
    assert type(welcome) is m.Welcome, "the repeated ones took no turn"


def test_a_hello_that_is_meant_is_answered() -> None:
    """By another program, in another role, after something was said, or half a second later."""
    world = World()
    client = world.client()
    first = world.core.tables.sessions[client.connection]
    client.say(m.Heartbeat())
    assert [type(message) for _, message in client.hello()] == [m.Welcome]
    other = Client(world, "other")
    other.connection = client.connection
    world.turn(other.hello_event())
    agent = Agent(world, "other")
    agent.connection = client.connection
    world.turn(agent.hello_event())
    assert world.counter("sessions_opened") == 4
    world.pass_ms(HELLO_REPEATED_NS / 1e6, silent=world.peers)
    world.turn(agent.hello_event())
    assert world.counter("sessions_opened") == 5
    assert world.counter("messages_repeated") == 0
    assert first is not world.core.tables.sessions[client.connection]
