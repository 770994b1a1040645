"""Brokers that die one after the other at any instant under load, with and without a journal."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import evener
from tests.integration import fault_app as app
from tests.integration.fault_cluster import FaultCluster
from tests.integration.history import Execution, misdeeds

KILLS = 20
PER_KILL = 16

# Submits, tells the ids, and waits to be killed.
_SUBMITTER = """
import sys
import evener
from tests.integration import fault_app as app
client = evener.Client(sys.argv[1], connect_timeout=20)
futures = [client.submit(app.work, f"left{n}", 0.2) for n in range(int(sys.argv[2]))]
print(*[future.task_id for future in futures], flush=True)
evener.gather(*futures[:4], timeout=30)
print("some are done", flush=True)
sys.stdin.read()
"""


class Restarts:
    """Submits from two clients, kills brokers, and remembers when."""

    def __init__(self, cluster: FaultCluster, seed: int, **broker: Any) -> None:
        self.cluster = cluster
        self.rng = random.Random(seed)
        self.broker = broker
        self.tokens: list[str] = []
        self.futures: list[evener.Future[str]] = []
        self.killed_ns: list[int] = []
        cluster.start_broker(**broker)
        for _ in range(2):
            cluster.start_agent(workers=2)
        self.clients = [cluster.client(), cluster.client()]

    def kill(self, number: int) -> None:
        """One more broker, at any instant: of HELLO, of the recovery, of tasks on the way."""
        rng = self.rng
        for n in range(PER_KILL):
            token = f"k{number}-{n}"
            self.tokens.append(token)
            self.futures.append(self.clients[n % 2].submit(app.work, token, rng.random() * 0.1))
        time.sleep(rng.random() * rng.choice((0.02, 0.3, 1.8)))
        resolved = {future: future.result() for future in self.futures if future.done()}
        self.cluster.broker.kill()
        self.killed_ns.append(time.monotonic_ns())
        self.cluster.start_broker(**self.broker)
        assert all(future.result() == value for future, value in resolved.items())


def ran_while_it_ran_or_unasked(
    executions: list[Execution], tokens: list[str], killed_ns: list[int]
) -> list[str]:
    """What memory mode does not allow either.

    A result that a broker has, and its client not yet, dies with the broker: then a task that came
    to its end begins again. While it runs it never does.
    """
    runs: defaultdict[str, list[Execution]] = defaultdict(list)
    for execution in executions:
        runs[execution.token].append(execution)
    found = [f"{token} never ran" for token in tokens if token not in runs]
    for token, of_token in runs.items():
        for run, following in itertools.pairwise(of_token):
            ended_ns = run.ended_ns
            if ended_ns is None or following.began_ns < ended_ns:
                found.append(f"{token}: {following} began while {run} ran")
            elif not any(ended_ns < at_ns < following.began_ns for at_ns in killed_ns):
                found.append(f"{token}: {following} began after {run}, and no broker had died")
    return found


@pytest.mark.slow
def test_twenty_brokers_die_and_nothing_is_lost(cluster: FaultCluster) -> None:
    restarts = Restarts(cluster, 20)
    for number in range(KILLS):
        restarts.kill(number)
    answered = evener.gather(*restarts.futures, timeout=60)
    assert answered == restarts.tokens
    executions = cluster.history.executions()
    assert ran_while_it_ran_or_unasked(executions, restarts.tokens, restarts.killed_ns) == []


@pytest.mark.slow
def test_with_a_journal_nothing_runs_again_and_nobody_has_to_submit_again(
    cluster: FaultCluster, tmp_path: Path
) -> None:
    """Also of a client that was killed: its tasks are run, and who has the ids has the results."""
    restarts = Restarts(cluster, 21, journal=str(tmp_path / "tasks.journal"))
    submitter = cluster.processes.start(
        sys.executable,
        "-c",
        _SUBMITTER,
        cluster.address,
        "60",
        stdin=subprocess.PIPE,
        env=cluster.environment,
    )
    assert submitter.stdout is not None
    ids = submitter.stdout.readline().split()
    assert submitter.stdout.readline() == "some are done\n"
    cluster.processes.kill(submitter)
    for number in range(KILLS):
        restarts.kill(number)
    answered = evener.gather(*restarts.futures, timeout=60)
    later = cluster.client()
    left = [later.fetch(task_id).result(30) for task_id in ids]
    assert left == [f"left{n}" for n in range(60)]
    tokens = restarts.tokens + left
    assert misdeeds(cluster.history.executions(), tokens, answered + left, []) == []
