"""Workers that run many tasks at once, and die, are drained, replaced, or do not answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evener
from tests.integration import shares_app as app
from tests.integration.shares_tasks import begin, named, worker
from tests.support import wait_until

STUBBORN = [app.stubborn, app.stubborn_thread]


@pytest.fixture
def client() -> Iterator[evener.Client]:
    """A cluster with one worker, for one test: another process is in its place after that."""
    with evener.LocalCluster(app.app, workers=1) as cluster, cluster.client() as made:
        yield made


def starts_of(client: evener.Client, futures: list[evener.Future[Any]]) -> list[int]:
    """How many workers each of these took down with it."""
    return [client.query("why", id=future.task_id)["starts"] for future in futures]


@pytest.mark.parametrize("function", STUBBORN, ids=named)
def test_one_that_does_not_stop_takes_its_worker_with_it(
    client: evener.Client, tmp_path: Path, function: Any
) -> None:
    """What ran beside it is charged and runs again."""
    gate = tmp_path / "gate"
    (beside,) = begin(client, app.wait, tmp_path, 1, str(gate))
    (stubborn,) = begin(client, function, tmp_path / "more", 1)
    before = worker(client)["pid"]
    stubborn.cancel()
    with pytest.raises(evener.TaskCancelled):
        stubborn.result(60)
    gate.touch()
    pid, _ = beside.result(60)
    assert pid != before


def test_all_that_had_started_are_charged_for_a_death_and_run_again(
    client: evener.Client, tmp_path: Path
) -> None:
    gate, fatal = tmp_path / "gate", tmp_path / "fatal"
    futures = begin(client, app.wait, tmp_path, 20, str(gate))
    (killer,) = begin(client, app.kills.options(max_starts=1), tmp_path / "more", 1, str(fatal))
    before = worker(client)["pid"]
    fatal.touch()
    with pytest.raises(evener.TaskLost, match="SIGKILL"):
        killer.result(60)
    wait_until(lambda: worker(client)["pid"] not in (0, before), 60, "another worker")
    gate.touch()
    assert {future.result(60)[0] for future in futures} == {worker(client)["pid"]}
    assert starts_of(client, futures) == [1] * 20


def test_what_had_not_started_is_not_charged(client: evener.Client, tmp_path: Path) -> None:
    """A loop that is held up begins nothing; those that wait for it come back free of blame.

    Each takes a quarter of the worker, so beside the one that holds it up three have room, and the
    fourth does not leave the broker.
    """
    (held,) = begin(client, app.block.options(max_starts=1), tmp_path, 1)
    waiting = [client.submit(app.double, number) for number in range(4)]

    def states() -> list[str]:
        return [client.query("why", id=future.task_id)["state"] for future in waiting]

    with_agent = ["assigned"] * 3 + ["queued"]
    wait_until(lambda: states() == with_agent, 60, "three to be with the agent")
    os.kill(worker(client)["pid"], signal.SIGKILL)
    with pytest.raises(evener.TaskLost):
        held.result(60)
    assert [future.result(60) for future in waiting] == [0, 2, 4, 6]
    assert starts_of(client, waiting) == [0] * 4
