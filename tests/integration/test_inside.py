"""What a running task can ask and tell: whether it is to stop, its time, its progress."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evener
from evener import options as evener_options
from tests.integration import inside_app as app
from tests.support import wait_until

POLITE = [app.polite, app.raising, app.polite_async, app.polite_thread]


@pytest.fixture(scope="module")
def shared() -> Iterator[evener.Client]:
    """One cluster with one worker: what a test leaves behind stands in the way of the next."""
    with evener.LocalCluster(app.app, workers=1) as cluster, cluster.client() as made:
        yield made


@pytest.fixture
def client(shared: evener.Client) -> Iterator[evener.Client]:
    """The slot is there before and after."""
    yield shared
    assert shared.submit(app.times).result(20) == (None, False)


def begin(
    client: evener.Client, function: evener.Function[..., object], folder: Path, *more: str
) -> tuple[evener.Future[object], Path]:
    begun = folder / "begun"
    future = client.submit(function, str(begun), *more)
    wait_until(begun.exists, 20, "its begin")
    return future, begun


def wait_for_progress(future: evener.Future[Any], wanted: evener.Progress) -> None:
    wait_until(lambda: future.progress() == wanted, 20, str(wanted))


@pytest.mark.parametrize("function", POLITE, ids=lambda function: function.name)
def test_a_task_that_asks_ends_by_itself(
    client: evener.Client, tmp_path: Path, function: evener.Function[..., object]
) -> None:
    pid = client.submit(app.pid).result(20)
    future, _ = begin(client, function, tmp_path)
    assert future.cancel()
    with pytest.raises(evener.TaskCancelled):
        future.result(20)
    assert client.submit(app.pid).result(20) == pid, "nobody killed it"


@pytest.mark.parametrize("function", POLITE, ids=lambda function: function.name)
def test_the_same_when_its_time_is_over(
    client: evener.Client, tmp_path: Path, function: evener.Function[..., object]
) -> None:
    pid = client.submit(app.pid).result(20)
    future, _ = begin(client, function.options(timeout=0.05), tmp_path)
    with pytest.raises(evener.TaskTimeout) as caught:
        future.result(20)
    assert caught.value.limit == "run"
    assert client.submit(app.pid).result(20) == pid


def test_its_grace_lasts_longer_than_the_usual_moment(
    client: evener.Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    future, begun = begin(client, app.polite, tmp_path, str(gate))
    future.cancel()
    # Three times as long as others have until they are interrupted.
    with pytest.raises(evener.TaskTimeout, match=r"0\.3 s"):
        future.result(0.3)
    gate.touch()
    with pytest.raises(evener.TaskCancelled):
        future.result(20)
    assert begun.with_name("begun.cleaned").exists()


def test_who_does_not_ask_is_interrupted_after_it(client: evener.Client, tmp_path: Path) -> None:
    pid = client.submit(app.pid).result(20)
    future, begun = begin(client, app.deaf.options(timeout=0.05), tmp_path)
    with pytest.raises(evener.TaskTimeout):
        future.result(20)
    assert begun.with_name("begun.cleaned").exists()
    assert client.submit(app.pid).result(20) == pid


def test_who_does_not_let_itself_be_interrupted_is_killed(tmp_path: Path) -> None:
    with evener.LocalCluster(app.app, workers=1) as cluster, cluster.client() as client:
        pid = client.submit(app.pid).result(20)
        future, _ = begin(client, app.stubborn, tmp_path)
        future.cancel()
        with pytest.raises(evener.TaskCancelled):
            future.result(20)
        assert client.submit(app.pid).result(20) != pid


def test_what_is_left(client: evener.Client) -> None:
    for name in ("i.times", "i.times_async"):
        assert client.submit(name).result(20) == (None, False)
        for limits in (
            evener_options.TaskOptions(timeout=60),
            evener_options.TaskOptions(deadline=60),
            evener_options.TaskOptions(timeout=60, deadline=3_600),
        ):
            left, told = client.function(name, **limits).submit().result(20)
            assert 30 < left <= 60
            assert not told


def test_a_task_that_ends_in_time_is_done(client: evener.Client, tmp_path: Path) -> None:
    future, _ = begin(client, app.in_time.options(timeout=1), tmp_path)
    assert future.result(20) == "what there was in time"


def test_no_further_item_begins_once_a_map_is_cancelled(
    client: evener.Client, tmp_path: Path
) -> None:
    results = client.map(app.items, [str(tmp_path)] * 6, range(6), chunk=3)
    assert next(results) == 0
    wait_until((tmp_path / "3").exists, 20, "the first item of the second chunk")
    results.close()
    # Its grace keeps signals away, so the chunk ends between two items.
    with pytest.raises(evener.TaskTimeout):
        client.submit(app.pid).result(0.3)
    (tmp_path / "gate").touch()
    assert client.submit(app.pid).result(20)
    assert not (tmp_path / "4").exists()


# --- Progress -------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [app.steps, app.steps_async], ids=lambda it: it.name)
def test_progress_is_heard_while_the_task_runs(
    client: evener.Client, tmp_path: Path, function: evener.Function[[list[str]], int]
) -> None:
    gates = [tmp_path / name for name in ("a", "b", "c")]
    heard: list[evener.Progress] = []
    future = client.submit(function, [*map(str, gates)])
    future.on_progress(heard.append)
    for number, gate in enumerate(gates):
        wait_for_progress(future, evener.Progress(number, 3, f"before {gate.name}"))
        shown = client.show(future)["progress"]
        assert shown == {"done": number, "total": 3, "note": f"before {gate.name}"}
        assert f"is at {number} of 3 (before {gate.name})" in client.why(future)["text"]
        gate.touch()
    assert future.result(20) == 3
    assert [progress.done for progress in heard] == [0, 1, 2]
    assert future.progress() == heard[-1]
    assert client.show(future)["progress"] is None


def test_who_says_much_is_heard_at_last(client: evener.Client) -> None:
    heard: list[evener.Progress] = []
    future = client.submit(app.chatter, 20_000)
    future.on_progress(heard.append)
    last = evener.Progress(20_000, 20_000, "all said")
    wait_until(lambda: future.progress() == last, 20, "the last thing said")
    future.cancel()
    with pytest.raises(evener.TaskCancelled):
        future.result(20)
    assert len(heard) < 1_000, "not all of it"
    assert [progress.done for progress in heard] == sorted(progress.done for progress in heard)


def test_another_attempt_begins_anew(client: evener.Client, tmp_path: Path) -> None:
    gates = [tmp_path / "a", tmp_path / "b"]
    gates[1].touch()
    future = client.submit(app.twice, [*map(str, gates)])
    wait_until(lambda: future.progress() == evener.Progress(1, 2, "a", 1), 20, "the first attempt")
    gates[0].touch()
    assert future.result(20) == "at last"


def test_what_is_no_progress_is_refused(client: evener.Client) -> None:
    text = client.submit(app.wrong).result(20)
    assert text.count("done is not a whole number") == 5
    assert text.startswith("progress(-1, None, ...)")


def test_outside_of_a_task() -> None:
    evener.progress(1, 2, "to nobody")
    assert (evener.cancelled(), evener.time_left()) == (False, None)
    code = "import evener, sys; print(evener.cancelled(), evener.time_left(), *sys.modules)"
    paths = os.pathsep.join(sys.path)
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert out[:2] == ["False", "None"]
    assert "zmq" not in out


def test_without_workers() -> None:
    with evener.LocalCluster(app.app, workers=0) as cluster, cluster.client() as client:
        assert client.submit(app.times).result() == (None, False)
        left, _ = client.submit(app.times.options(timeout=60, deadline=5)).result()
        assert left is not None
        assert 0 < left <= 5
        assert client.submit(app.in_time.options(timeout=0.3), os.devnull).result()
        future = client.submit(app.twice, [os.devnull])
        assert future.progress() == evener.Progress(1, 2, "null")
    assert evener.time_left() is None
