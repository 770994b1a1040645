"""A pool for the tests that need any, and what its workers wait for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evener_worker import WorkerPool
from tests.pool.workers import Jack


@pytest.fixture
def pool() -> Iterator[WorkerPool[Any, Any]]:
    with WorkerPool(Jack, 2, on_request=lambda handle, message: [handle.id, message]) as started:
        yield started


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """What a worker that does `wait_for` waits for: that a test makes it."""
    return tmp_path / "gate"
