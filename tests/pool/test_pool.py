"""`WorkerPool` with real processes."""

from __future__ import annotations

import os
import queue
import re
import resource
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import evener
from evener import NotSendable, UsageError
from evener_worker import (
    PoolError,
    PoolFull,
    RequestTimeout,
    WorkerDied,
    WorkerHandle,
    WorkerPool,
    WorkerStartError,
)
from tests.pool.workers import Configured, Jack, numbered
from tests.support import take_traces


@contextmanager
def all_descriptors_taken_but(spare: int) -> Iterator[None]:
    """This process can open no more than so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(spare):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- Work -----------------------------------------------------------------------------------------


def test_items_come_back_and_the_right_ones(pool: WorkerPool[Any, Any]) -> None:
    futures = [pool.submit(["echo", number]) for number in range(100)]
    assert [future.result(10) for future in futures] == [*range(100)]
    pids = {pool.execute(["pid", None]) for _ in range(20)}
    assert pids == {handle.pid for handle in pool}


def test_hundred_threads_get_each_their_own_answer(pool: WorkerPool[Any, Any]) -> None:
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        handle = pool[number % 2 + 1]
        answers[number] = [handle.execute(["echo", number]), handle.request(number)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [number, ["heard", number]] for number in range(100)}


def test_any_value_travels_and_large_ones_whole(pool: WorkerPool[Any, Any]) -> None:
    for value in ({"a": (1, {2})}, os.urandom(3_000_000), range(3), None):
        assert pool.execute(["echo", value]) == value


def test_what_run_raises_is_raised_here_with_its_traceback(pool: WorkerPool[Any, Any]) -> None:
    with pytest.raises(ValueError, match="thirteen") as caught:
        pool.execute(["fail", "thirteen"])
    trace = str(caught.value.__cause__)
    assert "in fail" in trace
    assert "evener_worker" not in trace
    with pytest.raises(evener.RemoteError, match="SystemExit"):
        pool.execute(["exit", 3])
    assert [handle.active for handle in pool] == [True, True]


def test_what_cannot_travel_is_named(pool: WorkerPool[Any, Any]) -> None:
    with pytest.raises(NotSendable, match=r"cannot send an item to worker 1: _thread.lock is not"):
        pool[1].execute(threading.Lock())
    with pytest.raises(NotSendable, match=r"the result of Jack\.run"):
        pool.execute(["lock", None])


def test_a_timeout_ends_the_wait_and_the_worker_goes_on(pool: WorkerPool[Any, Any]) -> None:
    handle = pool[1]
    with pytest.raises(RequestTimeout, match=r"no answer to the item to worker 1 within 0.1 s"):
        handle.execute(["sleep", 0.3], timeout=0.1)
    with pytest.raises(TimeoutError):
        handle.request("too soon", timeout=0.01)
    assert handle.execute(["echo", 1], timeout=10) == 1


def test_a_future_that_is_cancelled_is_not_run(pool: WorkerPool[Any, Any], gate: Path) -> None:
    handle = pool[1]
    busy = handle.submit(["wait_for", gate])
    waiting = handle.submit(["leave", 9])
    assert waiting.cancel()
    with pytest.raises(CancelledError):
        waiting.result()
    gate.touch()
    assert busy.result(10) is None
    assert wait([busy]).done == {busy}
    assert handle.execute(["echo", 2]) == 2


def test_a_plain_method_can_ask_whether_anybody_waits(pool: WorkerPool[Any, Any]) -> None:
    handle = pool[1]
    future = handle.submit(["until_cancelled", None], timeout=0.1)
    assert handle.execute(["tell", "gave_up"]) is True
    assert isinstance(future.exception(), RequestTimeout)


def test_a_callback_may_submit_and_must_not_wait(pool: WorkerPool[Any, Any], gate: Path) -> None:
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def on_done(future: Future[Any]) -> None:
        seen.put(pool.submit(["echo", [future.result()]]))
        with pytest.raises(UsageError, match=r"only submit\(\) and cancel\(\)"):
            pool[1].request("hello")
        seen.put("refused")

    pool.submit(["wait_for", gate]).add_done_callback(on_done)
    gate.touch()  # not before: a callback that comes late is called here, which may wait
    assert seen.get(timeout=10).result(10) == [None]
    assert seen.get(timeout=10) == "refused"


# --- Messages -------------------------------------------------------------------------------------


def test_messages_and_requests_both_ways(pool: WorkerPool[Any, Any]) -> None:
    handle = pool[2]
    handle.send("one")
    assert handle.request("two") == ["heard", "two"]
    assert handle.execute(["tell", "heard"]) == ["start", "one", "two"]
    assert handle.execute(["ask", "who"]) == [2, "who"]


def test_a_request_that_the_program_refuses() -> None:
    def refuse(handle: WorkerHandle[Any, Any], message: Any) -> Any:
        raise KeyError(message)

    with WorkerPool(Jack, 1, on_request=refuse) as pool, pytest.raises(KeyError, match="what"):
        pool.execute(["ask", "what"])
    with WorkerPool(Jack, 1) as pool, pytest.raises(PoolError, match="takes no requests"):
        pool.execute(["ask", "what"])


def test_who_sends_more_than_fits_waits_or_is_told(gate: Path) -> None:
    with WorkerPool(Jack, 1, calls_max=2) as pool:
        busy = [pool[1].submit(["wait_for", gate]) for _ in range(2)]
        with pytest.raises(PoolFull, match="2 calls"):
            pool[1].submit(["echo", 1], block=False)
        with pytest.raises(PoolFull):
            pool[1].send("now", timeout=0)
        with pytest.raises(PoolFull, match=r"within 0.05 s"):
            pool[1].send("soon", timeout=0.05)
        sending = threading.Thread(target=pool[1].send, args=("later",))
        sending.start()
        gate.touch()
        sending.join()
        assert busy[0].done()


# --- Processes ------------------------------------------------------------------------------------


def test_a_process_that_ends_is_told_and_replaced(pool: WorkerPool[Any, Any]) -> None:
    handle = pool[1]
    before = handle.pid
    waiting = [handle.submit(["leave", 3]), handle.submit(["pid", None])]
    with pytest.raises(WorkerDied, match="worker 1 ended with exit code 3") as caught:
        waiting[0].result(10)
    assert caught.value.exit_code == 3
    assert caught.value.lines == ("leaving with 3",)
    assert waiting[1].result(10) not in (before, 0)


def test_restart_replace_and_kill(pool: WorkerPool[Any, Any], tmp_path: Path) -> None:
    handle = pool[1]
    pids = [handle.pid]
    running = handle.submit(["sleep", 0.1])
    handle.restart()
    assert running.result(0) == 0.1
    pids.append(handle.pid)
    running = handle.submit(["wait_for", str(tmp_path / "go")])
    assert pool.replace(1).pid == handle.pid
    assert not running.done()  # the old process still works, and the new one is here
    pids.append(handle.execute(["pid", None]))
    (tmp_path / "go").touch()
    assert running.result(10) is None
    handle.kill()
    assert (handle.state, handle.pid, handle.active) == ("stopped", 0, False)
    with pytest.raises(PoolError, match=r"worker 1 is stopped; restart\(\) starts it again"):
        handle.request("hello")
    handle.destroy()
    handle.init()
    assert handle.active
    assert len({*pids, handle.pid}) == 4


def test_kill_from_outside(pool: WorkerPool[Any, Any]) -> None:
    running = pool[2].submit(["sleep", 60])
    os.kill(pool[2].pid, signal.SIGTERM)
    with pytest.raises(WorkerDied, match="died by SIGTERM"):
        running.result(10)
    pool[2].init(10)


def test_a_crash_is_told_with_what_was_said_before_it(pool: WorkerPool[Any, Any]) -> None:
    with pytest.raises(WorkerDied, match="died by SIGSEGV") as caught:
        pool[1].execute(["crash", 30])
    assert re.search(
        r"about to crash\n  Fatal Python error: Segmentation fault\n  Current thread .*\n"
        r".*string_at\n.*workers\.py., line \d+ in crash\n",
        str(caught.value),
    )


@pytest.mark.parametrize("spare", [0, 1, 4, 7])
def test_without_descriptors_no_process_starts_and_none_is_lost(
    pool: WorkerPool[Any, Any], spare: int
) -> None:
    handle = pool[1]
    handle.kill()
    before = take_traces().descriptors
    with all_descriptors_taken_but(spare):
        with pytest.raises(WorkerStartError, match=r"could not be started: .*Too many open files"):
            handle.init()
        handle.kill()
    assert take_traces().descriptors == before
    handle.init()
    assert handle.execute(["echo", 1]) == 1


def test_a_factory_is_called_with_the_id() -> None:
    with WorkerPool(numbered, 2) as pool:
        assert [handle.execute(["tell", "number"]) for handle in pool] == [101, 102]
        assert [handle.execute(["tell", "id"]) for handle in pool] == [1, 2]


def test_a_new_process_asks_for_its_configuration() -> None:
    configuration = {"version": 1}
    with WorkerPool(Configured, 2, on_request=lambda _, name: configuration[name]) as pool:
        assert [handle.execute(0) for handle in pool] == [1, 1]
        configuration["version"] = 2
        pool[1].restart(20)
        pool[2].replace(20)
        assert [handle.execute(0) for handle in pool] == [2, 2]


def test_each_is_an_interpreter_of_its_own() -> None:
    with WorkerPool(Jack, 1, environment={"COLOUR": "red"}) as pool:
        assert pool.execute(["module", "pytest"]) is False
        assert pool.execute(["environment", "COLOUR"]) == "red"
        assert pool.execute(["environment", "EVENER_WORKER_ID"]) == "1"
