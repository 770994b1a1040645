"""An agent whom the system gives no process for a worker: it says so, then goes on."""

from __future__ import annotations

import os
import resource
import signal

from tests.integration.fault_cluster import FaultCluster, Part
from tests.support import wait_until


def limit(agent: Part, what: int, most: int) -> tuple[int, int]:
    """Set a limit of a running process; what it was."""
    _, hard = before = resource.prlimit(agent.pid, what)
    resource.prlimit(agent.pid, what, (most, hard))
    return before


def kill_worker(agent: Part) -> int:
    (worker,) = agent.workers()
    os.kill(worker, signal.SIGKILL)
    return worker


def test_no_more_files_may_be_opened(cluster: FaultCluster) -> None:
    client = cluster.start()
    (agent,) = cluster.agents
    open_files = len(os.listdir(f"/proc/{agent.pid}/fd"))
    before = limit(agent, resource.RLIMIT_NOFILE, open_files - 4)
    killed = kill_worker(agent)
    said = "could not be started: the agent may not open more files; see ulimit -n (EMFILE)"
    wait_until(lambda: agent.text().count(said) >= 3, 30, "the words of it")
    assert "starts again in 0." in agent.text()
    assert agent.workers() == []
    future = client.submit("f.work", "a")
    # What it opened for processes that never were is closed again.
    assert len(os.listdir(f"/proc/{agent.pid}/fd")) <= open_files
    limit(agent, resource.RLIMIT_NOFILE, before[0])
    assert future.result(60) == "a"
    assert agent.workers() != [killed]
