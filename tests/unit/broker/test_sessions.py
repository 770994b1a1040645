"""Sessions: how they begin and end, what is out of step, and when silence becomes a verdict."""

from __future__ import annotations

import pytest

from evener_broker.events import Received
from evener_wire import messages as m
from evener_wire.codec import Envelope
from evener_wire.limits import RECONNECT_GRACE_NS, RETENTION_NS, SILENCE_NS
from tests.unit.broker.world import VALUE, Agent, Client, World, task_id

MS = 1_000_000
SILENCE_MS = SILENCE_NS / MS
GRACE_MS = RECONNECT_GRACE_NS / MS


def test_hello_is_answered_by_a_welcome_with_number_one() -> None:
    world = World(epoch=7)
    client = Client(world, "client")
    assert client.hello() == [
        (
            client,
            m.Welcome(
                1, 7, (7).to_bytes(16, "big"), 1_000, 4_000, 2_000_000, 2 << 30, False, {"pid": 1}
            ),
        )
    ]
    assert client.sequence is not None
    assert client.sequence.received == 1
    assert 0 < client.sequence.session < 1 << 63


def test_two_sessions_never_have_the_same_number() -> None:
    world = World()
    sessions = {world.client(f"c{n}").sequence.session for n in range(100)}  # type: ignore[union-attr]
    assert len(sessions) == 100


@pytest.mark.parametrize("versions", [(0, 0), (2, 9)])
def test_a_foreign_protocol_is_refused_with_both_versions(versions: tuple[int, int]) -> None:
    world = World()
    client = Client(world, "client")
    ((_, refused),) = world.turn(client.hello_event(versions))
    assert isinstance(refused, m.Refused)
    assert refused.code == "protocol"
    assert "1 to 1" in refused.text
    assert f"{versions[0]} to {versions[1]}" in refused.text
    assert world.counter("sessions_refused") == 1
    assert not world.core.tables.sessions


@pytest.mark.parametrize("versions", [(0, 1), (1, 5)])
def test_overlapping_protocols_are_welcome(versions: tuple[int, int]) -> None:
    world = World()
    client = Client(world, "client")
    ((_, welcome),) = world.turn(client.hello_event(versions))
    assert isinstance(welcome, m.Welcome)


def test_a_message_without_a_session_is_answered_by_resync() -> None:
    world = World()
    client = Client(world, "client")
    event = Received(client.connection, Envelope(5, 1, m.Heartbeat()))
    assert world.turn(event) == [(client, m.Resync("unknown session"))]
    assert world.counter("messages_unknown_peer") == 1


def test_two_brokers_do_not_resync_each_other_for_ever() -> None:
    world = World()
    client = Client(world, "client")
    assert world.turn(Received(client.connection, Envelope(0, 0, m.Resync("?")))) == []


def test_a_gap_ends_the_session_and_the_message_changes_nothing() -> None:
    world = World()
    client = world.client()
    assert client.sequence is not None
    client.sequence.next_number()
    told = client.say(m.Submit([(task_id(1), "demo.add", b"", None)]))
    assert told == [(client, m.Resync("out of step"))]
    assert world.state(1) == "forgotten"
    assert world.counter("sessions_out_of_step") == 1
    client.hello()
    client.submit(1)
    assert world.state(1) == "queued"


def test_a_message_of_another_session_changes_nothing() -> None:
    world = World()
    client = world.client()
    submit = m.Submit([(task_id(1), "demo.add", b"", None)])
    told = world.turn(Received(client.connection, Envelope(99, 1, submit)))
    assert told == [(client, m.Resync("out of step"))]
    assert world.state(1) == "forgotten"


def test_a_repeated_message_is_dropped_and_counted() -> None:
    """I8, I30: what the transport repeats changes nothing but one counter."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    event = agent.envelope(agent.result(1, payload=VALUE))
    world.turn(event)
    assert world.turn(event, event) == []
    assert world.counter("messages_repeated") == 2
    assert client.end(1) == "done"


def test_hello_again_on_the_same_connection_begins_a_new_session() -> None:
    world = World()
    client = world.client()
    client.submit(1)
    before = client.sequence
    client.hello()
    assert client.sequence is not None
    assert before is not None
    assert client.sequence.session != before.session
    assert world.state(1) == "queued"
    assert len(world.core.tables.sessions) == 1


def test_the_same_instance_on_a_new_connection_is_the_same_client() -> None:
    world = World()
    client = world.client()
    client.submit(1)
    old = client.connection
    client.move()
    client.hello()
    assert list(world.core.tables.clients) == [client.instance]
    assert old not in world.core.tables.sessions
    assert client.submit(1) == [(client, m.Accepted(1))], "the same task, not another (I4)"


def test_another_instance_on_the_same_connection_leaves_the_first_its_grace() -> None:
    """I19: whoever loses its connection to another is not forgotten with its work."""
    world = World()
    agent, client = world.agent("first"), world.client()
    client.submit(1)
    other = Agent(world, "other")
    other.connection = agent.connection
    agent.sequence = None
    agent.connection = b"nowhere"
    other.hello()
    world.pass_ms(GRACE_MS - 1)
    assert world.state(1) == "assigned"
    world.pass_ms(2)
    assert world.state(1) == "queued"


@pytest.mark.parametrize(
    "message",
    [m.Offer(1, False, ()), m.Result(()), m.Started(()), m.Run(()), m.Welcome, m.Accepted(1)],
)
def test_what_a_client_may_not_say_ends_its_session(message: m.Message | type) -> None:
    """I27: a session does what its role allows, and nothing else."""
    world = World()
    client = world.client()
    if isinstance(message, type):
        message = m.Welcome(1, 1, bytes(16), 1, 1, 1, 1, False, {})
    ((_, refused),) = client.say(message)
    assert isinstance(refused, m.Refused)
    assert refused.code == "violation"
    assert "a client may not send" in refused.text
    assert client.connection not in world.core.tables.sessions


@pytest.mark.parametrize(
    "message", [m.Submit(()), m.Query(1, "status", {}), m.Cancel(()), m.Ack(1)]
)
def test_what_an_agent_may_not_say_ends_its_session(message: m.Message) -> None:
    """I27."""
    world = World()
    agent = world.agent()
    ((_, refused),) = agent.say(message)
    assert isinstance(refused, m.Refused)
    assert "an agent may not send" in refused.text
    assert world.counter("violations") == 1


def test_bytes_that_are_no_message_end_the_session_and_no_other() -> None:
    """I26, I22: an erring peer loses its own service."""
    world = World()
    first, second = world.client("first"), world.client("second")
    ((peer, refused),) = first.garble()
    assert (peer, type(refused)) == (first, m.Refused)
    assert world.counter("messages_malformed") == 1
    assert second.submit(1) == [(second, m.Accepted(1))]
    stranger = Client(world, "stranger")
    assert stranger.garble() == [], "who has no session gets no answer to noise"


def test_an_agent_is_silent_for_four_seconds_and_not_before() -> None:
    """I18: completeness and accuracy."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    world.pass_ms(SILENCE_MS - 1, silent=[agent])
    assert world.state(1) == "assigned"
    world.pass_ms(1 + 250, silent=[agent])
    assert world.state(1) == "queued"
    assert agent.instance not in world.core.tables.agents
    assert world.counter("sessions_silent") == 1
    assert "silent for 4.0 s; tasks back in line: 1" in world.texts("warning")[0]


def test_any_message_counts_as_a_sign_of_life() -> None:
    """I18: no verdict on a peer that was heard within the time."""
    world = World()
    agent = world.agent()
    for _ in range(5):
        world.pass_ms(SILENCE_MS - 10, silent=[agent])
        agent.offer()
    assert agent.instance in world.core.tables.agents


def test_a_silent_client_loses_its_session_and_keeps_its_tasks() -> None:
    """I22: undelivered ends stay retrievable."""
    world = World()
    client = world.client()
    client.submit(1)
    world.pass_ms(SILENCE_MS + 1_000, silent=[client])
    assert client.connection not in world.core.tables.sessions
    assert world.state(1) == "queued"


def test_time_in_which_the_broker_stood_still_is_nobodys_silence() -> None:
    """I18: local health. The first step after a pause blames nobody."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    world.pass_ms(3_000, silent=[agent])
    world.stand_still_ms(60_000)
    world.turn()
    assert world.counter("stalls") == 1
    world.pass_ms(500, silent=[agent])
    assert world.state(1) == "assigned"
    world.pass_ms(1_000, silent=[agent])
    assert world.state(1) == "queued", "but after that, silence counts on"


def test_grace_after_a_broken_connection_counts_in_broker_live_time() -> None:
    """I18: a pause of the broker does not eat the time in which an agent may come back."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.vanish()
    world.stand_still_ms(10_000)
    world.turn()
    assert world.state(1) == "assigned"
    agent.come_back()
    world.pass_ms(GRACE_MS + 10)
    assert world.state(1) == "assigned"


def test_an_agent_that_comes_back_in_time_keeps_its_work() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.vanish()
    world.pass_ms(GRACE_MS - 1)
    agent.come_back()
    world.pass_ms(GRACE_MS * 2)
    assert world.state(1) == "assigned"
    agent.done(1)
    assert client.end(1) == "done"


def test_an_agent_that_does_not_come_back_loses_its_work_to_others() -> None:
    world = World()
    agent, other, client = world.agent("a"), world.agent("b", slots=1), world.client()
    client.submit(1, 2)
    agent.vanish()
    told = world.pass_ms(GRACE_MS)
    assert told == []
    other.done(2)
    assert other.numbers() == [1]
    assert world.counter("agents_lost") == 1


def test_each_break_of_a_connection_has_the_whole_grace() -> None:
    """The timer of an earlier break does not cut the later one short."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.vanish()
    world.pass_ms(GRACE_MS - 100)
    agent.come_back()
    agent.vanish()
    world.pass_ms(GRACE_MS - 1)
    assert world.state(1) == "assigned"
    world.pass_ms(2)
    assert world.state(1) == "queued"


def test_an_agent_that_says_goodbye_is_gone_at_once() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.say(m.Goodbye("stopped"))
    assert world.state(1) == "queued"
    assert world.core.tables.agents == {}
    assert "agent agent is gone: left (stopped); tasks back in line: 1" in world.texts("warning")


def test_a_peer_that_is_gone_twice_is_gone_once() -> None:
    world = World()
    agent = world.agent()
    agent.vanish()
    assert agent.vanish() == []


def test_a_client_without_tasks_leaves_no_trace() -> None:
    """I21: reconnect churn does not grow the tables."""
    world = World()
    for number in range(50):
        client = world.client(f"c{number}")
        client.say(m.Goodbye("done"))
    assert world.core.tables.clients == {}
    world.pass_ms(2_000)
    assert len(world.core.tables.timers) == 0


def test_results_of_a_client_that_is_gone_are_kept_for_an_hour_from_its_last_leave() -> None:
    """I22: also when it came back in between and left again."""
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.done(1)
    client.vanish()
    hour_ms = RETENTION_NS / MS
    world.pass_ms(hour_ms - 1_000, silent=[])
    client.move()
    client.hello()
    client.vanish()
    world.pass_ms(hour_ms - 1)
    assert world.state(1) == "done"
    world.pass_ms(2)
    assert world.state(1) == "forgotten"
    assert world.core.tables.clients == {}
    assert world.core.tables.bytes == 0


def test_the_client_record_outlives_its_results_while_it_has_open_tasks() -> None:
    world = World()
    client = world.client()
    client.submit(1)
    client.vanish()
    world.pass_ms(RETENTION_NS / MS + 10)
    assert world.state(1) == "queued"
    agent = world.agent()
    agent.done(1)
    world.pass_ms(RETENTION_NS / MS + 10)
    assert world.core.tables.clients == {}


def test_idle_peers_hear_a_heartbeat_each_second_and_busy_agents_four() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    world.pass_ms(3_050)
    assert len(agent.got(m.Heartbeat)) == 3
    assert len(client.got(m.Heartbeat)) == 3
    client.submit(1)
    world.pass_ms(1_000)
    agent.got(m.Heartbeat)
    world.pass_ms(1_000)
    assert len(agent.got(m.Heartbeat)) == 4
