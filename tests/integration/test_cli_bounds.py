"""Bounds that an operator sets, at real brokers; and ids that are whole where they have to be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import evener
from tests.integration.cli_cluster import READY, Starter
from tests.integration.fault_cluster import steady_port
from tests.integration.test_docs_later import stop
from tests.support import Processes, wait_until

Begin = Callable[..., str]
"""Starts a broker with some options; its address."""


@pytest.fixture(params=["broker", "up"])
def begin(request: pytest.FixtureRequest, processes: Processes, tmp_path: Path) -> Begin:
    def begun(*options: str) -> str:
        port = steady_port()
        workers = ["-n", "1"] if request.param == "up" else []
        with (tmp_path / "said.txt").open("w") as said:
            processes.start(
                *(sys.executable, "-m", "evener", request.param, *workers),
                *("--port", str(port), *options),
                cwd=tmp_path,
                stdout=subprocess.DEVNULL,
                stderr=said,
            )
        return f"tcp://127.0.0.1:{port}"

    return begun


def accepted(client: evener.Client, most: int, argument: object = 1) -> int:
    """How many tasks that nobody runs the broker takes of so many."""
    call = client.function("demo.add", queue="nobody")
    count = 0
    for _ in range(most):
        try:
            future = call.submit(argument)
            client.flush(20)
        except evener.QueueFull:
            break
        if future.done():
            with pytest.raises(evener.QueueFull):
                future.result()
            break
        count += 1
    return count


def client_of(address: str) -> evener.Client:
    return evener.Client(address, connect_timeout=30, queue_full="raise")


def test_tasks_of_one_client_and_of_all(begin: Begin) -> None:
    address = begin("--max-client-tasks", "3", "--max-tasks", "5")
    with client_of(address) as one, client_of(address) as other:
        assert accepted(one, 10) == 3
        assert accepted(other, 10) == 2


def test_bytes_of_one_client_and_of_all(begin: Begin) -> None:
    address = begin("--max-client-bytes", "3MiB", "--max-bytes", "5MiB")
    with client_of(address) as one, client_of(address) as other:
        assert accepted(one, 10, bytes(1_000_000)) == 3
        assert accepted(other, 10, bytes(1_000_000)) == 2


def test_the_size_of_the_process(begin: Begin, tmp_path: Path) -> None:
    begin("--memory-limit", "8MiB")
    said = tmp_path / "said.txt"
    wait_until(lambda: "MiB of memory and may take 8" in said.read_text(), 30, "the word of it")


def test_a_beginning_that_fits_several_ids_names_them_whole(starter: Starter) -> None:
    up = starter.start("-n", "1", "--name", "here")
    wait_until(lambda: READY in up.text() or up.process.poll() is not None, 30, "the banner")
    with evener.Client(f"tcp://127.0.0.1:{up.port}") as client:
        call = client.function("demo.add", queue="nobody")
        ids = [call.submit(1, 2).task_id for _ in range(2)]
        client.flush(20)
        shown = up.evener("ls", "tasks", "--wide").stdout
        assert all(task_id in shown for task_id in ids)
        shown = up.evener("ls", "tasks").stdout
        assert all(task_id[:8] in shown and task_id not in shown for task_id in ids)
        for task_id in ids:
            assert up.evener("cancel", task_id).returncode == 0
    stop(up)
