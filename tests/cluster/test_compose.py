"""A cluster of containers under faults: every task ends, with its own right result.

Rules of this file: each test begins with one broker and four workers, brings a load of known work,
does harm half-way, and demands every result. What is awaited is asked for, never slept for.
"""

from __future__ import annotations

import pytest

from tests.cluster.engine import docker, inspect
from tests.cluster.project import Driver, Project
from tests.support import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

_TASKS = 200
_LINES = 4_000  # about 50 ms of one CPU: a task is nearly always running when harm is done


@pytest.fixture
def load(project: Project) -> Driver:
    """A client half-way through its work."""
    driver = project.drive(_TASKS, _LINES)
    driver.wait_for(_TASKS // 4)
    return driver


def test_scaled_to_four_workers_the_main_job_runs(project: Project) -> None:
    for container in [project.broker(), *project.workers()]:
        project.wait_until_healthy(container)
    done = project.compose("--profile", "demo", "run", "--rm", "-T", "demo")
    assert "finds the same" in done.stdout, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("0 lost")


def test_a_killed_worker_container(project: Project, load: Driver) -> None:
    victim = project.workers()[0]
    docker("kill", "--signal", "KILL", victim)
    load.finish()
    assert inspect(victim)["State"]["ExitCode"] == 137
    project.wait_for_workers(3)
    docker("start", victim)
    project.wait_for_workers(4)


def test_a_worker_cut_off_from_the_network_and_connected_again(
    project: Project, load: Driver
) -> None:
    victim = project.workers()[0]
    docker("network", "disconnect", project.network, victim)
    try:
        project.wait_for_workers(3, seconds=20)  # silence: nothing tells the broker
        load.finish()
    finally:
        docker("network", "connect", project.network, victim)
    project.wait_for_workers(4)
    again = project.drive(40, 100)
    again.finish()


@pytest.mark.parametrize("number", ["TERM", "KILL"])
def test_a_restarted_broker_container(project: Project, load: Driver, number: str) -> None:
    before = load.done()
    broker = project.broker()
    if number == "TERM":
        docker("restart", broker)
    else:
        docker("kill", "--signal", number, broker)
        docker("start", broker)
    load.finish()
    assert before < _TASKS, "the work ended before the broker did: nothing was tested"
    project.wait_for_workers(4)


def test_a_stopped_worker_container_drains(project: Project, load: Driver) -> None:
    victim = project.workers()[0]
    docker("stop", victim)  # by the grace period of the compose file, and no kill within it
    load.finish()
    state = inspect(victim)["State"]
    assert state["ExitCode"] in (0, 143), docker("logs", victim)
    assert not state["OOMKilled"]
    assert "done: " in project.logs()  # the agent's last line: it left by itself
    project.wait_for_workers(3)


def test_scaling_down_and_up_under_load(project: Project, load: Driver) -> None:
    project.up(workers=2)
    project.up(workers=5)
    load.finish()
    project.up(workers=4)


def test_workers_wait_for_a_broker_that_comes_later(project: Project) -> None:
    docker("stop", "--time", "5", project.broker())
    restarted = project.workers()[0]
    docker("restart", restarted)  # it finds no broker, and no name in DNS
    wait_until(lambda: inspect(restarted)["State"]["Running"], why="the worker")
    docker("start", project.broker())
    project.wait_for_workers(4)
    project.drive(20, 10).finish()
