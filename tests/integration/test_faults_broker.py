"""A broker that stands still, that comes late, and that dies and comes back, under load."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest
import zmq

import evener
from evener_wire import codec
from evener_wire import messages as m
from tests.integration import fault_app as app
from tests.integration.fault_cluster import FaultCluster
from tests.integration.history import misdeeds
from tests.support import wait_until

# How long the test waits until peers have noticed that the broker is silent, and then some.
STANDSTILL_S = 6.0


# --- Standing still -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_standing_broker_gives_no_false_verdict(cluster: FaultCluster) -> None:
    client = cluster.start(agents=2, workers=2)
    tokens = [f"t{n}" for n in range(300)]
    futures = [client.submit(app.work, token, 0.01) for token in tokens]
    once = [client.submit(app.stay.options(at_most_once=True), f"o{n}", "go") for n in range(2)]
    cluster.wait_begun("t20")
    cluster.broker.stop()
    stopped = time.monotonic()
    # Everybody else lives through it: new work may be submitted, what runs ends.
    futures.append(client.submit(app.work, "late"))
    cluster.release("go")
    assert not futures[-1].done()
    for agent in cluster.agents:
        wait_until(lambda a=agent: "lost the broker" in a.text(), 10, "the agents to notice")  # type: ignore[misc]
    wait_until(lambda: time.monotonic() - stopped > STANDSTILL_S, 10)
    cluster.broker.go_on()
    answered = evener.gather(*futures, *once, timeout=30)
    tokens += ["late", "o0", "o1"]
    assert misdeeds(cluster.history.executions(), tokens, answered, []) == []
    assert cluster.counter(client, "agents_lost") == 0
    assert cluster.counter(client, "stalls") >= 1
    assert "the broker stood still" in cluster.broker.text()
    cluster.wait_for_slots(client, 4)


def test_hellos_that_waited_for_a_standing_broker_open_one_session(cluster: FaultCluster) -> None:
    """As a peer says them, one each second, while nobody answers."""
    cluster.start_broker()
    client = cluster.client()
    opened = cluster.counter(client, "sessions_opened")
    cluster.broker.stop()
    hello = m.Hello(1, 1, "client", os.urandom(16), "stranger", 0, bytes(16), {})
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(cluster.address)
        for _ in range(4):
            dealer.send_multipart(codec.encode(hello, 0, 0))
        cluster.broker.go_on()
        assert dealer.poll(10_000)
        welcome = codec.decode(dealer.recv_multipart())
        assert isinstance(welcome.message, m.Welcome)
        query = m.Query(7, "ls", {"kind": "clients"})
        dealer.send_multipart(codec.encode(query, welcome.session, 1))
        while not isinstance(told := codec.decode(dealer.recv_multipart()).message, m.Answer):
            assert isinstance(told, m.Heartbeat), "nothing but the answer in the one session"
        assert (told.number, told.ok) == (7, True)
        assert cluster.counter(client, "sessions_opened") == opened + 1
        assert cluster.counter(client, "messages_repeated") == 3


def test_a_short_standstill_is_not_even_noticed(cluster: FaultCluster) -> None:
    client = cluster.start(workers=2)
    tokens = [f"t{n}" for n in range(100)]
    futures = [client.submit(app.work, token, 0.005) for token in tokens]
    futures.append(client.submit(app.stay, "last", "go"))
    tokens.append("last")
    cluster.wait_begun("t10")
    cluster.broker.stop()
    assert not futures[-1].done()
    cluster.release("go")
    time.sleep(1.5)  # a length of time, and nothing that it waits for
    cluster.broker.go_on()
    answered = evener.gather(*futures, timeout=30)
    assert misdeeds(cluster.history.executions(), tokens, answered, []) == []
    assert "lost the broker" not in cluster.agents[0].text()


# --- Coming late ----------------------------------------------------------------------------------


def test_broker_down_at_start_and_coming_later(cluster: FaultCluster) -> None:
    agent = cluster.begin_agent()
    results: list[Any] = []

    def wait_and_work() -> None:
        with evener.Client(cluster.address, connect_timeout=30) as client:
            results.append(client.submit(app.work, "t").result(30))

    early = threading.Thread(target=wait_and_work)
    early.start()
    try:
        # It is told once, with the address, and then it is waited for in silence.
        wait_until(lambda: "cannot reach an evener broker" in agent.text(), 10, "the agent's word")
        assert cluster.address in agent.text()
        assert "still trying" in agent.text()
        assert agent.process.poll() is None
    finally:
        cluster.start_broker()
        early.join(30)
    assert results == ["t"]
    agent.wait_for("connected")
    assert agent.text().count("cannot reach") == 1


# --- Dying under load -----------------------------------------------------------------------------


@pytest.mark.slow
def test_restarts_under_load_lose_nothing_and_run_nothing_twice(cluster: FaultCluster) -> None:
    client = cluster.start(agents=2, workers=2)
    other = cluster.client()
    tokens = [f"t{n}" for n in range(600)]
    futures = [
        (client if n % 2 else other).submit(app.work, token, 0.004 * (n % 4))
        for n, token in enumerate(tokens)
    ]
    for number in range(3):
        begun = 100 * (number + 1)
        wait_until(lambda b=begun: len(cluster.history.begun()) >= b, 30, "some to begin")  # type: ignore[misc]
        cluster.restart_broker()
        tokens.append(f"new{number}")
        futures.append(client.submit(app.work, f"new{number}"))
    answered = evener.gather(*futures, timeout=60)
    assert misdeeds(cluster.history.executions(), tokens, answered, []) == []
    for agent in cluster.agents:
        assert "the broker restarted after" in agent.text()


def test_what_runs_is_adopted_by_each_new_broker(cluster: FaultCluster) -> None:
    client = cluster.start(workers=2)
    futures = [client.submit(app.stay, f"t{n}", "go") for n in range(4)]
    cluster.wait_begun("t0", "t1")
    for _ in range(3):
        cluster.restart_broker()
        wait_until(lambda: cluster.counter(client, "attempts_adopted") == 2, 10, "adoption")
        assert cluster.state(client, futures[0]) == "running"
    cluster.release("go")
    assert evener.gather(*futures, timeout=30) == ["t0", "t1", "t2", "t3"]
    assert [len(cluster.history.of(f"t{n}")) for n in range(4)] == [1, 1, 1, 1]


def test_what_ends_while_there_is_no_broker_is_not_lost(cluster: FaultCluster) -> None:
    client = cluster.start(workers=2)
    once = app.stay.options(at_most_once=True)
    futures = [client.submit(once, f"t{n}", "go") for n in range(2)]
    cluster.wait_begun("t0", "t1")
    cluster.broker.kill()
    cluster.release("go")
    wait_until(lambda: all(run.ended_ns for run in cluster.history.executions()), 10, "both to end")
    cluster.start_broker()
    assert evener.gather(*futures, timeout=20) == ["t0", "t1"]
    assert [len(cluster.history.of(f"t{n}")) for n in range(2)] == [1, 1]


def test_at_most_once_over_a_restart(cluster: FaultCluster) -> None:
    """What runs is adopted; of what waited nobody can say that it has not run, so it is lost."""
    client = cluster.start()
    once = app.stay.options(at_most_once=True)
    running = client.submit(once, "running", "go")
    cluster.wait_begun("running")
    waiting = client.submit(once, "waiting", "go")
    wait_until(lambda: cluster.state(client, waiting) == "queued", 5, "it to be taken")
    cluster.restart_broker()
    with pytest.raises(evener.TaskLost) as caught:
        waiting.result(20)
    assert caught.value.reason == "unknown"
    assert "the broker restarted" in str(caught.value)
    cluster.release("go")
    assert running.result(20) == "running"
    assert cluster.history.order() == ["running"]


def test_worker_dies_while_there_is_no_broker(cluster: FaultCluster) -> None:
    client = cluster.start(workers=2)
    future = client.submit(app.stay, "t", "go")
    cluster.wait_begun("t")
    cluster.broker.kill()
    cluster.kill_worker(cluster.history.of("t")[0].pid)
    cluster.start_broker()
    cluster.wait_begun("t", times=2)
    cluster.release("go")
    assert future.result(20) == "t"
    assert len(cluster.history.of("t")) == 2


def test_agent_and_broker_die_together(cluster: FaultCluster) -> None:
    client = cluster.start(agents=2)
    futures = [client.submit(app.stay, f"t{n}", "go") for n in range(2)]
    cluster.wait_begun("t0", "t1")
    cluster.broker.kill()
    cluster.kill_agent(cluster.agents[0])
    cluster.start_broker()
    cluster.release("go")
    tokens = ["t0", "t1"]
    answered = evener.gather(*futures, timeout=20)
    assert misdeeds(cluster.history.executions(), tokens, answered, cluster.deaths) == []
    assert len(cluster.history.executions()) == 3


def test_cancel_is_not_forgotten_over_a_restart(cluster: FaultCluster) -> None:
    client = cluster.start()
    running = client.submit(app.stay, "running", "never")
    cluster.wait_begun("running")
    waiting = client.submit(app.work, "waiting")
    wait_until(lambda: cluster.state(client, waiting) == "queued", 5, "it to be taken")
    cluster.broker.kill()
    assert waiting.cancel()
    assert running.cancel()
    cluster.start_broker()
    for future in (waiting, running):
        with pytest.raises(evener.TaskCancelled):
            future.result(20)
    assert client.submit(app.work, "after").result(20) == "after"
    assert "waiting" not in cluster.history.begun()
