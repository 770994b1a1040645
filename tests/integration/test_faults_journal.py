"""A broker with a journal is killed, and everybody with it: what was accepted is run, and once.

Only here does nobody help it to remember: without a journal, clients that live submit again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import evener
from tests.integration import fault_app as app
from tests.integration.fault_cluster import FaultCluster
from tests.integration.history import misdeeds
from tests.support import wait_until

_SUBMITTER = """
import os, sys
import evener
from tests.integration import fault_app as app
client = evener.Client(sys.argv[1], connect_timeout=20)
futures = [client.submit(app.work.options(retries=2), f"t{n}") for n in range(int(sys.argv[2]))]
assert futures[0].task_id
print(*[future.task_id for future in futures], flush=True)
sys.stdin.read()
"""


def journal_of(cluster: FaultCluster) -> Path:
    return cluster.folder / "tasks.journal"


def start_broker(cluster: FaultCluster) -> None:
    cluster.start_broker(journal=str(journal_of(cluster)))


def open_tasks(client: evener.Client) -> int:
    """Tasks that have not ended, and that the journal has."""
    status = client.query("status")
    waiting = status["broker"]["journal"]["under_way"]
    states = ("held", "queued", "assigned", "running")
    return -1 if waiting else sum(int(status["tasks"][state]) for state in states)


def test_everybody_is_killed_and_everything_accepted_is_run_once(cluster: FaultCluster) -> None:
    start_broker(cluster)
    submitter = cluster.processes.start(
        sys.executable,
        "-c",
        _SUBMITTER,
        cluster.address,
        "200",
        stdin=subprocess.PIPE,
        env=cluster.environment,
    )
    assert submitter.stdout is not None
    ids = submitter.stdout.readline().split()
    assert len(ids) == 200
    watcher = cluster.client()
    wait_until(lambda: open_tasks(watcher) == 200, 20, "all to be accepted")
    cluster.broker.kill()
    cluster.processes.kill(submitter)
    watcher.close(0.5)

    start_broker(cluster)
    assert "tasks.journal: 200 open tasks, 0 results" in cluster.broker.text()
    cluster.start_agent(workers=2)
    tokens = [f"t{n}" for n in range(200)]
    cluster.wait_begun(*tokens)
    client = cluster.client()
    wait_until(lambda: open_tasks(client) == 0, 20, "all to end")
    assert sorted(cluster.history.order()) == sorted(tokens)

    cluster.broker.kill()
    start_broker(cluster)
    assert "tasks.journal: 0 open tasks, 200 results" in cluster.broker.text()
    client = cluster.client()
    for task_id in (ids[0], ids[-1]):
        assert client.query("show", id=task_id)["state"] == "done"


def test_what_a_client_took_is_not_kept_for_it_by_the_next_broker(cluster: FaultCluster) -> None:
    start_broker(cluster)
    cluster.start_agent()
    client, watcher = cluster.client(), cluster.client()
    futures = [client.submit(app.work, f"t{n}") for n in range(20)]
    ids = [future.task_id for future in futures]
    evener.gather(*futures, timeout=20)
    wait_until(
        lambda: all(watcher.query("show", id=task_id)["retained"] for task_id in ids),
        20,
        "the client to take them",
    )
    # What is on disk of this task has what was taken before with it.
    client.submit(app.stay, "stays", "go")
    client.flush()
    cluster.broker.kill()
    for one in (client, watcher):
        one.close(0.1)
    start_broker(cluster)
    watcher = cluster.client()
    shown = [watcher.query("show", id=task_id) for task_id in ids]
    assert {(row["state"], row["retained"]) for row in shown} == {("done", True)}
    (row,) = [row for row in watcher.query("ls", kind="clients")["rows"] if row["open"]]
    assert (row["open"], row["unfetched"]) == (1, 0)
    cluster.release("go")


@pytest.mark.slow
def test_restarts_under_load_lose_nothing_and_run_nothing_twice(cluster: FaultCluster) -> None:
    start_broker(cluster)
    for _ in range(2):
        cluster.start_agent(workers=2)
    clients = [cluster.client(), cluster.client()]
    tokens = [f"t{n}" for n in range(600)]
    futures = [
        clients[n % 2].submit(app.work, token, 0.004 * (n % 4)) for n, token in enumerate(tokens)
    ]
    for number in range(3):
        begun = 100 * (number + 1)
        wait_until(lambda b=begun: len(cluster.history.begun()) >= b, 30, "some to begin")  # type: ignore[misc]
        cluster.broker.kill()
        start_broker(cluster)
        tokens.append(f"new{number}")
        futures.append(clients[0].submit(app.work, f"new{number}"))
    answered = evener.gather(*futures, timeout=60)
    assert misdeeds(cluster.history.executions(), tokens, answered, []) == []


def test_what_runs_is_adopted_and_what_ended_is_not_run_again(cluster: FaultCluster) -> None:
    start_broker(cluster)
    cluster.start_agent(workers=2)
    client = cluster.client()
    done = client.submit(app.work, "done")
    assert done.result(20) == "done"
    once = app.stay.options(at_most_once=True)
    futures = [client.submit(once, f"t{n}", "go") for n in range(2)]
    cluster.wait_begun("t0", "t1")
    cluster.broker.kill()
    start_broker(cluster)
    wait_until(lambda: cluster.counter(client, "attempts_adopted") == 2, 10, "adoption")
    cluster.release("go")
    assert evener.gather(*futures, timeout=20) == ["t0", "t1"]
    assert sorted(cluster.history.order()) == ["done", "t0", "t1"]


def test_a_stop_by_signal_writes_everything_back(cluster: FaultCluster) -> None:
    start_broker(cluster)
    client = cluster.client()
    futures = [client.submit(app.work, f"t{n}") for n in range(50)]
    wait_until(lambda: open_tasks(client) == 50, 20, "all to be accepted")
    cluster.broker.signal(signal.SIGTERM)
    assert cluster.broker.process.wait(10) == 0
    beside = [entry.name for entry in cluster.folder.glob("tasks.journal*")]
    assert beside == ["tasks.journal"], "its log is written back"
    start_broker(cluster)
    assert "tasks.journal: 50 open tasks, 0 results" in cluster.broker.text()
    cluster.start_agent()
    assert evener.gather(*futures, timeout=20) == [f"t{n}" for n in range(50)]


def _refusal(cluster: FaultCluster, path: Path) -> tuple[int, str]:
    """The exit code of a broker that does not start, and what it says."""
    process = cluster.processes.start(
        sys.executable,
        "-m",
        "evener_broker",
        json.dumps({"port": 0, "journal": str(path)}),
        env=cluster.environment,
    )
    _, text = process.communicate(timeout=20)
    return process.returncode, text


def test_a_journal_that_cannot_be_used_stops_the_start_with_one_sentence(
    cluster: FaultCluster,
) -> None:
    start_broker(cluster)
    code, text = _refusal(cluster, journal_of(cluster))
    assert code == 74
    assert f"is in use by the process with pid {cluster.broker.pid}" in text
    cluster.broker.signal(signal.SIGTERM)
    assert cluster.broker.process.wait(10) == 0
    os.truncate(journal_of(cluster), 5_000)
    code, text = _refusal(cluster, journal_of(cluster))
    assert code == 65
    assert f"the journal {journal_of(cluster)} is damaged: " in text
    assert text.count("\n") == 1


def test_a_broker_without_a_journal_says_what_it_does_not_promise(cluster: FaultCluster) -> None:
    cluster.start_broker()
    assert "no journal: accepted tasks and results live as long as" in cluster.broker.text()
