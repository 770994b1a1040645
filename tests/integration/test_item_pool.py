"""A pool that is fed from sources, with workers that are threads of the test: blocking callers."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from evener.errors import TaskTimeout, UsageError
from evener_worker import ItemPool, PoolBroken, PoolClosed, PushSource, WorkerStartError
from tests.support import wait_until


class Doubler:
    """A worker: `work(item)` is what it does. What a list of items says breaks it."""

    made: list[Doubler]

    def __init__(self, number: int, work: Callable[[Any], Any], breaks: list[Any]) -> None:
        self.id = number
        self.active = False
        self.destroyed = threading.Event()
        self._work = work
        self._breaks = breaks

    def init(self) -> None:
        self.active = True

    def execute(self, item: Any) -> Any:
        if item in self._breaks:
            self.active = False
            raise OSError(f"worker {self.id} broke of {item}")
        return self._work(item)

    def destroy(self) -> None:
        self.active = False
        self.destroyed.set()


class Factory:
    """Makes workers, and remembers them."""

    def __init__(
        self, work: Callable[[Any], Any] = lambda item: 2 * item, breaks: tuple[Any, ...] = ()
    ) -> None:
        self.made: list[Doubler] = []
        self._work = work
        self._breaks = list(breaks)

    def __call__(self, number: int) -> Doubler:
        worker = Doubler(number, self._work, self._breaks)
        self.made.append(worker)
        return worker


def test_a_hundred_items_at_once() -> None:
    together = threading.Barrier(100)
    with ItemPool(Factory(lambda item: (together.wait(60), 2 * item)[1]), 100) as pool:
        outcomes = list(pool.process(range(100)))
    assert {outcome.item: outcome.result() for outcome in outcomes} == {
        n: 2 * n for n in range(100)
    }


def numbers() -> Iterator[int]:
    yield from range(20)


async def later_numbers() -> AsyncIterator[int]:
    for number in range(20):
        await asyncio.sleep(0)
        yield number


class Indexed:
    """What could be iterated before there was `__iter__`."""

    def __getitem__(self, index: int) -> int:
        if index < 20:
            return index
        raise IndexError


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("source", [lambda: list(range(20)), numbers, later_numbers, Indexed])
def test_any_source(source: Callable[[], Any], ordered: bool) -> None:
    with ItemPool(Factory(), 3) as pool:
        for _ in range(2):  # the workers stay for the next one
            values = [outcome.result() for outcome in pool.process(source(), ordered=ordered)]
            assert values if ordered else sorted(values) == [2 * n for n in range(20)]


def test_an_endless_source_is_pulled_only_as_far_as_somebody_takes() -> None:
    pulled: list[int] = []

    def endless() -> Iterator[int]:
        for number in itertools.count():
            pulled.append(number)
            yield number

    with ItemPool(Factory(), 2) as pool:
        results = pool.process(endless(), ahead=3)
        for _ in range(10):
            next(results)
        wait_until(lambda: len(pulled) == 15, why="10 that were taken, 2 workers, 3 ahead")
        wait_until(lambda: "5 items open" in repr(pool))
        results.close()
    assert len(pulled) == 15


def test_order_bounds_what_is_pulled_ahead_of_a_slow_item() -> None:
    slow = threading.Event()
    pulled = itertools.count()

    def work(item: int) -> int:
        if item == 0:
            slow.wait(60)
        return item

    with ItemPool(Factory(work), 2) as pool:
        results = pool.process(pulled, ordered=True, ahead=4)
        first = threading.Thread(target=lambda: next(results))
        first.start()
        wait_until(lambda: "6 items open" in repr(pool))
        slow.set()
        first.join(60)
        assert [next(results).result() for _ in range(5)] == [1, 2, 3, 4, 5]
        results.close()


def test_a_source_that_is_filled_while_the_pool_runs() -> None:
    source: PushSource[int] = PushSource(2)
    with ItemPool(Factory(), 2) as pool:
        results = pool.process(source, ordered=True)
        filling = threading.Thread(target=lambda: [source.put(n) for n in range(50)])  # type: ignore[func-returns-value]
        filling.start()
        assert [next(results).result() for _ in range(50)] == [2 * n for n in range(50)]
        filling.join(60)
        source.put(50)
        assert next(results).result() == 100
        source.close()
        assert list(results) == []


def test_what_was_put_and_not_begun_is_there_for_the_next_one() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(item: int) -> int:
        begun.set()
        go_on.wait(60)
        return item

    source: PushSource[int] = PushSource()
    for number in range(5):
        source.put(number)
    with ItemPool(Factory(work), 1) as pool:
        results = pool.process(source, ahead=0)
        taking = threading.Thread(target=lambda: next(results))
        taking.start()
        assert begun.wait(60)
        go_on.set()
        taking.join(60)
        results.close()
        source.close()
        # 0 was taken; 1 may have been begun when the generator was closed.
        items = [outcome.item for outcome in pool.process(source)]
        assert items in ([1, 2, 3, 4], [2, 3, 4])


def test_errors_of_items_and_of_workers() -> None:
    def work(item: int) -> float:
        return 1 / item

    factory = Factory(work, breaks=(7,))
    with ItemPool(factory, 2) as pool:
        outcomes = {o.item: o for o in pool.process([1, 0, 7, 2], retries=1)}
        assert outcomes[2].result() == 0.5
        assert isinstance(outcomes[0].error, ZeroDivisionError)
        assert outcomes[0].tries == 1
        with pytest.raises(OSError, match="broke of 7"):
            outcomes[7].result()
        assert outcomes[7].tries == 2
        assert not outcomes[7].ok
    broken = [worker for worker in factory.made if worker.destroyed.is_set()]
    assert len(broken) == len(factory.made) >= 3


def test_a_worker_found_dead_is_replaced() -> None:
    factory = Factory()
    with ItemPool(factory, 1) as pool:
        assert [o.result() for o in pool.process([1])] == [2]
        factory.made[0].active = False  # it died while nobody looked
        (outcome,) = pool.process([2], retries=0)
        assert outcome.result() == 4
        assert outcome.tries == 1
    assert len(factory.made) == 2


def test_an_item_that_takes_too_long() -> None:
    factory: Factory
    hangs = threading.Event()

    def work(item: int) -> int:
        if item == 1:
            hangs.wait(60)
        return item

    factory = Factory(work)
    with ItemPool(factory, 1) as pool:
        outcomes = list(pool.process(range(3), timeout=0.05))
    hangs.set()
    assert isinstance(outcomes[1].error, TaskTimeout)
    assert [outcome.item for outcome in outcomes if outcome.ok] == [0, 2]
    assert factory.made[0].destroyed.is_set()


def test_what_the_source_raises_comes_after_all_outcomes() -> None:
    closed: list[str] = []

    def broken() -> Iterator[int]:
        try:
            yield 1
            raise LookupError("no more")
        finally:
            closed.append("closed")

    results: list[int] = []

    with ItemPool(Factory(), 1) as pool:
        with pytest.raises(LookupError, match="no more"):
            results.extend(outcome.result() for outcome in pool.process(broken()))
        assert results == [2]
        assert closed == ["closed"]
        assert [o.item for o in pool.process([5])] == [5]


def test_an_iterator_that_the_pool_made_is_closed_by_the_pool() -> None:
    closed = threading.Event()

    class Numbers:
        def __iter__(self) -> Iterator[int]:
            try:
                yield from itertools.count()
            finally:
                closed.set()

    own = iter(Numbers())
    with ItemPool(Factory(), 1) as pool:
        for source in (own, Numbers()):
            assert not closed.is_set()
            results = pool.process(source)
            next(results)
            results.close()
        assert closed.wait(60)
    # That of the caller goes on.
    assert next(own) > 0


def test_an_early_end_destroys_what_runs() -> None:
    begun, hangs = threading.Event(), threading.Event()

    def work(item: int) -> int:
        if item:
            begun.set()
            hangs.wait(60)
        return item

    factory = Factory(work)
    with ItemPool(factory, 1) as pool:
        for outcome in pool.process(range(9)):
            assert outcome.item == 0
            assert begun.wait(60)
            break
        assert factory.made[0].destroyed.is_set()
        assert [o.item for o in pool.process([0])] == [0]
    hangs.set()


def test_workers_that_cannot_start() -> None:
    class Broken(Doubler):
        def init(self) -> None:
            raise FileNotFoundError("no such model")

    with ItemPool(lambda number: Broken(number, str, []), 1) as pool:
        with pytest.raises(PoolBroken, match="FileNotFoundError: no such model") as caught:
            list(pool.process([1]))
        assert isinstance(caught.value.__cause__, FileNotFoundError)

    class Lazy(Doubler):
        def init(self) -> None:
            pass

    with ItemPool(lambda number: Lazy(number, str, []), 1) as pool:
        with pytest.raises(PoolBroken, match="not active after init") as caught:
            list(pool.process([1]))
        assert isinstance(caught.value.__cause__, WorkerStartError)


def test_shutdown_from_another_thread_ends_who_iterates() -> None:
    begun, hangs = threading.Event(), threading.Event()

    def work(_: int) -> None:
        begun.set()
        hangs.wait(60)

    pool = ItemPool(Factory(work), 1)
    errors: list[BaseException] = []

    def iterate() -> None:
        try:
            list(pool.process([1]))
        except PoolClosed as error:
            errors.append(error)

    iterating = threading.Thread(target=iterate)
    iterating.start()
    assert begun.wait(60)
    pool.shutdown(timeout=60)
    iterating.join(60)
    hangs.set()
    assert len(errors) == 1
    pool.shutdown()
    with pytest.raises(PoolClosed):
        list(pool.process([1]))
    assert repr(pool) == "<ItemPool of 1: closed>"


def test_a_worker_that_was_still_being_made_is_destroyed_then() -> None:
    making, go_on = threading.Event(), threading.Event()
    inits: list[int] = []

    class Counted(Doubler):
        def init(self) -> None:
            inits.append(1)

    made: list[Counted] = []

    def factory(number: int) -> Counted:
        making.set()
        go_on.wait(60)
        made.append(Counted(number, str, []))
        return made[0]

    pool = ItemPool(factory, 1)

    def iterate() -> None:
        with pytest.raises(PoolClosed):
            next(pool.process([1]))

    iterating = threading.Thread(target=iterate)
    iterating.start()
    assert making.wait(60)
    pool.shutdown(timeout=60)
    iterating.join(60)
    go_on.set()
    wait_until(lambda: made and made[0].destroyed.is_set())
    assert inits == []


def test_a_shutdown_that_cannot_end_says_so() -> None:
    go_on = threading.Event()

    class Stubborn(Doubler):
        def destroy(self) -> None:
            go_on.wait(60)

    pool = ItemPool(lambda number: Stubborn(number, str, []), 1)
    assert [o.item for o in pool.process([1])] == [1]
    with pytest.raises(TimeoutError, match="not gone"):
        pool.shutdown(timeout=0.05)
    go_on.set()
    pool.shutdown(timeout=60)


def test_what_makes_no_sense_is_refused_at_once() -> None:
    with ItemPool(Factory(), 1) as pool:
        for bad in ({"ahead": -1}, {"timeout": 0.0}, {"timeout": float("nan")}, {"retries": -1}):
            with pytest.raises(UsageError):
                pool.process([1], **bad)
        with pytest.raises(UsageError, match="int is no source"):
            pool.process(7)  # type: ignore[arg-type]
        results = pool.process([1, 2])
        next(results)
        with pytest.raises(UsageError, match="a source already"):
            next(pool.process([3]))
        results.close()
    with pytest.raises(UsageError, match="at least 1 worker"):
        ItemPool(Factory(), 0)
