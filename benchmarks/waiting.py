"""Tasks that only wait, with one worker: one at a time, many on its event loop, many in threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

import evener
from benchmarks import work
from benchmarks.measure import Measure, Sample, cpu_us

WAIT_S = 0.01


@contextmanager
def waits(function: evener.Function[..., None], count: int) -> Iterator[Measure]:
    """So many tasks that wait for 10 ms each, and what the worker's processor spent on one."""
    with evener.LocalCluster(work.app, workers=1) as cluster, cluster.client() as client:
        for future in [client.submit(function, 0.0) for _ in range(200)]:
            future.result()
        (row,) = client.query("ls", kind="workers")["rows"]
        worker = psutil.Process(row["pid"])

        def measure() -> Sample:
            before_us, start = cpu_us(worker), time.perf_counter()
            futures = [client.submit(function, WAIT_S) for _ in range(count)]
            for future in futures:
                future.result()
            took_s = time.perf_counter() - start
            return {
                "tasks_per_s": count / took_s,
                "worker_cpu_us_per_task": (cpu_us(worker) - before_us) / count,
            }

        yield measure
