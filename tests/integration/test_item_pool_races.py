"""Workers of a pool that are destroyed in the moment in which they start."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from evener_worker import ItemPool, PoolClosed, PushSource
from tests.integration.test_item_pool import Doubler


class LateStarter(Doubler):
    """Starts what it needs only after somebody asked it to end."""

    starting = threading.Event()
    ended_early = threading.Event()

    def init(self) -> None:
        self.starting.set()
        assert self.ended_early.wait(10)
        super().init()

    def destroy(self) -> None:
        super().destroy()
        self.ended_early.set()


def read(outcomes: Iterator[Any]) -> None:
    with pytest.raises(PoolClosed):
        next(outcomes)


def test_a_worker_that_is_destroyed_while_it_starts_leaves_nothing() -> None:
    late = LateStarter(0, abs, [])
    with ItemPool(lambda number: late, 1) as pool:
        outcomes = pool.process(PushSource())
        reader = threading.Thread(target=lambda: read(outcomes))
        reader.start()
        assert late.starting.wait(10)
    reader.join(10)
    assert not late.active
