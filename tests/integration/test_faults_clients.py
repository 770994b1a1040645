"""Clients that are killed, that come in crowds, and that leave work behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import evener
from tests.integration import fault_app as app
from tests.integration.fault_cluster import FaultCluster
from tests.integration.history import misdeeds
from tests.support import wait_until

# A client as a program of its own: submits, says so, and waits for what will not come.
PROGRAM = """
import sys
import evener
from tests.integration import fault_app as app

address, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = evener.Client(address)
futures = [client.submit(app.work, f"{name}-{n}", 0.005) for n in range(count)]
futures.append(client.submit(app.stay, f"{name}-last", "never mind"))
futures[0].result()
print("submitted", flush=True)
futures[-1].result()
"""


def start_client(cluster: FaultCluster, name: str, count: int) -> subprocess.Popen[str]:
    """Starts it, and waits until the broker has all its tasks."""
    process = cluster.processes.start(
        sys.executable, "-c", PROGRAM, cluster.address, name, str(count), env=cluster.environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "submitted\n"
    return process


def clients_seen(client: evener.Client) -> list[dict[str, Any]]:
    """What the broker knows of clients, without the one that asks."""
    rows = client.query("ls", kind="clients")["rows"]
    return [row for row in rows if row["name"] != client.name]


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_killed_client_harms_nobody_and_its_tasks_run_to_their_end(cluster: FaultCluster) -> None:
    client = cluster.start(workers=2)
    files = open_files(cluster.broker.pid)
    victim = start_client(cluster, "victim", 100)
    futures = [client.submit(app.work, f"t{n}", 0.005) for n in range(100)]
    wait_until(lambda: clients_seen(client)[0]["open"] + 1 >= 2, 5, "its tasks to be taken")
    cluster.processes.kill(victim)
    answered = evener.gather(*futures, timeout=20)
    cluster.release("never mind")
    mine = [f"t{n}" for n in range(100)]
    theirs = [*(f"victim-{n}" for n in range(100)), "victim-last"]
    wait_until(
        lambda: sum(run.ended_ns is not None for run in cluster.history.executions()) == 201,
        20,
        "its tasks to end",
    )
    assert misdeeds(cluster.history.executions(), mine + theirs, answered + theirs, []) == []
    # The broker has nothing of it but its results, which wait for its return for an hour.
    wait_until(lambda: not clients_seen(client)[0]["connected"], 10, "the broker to notice")
    (row,) = clients_seen(client)
    assert row["open"] == 0
    assert 0 < row["unfetched"] <= len(theirs)
    wait_until(lambda: open_files(cluster.broker.pid) <= files, 10, "its connection to be closed")
    assert cluster.counter(client, "agents_lost") == 0


def test_clients_that_are_killed_again_and_again(cluster: FaultCluster) -> None:
    client = cluster.start(workers=2)
    files = open_files(cluster.broker.pid)
    cluster.release("never mind")
    for number in range(4):
        cluster.processes.kill(start_client(cluster, f"victim{number}", 20))
        assert client.submit(app.work, f"t{number}").result(20) == f"t{number}"
    wait_until(lambda: len(cluster.history.begun()) == 4 * 22, 20, "all to run")
    wait_until(lambda: open_files(cluster.broker.pid) <= files, 10, "connections to be closed")


def test_a_client_that_closes_leaves_its_tasks_running(cluster: FaultCluster) -> None:
    client = cluster.start()
    leaving = cluster.client()
    futures = [leaving.submit(app.stay, f"t{n}", "go") for n in range(3)]
    leaving.close()
    for future in futures:
        with pytest.raises(evener.ClientClosed):
            future.result(5)
    cluster.release("go")
    wait_until(lambda: len(cluster.history.begun()) == 3, 20, "its tasks to run")
    assert client.submit(app.work, "after").result(20) == "after"


def test_clients_that_come_and_go_leave_no_trace(cluster: FaultCluster) -> None:
    client = cluster.start()
    files = open_files(cluster.broker.pid)
    for number in range(30):
        with evener.Client(cluster.address) as other:
            assert other.submit(app.work, f"t{number}").result(20) == f"t{number}"
    wait_until(lambda: clients_seen(client) == [], 10, "the broker to forget them")
    wait_until(lambda: open_files(cluster.broker.pid) <= files, 10, "connections to be closed")


def test_many_clients_at_once(cluster: FaultCluster) -> None:
    client = cluster.start(workers=2)
    crowd, each = 30, 40
    ready = threading.Barrier(crowd)

    def use(number: int) -> list[str]:
        with evener.Client(cluster.address, connect_timeout=20, name=f"c{number}") as mine:
            ready.wait(20)
            futures = [mine.submit(app.work, f"c{number}-{n}") for n in range(each)]
            return evener.gather(*futures, timeout=30)

    with ThreadPoolExecutor(crowd) as pool:
        results = list(pool.map(use, range(crowd)))
    assert results == [[f"c{number}-{n}" for n in range(each)] for number in range(crowd)]
    tokens = [token for result in results for token in result]
    assert misdeeds(cluster.history.executions(), tokens, tokens, []) == []
    wait_until(lambda: clients_seen(client) == [], 10, "the broker to forget them")


def test_a_hundred_tasks_from_a_hundred_threads(cluster: FaultCluster) -> None:
    client = cluster.start(workers=4)
    ready = threading.Barrier(100)

    def call(number: int) -> str:
        ready.wait(20)
        return client.submit(app.work, f"t{number}", 0.002).result(30)

    with ThreadPoolExecutor(100) as pool:
        results = list(pool.map(call, range(100)))
    assert results == [f"t{n}" for n in range(100)]
    assert misdeeds(cluster.history.executions(), results, results, []) == []


def test_a_parent_and_its_fork(cluster: FaultCluster) -> None:
    """A program that forks while it has a client keeps it; the child's end changes nothing."""
    client = cluster.start()
    future = client.submit(app.stay, "t", "go")
    cluster.wait_begun("t")
    child = os.fork()
    if not child:
        os._exit(0 if _is_told(client) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    cluster.release("go")
    assert future.result(20) == "t"


def _is_told(client: evener.Client) -> bool:
    try:
        client.submit(app.work, "child")
    except evener.EvenerError:
        return True
    except BaseException:  # pytest must not go on in here
        return False
    return False
