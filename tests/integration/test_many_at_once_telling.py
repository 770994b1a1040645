"""What tasks side by side write and say of themselves comes to their own futures, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evener
from tests.integration import shares_talking_app as app
from tests.integration.shares_tasks import worker
from tests.integration.test_forward_output import Heard
from tests.support import wait_until

EVERY_WAY: list[Any] = [app.every_way, app.every_way_thread]
FAR: list[Any] = [app.far, app.far_thread]


@pytest.fixture
def client() -> Iterator[evener.Client]:
    """Of a cluster with one worker."""
    with evener.LocalCluster(app.app, workers=1) as cluster, cluster.client() as made:
        yield made


def loud(function: Any) -> Any:
    return function.options(forward_output=True)


def logged(client: evener.Client, **which: Any) -> list[str]:
    """What the host keeps."""
    found = client.query("logs", host=worker(client)["host"], **which)
    return [line[-1] for line in found["lines"]]


# --- Lines ----------------------------------------------------------------------------------------


def test_each_line_is_told_as_its_own_tasks(client: evener.Client, tmp_path: Path) -> None:
    """Twelve that write at the same time, halves of lines among it, and two that are not asked."""
    heard, gate = Heard(client), tmp_path / "gate"
    names = [f"task-{number}" for number in range(12)]
    futures: dict[str, evener.Future[str]] = {
        name: client.submit(loud(EVERY_WAY[number % 2]), name, str(tmp_path / name), str(gate))
        for number, name in enumerate(names)
    }
    quiet = [client.submit(it, "quiet", str(tmp_path / it.name), str(gate)) for it in EVERY_WAY]
    begun = [*(tmp_path / name for name in names), *(tmp_path / it.name for it in EVERY_WAY)]
    wait_until(lambda: all(path.exists() for path in begun), 60, "all to begin")
    gate.touch()
    assert [future.result(60) for future in futures.values()] == names
    assert [future.result(60) for future in quiet] == ["quiet"] * 2
    lines = heard.wait_for(6 * (4 + 2 + 2) + 6 * (4 + 2))
    assert len({line.worker for line in lines}) == 1
    for number, (name, future) in enumerate(futures.items()):
        mine = [line for line in lines if line.task_id == future.task_id]
        inside = [f"{name} in a task", f"{name} in a thread"] if number % 2 == 0 else []
        assert [line.text for line in mine if line.stream == "stdout"] == [
            *inside,
            f"{name} begins, {name} goes on",
            f"{name} one",
            f"{name} two",
            f"{name} ends",
        ]
        assert [line.text for line in mine if line.stream == "stderr"] == [
            f"{name} complains",
            f"INFO {name} logs",
        ]
    assert len(lines) == 6 * (4 + 2 + 2) + 6 * (4 + 2), "nothing of the quiet ones"


def test_lines_of_generators(client: evener.Client) -> None:
    heard = Heard(client)
    futures = {name: client.submit(loud(app.yields), name) for name in ("a", "b", "c")}
    for name, future in futures.items():
        assert list(future.stream(60)) == [name] * 3
    heard.wait_for(9)
    for name, future in futures.items():
        assert heard.texts(9, future.task_id) == [f"{name} yields {number}" for number in range(3)]


def test_what_does_not_go_through_python_is_nobodys(client: evener.Client) -> None:
    """It stands in the log of the worker."""
    heard = Heard(client)
    future = client.submit(loud(app.past_python), "it")
    assert future.result(60) == "it"
    assert heard.texts(2, future.task_id) == ["it prints", "it ends"]
    others = ["it in C", "it past Python", "it from a program", "it in a thread of its own"]
    assert logged(client, task=future.task_id) == ["it prints", "it ends"]
    assert [line for line in logged(client) if line in others] == others
    assert len(heard.lines) == 2


def test_last_words_of_all_that_were_in_a_worker_that_died(
    client: evener.Client, tmp_path: Path
) -> None:
    heard, gate, fatal = Heard(client), tmp_path / "gate", tmp_path / "fatal"
    begun = [tmp_path / "beside", tmp_path / "killer"]
    beside = client.submit(loud(app.every_way), "beside", str(begun[0]), str(gate))
    killer = client.submit(loud(app.dies), "killer", str(begun[1]), str(fatal))
    wait_until(lambda: all(path.exists() for path in begun), 60, "both to begin")
    begun[0].unlink()
    fatal.touch()
    with pytest.raises(evener.TaskLost):
        killer.result(60)
    wait_until(begun[0].exists, 60, "its second attempt")
    gate.touch()
    assert beside.result(60) == "beside"
    lines = heard.wait_for(1 + 4 + 8)
    assert [it.text for it in lines if it.task_id == killer.task_id] == [
        "killer says its last words"
    ]
    of_first = [it for it in lines if it.task_id == beside.task_id and it.attempt == 1]
    of_second = [it for it in lines if it.task_id == beside.task_id and it.attempt == 2]
    assert (len(of_first), len(of_second)) == (4, 8), "without the line it had not ended"


# --- Progress -------------------------------------------------------------------------------------


def test_each_future_hears_how_far_its_own_task_is(client: evener.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    names = [f"task-{number}" for number in range(12)]
    heard: dict[str, list[evener.Progress]] = {name: [] for name in names}
    futures: dict[str, evener.Future[str]] = {}
    for number, name in enumerate(names):
        begun = str(tmp_path / name)
        futures[name] = client.submit(FAR[number % 2], name, number, begun, str(gate))
        futures[name].on_progress(heard[name].append)
    wait_until(lambda: all(heard.values()), 60, "word of all")
    for number, name in enumerate(names):
        assert futures[name].progress() == evener.Progress(number, 100, name, 1)
        assert heard[name][-1] == futures[name].progress()
        why = client.query("why", id=futures[name].task_id)
        assert why["state"] == "running"
    gate.touch()
    assert [future.result(60) for future in futures.values()] == names


def test_a_second_attempt_says_anew_how_far_it_is(client: evener.Client, tmp_path: Path) -> None:
    gate, fatal = tmp_path / "gate", tmp_path / "fatal"
    future = client.submit(app.far, "it", 7, str(tmp_path / "it"), str(gate))
    wait_until(lambda: future.progress() == evener.Progress(7, 100, "it", 1), 60, "the first")
    killer = client.submit(app.dies, "killer", str(tmp_path / "killer"), str(fatal))
    fatal.touch()
    with pytest.raises(evener.TaskLost):
        killer.result(60)
    wait_until(lambda: future.progress() == evener.Progress(7, 100, "it", 2), 60, "the second")
    gate.touch()
    assert future.result(60) == "it"
