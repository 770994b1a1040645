"""evener as a user has it: `LocalCluster`, `Client.submit`, `Client.map`, `evener up`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

import evener
from benchmarks import work
from benchmarks.measure import Measure, Sample, child, cpu_us, percentile


@contextmanager
def _cluster(workers: int) -> Iterator[evener.Client]:
    with evener.LocalCluster(work.app, workers=workers) as cluster, cluster.client() as client:
        for _ in range(200):
            client.submit(work.noop).result()
        yield client


def _broker_process() -> psutil.Process:
    """The broker among the processes below this one."""
    for process in psutil.Process().children(recursive=True):
        if "evener_broker" in " ".join(process.cmdline()):
            return process
    raise RuntimeError("no broker process below this one")


@contextmanager
def round_trip(workers: int, count: int) -> Iterator[Measure]:
    """`submit(noop).result()`, one at a time."""
    with _cluster(workers) as client:

        def measure() -> Sample:
            submit, noop, now = client.submit, work.noop, time.perf_counter_ns
            times = []
            for _ in range(count):
                start = now()
                submit(noop).result()
                times.append((now() - start) / 1e3)
            return {"p50_us": percentile(times, 0.5), "p90_us": percentile(times, 0.9)}

        yield measure


@contextmanager
def submits(workers: int, count: int) -> Iterator[Measure]:
    """A Future for each task, then all results; and what the broker's process spent on it."""
    with _cluster(workers) as client:
        broker = _broker_process()

        def measure() -> Sample:
            submit, noop = client.submit, work.noop
            before_us, start = cpu_us(broker), time.perf_counter()
            futures = [submit(noop) for _ in range(count)]
            submitted = time.perf_counter()
            for future in futures:
                future.result()
            end = time.perf_counter()
            return {
                "tasks_per_s": count / (end - start),
                "submitted_per_s": count / (submitted - start),
                "broker_cpu_us_per_task": (cpu_us(broker) - before_us) / count,
            }

        yield measure


@contextmanager
def mapped(workers: int, count: int) -> Iterator[Measure]:
    """`map` of a tiny function; chunks are evener's own business."""
    with _cluster(workers) as client:

        def measure() -> Sample:
            start = time.perf_counter()
            total = sum(client.map(work.add_one, range(count)))
            seconds = time.perf_counter() - start
            assert total == count * (count + 1) // 2
            return {"items_per_s": count / seconds}

        yield measure


@contextmanager
def killed(workers: int, kills: int) -> Iterator[Measure]:
    """SIGKILL to a worker that runs a task, until the task runs again on another."""
    with _cluster(workers) as client, tempfile.TemporaryDirectory(prefix="evener-bench-") as folder:
        path = str(Path(folder) / "reports")
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as reports:
            reports.bind(path)
            reports.settimeout(30)

            def measure() -> Sample:
                times = []
                for _ in range(kills):
                    future = client.submit(work.victim, path, 0.05)
                    pid, _ = map(int, reports.recv(100).split())
                    time.sleep(0.02)  # it runs, and the machine has calmed down
                    start = time.monotonic_ns()
                    os.kill(pid, signal.SIGKILL)
                    second, at = map(int, reports.recv(100).split())
                    assert second != pid
                    times.append((at - start) / 1e6)
                    assert future.result() == second
                    time.sleep(0.5)  # the replacement starts, which is not what is measured
                return {"p50_ms": percentile(times, 0.5), "worst_ms": max(times)}

            yield measure


@contextmanager
def first_result(workers: int) -> Iterator[Measure]:
    """`evener up` in another process, until a client here has its first result."""

    def measure() -> Sample:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        arguments = ("up", "benchmarks.work:app", "-n", str(workers), "--port", str(port))
        start = time.perf_counter()
        with (
            tempfile.TemporaryDirectory(prefix="evener-bench-") as folder,
            _runtime(folder),
            child("-m", "evener", *arguments, stderr=subprocess.DEVNULL),
        ):
            _wait_for_port(port)
            listening = time.perf_counter() - start
            with evener.Client(f"tcp://127.0.0.1:{port}") as client:
                client.submit(work.noop).result(timeout=30)
                first = time.perf_counter() - start
        return {"first_s": first, "listening_s": listening}

    yield measure


@contextmanager
def _runtime(folder: str) -> Iterator[None]:
    before = os.environ.get("EVENER_RUNTIME_DIR")
    os.environ["EVENER_RUNTIME_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["EVENER_RUNTIME_DIR"]
        else:
            os.environ["EVENER_RUNTIME_DIR"] = before


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.001)
    raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def python_start() -> Iterator[Measure]:
    """The floor for anything that starts: an interpreter that does nothing."""

    def measure() -> Sample:
        start = time.perf_counter()
        with child("-c", "print(1)") as process:
            assert process.stdout is not None
            assert re.match("1", process.stdout.readline()), sys.executable
            return {"first_s": time.perf_counter() - start}

    yield measure
