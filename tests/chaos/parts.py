"""Broker, agents and clients of a chaos run as child processes, in a network namespace if asked.

Rules of this file: nothing waits without a deadline; only processes started here are signalled, by
their pid; all of them end with `close`.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support import ROOT, children, descendants, is_running, is_worker

READY_S = 30.0


class RowError(Exception):
    """Raised when a run cannot go on: something that had to happen did not."""


def await_true(what: Callable[[], Any], seconds: float, why: str) -> Any:
    """The first true value; raises RowError if there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > deadline:
            raise RowError(f"waited {seconds:g} s in vain for {why}")
        time.sleep(0.002)


def import_path(root: Path = ROOT) -> str:
    """What PYTHONPATH must be for the evener of this checkout, with our app."""
    parts = [root / name for name in ("wire", "broker", "client", "worker")]
    return os.pathsep.join(map(str, [*parts, ROOT]))


class Part:
    """One process, and the JSON lines that it tells."""

    def __init__(
        self,
        argv: list[str],
        log: Path,
        env: dict[str, str],
        *,
        node: str = "",
        prefix: Sequence[str] = (),
        name: str = "",
    ) -> None:
        self.name = name
        self.log = log
        self.told: list[dict[str, Any]] = []
        inside = ["ip", "netns", "exec", node] if node else []
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*inside, *prefix, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=os.environ | env,
                text=True,
            )
        self._wakers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._orders = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                told = json.loads(line)
            except ValueError:
                continue  # what user code printed
            if "id" in told:
                self._wakers.pop(told["id"], queue.SimpleQueue()).put(told)
            else:
                self.told.append(told)

    @property
    def pid(self) -> int:
        return self.process.pid

    def has_told(self, event: str, times: int = 1) -> bool:
        return [told.get("event") for told in self.told].count(event) >= times

    def wait_for(self, event: str, seconds: float = READY_S, times: int = 1) -> None:
        def look() -> bool:
            if self.has_told(event, times):
                return True
            if self.process.poll() is not None:
                time.sleep(0.05)  # what it told last may still be read
                if not self.has_told(event, times):
                    raise RowError(f"{self.name} ended without {event!r}: {self.tail()}")
            return False

        try:
            await_true(look, seconds, f"{event!r} of {self.name}")
        except RowError as error:
            raise RowError(f"{error}; its log: {self.tail()}") from None

    def refusal(self) -> str:
        """Why it did not start, as it told; it has ended."""
        self._reader.join(5)
        return " ".join(str(told["text"]) for told in self.told if told.get("event") == "error")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-600:]

    def order(self, seconds: float = 20.0, **order: Any) -> Any:
        """Tell a client what to do; its answer."""
        self._orders += 1
        answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._wakers[self._orders] = answers
        self.send(id=self._orders, **order)
        try:
            told = answers.get(timeout=seconds)
        except queue.Empty:
            raise RowError(f"{self.name} does not answer {order}: {self.tail()}") from None
        if "error" in told:
            raise RowError(f"{self.name}: {told['error']}")
        return told["answer"]

    def send(self, **order: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise RowError(f"{self.name} is gone: {self.tail()}") from None

    # --- Harm -------------------------------------------------------------------------------------

    def stop(self) -> None:
        """SIGSTOP, and wait until it stands still."""
        stop_process(self.pid)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def workers(self) -> list[int]:
        """The pids of an agent's worker processes."""
        return [p for p in children(self.pid) if is_worker(p)]

    def close(self) -> None:
        """End it, with everything below it."""
        if self.process.poll() is None:
            for pid in [*descendants(self.pid), self.pid]:
                send_signal(pid, signal.SIGCONT)
                send_signal(pid, signal.SIGKILL)
            self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                if pipe is not None and pipe is not self.process.stdout:
                    pipe.close()
            except BrokenPipeError:
                continue
        self._reader.join(5)
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()


def send_signal(pid: int, number: int) -> None:
    """To a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def stop_process(pid: int) -> None:
    """SIGSTOP, and wait until it stands still."""
    send_signal(pid, signal.SIGSTOP)
    await_true(lambda: not is_running(pid) or _state(pid) == "T", 5, "a process to stop")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def python_module(module: str, config: dict[str, Any]) -> list[str]:
    return [sys.executable, "-m", module, json.dumps(config)]
