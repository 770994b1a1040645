"""Limits, cancel, retries and order with real processes: what does not end by itself is ended."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import pytest

import evener
from tests.integration import fault_app as app
from tests.integration.fault_cluster import FaultCluster
from tests.support import wait_until

# A function that ends for a signal gets one after 0.1 s; all others are killed 2 s later.
STUBBORN = {"spin": False, "nap": False, "hog": True, "deaf": True}
TERMINATE_S = 0.1
KILL_S = 2.1
SLACK_S = 2.0


# --- Time -----------------------------------------------------------------------------------------


def test_run_timeout_ends_whatever_runs(cluster: FaultCluster) -> None:
    client = cluster.start(workers=4)
    started = {name: client.function(f"f.{name}", timeout=0.3).submit(name) for name in STUBBORN}
    cluster.wait_begun(*STUBBORN)
    for name, future in started.items():
        with pytest.raises(evener.TaskTimeout) as caught:
            future.result(20)
        assert caught.value.limit == "run"
        assert f"task f.{name}[" in str(caught.value)
        assert "ran longer than its timeout of 0.3 s (change: timeout=)" in str(caught.value)
    # Nothing of it is left, and all slots are back.
    cluster.wait_for_slots(client, 4)
    futures = [client.submit(app.stay, f"t{n}", "go") for n in range(4)]
    cluster.wait_begun("t0", "t1", "t2", "t3")
    cluster.release("go")
    evener.gather(*futures, timeout=20)


@pytest.mark.parametrize("name", STUBBORN)
def test_run_timeout_comes_in_time(cluster: FaultCluster, name: str) -> None:
    client = cluster.start()
    future = client.function(f"f.{name}", timeout=0.2).submit("t")
    with pytest.raises(evener.TaskTimeout):
        future.result(20)
    ended_ns = time.monotonic_ns()
    spent = (ended_ns - cluster.history.of("t")[0].began_ns) / 1e9
    allowed = 0.2 + (KILL_S if STUBBORN[name] else TERMINATE_S)
    print(f"{name}: ended {spent:.2f} s after its begin")
    assert 0.19 <= spent <= allowed + SLACK_S
    if not STUBBORN[name]:
        # It ended by an exception: its worker is still the same.
        assert client.submit(app.pid, "p").result(20) == cluster.history.of("t")[0].pid


def test_a_timeout_counts_from_the_begin_and_for_each_run(cluster: FaultCluster) -> None:
    client = cluster.start()
    first = client.submit(app.work, "first", 0.5)
    # Waits for longer than it may run.
    second = client.submit(app.work.options(timeout=0.4), "second", 0.01)
    assert (first.result(20), second.result(20)) == ("first", "second")
    with pytest.raises(evener.TaskTimeout):
        client.submit(app.nap.options(timeout=0.1, retries=2), "t").result(20)
    assert len(cluster.history.of("t")) == 3


def test_deadline_counts_from_the_submission(cluster: FaultCluster) -> None:
    client = cluster.start()
    running = client.submit(app.nap.options(deadline=0.5), "running")
    waiting = client.submit(app.work.options(deadline=0.3), "waiting")
    for future, seconds in ((waiting, 0.3), (running, 0.5)):
        with pytest.raises(evener.TaskTimeout) as caught:
            future.result(20)
        assert (caught.value.limit, caught.value.seconds) == ("total", seconds)
    assert cluster.history.order() == ["running"]
    assert client.submit(app.work, "after").result(20) == "after"


def test_expires_counts_until_the_begin(cluster: FaultCluster) -> None:
    client = cluster.start()
    holder = client.submit(app.stay, "holder", "go")
    cluster.wait_begun("holder")
    late = client.submit(app.work.options(expires=0.2), "late")
    patient = client.submit(app.work.options(expires=60), "patient")
    with pytest.raises(evener.TaskTimeout) as caught:
        late.result(20)
    assert caught.value.limit == "queue"
    cluster.release("go")
    assert (holder.result(20), patient.result(20)) == ("holder", "patient")
    # What has begun in time may run for longer than it might have waited.
    assert client.submit(app.work.options(expires=0.2), "long", 0.5).result(20) == "long"
    assert "late" not in cluster.history.begun()


def test_a_caller_that_stops_waiting_changes_nothing(cluster: FaultCluster) -> None:
    client = cluster.start()
    future = client.submit(app.stay, "t", "go")
    with pytest.raises(evener.TaskTimeout, match="did not end within its caller's timeout"):
        future.result(0.05)
    cluster.release("go")
    assert future.result(20) == "t"


# --- Cancel ---------------------------------------------------------------------------------------


def test_cancel_of_what_waits_and_of_what_runs(cluster: FaultCluster) -> None:
    client = cluster.start(workers=4)
    running = {name: client.function(f"f.{name}").submit(name) for name in STUBBORN}
    cluster.wait_begun(*STUBBORN)
    waiting = client.submit(app.work, "waiting")
    assert waiting.cancel()
    with pytest.raises(evener.TaskCancelled):
        waiting.result(20)
    began = time.monotonic()
    for future in running.values():
        assert future.cancel()
    for name, future in running.items():
        with pytest.raises(evener.TaskCancelled):
            future.result(20)
        spent = time.monotonic() - began
        assert spent <= (KILL_S if STUBBORN[name] else TERMINATE_S) + SLACK_S, name
        assert future.cancelled()
    assert "waiting" not in cluster.history.begun()
    cluster.wait_for_slots(client, 4)
    assert client.submit(app.work, "after").result(20) == "after"


def test_cancel_of_what_has_ended_is_too_late(cluster: FaultCluster) -> None:
    client = cluster.start()
    future = client.submit(app.work, "t")
    assert future.result(20) == "t"
    assert not future.cancel()
    assert future.result() == "t"


def test_cancel_at_the_moment_of_submission(cluster: FaultCluster) -> None:
    client = cluster.start()
    client.submit(app.stay, "holder", "never")
    cluster.wait_begun("holder")
    for number in range(1_000):
        future = client.submit(app.work, f"t{number}")
        assert future.cancel()
        with pytest.raises(evener.TaskCancelled):
            future.result(5)
    assert cluster.history.order() == ["holder"]


def test_cancel_of_thousands_while_they_run(cluster: FaultCluster) -> None:
    client = cluster.start(workers=2)
    futures = [client.submit(app.work, f"t{n}", 0.001) for n in range(2_000)]
    cluster.wait_begun("t10")
    client.cancel(futures)
    ended = {True: 0, False: 0}
    for future in futures:
        try:
            assert future.result(20) == f"t{futures.index(future)}"
        except evener.TaskCancelled:
            pass
        ended[future.cancelled()] += 1
    assert ended[True] > 0
    assert ended[False] > 0
    # I16: what was told as cancelled did not come to its end afterwards, and nothing goes on.
    assert len(cluster.history.begun()) < 2_000
    assert client.submit(app.work, "after").result(20) == "after"


# --- Retries --------------------------------------------------------------------------------------


def test_retries_until_it_works(cluster: FaultCluster) -> None:
    client = cluster.start()
    call = app.fail.options(retries=3, retry_delay=0.02)
    assert client.submit(call, "t", 2).result(20) == 3
    assert len(cluster.history.of("t")) == 3


def test_retries_are_bounded_and_the_last_failure_is_told(cluster: FaultCluster) -> None:
    client = cluster.start()
    with pytest.raises(ValueError, match="run 3 of t") as caught:
        client.submit(app.fail.options(retries=2, retry_delay=0.02), "t", 9).result(20)
    assert any("attempt 3/3" in note for note in caught.value.__notes__)
    with pytest.raises(ValueError, match="run 1 of u"):
        client.submit(app.fail.options(retries=2, retry_on=KeyError), "u", 9).result(20)
    with pytest.raises(ValueError, match="run 1 of v"):
        client.submit(app.fail.options(retries=2, at_most_once=True), "v", 9).result(20)


# --- Order ----------------------------------------------------------------------------------------


def test_priorities_first_then_first_in_first_out(cluster: FaultCluster) -> None:
    client = cluster.start()
    holder = client.submit(app.stay, "holder", "go")
    cluster.wait_begun("holder")
    futures = [
        client.submit(app.work.options(priority=priority), f"p{priority}-{n}")
        for n in range(5)
        for priority in (0, 9, 5)
    ]
    wait_until(lambda: client.query("ls", kind="queues")["rows"][0]["waiting"] == 15, 5)
    cluster.release("go")
    evener.gather(holder, *futures, timeout=20)
    wanted = [f"p{priority}-{n}" for priority in (9, 5, 0) for n in range(5)]
    assert cluster.history.order() == ["holder", *wanted]


def test_clients_take_turns(cluster: FaultCluster) -> None:
    client = cluster.start()
    small = cluster.client()
    holder = client.submit(app.stay, "holder", "go")
    cluster.wait_begun("holder")
    flood = [client.submit(app.work, f"flood{n}") for n in range(200)]
    few = [small.submit(app.work, f"few{n}") for n in range(5)]
    wait_until(lambda: client.query("ls", kind="queues")["rows"][0]["waiting"] == 205, 5)
    cluster.release("go")
    evener.gather(holder, *flood, *few, timeout=20)
    order = cluster.history.order()
    assert max(order.index(f"few{n}") for n in range(5)) <= 12


# --- What cannot be taken, or run -----------------------------------------------------------------

SMALL_BROKER = """
import json, sys
from evener_wire import limits
limits.CLIENT_TASKS_MAX = 5
from evener_broker.server import BrokerConfig, serve
sys.exit(serve(BrokerConfig(**json.loads(sys.argv[1]))))
"""


def test_queue_full_is_raised_or_waited_for(cluster: FaultCluster) -> None:
    cluster.processes.start(sys.executable, "-c", SMALL_BROKER, f'{{"port": {cluster.port}}}')
    cluster.start_agent()
    refused = cluster.client(queue_full="raise")
    futures = [refused.submit(app.stay, f"r{n}", "go") for n in range(5)]
    with pytest.raises(evener.QueueFull):
        refused.submit(app.work, "r5").result(20)
    # The bound is each client's own, and another one waits for room.
    patient = cluster.client()
    others: list[evener.Future[str]] = [patient.submit(app.work, f"p{n}") for n in range(5)]
    cluster.release("go")
    others += [patient.submit(app.work, f"p{n}") for n in range(5, 50)]
    assert evener.gather(*futures, timeout=20) == [f"r{n}" for n in range(5)]
    assert evener.gather(*others, timeout=20) == [f"p{n}" for n in range(50)]
    assert refused.submit(app.work, "again").result(20) == "again"


def test_an_unknown_function_names_the_closest(cluster: FaultCluster) -> None:
    client = cluster.start()
    with pytest.raises(evener.UnknownFunction) as caught:
        client.submit("f.wrok", "t").result(20)
    assert 'no worker knows "f.wrok". Closest: f.work' in str(caught.value)
    assert "Known on 1 worker: " in str(caught.value)
    assert "Did you restart the workers after adding it?" in str(caught.value)
    assert client.submit(app.work, "after").result(20) == "after"


@pytest.mark.slow
def test_a_queue_that_nobody_serves_is_told_once_to_each(
    cluster: FaultCluster, caplog: pytest.LogCaptureFixture
) -> None:
    client = cluster.start()
    caplog.set_level(logging.WARNING)
    text = 'wait for queue "gpu" but no connected worker serves it (workers serve: default)'
    call = app.work.options(queue="gpu")
    futures: list[evener.Future[Any]] = [client.submit(call, f"t{n}") for n in range(120)]
    wait_until(lambda: caplog.text.count(text) == 1, 10, "the warning")
    assert f"120 tasks {text}" in caplog.text
    status = client.query("status")
    assert status["unserved"][0]["name"] == "gpu"
    other = cluster.client()
    futures.append(other.submit(call, "other"))
    wait_until(lambda: caplog.text.count(text) == 2, 10, "the warning to the other client")
    assert caplog.text.count("120 tasks wait") == 1
    assert client.submit(app.work, "served").result(20) == "served"
    cluster.start_agent(queues=["gpu"])
    assert len(evener.gather(*futures, timeout=20)) == 121
    assert caplog.text.count(text) == 2
