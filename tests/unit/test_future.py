"""Futures: cheap, and yet what `concurrent.futures` and asyncio expect."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from evener.errors import (
    QueueFull,
    StreamBroken,
    TaskCancelled,
    TaskLost,
    TaskRejected,
    TaskTimeout,
    UnknownFunction,
)
from evener.failure import Place, encode_failure
from evener.future import Future, rejection_error
from evener.payload import encode_value
from evener.reporting import Progress
from evener.session_records import TerminalItem
from evener_wire import messages as m

TASK_ID = bytes.fromhex("7f3a12bc") + bytes(12)


class Holder:
    """What a future belongs to, with nobody behind it."""

    trusted = True

    def __init__(self) -> None:
        self.cancelled: list[Future[Any]] = []

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        future.wait_until_done(timeout)
        return future.done()

    def cancel(self, futures: Sequence[Future[Any]]) -> None:
        self.cancelled += futures

    def take_values(self, task_id: bytes, fence: int, upto: int | None) -> None:
        pass

    def refuse_after_fork(self) -> None:
        pass


def pending(holder: Holder | None = None, payload: bytes = b"p") -> Future[Any]:
    return Future(holder or Holder(), (TASK_ID, "demo.add", payload, None))


def end(future: Future[Any], state: int, payload: m.Payload = b"", **facts: Any) -> None:
    """As the client's thread does it."""
    item: TerminalItem = (future.item[0], state, payload, facts or None)
    for observed in Future.settle([(future, item)]):
        observed.run_callbacks()


def finish(future: Future[Any], value: object = 3) -> None:
    end(future, m.TERMINAL_DONE, encode_value(value))


# --- One task -------------------------------------------------------------------------------------


def test_gives_the_value_and_keeps_it() -> None:
    future = pending()
    assert not future.done()
    assert repr(future) == "<Future demo.add[7f3a12bc] pending>"
    finish(future, [1, (2, {3})])
    assert future.done()
    assert not future.cancelled()
    assert future.result() == [1, (2, {3})]
    assert future.result() is future.result()
    assert future.exception() is None
    assert repr(future) == "<Future demo.add[7f3a12bc] done>"
    assert future.task_id == TASK_ID.hex()


def test_raises_what_the_function_raised_with_its_place() -> None:
    future = pending()
    payload, facts = encode_failure(ValueError("bad"), Place("node-7", 41, "node-7:3"), 1_200_000)
    end(future, m.TERMINAL_FAILED, payload, **facts, attempt=2, attempts=3)
    assert repr(future) == "<Future demo.add[7f3a12bc] failed>"
    with pytest.raises(ValueError, match="bad") as raised:
        future.result()
    assert "task demo.add[7f3a12bc], attempt 2/3" in raised.value.__notes__[0]
    assert future.exception() is raised.value


@pytest.mark.parametrize(
    ("state", "facts", "kind", "text"),
    [
        (m.TERMINAL_EXPIRED, {"limit": "run", "ms": 1500}, TaskTimeout, "1.5 s"),
        (m.TERMINAL_EXPIRED, {"limit": "queue", "ms": 10}, TaskTimeout, "expires="),
        (m.TERMINAL_LOST, {"reason": "poison", "starts": 3}, TaskLost, "poison"),
        (m.TERMINAL_LOST, {}, TaskLost, "unknown"),
        (m.TERMINAL_FAILED, {"reason": "unknown_function"}, UnknownFunction, "demo.add"),
        (
            m.TERMINAL_FAILED,
            {"reason": "unknown_function", "closest": ["demo.bad"], "workers": 1, "functions": 2},
            UnknownFunction,
            r"Closest: demo\.bad\. Known on 1 worker: 2 functions",
        ),
        (
            m.TERMINAL_FAILED,
            {"reason": "unknown_function", "closest": 5, "workers": "x"},
            UnknownFunction,
            "demo.add",
        ),
    ],
)
def test_names_every_other_end(
    state: int, facts: dict[str, Any], kind: type[Exception], text: str
) -> None:
    future = pending()
    end(future, state, **facts)
    with pytest.raises(kind, match=text):
        future.result()


def test_a_payload_that_cannot_be_read_is_an_error_of_that_task_alone() -> None:
    future = pending()
    end(future, m.TERMINAL_DONE, b"\xc1")
    assert isinstance(future.exception(), Exception)


def test_waiting_has_an_end_and_the_task_has_none() -> None:
    future = pending()
    with pytest.raises(TaskTimeout, match=r"demo.add\[7f3a12bc\]") as raised:
        future.result(timeout=0.001)
    assert isinstance(raised.value, TimeoutError)
    assert raised.value.limit == "client"
    with pytest.raises(TimeoutError):
        future.exception(timeout=0)
    finish(future)
    assert future.result(timeout=0) == 3


def test_ends_once() -> None:
    future = pending()
    finish(future, 1)
    end(future, m.TERMINAL_CANCELLED)
    assert future.result() == 1
    assert not future.cancelled()


def test_large_arguments_are_let_go_with_the_end() -> None:
    small, large = pending(), pending(payload=bytes(10_000))
    finish(small)
    finish(large)
    assert small.item[2] == b"p"
    assert large.item[2] == b""
    assert large.label == "demo.add[7f3a12bc]"


# --- Cancel ---------------------------------------------------------------------------------------


def test_cancel_asks_and_the_broker_decides() -> None:
    holder = Holder()
    future = pending(holder)
    assert future.cancel()
    assert holder.cancelled == [future]
    assert not future.done()
    end(future, m.TERMINAL_CANCELLED)
    assert future.cancelled()
    assert future.cancel()
    for ask in (future.result, future.exception):
        with pytest.raises(TaskCancelled, match="7f3a12bc") as raised:
            ask()
        assert isinstance(raised.value, concurrent.futures.CancelledError)


def test_cancel_of_what_has_ended_says_no() -> None:
    holder = Holder()
    future = pending(holder)
    finish(future)
    assert not future.cancel()
    assert holder.cancelled == []


# --- As the standard library sees it --------------------------------------------------------------


def test_callbacks_run_once_in_order_also_when_added_late() -> None:
    future = pending()
    seen: list[str] = []
    future.add_done_callback(lambda f: seen.append(f"first {f.result()}"))
    future.add_done_callback(lambda f: seen.append("second"))
    finish(future)
    future.add_done_callback(lambda f: seen.append("late"))
    assert seen == ["first 3", "second", "late"]


def test_wait_and_as_completed() -> None:
    futures = [pending() for _ in range(4)]
    finish(futures[0], 0)
    done, waiting = concurrent.futures.wait(futures, timeout=0)
    assert (done, len(waiting)) == ({futures[0]}, 3)

    def end_the_rest() -> None:
        finish(futures[2], 2)
        end(futures[1], m.TERMINAL_CANCELLED)
        payload, _ = encode_failure(ValueError("x"), Place(), None)
        end(futures[3], m.TERMINAL_FAILED, payload)

    thread = threading.Thread(target=end_the_rest)
    thread.start()
    assert set(concurrent.futures.as_completed(futures, timeout=10)) == set(futures)
    thread.join()
    assert concurrent.futures.wait(futures, timeout=0).not_done == set()
    first = concurrent.futures.wait(
        [*futures, pending()], return_when=concurrent.futures.FIRST_EXCEPTION
    )
    assert len(first.done) == 4


def test_can_be_awaited() -> None:
    async def use() -> tuple[Any, bool]:
        loop = asyncio.get_running_loop()
        future, doomed = pending(), pending()
        loop.run_in_executor(None, finish, future, 7)
        loop.run_in_executor(None, end, doomed, m.TERMINAL_CANCELLED)
        value = await future
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wrap_future(doomed)
        return value, doomed.cancelled()

    assert asyncio.run(use()) == (7, True)


def test_no_waiter_misses_the_end_whichever_comes_first() -> None:
    """Both orders of `settle` and of making the condition, many times over."""
    for _ in range(300):
        future = pending()
        barrier = threading.Barrier(3)
        seen: list[int] = []

        def wait(future: Future[Any] = future, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            concurrent.futures.wait([future], timeout=10)
            assert future.done()

        def add(
            future: Future[Any] = future,
            barrier: threading.Barrier = barrier,
            seen: list[int] = seen,
        ) -> None:
            barrier.wait()
            future.add_done_callback(lambda f: seen.append(f.result()))

        threads = [threading.Thread(target=wait), threading.Thread(target=add)]
        for thread in threads:
            thread.start()
        barrier.wait()
        finish(future)
        for thread in threads:
            thread.join()
        assert seen == [3]


# --- Rejections -----------------------------------------------------------------------------------


def test_rejections_are_told_by_their_own_classes() -> None:
    facts = {"closest": ("demo.add", "demo.bad"), "workers": 4, "functions": 3}
    unknown = rejection_error("demo.ad", "unknown_function", "in other words", facts)
    assert isinstance(unknown, UnknownFunction)
    assert unknown.closest == ("demo.add", "demo.bad")
    assert (unknown.workers, unknown.functions) == (4, 3)
    assert str(unknown) == (
        'no worker knows "demo.ad". Closest: demo.add, demo.bad. Known on 4 workers: 3 functions '
        "(evener ls functions). Did you restart the workers after adding it?"
    )
    for nothing in (None, {}, {"closest": "demo.add", "workers": "4"}):
        bare = rejection_error("f", "unknown_function", "else", nothing)
        assert isinstance(bare, UnknownFunction)
        assert (bare.closest, bare.workers, bare.functions) == ((), 0, 0)
    assert isinstance(rejection_error("f", "queue_full", "full", None), QueueFull)
    conflict = rejection_error("f", "conflict", "another task has this id", None)
    assert isinstance(conflict, TaskRejected)
    assert conflict.code == "conflict"


# --- Progress -------------------------------------------------------------------------------------


def test_progress_is_the_last_thing_said() -> None:
    future = pending()
    assert future.progress() is None
    assert not future.reported(Progress(1, 4, "one"))
    assert not future.reported(Progress(2, 4, "two", attempt=2))
    assert future.progress() == Progress(2, 4, "two", 2)
    finish(future)
    assert future.progress() == Progress(2, 4, "two", 2)


def test_callbacks_hear_the_last_thing_said_and_before_the_end() -> None:
    future = pending()
    heard: list[object] = []
    future.reported(Progress(1))
    future.on_progress(heard.append)
    assert heard == [Progress(1)], "what is known already"
    future.add_done_callback(heard.append)
    assert future.reported(Progress(2)), "callbacks are due"
    assert not future.reported(Progress(3)), "and were due before"
    (observed,) = Future.settle([(future, (TASK_ID, m.TERMINAL_DONE, encode_value(3), None))])
    future.run_callbacks()
    assert heard == [Progress(1), Progress(3)]
    observed.run_callbacks()
    assert heard == [Progress(1), Progress(3), future]


def test_a_callback_that_raises_is_logged_and_hides_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    future = pending()
    heard: list[Progress] = []

    def fail(progress: Progress) -> None:
        raise ValueError("mine")

    future.on_progress(fail)
    future.on_progress(heard.append)
    assert future.reported(Progress(1))
    future.run_callbacks()
    assert heard == [Progress(1)]
    assert "a callback of on_progress raised" in caplog.text


@pytest.mark.parametrize(
    ("progress", "fraction", "text"),
    [
        (Progress(3), None, "3"),
        (Progress(1_250, 5_000, "page 7"), 0.25, "1,250 of 5,000: page 7"),
        (Progress(0.5, 1), 0.5, "0.5 of 1"),
        (Progress(7, 5), 1.0, "7 of 5"),
        (Progress(0, 0), 1.0, "0 of 0"),
        (Progress(1, None, "a\x1b[2Jb"), None, "1: a?[2Jb"),
    ],
)
def test_progress_in_words(progress: Progress, fraction: float | None, text: str) -> None:
    assert (progress.fraction, str(progress)) == (fraction, text)


@pytest.mark.parametrize("first", [True, False])
def test_a_stream_whose_rest_was_dropped_says_so_after_what_came(first: bool) -> None:
    future = pending()
    stream = future.stream(5)
    future.valued(7, encode_value("a"))
    end(future, m.TERMINAL_DONE, encode_value(3), values_dropped=True)
    if first:
        assert future.result() == 3
    assert next(stream) == "a"
    with pytest.raises(StreamBroken, match=r"demo.add\[7f3a12bc\] were dropped while"):
        next(stream)
    assert future.result() == 3
