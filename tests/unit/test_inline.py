"""A cluster without workers: everything here, and yet everything as if it travelled."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from typing import Any

import pytest

import evener
from evener.cluster import wanted_workers
from evener.current import current_client
from evener.errors import (
    BadArguments,
    ClientClosed,
    NotSendable,
    UnknownFunction,
    UsageError,
)

app = evener.App("inline")
calls: list[int] = []


@app.task
def add(a: int, b: int = 0) -> int:
    return a + b


@app.task
async def add_later(a: int, b: int) -> int:
    return a + b


@app.task
def change(values: list[int]) -> list[int]:
    values.append(1)
    return values


@app.task
def fail(times: int) -> int:
    calls.append(times)
    if len(calls) < times:
        raise ValueError("not yet")
    return len(calls)


@app.task
def nested(number: int) -> int:
    if number == 0:
        return 0
    return number + nested.submit(number - 1).result()


@app.task
def connection() -> Any:
    return sqlite3.connect(":memory:")


@pytest.fixture
def client() -> Any:
    calls.clear()
    with evener.LocalCluster(app, workers=0) as cluster, cluster.client() as client:
        yield client


def test_tasks_are_done_when_submit_returns(client: evener.Client) -> None:
    future = client.submit(add, 1, b=2)
    assert future.done()
    assert future.result() == 3
    assert client.submit(add_later, 1, 2).result() == 3
    assert client.submit("inline.add", 4).result() == 4
    assert add.submit(5, 6).result() == 11
    assert client.submit(pow, 2, 10).result() == 1024
    assert client.submit(lambda x: x * 2, 4).result() == 8


def test_what_is_handed_in_is_a_copy(client: evener.Client) -> None:
    values: list[int] = []
    assert client.submit(change, values).result() == [1]
    assert values == []


def test_what_cannot_travel_fails_here_too(client: evener.Client) -> None:
    with pytest.raises(NotSendable, match=r"sqlite3\.Connection"):
        client.submit("inline.add", sqlite3.connect(":memory:"))
    with pytest.raises(NotSendable, match=r"sqlite3\.Connection"):
        client.submit(connection).result()


def test_failures_come_as_from_a_worker(client: evener.Client) -> None:
    with pytest.raises(ValueError, match="not yet") as raised:
        client.submit(fail, 2).result()
    assert isinstance(raised.value.__cause__, evener.RemoteTraceback)
    assert "on worker inline" in raised.value.__notes__[0]
    with pytest.raises(UnknownFunction, match=r"inline\.add"):
        client.submit("inline.ad", 1).result()
    with pytest.raises(BadArguments):
        client.submit(add)  # type: ignore[call-overload]


def test_retries_hold(client: evener.Client) -> None:
    assert client.submit(fail.options(retries=3), 3).result() == 3
    calls.clear()
    with pytest.raises(ValueError):
        client.submit(fail.options(retries=3, retry_on=KeyError), 3).result()
    assert len(calls) == 1


def test_tasks_submit_tasks(client: evener.Client) -> None:
    assert client.submit(nested, 4).result() == 10


def test_callbacks_and_options_by_name(client: evener.Client) -> None:
    seen: list[int] = []
    call = client.function("inline.add", timeout=3).options(priority=9)
    assert call.target.options is not None
    assert (call.target.options.timeout_ms, call.target.options.priority) == (3_000, 9)
    call.submit(1, 2).add_done_callback(lambda future: seen.append(future.result()))
    assert seen == [3]
    with pytest.raises(UsageError, match="timeot"):
        client.function("inline.add", timeot=3)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="cannot submit 5"):
        client.submit(5)  # type: ignore[call-overload]


def test_gather_gives_results_in_order(client: evener.Client) -> None:
    futures = [client.submit(add, n, n) for n in range(3)]
    assert evener.gather(*futures) == [0, 2, 4]
    assert client.gather(*futures, timeout=1) == [0, 2, 4]


def test_there_is_nobody_to_ask(client: evener.Client) -> None:
    with pytest.raises(UsageError, match="without workers"):
        client.query("status")
    client.cancel([client.submit(add, 1).task_id])
    with pytest.raises(UsageError, match="not the id of a task"):
        client.cancel(["7f3a"])


def test_a_closed_client_takes_nothing(client: evener.Client) -> None:
    client.close()
    with pytest.raises(ClientClosed):
        client.submit(add, 1)


def test_the_current_client_is_the_innermost(client: evener.Client) -> None:
    assert current_client() is client
    found: list[object] = []
    with evener.LocalCluster(app, workers=0) as cluster, cluster.client() as inner:
        assert current_client() is inner
        thread = threading.Thread(target=lambda: found.append(current_client()))
        thread.start()
        thread.join()
        assert found == [inner]
    assert current_client() is client
    client.__exit__(None, None, None)
    with pytest.raises(UsageError, match="there is no client here"):
        current_client()


def test_bad_clusters_are_refused() -> None:
    with pytest.raises(UsageError, match="workers=-1"):
        evener.LocalCluster(workers=-1)
    with pytest.raises(UsageError, match="neither an App"):
        evener.LocalCluster(5, workers=1)  # type: ignore[arg-type]


def test_the_environment_chooses_a_cluster_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENER_WORKERS", "0")
    with evener.LocalCluster(app) as cluster, cluster.client() as client:
        assert (cluster.workers, cluster.pids, cluster.address) == (0, [], "inline")
        assert client.submit(os.getpid).result() == os.getpid()
    assert wanted_workers(3) == 3, "an argument stands above it"
    monkeypatch.setenv("EVENER_WORKERS", "5")
    assert wanted_workers(None) == 5
    monkeypatch.setenv("EVENER_WORKERS", "auto")
    assert wanted_workers(None) is None


def test_async_tasks_and_the_end_inside_of_a_running_loop() -> None:
    async def program() -> int:
        with evener.LocalCluster(app, workers=0) as cluster, cluster.client() as client:
            return int(await client.submit(add_later, 1, 2))

    assert asyncio.run(program()) == 3
