"""The peer that everybody has: `concurrent.futures.ProcessPoolExecutor` of the standard library."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from benchmarks.measure import Measure, Sample, percentile


def nothing() -> None:
    """The smallest task there is."""


def increment(number: int) -> int:
    """A tiny call for map."""
    return number + 1


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for future in [pool.submit(time.sleep, 0.05) for _ in range(4 * workers)]:
            future.result()
        yield pool


@contextmanager
def round_trip(workers: int, count: int) -> Iterator[Measure]:
    """`submit(nothing).result()`, one at a time."""
    with _pool(workers) as pool:

        def measure() -> Sample:
            submit, now = pool.submit, time.perf_counter_ns
            times = []
            for _ in range(count):
                start = now()
                submit(nothing).result()
                times.append((now() - start) / 1e3)
            return {"p50_us": percentile(times, 0.5), "p90_us": percentile(times, 0.9)}

        yield measure


@contextmanager
def submits(workers: int, count: int) -> Iterator[Measure]:
    """A Future for each task, then all results."""
    with _pool(workers) as pool:

        def measure() -> Sample:
            start = time.perf_counter()
            futures = [pool.submit(nothing) for _ in range(count)]
            for future in futures:
                future.result()
            return {"tasks_per_s": count / (time.perf_counter() - start)}

        yield measure


@contextmanager
def mapped(workers: int, count: int, chunk: int) -> Iterator[Measure]:
    """`map` of a tiny function, in chunks."""
    with _pool(workers) as pool:

        def measure() -> Sample:
            start = time.perf_counter()
            total = sum(pool.map(increment, range(count), chunksize=chunk))
            seconds = time.perf_counter() - start
            assert total == count * (count + 1) // 2
            return {"items_per_s": count / seconds}

        yield measure


@contextmanager
def first_result(workers: int) -> Iterator[Measure]:
    """From nothing to the first result: what starting processes costs at least."""

    def measure() -> Sample:
        start = time.perf_counter()
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            pool.submit(nothing).result()
            return {"first_s": time.perf_counter() - start}

    yield measure
