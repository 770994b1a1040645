"""Many tasks at once in one real worker: on its event loop, in threads, beside others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evener
from tests.integration import shares_app as app
from tests.integration.shares_tasks import begin, named, worker
from tests.support import wait_until

WAITS = [app.wait, app.wait_in_thread]
POLITE = [app.polite, app.polite_thread]


@pytest.fixture(scope="module")
def shared() -> Iterator[evener.Client]:
    """One cluster with one worker."""
    with evener.LocalCluster(app.app, workers=1) as cluster, cluster.client() as made:
        yield made


@pytest.fixture
def client(shared: evener.Client) -> Iterator[evener.Client]:
    """The worker is free before and after."""
    yield shared
    assert shared.submit(app.alone).result(60)[1] == 0


# --- At once --------------------------------------------------------------------------------------


def test_a_hundred_async_tasks_meet_in_one_worker(client: evener.Client) -> None:
    """Each waits for the hundredth: one fewer at once, and none would ever end."""
    futures = [client.submit(app.meet, 100) for _ in range(100)]
    assert len({future.result(60) for future in futures}) == 1


def test_tasks_meet_in_threads_of_one_worker(client: evener.Client) -> None:
    futures = [client.submit(app.meet_in_threads) for _ in range(32)]
    assert len({future.result(60) for future in futures}) == 1


def test_a_map_runs_beside_others(client: evener.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    (held,) = begin(client, app.wait, tmp_path, 1, str(gate))
    assert list(client.map(app.double, range(40), timeout=60)) == [2 * n for n in range(40)]
    assert not held.done()
    gate.touch()
    held.result(60)


def test_large_arguments_and_results_travel_in_frames(client: evener.Client) -> None:
    data = [bytes([number]) * (1 << 20) for number in range(8)]
    futures = [client.submit(app.size, one) for one in data]
    assert [future.result(60) for future in futures] == data


@pytest.mark.parametrize("function", WAITS, ids=named)
def test_a_whole_task_waits_for_shares_and_is_passed_by_none(
    client: evener.Client, tmp_path: Path, function: Any
) -> None:
    """Plain and shared mixed: neither keeps the other waiting for ever."""
    gate, second = tmp_path / "gate", tmp_path / "second"
    running = begin(client, function, tmp_path, 5, str(gate))
    whole = client.submit(app.alone, str(second))
    later_marks = [tmp_path / f"later-{number}" for number in range(5)]
    later = [client.submit(function, str(mark), str(gate)) for mark in later_marks]
    gate.touch()
    pids = {future.result(60)[0] for future in running}
    assert not any(mark.exists() for mark in later_marks), "they come after the whole one"
    assert not whole.done()
    second.touch()
    assert whole.result(60) == (*pids, 0)
    assert {future.result(60)[0] for future in later} == pids


PLAIN_APP = """
import sys
import evener

app = evener.App("plain")

@app.task
def knows_asyncio() -> bool:
    return "asyncio" in sys.modules

@app.task(threads=2)
def beside() -> bool:
    return "asyncio" in sys.modules
"""


def test_asyncio_is_imported_only_where_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(PLAIN_APP)
    target = f"{tmp_path}/plain.py:app"
    with evener.LocalCluster(target, workers=1) as cluster, cluster.client() as client:
        knows: Any = client.function("plain.knows_asyncio")
        assert knows.submit().result(60) is False
        assert client.function("plain.beside").submit().result(60) is True


# --- What a task asks and tells -------------------------------------------------------------------


def test_each_hears_of_its_own_time(client: evener.Client) -> None:
    limits = [None, 30.0, 300.0]
    futures = [
        client.submit(app.ask.options(timeout=limit), str(number))
        for number, limit in enumerate(limits)
    ]
    left = [future.result(60) for future in futures]
    assert left[0] is None
    assert 0 < (left[1] or 0) <= 30 < (left[2] or 0) <= 300


@pytest.mark.parametrize("function", [app.tell, app.tell_in_thread], ids=named)
def test_lines_and_progress_are_those_of_their_task(
    client: evener.Client, tmp_path: Path, function: Any
) -> None:
    gate = tmp_path / "gate"
    begun = [tmp_path / name for name in "abc"]
    futures = {
        path.name: client.submit(function, path.name, str(path), str(gate)) for path in begun
    }
    wait_until(lambda: all(path.exists() for path in begun), 60, "all to begin")
    gate.touch()
    for future in futures.values():
        future.result(60)
    host = worker(client)["host"]
    for name, future in futures.items():

        def lines(of: str = future.task_id) -> list[str]:
            found = client.query("logs", host=host, task=of)
            return [line[-1] for line in found["lines"]]

        assert wait_until(lines, 60, "its lines") == [f"{name} begins and {name} ends"]


# --- Stopping one of many -------------------------------------------------------------------------


@pytest.mark.parametrize("function", WAITS, ids=named)
def test_one_of_many_is_cancelled(client: evener.Client, tmp_path: Path, function: Any) -> None:
    gate = tmp_path / "gate"
    futures = begin(client, function, tmp_path, 10, str(gate))
    futures[4].cancel()
    with pytest.raises(evener.TaskCancelled):
        futures[4].result(60)
    assert not any(future.done() for future in futures if future is not futures[4])
    gate.touch()
    ends = [future.result(60) for future in futures if future is not futures[4]]
    assert {told for _, told in ends} == {False}
    assert len({pid for pid, _ in ends}) == 1


@pytest.mark.parametrize("function", WAITS, ids=named)
def test_the_time_of_one_of_many_is_over(
    client: evener.Client, tmp_path: Path, function: Any
) -> None:
    gate = tmp_path / "gate"
    others = begin(client, function, tmp_path, 5, str(gate))
    limited = client.submit(function.options(timeout=0.1), str(tmp_path / "limited"), str(gate))
    with pytest.raises(evener.TaskTimeout) as caught:
        limited.result(60)
    assert caught.value.limit == "run"
    assert not any(future.done() for future in others)
    gate.touch()
    assert len({future.result(60)[0] for future in others}) == 1


@pytest.mark.parametrize("function", POLITE, ids=named)
def test_one_that_asks_ends_by_itself(client: evener.Client, tmp_path: Path, function: Any) -> None:
    futures = begin(client, function, tmp_path, 3)
    for future in futures:
        assert not future.done()
        future.cancel()
        with pytest.raises(evener.TaskCancelled):
            future.result(60)


# --- Ends -----------------------------------------------------------------------------------------


def test_a_retry_runs_beside_others(client: evener.Client, tmp_path: Path) -> None:
    futures = [client.submit(app.fails_once, str(tmp_path / str(n))) for n in range(5)]
    assert {future.result(60) for future in futures} == {"the second time"}


def test_an_exit_in_a_task_of_a_task_is_a_failure(client: evener.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    (beside,) = begin(client, app.wait, tmp_path, 1, str(gate))
    with pytest.raises(evener.RemoteError, match="SystemExit"):
        client.submit(app.exits).result(60)
    gate.touch()
    beside.result(60)
