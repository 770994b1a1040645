"""`map`: lazily, in order, in chunks that grow, each item with its own outcome."""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from evener.client import Client
from evener.errors import TaskLost, TaskTimeout, UsageError
from evener.execution import Execution
from evener.future import Future
from evener.outputs import OutputLine
from evener.payload import decode_call
from evener.questions import Question
from evener_wire import messages as m


class Workers:
    """Workers that run a task only when its result is asked for; so what is open can be counted."""

    trusted = True

    def __init__(self, deadly: frozenset[Any] = frozenset()) -> None:
        self.execution = Execution({"t.double": double, "t.add": operator.add})
        self.open: dict[bytes, Future[Any]] = {}
        self.sizes: list[int] = []
        self.options: list[m.Options] = []
        self.cancelled = 0
        self.deadly = deadly
        self.dying_s = 0.0
        self.late: str | None = None  # the limit that every task exceeds
        self.open_max = 0

    def submit(self, future: Future[Any]) -> None:
        args, kwargs, _ = decode_call(future.item[2], True)
        self.sizes.append(len(args) if isinstance(kwargs, int) else 1)
        self.options.append(future.item[3] or m.DEFAULT_OPTIONS)
        self.open[future.item[0]] = future
        self.open_max = max(self.open_max, len(self.open))

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        task_id, name, payload, _ = future.item
        del self.open[task_id]
        args, _, _ = decode_call(payload, True)
        if self.late is not None:
            facts = {"limit": self.late, "ms": 1_000}
            Future.settle([(future, (task_id, m.TERMINAL_EXPIRED, b"", facts))])
            return True
        if not self.deadly.isdisjoint(args):
            time.sleep(self.dying_s)
            Future.settle([(future, (task_id, m.TERMINAL_LOST, b"", {"reason": "poison"}))])
            return True
        executed = self.execution.run(name, payload)
        state = m.TERMINAL_DONE if executed.outcome == m.DONE else m.TERMINAL_FAILED
        Future.settle([(future, (task_id, state, executed.payload, executed.facts))])
        return True

    def cancel(self, futures: Sequence[Future[Any]]) -> None:
        self.cancelled += len(futures)

    def cancel_ids(self, task_ids: Sequence[bytes]) -> None:
        self.cancelled += len(task_ids)

    def ask(self, question: Question, arguments: Mapping[str, Any], timeout: float | None) -> None:
        import msgpack

        question.answered(True, msgpack.packb({"rows": [{"slots": 2}, {"slots": 1}]}))

    def open_future(self, task_id: bytes) -> Future[Any] | None:
        return self.open.get(task_id)

    def try_submit(self, future: Future[Any]) -> bool:
        self.submit(future)
        return True

    def flush(self, timeout: float | None) -> bool:
        return True

    def take_values(self, task_id: bytes, fence: int, upto: int | None) -> None:
        pass

    def on_output(self, callback: Callable[[OutputLine], object] | None) -> None:
        pass

    def refuse_after_fork(self) -> None:
        pass

    durable = False

    def open_tasks(self) -> int:
        return len(self.open)

    def close(self, timeout: float) -> None:
        self.execution.close()


def double(number: int) -> int:
    if number == 13:
        raise ValueError("unlucky")
    return 2 * number


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def client(workers: Workers) -> Iterator[Client]:
    with Client.over(workers, "test") as client:
        yield client


def test_results_come_in_order(client: Client, workers: Workers) -> None:
    numbers = range(100, 3_100)
    assert list(client.map("t.double", numbers)) == [2 * n for n in numbers]
    assert sum(workers.sizes) == 3_000
    assert workers.sizes[0] == 1
    assert max(workers.sizes) > 100
    assert len(workers.sizes) < 300


def test_pulls_no_more_than_workers_can_take(client: Client, workers: Workers) -> None:
    pulled: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count(100):
            pulled.append(number)
            yield number

    results = client.map("t.double", numbers(), chunk=10)
    assert next(results) == 200
    # Three chunks for each of three workers, and one that was taken.
    assert len(pulled) == 100
    assert workers.open_max == 9
    assert list(itertools.islice(results, 5_000)) == [2 * n for n in range(101, 5_101)]
    results.close()
    assert workers.cancelled == len(workers.open)
    assert list(results) == []


def test_nothing_is_sent_before_the_first_result_is_asked_for(
    client: Client, workers: Workers
) -> None:
    client.map("t.double", range(10))
    assert workers.sizes == []


@pytest.mark.parametrize("chunk", [None, 1, 7, 100])
def test_an_error_is_raised_in_its_place_and_the_rest_goes_on(
    client: Client, chunk: int | None
) -> None:
    results = client.map("t.double", range(30), chunk=chunk)
    assert [next(results) for _ in range(13)] == [2 * n for n in range(13)]
    with pytest.raises(ValueError, match="unlucky"):
        next(results)
    assert list(results) == [2 * n for n in range(14, 30)]


def test_a_chunk_that_is_lost_goes_again_item_by_item() -> None:
    workers = Workers(deadly=frozenset({25}))
    with Client.over(workers, "test") as client:
        results = client.map("t.double", range(20, 40), chunk=10)
        assert [next(results) for _ in range(5)] == [40, 42, 44, 46, 48]
        with pytest.raises(TaskLost, match="poison"):
            next(results)
        assert list(results) == [2 * n for n in range(26, 40)]
    assert workers.sizes == [10, 10] + [1] * 10


@pytest.mark.parametrize(("may", "alone"), [(None, 2), (5, 4), (1, 1)])
def test_a_chunk_takes_down_one_worker_and_its_items_the_rest(may: int | None, alone: int) -> None:
    workers = Workers(deadly=frozenset({25}))
    options: dict[str, Any] = {} if may is None else {"max_starts": may}
    with Client.over(workers, "test") as client:
        results = client.map("t.double", range(20, 31), chunk=10, **options)
        assert [next(results) for _ in range(5)] == [40, 42, 44, 46, 48]
    starts = [taken.max_starts for taken in workers.options]
    assert starts == [1, may or m.DEFAULT_OPTIONS.max_starts] + [alone] * 10


def test_items_of_a_lost_chunk_have_what_is_left_of_its_deadline() -> None:
    workers = Workers(deadly=frozenset({25}))
    workers.dying_s = 0.05
    with Client.over(workers, "test") as client:
        results = client.map("t.double", range(20, 30), chunk=10, deadline=10, expires=5)
        assert next(results) == 40
    chunk, *alone = workers.options
    assert (chunk.deadline_ms, chunk.expires_ms) == (10_000, 5_000)
    assert {options.expires_ms for options in alone} == {0}
    assert all(5_000 < options.deadline_ms <= 9_950 for options in alone)


def test_items_of_a_lost_chunk_end_where_no_time_is_left() -> None:
    workers = Workers(deadly=frozenset({25}))
    workers.dying_s = 0.02
    with Client.over(workers, "test") as client:
        results = client.map("t.double", range(20, 30), chunk=10, deadline=0.01)
        for left in range(10, 0, -1):
            with pytest.raises(TaskTimeout, match="deadline") as caught:
                next(results)
            assert caught.value.limit == "total"
            assert operator.length_hint(results) == left - 1
        assert list(results) == []
    assert workers.sizes == [10]


@pytest.mark.parametrize("limit", ["queue", "total"])
def test_a_chunk_that_is_late_is_not_sent_again(
    client: Client, workers: Workers, limit: str
) -> None:
    workers.late = limit
    results = client.map("t.double", range(10), chunk=10, deadline=1, expires=1)
    for _ in range(10):
        with pytest.raises(TaskTimeout):
            next(results)
    assert list(results) == []
    assert workers.sizes == [10]


def test_several_iterables_go_side_by_side(client: Client, workers: Workers) -> None:
    assert list(client.map("t.add", [1, 2, 3], [10, 20, 30, 40], chunk=2)) == [11, 22, 33]
    assert list(client.map("t.add", "ab", "cd", chunk=1)) == ["ac", "bd"]
    assert workers.sizes == [2, 1, 1, 1]


@pytest.mark.parametrize("options", [{"timeout": 1}, {"at_most_once": True}, {"retries": 2}])
def test_what_is_said_of_single_calls_makes_single_calls(
    client: Client, workers: Workers, options: dict[str, Any]
) -> None:
    assert list(client.map("t.double", range(5), chunk=3, **options)) == [0, 2, 4, 6, 8]
    assert workers.sizes == [1] * 5


def test_large_items_make_small_chunks(client: Client, workers: Workers) -> None:
    items = [bytes(20_000)] * 200
    assert sum(1 for _ in client.map("t.add", items, items)) == 200
    assert max(workers.sizes) <= 8


def test_says_how_much_is_left_where_that_is_known(client: Client) -> None:
    results = client.map("t.double", range(50), chunk=10)
    assert operator.length_hint(results, -1) == 50
    assert next(results) == 0
    assert operator.length_hint(results, -1) == 49
    for _ in range(12):
        next(results)
    assert operator.length_hint(results, -1) == 37
    assert operator.length_hint(client.map("t.double", itertools.count()), -1) == -1
    assert operator.length_hint(client.map("t.add", range(5), range(3)), -1) == 3
    assert operator.length_hint(client.map("t.double", iter(range(5))), -1) == 5


def test_bad_calls_are_refused_at_once(client: Client) -> None:
    with pytest.raises(UsageError, match="at least one iterable"):
        client.map("t.double")
    with pytest.raises(UsageError, match="chunk=0"):
        client.map("t.double", [1], chunk=0)
    with pytest.raises(TypeError):
        client.map("t.double", 5)  # type: ignore[arg-type]


def test_nothing_at_all(client: Client) -> None:
    assert list(client.map("t.double", [])) == []
