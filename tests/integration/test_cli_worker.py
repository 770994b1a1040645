"""`evener worker` says how its start went, and `evener demo --broker` whether it can start."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.cli_cluster import Starter, Up
from tests.support import Processes, free_port, wait_until


class Worker:
    """One `evener worker`, with what it wrote to stderr so far."""

    def __init__(self, processes: Processes, folder: Path, *arguments: str) -> None:
        self._errors = folder / f"worker-{len(processes.started)}.txt"
        with self._errors.open("w") as stderr:
            self.process = processes.start(
                *(sys.executable, "-m", "evener", "worker", *arguments),
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    def text(self) -> str:
        return self._errors.read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(20) == 0, self.text()


def test_one_line_once_the_workers_serve_the_broker(up: Up, processes: Processes) -> None:
    address = f"tcp://127.0.0.1:{up.port}"
    worker = Worker(processes, up.folder, "demo_app:app", "-n", "2", "--name", "other")
    line = f"evener worker: 2 workers ready, 5 functions; connected to the broker at {address}\n"
    wait_until(lambda: line in worker.text(), 20)
    worker.stop()
    assert worker.text().count("evener worker:") == 1
    silent = Worker(processes, up.folder, "demo_app:app", "-n", "1", "--name", "third", "--quiet")
    wait_until(lambda: "third" in up.evener("ls", "hosts").stdout, 20)
    silent.stop()
    assert silent.text() == ""


def test_a_broker_that_does_not_answer_is_named(starter: Starter, processes: Processes) -> None:
    address = f"127.0.0.1:{free_port()}"
    worker = Worker(processes, starter.folder, "demo_app:app", "-n", "1", "-b", address)
    line = f"1 worker ready, 5 functions; no broker answers at tcp://{address} yet"
    wait_until(lambda: line in worker.text(), 20)
    worker.stop()


def test_an_app_that_cannot_be_loaded_is_told_after_a_prefix(
    starter: Starter, processes: Processes
) -> None:
    (starter.folder / "broken.py").write_text("raise RuntimeError('odd')\n")
    address = f"127.0.0.1:{free_port()}"
    worker = Worker(processes, starter.folder, "broken:app", "-n", "1", "-b", address)
    assert worker.process.wait(20) not in (0, None)
    first, *rest = worker.text().splitlines()
    assert first.endswith("agent ERROR cannot import broken: RuntimeError: odd")
    assert rest[0] == "Traceback (most recent call last):"


def test_the_demo_needs_workers_that_know_it(up: Up) -> None:
    done = up.evener("demo", "--broker", f"127.0.0.1:{up.port}")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("evener: no worker of the broker at tcp://127.0.0.1:")
    assert "evener worker evener.demo.app:app --broker tcp://127.0.0.1:" in line
