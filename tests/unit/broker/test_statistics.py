"""Statistics by function: counts that add up, and percentiles of samples."""

from __future__ import annotations

import random
from typing import Any

import pytest

from evener_broker.histogram import CLASSES_MAX, Histogram
from evener_wire import messages as m
from tests.unit.broker.fake_journal import FakeJournal
from tests.unit.broker.test_answers import ask
from tests.unit.broker.world import Client, World, task_id


def row(client: Client, name: str = "demo.add") -> dict[str, Any]:
    _, body = ask(client, "ls", kind="functions")
    return next(row for row in body["rows"] if row["name"] == name)


def counts(client: Client, *names: str) -> tuple[int, ...]:
    found = row(client)
    return tuple(found[name] for name in names)


# --- The histogram --------------------------------------------------------------------------------


def test_nothing_noted_has_no_percentiles() -> None:
    assert Histogram().percentiles() == {"p50": None, "p90": None, "p99": None}


@pytest.mark.parametrize("value", [0, 1, 3, 4, 7, 8, 9, 1_000, 123_456_789])
def test_one_value_is_found_to_an_eighth(value: int) -> None:
    histogram = Histogram()
    histogram.note(value, 1)
    for found in histogram.percentiles().values():
        assert found is not None
        assert abs(found - value) <= value / 8


def test_percentiles_of_many_values() -> None:
    rng, histogram = random.Random(1), Histogram()
    values = sorted(int(rng.lognormvariate(8, 2)) for _ in range(10_000))
    for value in values:
        histogram.note(value, 1)
    for name, place in (("p50", 5_000), ("p90", 9_000), ("p99", 9_900)):
        found = histogram.percentiles()[name]
        assert found == pytest.approx(values[place], rel=0.125)


def test_a_count_weighs_as_much_as_single_notes() -> None:
    histogram = Histogram()
    histogram.note(100, 99)
    histogram.note(100_000, 1)
    found = histogram.percentiles()
    assert found["p90"] == pytest.approx(100, rel=0.125)
    assert found["p99"] == pytest.approx(100, rel=0.125)


def test_classes_are_bounded_and_grow_with_the_value() -> None:
    histogram = Histogram()
    for exponent in range(200):
        histogram.note(int(1.5**exponent), 1)
        histogram.note(-exponent, 1)
    for value in range(5_000):
        histogram.note(value, 1)
    assert len(histogram) <= CLASSES_MAX


# --- What the broker counts -----------------------------------------------------------------------


def test_where_the_tasks_of_a_function_are() -> None:
    world = World()
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2, 3, 4, 5, at_most_once=True)  # so that none is sent ahead
    assert counts(client, "queued", "running", "ended") == (3, 2, 0)
    agent.ends(1, m.DONE)
    assert counts(client, "queued", "running", "completed") == (2, 2, 1)
    agent.ends(2, m.FAILED, {"type": "E", "message": "no"})
    assert counts(client, "queued", "running", "completed", "failed") == (1, 2, 1, 1)
    client.cancel(5)
    assert counts(client, "queued", "cancelled", "ended") == (0, 1, 3)


def test_what_is_held_before_its_next_try_counts_as_queued() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=1, retry_delay_ms=1_000)
    agent.ends(1, m.FAILED, {"type": "E", "message": "no"})
    assert counts(client, "queued", "running", "failed", "runs") == (1, 0, 0, 1)


def test_what_expired_or_got_lost() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, max_starts=1)
    client.submit(2, expires_ms=10)
    world.pass_ms(20)
    agent.ends(1, m.LOST, {})
    assert counts(client, "expired", "lost", "completed", "ended") == (1, 1, 0, 2)


def test_how_long_tasks_ran() -> None:
    world = World()
    agent, client = world.agent(slots=4), world.client()
    client.submit(1, 2, 3, 4)
    items = [(task_id(n), agent.fence(n), m.DONE, b"", 1_000, None) for n in (1, 2, 3)]
    agent.say(m.Result(items))
    agent.say(m.Result([(task_id(4), agent.fence(4), m.DONE, b"", 9_000, None)]))
    found = row(client)
    assert (found["runs"], found["run_total_us"], found["mean_us"]) == (4, 12_000, 3_000)
    assert found["run_us"]["p50"] == pytest.approx(1_000, rel=0.125)
    assert found["run_us"]["p99"] == pytest.approx(9_000, rel=0.125)


def test_how_long_tasks_waited_for_a_host() -> None:
    world = World()
    client = world.client()
    agent = world.agent()
    client.submit(1)
    assert row(client)["wait_us"] == {"p50": 0, "p90": 0, "p99": 0}
    client.submit(2)
    world.pass_ms(500)
    agent.ends(1, m.DONE)
    found = row(client)["wait_us"]
    assert found["p50"] <= 1
    assert found["p99"] == pytest.approx(500_000, rel=0.125)


def test_only_the_first_wait_of_a_task_counts() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    world.pass_ms(500)
    agent.ends(1, m.RETURNED)
    assert row(client)["wait_us"]["p99"] == 0


def test_what_the_journal_had_counts_from_the_restart() -> None:
    world = World(journal=FakeJournal())
    agent, client = world.agent(), world.client()
    client.submit(1, 2)
    agent.ends(1, m.DONE)
    client.vanish()
    world.restart()
    client.hello()
    assert counts(client, "queued", "running", "ended") == (1, 0, 0)
