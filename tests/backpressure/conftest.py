"""The stage of the backpressure tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backpressure.stage import Stage
from tests.support import Processes


@pytest.fixture
def stage(processes: Processes, tmp_path: Path) -> Iterator[Stage]:
    """A cluster that the test starts; all of it ends with the test."""
    made = Stage(processes, tmp_path)
    try:
        yield made
    finally:
        made.close()
