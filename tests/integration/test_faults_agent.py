"""Agents that are killed, that stand still and come back, and that leave in order."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

import evener
from tests.integration import fault_app as app
from tests.integration.fault_cluster import FaultCluster
from tests.integration.history import misdeeds
from tests.support import is_running, wait_until

# Bounds of the protocol, with room for a machine that does other things at the same time.
GRACE_S = 1.5
PROBE_S = 0.25
SILENCE_S = 4.0
BEAT_S = 1.0
SLACK_S = 1.5


def test_killed_agent_loses_its_workers_and_its_work_goes_on_elsewhere(
    cluster: FaultCluster, record_property: Any
) -> None:
    client = cluster.start(agents=2, workers=2)
    futures = [client.submit(app.stay, f"t{n}", "go") for n in range(4)]
    cluster.wait_begun(*(f"t{n}" for n in range(4)))
    victim = cluster.agents[0]
    workers = set(victim.workers())
    killed_ns = cluster.kill_agent(victim)  # its workers are gone within a second
    cluster.release("go")
    moved = [f"t{n}" for n in range(4) if cluster.history.of(f"t{n}")[0].pid in workers]
    assert len(moved) == 2
    assert evener.gather(*futures, timeout=20) == [f"t{n}" for n in range(4)]
    spent = [(cluster.history.of(t)[1].began_ns - killed_ns) / 1e9 for t in moved]
    record_property("agent_kill_to_rerun_s", spent)
    print("agent killed -> rerun elsewhere, s:", [round(each, 2) for each in spent])
    assert all(GRACE_S <= each <= GRACE_S + PROBE_S + SLACK_S for each in spent)
    assert not misdeeds(
        cluster.history.executions(),
        [f"t{n}" for n in range(4)],
        [f.result() for f in futures],
        cluster.deaths,
    )
    assert "agent host1 is gone" in cluster.broker.text()


def test_work_of_the_others_does_not_wait_for_the_verdict(cluster: FaultCluster) -> None:
    client = cluster.start(agents=2)
    client.submit(app.stay, "a", "never")
    client.submit(app.stay, "b", "go")
    cluster.wait_begun("a", "b")
    holder = next(a for a in cluster.agents if cluster.history.of("a")[0].pid in a.workers())
    killed = time.monotonic()
    cluster.kill_agent(holder)
    cluster.release("go")
    assert client.submit(app.work, "c").result(20) == "c"
    assert time.monotonic() - killed < GRACE_S


def test_at_most_once_is_lost_with_its_agent(cluster: FaultCluster) -> None:
    client = cluster.start(agents=2)
    future = client.submit(app.stay.options(at_most_once=True), "t", "go")
    cluster.wait_begun("t")
    pid = cluster.history.of("t")[0].pid
    cluster.kill_agent(next(a for a in cluster.agents if pid in a.workers()))
    cluster.release("go")
    with pytest.raises(evener.TaskLost) as caught:
        future.result(20)
    assert caught.value.reason == "unknown"
    assert len(cluster.history.of("t")) == 1


def test_only_agent_killed_and_another_comes_later(cluster: FaultCluster) -> None:
    client = cluster.start()
    futures = [client.submit(app.stay, f"t{n}", "go") for n in range(3)]
    cluster.wait_begun("t0")
    cluster.kill_agent(cluster.agents[0])
    cluster.release("go")
    cluster.start_agent(2)
    assert evener.gather(*futures, timeout=20) == ["t0", "t1", "t2"]
    assert [len(cluster.history.of(f"t{n}")) for n in range(3)] == [2, 1, 1]


def test_a_standing_agent_gets_its_verdict_after_four_seconds_and_comes_back(
    cluster: FaultCluster, record_property: Any
) -> None:
    client = cluster.start(agents=2)
    future = client.submit(app.where, "t", "go")
    cluster.wait_begun("t")
    first = cluster.history.of("t")[0].pid
    holder = next(a for a in cluster.agents if first in a.workers())
    stopped = time.monotonic()
    holder.stop()
    # The other host has the task's second run; then the first one ends as well, unheard.
    cluster.wait_begun("t", times=2)
    spent = time.monotonic() - stopped
    record_property("agent_stopped_to_rerun_s", spent)
    print("agent stopped -> rerun elsewhere, s:", round(spent, 2))
    # Its last heartbeat was up to a second old when it was stopped.
    assert SILENCE_S - BEAT_S <= spent <= SILENCE_S + BEAT_S + SLACK_S
    cluster.release("go")
    assert future.result(20) == cluster.history.of("t")[1].pid
    wait_until(lambda: cluster.history.of("t")[0].ended_ns, 5, "the first run to end")
    assert cluster.counter(client, "agents_lost") == 1
    assert cluster.counter(client, "results_stale") == 0
    holder.go_on()
    # Its late result changes nothing, and it works again, with the same worker.
    wait_until(lambda: cluster.counter(client, "results_stale") == 1, 10, "the late result")
    cluster.wait_for_slots(client, 2)
    assert future.result() == cluster.history.of("t")[1].pid
    futures = [client.submit(app.where, f"both{n}", "go2") for n in range(2)]
    cluster.wait_begun("both0", "both1")
    cluster.release("go2")
    assert first in evener.gather(*futures, timeout=20)


def test_a_run_that_lasts_is_ended_when_its_agent_comes_back(cluster: FaultCluster) -> None:
    """Two runs of one task overlap from the verdict until the old agent hears of it, not longer."""
    client = cluster.start(agents=2)
    future = client.submit(app.where, "t", "go")
    cluster.wait_begun("t")
    first = cluster.history.of("t")[0].pid
    holder = next(a for a in cluster.agents if first in a.workers())
    holder.stop()
    cluster.wait_begun("t", times=2)
    holder.go_on()
    # It is told that its attempt is stale, and stops it; its slot is free again.
    cluster.wait_for_slots(client, 2)
    assert client.submit(app.work, "free").result(20) == "free"
    cluster.release("go")
    assert future.result(20) == cluster.history.of("t")[1].pid
    assert cluster.history.of("t")[0].ended_ns is None
    assert len(cluster.history.of("t")) == 2


def test_a_shorter_stop_is_no_verdict(cluster: FaultCluster) -> None:
    client = cluster.start(agents=2)
    future = client.submit(app.where, "t", "go")
    cluster.wait_begun("t")
    first = cluster.history.of("t")[0].pid
    holder = next(a for a in cluster.agents if first in a.workers())
    holder.stop()
    stopped = time.monotonic()
    # What runs on its worker ends meanwhile; the other host goes on working.
    cluster.release("go")
    done = 0
    while time.monotonic() - stopped < SILENCE_S - BEAT_S - 0.5:
        client.submit(app.work, f"w{done}", 0.02).result(20)
        done += 1
    assert not future.done()
    holder.go_on()
    assert future.result(20) == first
    assert cluster.counter(client, "agents_lost") == 0
    assert cluster.counter(client, "sessions_silent") == 0
    assert len(cluster.history.of("t")) == 1
    assert all(len(cluster.history.of(f"w{n}")) == 1 for n in range(done))


def test_all_agents_stand_still_at_once_for_a_moment(cluster: FaultCluster) -> None:
    client = cluster.start(agents=2, workers=2)
    tokens = [f"t{n}" for n in range(200)]
    futures = [client.submit(app.work, token, 0.005) for token in tokens]
    wait_until(lambda: len(cluster.history.begun()) > 20, 20, "some tasks to begin")
    for agent in cluster.agents:
        agent.stop()
    wait_until(lambda: _silent_ms(client) > 1_500, 10, "the agents to be silent")
    for agent in cluster.agents:
        agent.go_on()
    answered = evener.gather(*futures, timeout=30)
    assert misdeeds(cluster.history.executions(), tokens, answered, []) == []
    assert cluster.counter(client, "agents_lost") == 0


def _silent_ms(client: evener.Client) -> int:
    hosts = client.query("ls", kind="hosts")["rows"]
    return min(int(host["silent_ms"] or 0) for host in hosts)


def test_agents_replaced_one_by_one_under_load(cluster: FaultCluster) -> None:
    client = cluster.start(agents=2, workers=2)
    tokens = [f"t{n}" for n in range(400)]
    futures = [client.submit(app.work, token, 0.005) for token in tokens]
    for old in list(cluster.agents):
        wait_until(lambda: len(cluster.history.begun()) > 20, 20, "some tasks to begin")
        cluster.start_agent(2)
        workers = old.workers()
        old.signal(signal.SIGTERM)
        assert old.process.wait(20) == 0
        assert not any(map(is_running, workers))
    answered = evener.gather(*futures, timeout=30)
    # Nobody was killed, so nothing may have begun twice.
    assert misdeeds(cluster.history.executions(), tokens, answered, []) == []
