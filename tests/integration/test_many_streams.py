"""Generators side by side in one real worker, on its event loop and in threads."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evener
from evener_wire.limits import STREAM_VALUES_MAX
from tests.integration import shares_streams_app as app
from tests.integration.fault_cluster import FaultCluster
from tests.integration.shares_tasks import named, worker
from tests.support import wait_until

NUMBERS = [app.numbers, app.numbers_thread]
ENDLESS = [app.endless, app.endless_thread]
MORE = 3 * STREAM_VALUES_MAX + 7


@pytest.fixture(scope="module")
def shared() -> Iterator[evener.Client]:
    """One cluster with one worker."""
    with evener.LocalCluster(app.app, workers=1) as cluster, cluster.client() as made:
        yield made


@pytest.fixture
def client(shared: evener.Client) -> Iterator[evener.Client]:
    """The same process has its worker free before and after: nothing had to be killed."""
    before = shared.submit(app.alone).result(60)
    yield shared
    assert shared.submit(app.alone).result(60) == before


# --- At once --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "many"), [(app.meet, app.MANY), (app.meet_thread, app.FEW)], ids=["loop", "thread"]
)
def test_many_stream_at_once_and_none_gets_values_of_another(
    client: evener.Client, function: Any, many: int
) -> None:
    """Each waits for the last of them: one fewer at once, and none would ever yield."""
    streams = [client.submit(function, name, MORE).stream(60) for name in range(many)]
    for number in range(MORE):
        assert [next(stream) for stream in streams] == [(name, number) for name in range(many)]
    assert [list(stream) for stream in streams] == [[]] * many


@pytest.mark.parametrize("function", NUMBERS, ids=named)
@pytest.mark.parametrize("count", [0, 1, MORE])
def test_values_come_in_order_and_then_the_result(
    client: evener.Client, function: Any, count: int
) -> None:
    futures = [client.submit(function, count) for _ in range(4)]
    streams = [future.stream(60) for future in futures]
    assert [list(stream) for stream in streams] == [[*range(count)]] * 4
    returned = count if function is app.numbers_thread else None
    assert [future.result(60) for future in futures] == [returned] * 4


@pytest.mark.parametrize("function", NUMBERS, ids=named)
def test_what_one_raises_comes_after_its_values(client: evener.Client, function: Any) -> None:
    beside = client.submit(function, MORE).stream(60)
    stream = client.submit(function, 9, 5).stream(60)
    assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="at 5"):
        next(stream)
    assert list(beside) == [*range(MORE)]


@pytest.mark.parametrize("function", [app.large, app.large_thread], ids=named)
def test_large_values_are_what_they_were_when_they_were_yielded(
    client: evener.Client, function: Any
) -> None:
    size = 3 << 20
    streams = [client.submit(function, 5, size).stream(60) for _ in range(2)]
    for stream in streams:
        assert [bytes(value) for value in stream] == [bytes([n]) * size for n in range(5)]


@pytest.mark.parametrize("function", [app.talk, app.talk_thread], ids=named)
def test_what_one_asks_and_tells_is_its_own(client: evener.Client, function: Any) -> None:
    futures = {name: client.submit(function, name) for name in ("one", "two", "three")}
    for name, future in futures.items():
        assert list(future.stream(60)) == [f"{name} True"] * 3
    host = worker(client)["host"]
    for name, future in futures.items():

        def told(of: str = future.task_id, by: str = name) -> bool:
            found = client.query("logs", host=host, task=of)["lines"]
            return [line[-1] for line in found] == [f"{by} {number}" for number in range(3)]

        wait_until(told, 60, "its lines")


# --- Readers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ENDLESS, ids=named)
def test_whoever_does_not_read_makes_that_one_wait_and_no_other(
    client: evener.Client, tmp_path: Path, function: Any
) -> None:
    path = tmp_path / "yielded"
    future = client.submit(function, str(path))
    stream = future.stream(60)
    assert next(stream) == 0
    wait_until(lambda: path.stat().st_size > STREAM_VALUES_MAX, 60, "a full window")
    for beside in NUMBERS:
        assert list(client.submit(beside, MORE).stream(60)) == [*range(MORE)]
    assert path.stat().st_size <= 2 * STREAM_VALUES_MAX + 2
    assert [next(stream) for _ in range(MORE)] == [*range(1, MORE + 1)]
    future.cancel()
    with pytest.raises(evener.TaskCancelled):
        list(stream)
    assert Path(f"{path}.closed").exists(), "its finally blocks ran"


@pytest.mark.parametrize("function", NUMBERS, ids=named)
def test_result_alone_gives_up_the_values(client: evener.Client, function: Any) -> None:
    client.submit(function, 5_000).result(60)


@pytest.mark.parametrize("function", NUMBERS, ids=named)
def test_who_leaves_holds_nobody_up(tmp_path: Path, function: Any) -> None:
    with evener.LocalCluster(app.app, workers=1) as cluster, cluster.client() as client:
        with evener.Client(cluster.address) as leaver:
            assert next(leaver.submit(function, 5_000).stream(60)) == 0
        client.submit(app.alone).result(60)


# --- Stopping one of many -------------------------------------------------------------------------


@pytest.mark.parametrize("function", ENDLESS, ids=named)
def test_one_that_waits_for_its_reader_is_cancelled_and_the_others_go_on(
    client: evener.Client, tmp_path: Path, function: Any
) -> None:
    paths = [tmp_path / str(number) for number in range(3)]
    futures = [client.submit(function, str(path)) for path in paths]
    streams = [future.stream(60) for future in futures]

    def are_full() -> bool:
        return all(p.exists() and p.stat().st_size > STREAM_VALUES_MAX for p in paths)

    wait_until(are_full, 60, "three full windows")
    futures[1].cancel()
    with pytest.raises(evener.TaskCancelled):
        futures[1].result(60)
    assert [Path(f"{path}.closed").exists() for path in paths] == [False, True, False]
    for stream in (streams[0], streams[2]):
        assert [next(stream) for _ in range(MORE)] == [*range(MORE)]
    for future in (futures[0], futures[2]):
        future.cancel()
        with pytest.raises(evener.TaskCancelled):
            future.result(60)


@pytest.mark.parametrize("function", ENDLESS, ids=named)
def test_they_are_stopped_at_any_moment(
    client: evener.Client, tmp_path: Path, function: Any
) -> None:
    """While they yield, wait for their readers, or have not begun: each is closed, once."""
    rng = random.Random(7)
    for turn in range(12):
        paths = [tmp_path / f"{turn}-{number}" for number in range(4)]
        futures = [client.submit(function, str(path)) for path in paths]
        streams = [future.stream(60) for future in futures]
        for stream in streams:
            count = rng.choice((0, 0, 1, 5, STREAM_VALUES_MAX + 20, MORE))
            assert [next(stream) for _ in range(count)] == [*range(count)]
        for future in rng.sample(futures, 4):
            future.cancel()
        for path, stream in zip(paths, streams, strict=True):
            with pytest.raises(evener.TaskCancelled):
                list(stream)
            assert path.exists() == Path(f"{path}.closed").exists()


@pytest.mark.parametrize("function", [app.silent, app.silent_thread], ids=named)
def test_the_time_of_one_of_many_is_over(
    client: evener.Client, tmp_path: Path, function: Any
) -> None:
    beside = client.submit(function, str(tmp_path / "beside"))
    limited = client.submit(function.options(timeout=0.1), str(tmp_path / "limited"))
    stream = limited.stream(60)
    assert next(stream) == "begun"
    with pytest.raises(evener.TaskTimeout) as caught:
        next(stream)
    assert caught.value.limit == "run"
    assert next(beside.stream(60)) == "begun"
    assert not beside.done()
    beside.cancel()
    with pytest.raises(evener.TaskCancelled):
        beside.result(60)


# --- What dies on the way -------------------------------------------------------------------------


def test_their_worker_dies_and_all_begin_anew(tmp_path: Path) -> None:
    """Whoever has taken a value is told; all are charged, as nobody knows which one did it."""
    gate = tmp_path / "gate"
    with evener.LocalCluster(app.app, workers=1) as cluster, cluster.client() as client:
        flags = [tmp_path / str(number) for number in range(4)]
        functions: list[Any] = [app.survive, app.survive_thread] * 2
        futures = [
            client.submit(function, str(flag), str(gate))
            for function, flag in zip(functions, flags, strict=True)
        ]
        streams = [future.stream(60) for future in futures]
        assert [next(stream) for stream in streams] == [0] * 4
        wait_until(lambda: all(flag.exists() for flag in flags), 60, "all to wait")
        os.kill(worker(client)["pid"], signal.SIGKILL)
        for stream in streams:
            with pytest.raises(evener.StreamRestarted):
                next(stream)
        gate.touch()
        assert [list(stream) for stream in streams] == [[0, 1]] * 4
        starts = [client.query("why", id=future.task_id)["starts"] for future in futures]
        assert starts == [1] * 4


def test_brokers_that_die_on_the_way_cost_no_value(cluster: FaultCluster) -> None:
    cluster.start_broker()
    cluster.start_agent(app=str(Path(app.__file__).resolve()) + ":app")
    client = cluster.client()
    count = 5 * MORE
    streams = [client.submit(function, count).stream(60) for function in NUMBERS * 2]
    came: list[list[int]] = [[] for _ in streams]
    for _ in range(3):
        for values, stream in zip(came, streams, strict=True):
            values += [next(stream) for _ in range(MORE)]
        cluster.restart_broker()
    for values, stream in zip(came, streams, strict=True):
        values += stream
    assert came == [[*range(count)]] * 4


def test_without_workers() -> None:
    with evener.LocalCluster(app.app, workers=0) as cluster, cluster.client() as client:
        for function in NUMBERS:
            assert list(client.submit(function, 300).stream()) == [*range(300)]
