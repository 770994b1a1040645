"""Where a task runs, what it waits for at its host, how it ended: one sentence per case."""

from __future__ import annotations

from evener_wire import messages as m
from tests.unit.broker.test_durable import world_of
from tests.unit.broker.test_why import LABEL, sentence, why
from tests.unit.broker.world import Agent, World, task_id


def beats(agent: Agent, *numbers: int, running_ms: int = 0) -> None:
    """A heartbeat that tells which worker runs what."""
    workers: list[m.Facts] = [
        {
            "name": f"{agent.name}:{place}",
            "pid": 100 + place,
            "task": task_id(number),
            "running_ms": running_ms,
        }
        for place, number in enumerate(numbers, 1)
    ]
    attempts = [(task_id(n), agent.fence(n), running_ms) for n in numbers]
    agent.say(m.Heartbeat(attempts, workers))


# --- Assigned, running ----------------------------------------------------------------------------


def test_assigned_behind_a_task_that_runs() -> None:
    world = World()
    agent, client = world.agent("host"), world.client()
    world.core.tables.function("demo.add").observe(1, 10, 10)
    client.submit(1, 2)
    agent.starts(1)
    world.pass_ms(3)
    answer = why(client, 2)
    assert (answer["state"], answer["reason"], answer["host"]) == ("assigned", "assigned", "host")
    assert answer["behind"] == {"id": task_id(1).hex(), "function": "demo.add"}
    assert sentence(client, 2) == (
        f"is with host host since 3 ms and has not started, behind {LABEL} which runs since 3 ms"
    )
    world.agent("other")
    world.pass_ms(30)
    assert why(client, 2)["reason"] == "recalled"
    assert sentence(client, 2).endswith("; it was asked back for a worker that is free")


def test_running() -> None:
    world = World()
    agent, client = world.agent("host"), world.client()
    client.submit(1, retries=2)
    agent.starts(1)
    assert sentence(client, 1) == "runs on host host since 0 ms (attempt 1 of 3)"
    beats(agent, 1, running_ms=3_200)
    answer = why(client, 1)
    assert (answer["worker"], answer["pid"], answer["running_ms"]) == ("host:1", 101, 3_200)
    assert sentence(client, 1) == (
        "runs on host host in worker host:1 (pid 101) since 3.2 s (attempt 1 of 3)"
    )


def test_running_and_asked_to_stop() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.starts(1)
    client.cancel(1)
    world.pass_ms(700)
    client.cancel(1)
    answer = why(client, 1)
    assert (answer["reason"], answer["asked_ms"]) == ("cancelling", 700)
    assert answer["text"].endswith("; it was asked to stop 700 ms ago, since it is cancelled")


def test_running_beyond_its_deadline() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, deadline_ms=500)
    agent.starts(1)
    world.pass_ms(800)
    assert why(client, 1)["reason"] == "overdue"
    assert sentence(client, 1).endswith("; its deadline passed 300 ms ago")


def test_running_on_a_host_that_is_silent_or_gone() -> None:
    world = World()
    agent, client = world.agent("host"), world.client()
    client.submit(1)
    agent.starts(1)
    world.pass_ms(2_500, silent=[agent])
    assert "host host said nothing for 2.5 s, and after 4 s its work" in sentence(client, 1)
    agent.vanish()
    world.pass_ms(200)
    assert "host host is not connected since 200 ms" in sentence(client, 1)
    assert why(client, 1)["connected"] is False
    agent.move()
    agent.hello()
    assert sentence(client, 1).endswith("host host is connecting")


# --- With a journal -------------------------------------------------------------------------------


def test_waiting_for_the_journal() -> None:
    world, agent, client = world_of()
    client.submit(1)
    answer = why(client, 1)
    assert (answer["state"], answer["reason"]) == ("assigned", "journal")
    assert sentence(client, 1) == (
        "waits since 0 ms until the journal has it on disk; then it goes to host agent"
    )
    world.commit()
    agent.starts(1)
    assert why(client, 1)["reason"] == "running"
    agent.done(1)
    assert sentence(client, 1).endswith("its client hears of it once the journal has it on disk")


def test_waiting_for_a_journal_that_cannot_be_written() -> None:
    world, agent, client = world_of()
    client.submit(1, retries=1, retry_delay_ms=1)
    world.commit()
    agent.ends(1, m.FAILED)
    world.fail()
    world.pass_ms(5)
    assert "on disk, which cannot be written at the moment: No space left" in sentence(client, 1)


def test_held_after_a_restart_with_a_journal() -> None:
    world, agent, client = world_of(auto=True)
    client.submit(1)
    agent.starts(1)
    world.restart()
    client.move()
    client.hello()
    assert why(client, 1)["reason"] == "recovery"
    agent.come_back()
    assert why(client, 1)["reason"] == "running"


# --- Ended ----------------------------------------------------------------------------------------


def test_ended() -> None:
    world = World()
    agent, client = world.agent(slots=4), world.client()
    client.submit(1, 2)
    client.submit(3, queue="gpu", expires_ms=1_500)
    client.submit(4, max_starts=1)
    agent.done(1)
    agent.ends(2, m.FAILED, {"type": "ValueError", "message": "no"})
    agent.ends(4, m.LOST, {"reason": "died by SIGKILL"})
    world.pass_ms(2_000)
    assert sentence(client, 1) == "ended as done 2.0 s ago; its client has not taken the end yet"
    assert "ended as failed 2.0 s ago (ValueError: no); " in sentence(client, 2)
    assert "ended as expired 500 ms ago (queue limit of 1.5 s)" in sentence(client, 3)
    assert "ended as lost 2.0 s ago (poison: 1 worker died while it ran it)" in sentence(client, 4)
    client.acknowledge()
    answer = why(client, 2)
    assert (answer["reason"], answer["fetched"]) == ("ended", True)
    assert answer["facts"]["type"] == "ValueError"
    assert answer["text"].endswith("; its client has the result")


def test_asking_changes_nothing() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, 2, 3)
    agent.starts(1)
    for number in (1, 2, 3):
        assert sentence(client, number) == sentence(client, number)
    agent.done(1)
    agent.done(2)
    agent.done(3)
    assert {client.end(number) for number in (1, 2, 3)} == {"done"}
