"""Values that tasks yield: in order, none lost, none twice, and never faster than they are read."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import evener
from evener_wire.limits import CLIENT_AWAY_NS, STREAM_VALUES_MAX
from tests.integration import inside_app as app
from tests.integration.fault_cluster import FaultCluster
from tests.support import Processes, wait_until


@pytest.fixture(scope="module")
def shared() -> Iterator[evener.Client]:
    with evener.LocalCluster(app.app, workers=1) as cluster, cluster.client() as made:
        yield made


@pytest.fixture
def client(shared: evener.Client) -> Iterator[evener.Client]:
    """The slot is there before and after."""
    yield shared
    assert shared.submit(app.times).result(20) == (None, False)


@pytest.mark.parametrize("name", ["i.numbers", "i.numbers_async"])
@pytest.mark.parametrize("count", [0, 1, 3 * STREAM_VALUES_MAX + 7])
def test_values_come_in_order_and_then_the_result(
    client: evener.Client, name: str, count: int
) -> None:
    future = client.submit(name, count)
    assert list(future.stream(20)) == list(range(count))
    assert future.result(20) == (count if name == "i.numbers" else None)
    assert list(future.stream(20)) == []


@pytest.mark.parametrize("name", ["i.numbers", "i.numbers_async"])
def test_what_it_raises_comes_after_its_values(client: evener.Client, name: str) -> None:
    future = client.submit(name, 9, 5)
    stream = future.stream(20)
    assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="at 5"):
        next(stream)


def test_values_of_any_size(client: evener.Client) -> None:
    size = 3 << 20
    values = list(client.submit(app.large, 5, size).stream(20))
    assert [(value[0], len(value)) for value in values] == [(number, size) for number in range(5)]


def test_async_for(client: evener.Client) -> None:
    async def read() -> list[int]:
        return [value async for value in client.submit("i.numbers", 100).stream(20)]

    assert asyncio.run(read()) == list(range(100))


def test_whoever_does_not_read_makes_it_wait(client: evener.Client, tmp_path: Path) -> None:
    path = tmp_path / "yielded"
    future = client.submit("i.counting", str(path))
    stream = future.stream(20)
    assert next(stream) == 0
    wait_until(lambda: path.stat().st_size > STREAM_VALUES_MAX, 20, "a full window")
    for _ in range(20):
        client.status()  # by the way that values would take, if it yielded on
    assert path.stat().st_size <= 2 * STREAM_VALUES_MAX + 2
    assert [next(stream) for _ in range(3 * STREAM_VALUES_MAX)][-1] == 3 * STREAM_VALUES_MAX
    future.cancel()
    with pytest.raises(evener.TaskCancelled):
        list(stream)
    assert Path(f"{path}.closed").exists(), "its finally blocks ran"


def test_result_alone_gives_up_the_values(client: evener.Client) -> None:
    future = client.submit("i.numbers", 1_000)
    wait_until(lambda: future._values is not None, 20, "the first value")
    assert future.result(20) == 1_000
    with pytest.raises(evener.UsageError, match="before stream"):
        future.stream()


def test_a_task_without_values_has_an_empty_stream(client: evener.Client) -> None:
    future = client.submit(app.times)
    assert list(future.stream(20)) == []
    assert future.result() == (None, False)


def test_a_value_that_takes_too_long(client: evener.Client, tmp_path: Path) -> None:
    future = client.submit(app.polite, str(tmp_path / "begun"))
    with pytest.raises(evener.TaskTimeout):
        next(future.stream(0.05))
    future.cancel()
    with pytest.raises(evener.TaskCancelled):
        future.result(20)


def test_another_attempt_says_that_the_values_are_void(
    client: evener.Client, tmp_path: Path
) -> None:
    stream = client.submit("i.fails_once", str(tmp_path / "flag")).stream(20)
    assert [next(stream) for _ in range(3)] == ["first 0", "first 1", "first 2"]
    with pytest.raises(evener.StreamRestarted):
        next(stream)
    assert list(stream) == ["second 0", "second 1", "second 2"]


def test_a_worker_that_dies_begins_anew(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with evener.LocalCluster(app.app, workers=1) as cluster, cluster.client() as client:
        stream = client.submit("i.dies_once", str(flag)).stream(20)
        assert next(stream) == 1
        Path(f"{flag}.now").touch()
        with pytest.raises(evener.StreamRestarted):
            next(stream)
        assert list(stream) == [1, 2]


def test_brokers_that_die_on_the_way_cost_no_value(cluster: FaultCluster) -> None:
    cluster.start_broker()
    cluster.start_agent(app=str(Path(app.__file__).resolve()) + ":app")
    client = cluster.client()
    count = 20 * STREAM_VALUES_MAX
    stream = client.submit("i.numbers", count).stream(30)
    came: list[int] = []
    for _ in range(4):
        came += [next(stream) for _ in range(3 * STREAM_VALUES_MAX + 5)]
        cluster.restart_broker()
    came += stream
    assert came == list(range(count))


def test_who_leaves_does_not_hold_it_up(tmp_path: Path) -> None:
    with evener.LocalCluster(app.app, workers=1) as cluster, cluster.client() as client:
        with evener.Client(cluster.address) as leaver:
            future = leaver.submit("i.numbers", 5_000)
            assert next(future.stream(20)) == 0
        assert client.submit(app.times).result(20) == (None, False)


def test_who_is_killed_does_not_hold_a_worker_up_for_ever(processes: Processes) -> None:
    """Its generator waits with a full window; once its client is given up it runs to its end."""
    with evener.LocalCluster(app.app, workers=1) as cluster, cluster.client() as client:
        script = (
            "import evener, threading\n"
            f"client = evener.Client({cluster.address!r})\n"
            "stream = client.submit('i.numbers', 5_000).stream(20)\n"
            "print(next(stream), flush=True)\n"
            "threading.Event().wait()\n"
        )
        reader = processes.start(sys.executable, "-c", script, stdout=subprocess.PIPE, text=True)
        assert reader.stdout is not None
        assert reader.stdout.readline() == "0\n"
        reader.kill()
        reader.wait(10)
        reader.stdout.close()
        assert client.submit(app.times).result(CLIENT_AWAY_NS / 1e9 + 60) == (None, False)


def test_without_workers() -> None:
    with evener.LocalCluster(app.app, workers=0) as cluster, cluster.client() as client:
        future = client.submit("i.numbers", 1_000)
        assert list(future.stream()) == list(range(1_000))
        assert future.result() == 1_000
        assert list(client.submit("i.numbers_async", 3).stream()) == [0, 1, 2]
