"""Fixtures for all tests. Every test is checked for what it leaves behind, without asking for it.

Rules of this file: fixtures only; helpers are in `support.py`. No clusters here: they live beside
the tests that need them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from zmq.utils.garbage import gc

from tests.support import (
    Processes,
    adopt_orphans,
    free_port,
    is_running,
    nothing_left_behind,
)

# A BLAS library starts its threads when numpy is first imported, in whichever test that is.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Settings of the person who runs the tests must not reach them.
for _name in [name for name in os.environ if name.startswith("EVENER_")]:
    del os.environ[_name]


@pytest.fixture(scope="session", autouse=True)
def _adopt_orphans() -> None:
    """Orphans become our children, so that the leak check of the test that made them sees them."""
    adopt_orphans()


@pytest.fixture(scope="session", autouse=True)
def _start_zmq_collector() -> None:
    """pyzmq starts one thread at the first send without copy, for good. Have that before a test."""
    gc.store(b"")


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.fixture(autouse=True)
def runtime_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _leaves_nothing: None
) -> Iterator[Path]:
    """Where brokers of this test write their address: no test finds another's broker."""
    folder = tmp_path / "run"
    monkeypatch.setenv("EVENER_RUNTIME_DIR", str(folder))
    yield folder
    for path in folder.glob("broker-*.json"):
        pid = int(path.stem.partition("-")[2])
        assert is_running(pid) is False, f"broker {pid} still runs"


@pytest.fixture
def port() -> int:
    """A free TCP port on 127.0.0.1."""
    return free_port()


@pytest.fixture
def processes(runtime_dir: Path) -> Iterator[Processes]:
    """Starts child processes; kills by pid what still runs when the test ends."""
    started = Processes(dict(os.environ))
    yield started
    started.close()
