"""T18: tasks that are the attack: on their worker, on its agent, on what both write.

A worker runs registered code with its own rights; what it eats and starts, the host's limits bound.
What holds: it takes down no more than it may, and everybody else's tasks end well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import evener
from tests.bad_inputs import bad_app as app
from tests.bad_inputs.live import APP, Live
from tests.support import is_running, wait_until


def workers(live: Live) -> int:
    """Ready workers, as the broker knows them."""
    return live.cluster.slots(live.client)


@pytest.mark.parametrize("name", ["close_everything", "write_everywhere"])
def test_t18_a_poisonous_task_ends_after_as_many_workers_as_it_may(own: Live, name: str) -> None:
    """Neither closed nor flooded descriptors reach the agent: the worker dies alone."""
    function = getattr(app, name)
    future: evener.Future[Any] = own.client.submit(function.options(max_starts=2, timeout=3))
    error = future.exception(60)
    assert isinstance(error, evener.TaskLost | evener.TaskTimeout), error
    wait_until(lambda: workers(own) == 2, 20, "new workers")


def test_t18_a_task_that_ends_its_agent_does_not_end_the_next(own: Live) -> None:
    """Who kills its parent kills one host; its attempt counts, and the others' do not.

    One that does so before anybody heard that it runs is given to as many as free returns allow.
    """
    agent = own.cluster.agents[0]
    other = own.cluster.begin_agent(2, app=APP)
    other.wait_for("ready")
    own.cluster.wait_for_slots(own.client, 4)
    future = own.client.submit(app.kill_parent.options(max_starts=1), "go on")

    def known_to_run() -> bool:
        rows = own.client.query("ls", kind="workers")["rows"]
        return any(row["running"] == "b.kill_parent" for row in rows)

    wait_until(known_to_run, 30, "a heartbeat with the task")
    Path(own.cluster.folder, "go on").touch()
    error = future.exception(60)
    assert isinstance(error, evener.TaskLost), error
    alive = [part for part in (agent, other) if part.process.poll() is None]
    assert len(alive) == 1
    assert own.flow is not None
    own.flow.wait_for_more()


def test_t18_children_go_with_their_worker(own: Live) -> None:
    file = Path(own.cluster.folder, "children")
    error = own.client.submit(app.multiply.options(max_starts=1), 40).exception(60)
    assert isinstance(error, evener.TaskLost)
    pids = [int(pid) for pid in file.read_text().split()]
    assert len(pids) == 40
    wait_until(lambda: not any(map(is_running, pids)), 20, "its children to be gone")


def test_t18_megabytes_of_output_harm_nobody(own: Live) -> None:
    assert own.client.submit(app.shout, 4).result(60) == 4
    assert own.memory_mib() < 100


def test_t18_a_task_that_hears_no_signal_is_ended(own: Live) -> None:
    error = own.client.submit(app.hang.options(timeout=0.5)).exception(30)
    assert isinstance(error, evener.TaskTimeout)
    wait_until(lambda: workers(own) == 2, 20, "a new worker")
