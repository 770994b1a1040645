"""Fixtures of the integration tests: clusters of real processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.integration.cli_cluster import Starter, Up
from tests.integration.fault_cluster import FaultCluster
from tests.support import Processes


@pytest.fixture(scope="session", autouse=True)
def _zero_copy_once() -> None:
    """pyzmq opens a socket for good when something first travels without being copied."""
    zmq.Frame(bytes(100_000), copy=False)


@pytest.fixture
def cluster(processes: Processes, tmp_path: Path) -> Iterator[FaultCluster]:
    """A cluster that the test starts piece by piece; all of it ends with the test."""
    made = FaultCluster(processes, tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def starter(processes: Processes, tmp_path: Path) -> Starter:
    return Starter(processes, tmp_path)


@pytest.fixture
def up(starter: Starter) -> Iterator[Up]:
    running = starter.ready()
    yield running
    if running.process.poll() is None:
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(20) == 0, running.text()
