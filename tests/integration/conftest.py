"""Fixtures of the integration tests: clusters of real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fault_cluster import FaultCluster
from tests.support import Processes


@pytest.fixture
def cluster(processes: Processes, tmp_path: Path) -> Iterator[FaultCluster]:
    """A cluster that the test starts piece by piece; all of it ends with the test."""
    made = FaultCluster(processes, tmp_path)
    try:
        yield made
    finally:
        made.close()
