"""The bounds that follow from the memory of the machine, and the look at the process's own size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from evener_broker.memory import Gauge, bounds_for, default_limit, memory_here
from evener_wire.limits import (
    BROKER_BYTES_MAX,
    BROKER_TASKS_MAX,
    CLIENT_BYTES_MAX,
    CLIENT_TASKS_MAX,
    MEMORY_LOOK_NS,
    MIB,
)

GIB = 1_024 * MIB


def test_a_large_machine_gets_the_limits_as_they_stand() -> None:
    bounds = bounds_for(64 * GIB)
    assert bounds.tasks == BROKER_TASKS_MAX
    assert bounds.payload_bytes == BROKER_BYTES_MAX
    assert bounds.client_tasks == CLIENT_TASKS_MAX
    assert bounds.client_bytes == CLIENT_BYTES_MAX


def test_a_small_machine_gets_a_share_of_its_memory() -> None:
    bounds = bounds_for(512 * MIB)
    assert bounds.payload_bytes == bounds.client_bytes == 256 * MIB
    assert bounds.tasks == bounds.client_tasks == 128 * 1_024


def test_what_is_given_holds() -> None:
    bounds = bounds_for(GIB, tasks=10, payload_bytes=2_000, client_tasks=5, client_bytes=1_000)
    found = bounds.tasks, bounds.payload_bytes, bounds.client_tasks, bounds.client_bytes
    assert found == (10, 2_000, 5, 1_000)


def test_one_client_gets_no_more_than_all_together() -> None:
    bounds = bounds_for(GIB, tasks=10, payload_bytes=2_000)
    assert (bounds.client_tasks, bounds.client_bytes) == (10, 2_000)


def test_this_machine_has_memory() -> None:
    assert 16 * MIB < default_limit() < memory_here()


@pytest.fixture
def gauge() -> Iterator[Gauge]:
    with closing(Gauge(4_096 * GIB)) as made:
        yield made


def test_a_process_below_its_limit_is_not_short(gauge: Gauge) -> None:
    assert gauge.look(1, 0) is False
    assert gauge.is_short is False
    assert gauge.rss > MIB


def test_a_process_above_its_limit_is_short_and_says_so_once() -> None:
    with closing(Gauge(MIB)) as gauge:
        assert gauge.look(1, 0) is True
        assert gauge.is_short is True
        assert gauge.look(2 + MEMORY_LOOK_NS, 0) is False


def test_looking_costs_nothing_most_of_the_time(gauge: Gauge) -> None:
    gauge.look(1, 0)
    gauge.rss = 0
    gauge.look(2, 0)
    assert gauge.rss == 0
