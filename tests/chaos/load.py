"""A client program of the chaos runs: submits work, and writes down what became of each task.

    python -m tests.chaos.load '{"broker": ..., "folder": ..., "name": ..., "mode": ...}'

Modes: "idle" submits only what it is told to; "rate" submits 200 small tasks a second; "saturated"
always has so many under way that all workers are busy. Orders come as JSON lines on stdin, answers
go as JSON lines to stdout. After `finish` it waits for everything and ends; at the end of stdin it
ends at once.
"""

from __future__ import annotations

import json
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evener
from tests.chaos.history import FAIL, INVOKE, OK, Writer

RATE = 200
WINDOW = 400
ORDERED_EACH_S = 0.05


class Load:
    """One client and all that it submitted."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.prefix: str = config["tokens"]
        self.folder = Path(config["folder"])
        self.history = Writer(self.folder)
        self.rng = random.Random(config.get("seed", 0))
        self.expect: str = config.get("expect", OK)
        self.options: dict[str, Any] = {"max_starts": 1_000} | config.get("options", {})
        self.client = evener.Client(
            config["broker"], connect_timeout=60, insecure=True, name=config["name"]
        )
        self.numbers = iter(range(1 << 60))
        self.open: dict[str, evener.Future[Any]] = {}
        self.done = 0
        self.latencies: list[float] = []

    def submit(
        self, function: str, *args: Any, expect: str = "", token: str = "", **options: Any
    ) -> evener.Future[Any]:
        """One task, with a line before it is handed over and one when it has ended."""
        token = token or f"{self.prefix}.{next(self.numbers)}"
        self.history.note(INVOKE, token, expect or self.expect)
        call = self.client.function(f"chaos.{function}", **(self.options | options))
        began = time.monotonic()
        future = call.submit(token, *args)
        self.open[token] = future

        def ended(future: evener.Future[Any]) -> None:
            self.latencies.append(time.monotonic() - began)
            self._tell_end(token, future)

        future.add_done_callback(ended)
        return future

    def _tell_end(self, token: str, future: evener.Future[Any]) -> None:
        try:
            value = future.result(0)
        except evener.TaskLost as error:
            self.history.note(FAIL, token, error.reason)
        except evener.TaskTimeout as error:
            self.history.note(FAIL, token, "timeout" if error.limit != "client" else "early")
        except (evener.TaskRejected, evener.QueueFull) as error:
            self.history.note(FAIL, token, type(error).__name__)
        except Exception as error:  # whatever it is, the checker shall judge it
            self.history.note(FAIL, token, f"{type(error).__name__}: {error}".replace("\n", " "))
        else:
            self.history.note(OK, token, value if isinstance(value, str) else value[0])
        self.open.pop(token, None)
        self.done += 1

    # --- Steady work ------------------------------------------------------------------------------

    def small(self) -> None:
        self.submit("work", self.rng.choice([0.0, 0.0, 0.001, 0.002, 0.005]))

    def keep_up(self, mode: str, next_at: float) -> float:
        """Submit what is due; when to be called again."""
        now = time.monotonic()
        if mode == "rate":
            while next_at <= now:
                self.small()
                next_at += 1 / RATE
            return next_at
        while len(self.open) < WINDOW:
            self.submit("work")
        return now + 0.002


class Program:
    """The load, and the orders on stdin."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.load = Load(config)
        self.mode: str = config["mode"]
        self.orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.handlers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "submit": self._submit,
            "flood": self._flood,
            "mode": self._mode,
            "query": self._query,
            "count": lambda _: {"open": len(self.load.open), "done": self.load.done},
            "latencies": lambda _: self._latencies(),
            "fetch": self._fetch,
            "flush": lambda _: self.load.client.flush(20),
            "fork": lambda _: self._fork(),
        }

    def run(self) -> int:
        threading.Thread(target=self._read, daemon=True).start()
        say(event="connected", pid=os.getpid())
        next_at = next_ordered = time.monotonic()
        while True:
            try:
                wait = max(0.0, next_at - time.monotonic()) if self.mode != "idle" else 1.0
                order = self.orders.get(timeout=wait)
            except queue.Empty:
                order = {"do": ""}
            if order is None:
                os._exit(0)
            if order["do"] == "finish":
                return self._finish(order.get("seconds", 60.0))
            if order["do"]:
                self._answer(order)
            if self.mode == "ordered":
                if next_ordered <= time.monotonic():
                    self.load.submit("work", 0.01, queue="line")
                    next_ordered += ORDERED_EACH_S
                next_at = next_ordered
            elif self.mode != "idle" and next_at <= time.monotonic():
                next_at = self.load.keep_up(self.mode, next_at)

    def _answer(self, order: dict[str, Any]) -> None:
        try:
            say(id=order["id"], answer=self.handlers[order["do"]](order))
        except (evener.EvenerError, OSError) as error:
            say(id=order["id"], error=f"{type(error).__name__}: {error}")

    def _read(self) -> None:
        for line in sys.stdin:
            self.orders.put(json.loads(line))
        self.orders.put(None)

    def _finish(self, seconds: float) -> int:
        """Wait for everything; what stays open has no line, and the checker calls it lost."""
        deadline = time.monotonic() + seconds
        while self.load.open and time.monotonic() < deadline:
            time.sleep(0.005)
        left = list(self.load.open)
        self.load.client.close(2.0)
        say(event="finished", done=self.load.done, open=left[:10])
        os._exit(1 if left else 0)  # futures that never end must not keep the process

    # --- Orders -----------------------------------------------------------------------------------

    def _submit(self, order: dict[str, Any]) -> str:
        settings = order.get("options", {})
        future = self.load.submit(
            order["function"], *order["args"], expect=order.get("expect", ""),
            token=order["token"], **settings,
        )  # fmt: skip
        return future.task_id

    def _flood(self, order: dict[str, Any]) -> int:
        ballast = bytes(order.get("size", 0))
        for _ in range(order["count"]):
            self.load.submit("work", order.get("seconds", 0.0), ballast, **order.get("options", {}))
        return int(order["count"])

    def _mode(self, order: dict[str, Any]) -> str:
        self.mode = order["mode"]
        return self.mode

    def _query(self, order: dict[str, Any]) -> Any:
        return self.load.client.query(order["what"], **order.get("arguments", {}))

    def _latencies(self) -> list[float]:
        """Of what ended since it was last asked for."""
        found, self.load.latencies = self.load.latencies, []
        return found

    def _fetch(self, order: dict[str, Any]) -> str:
        """The result of a task that another client submitted, by its id."""
        value = self.load.client.fetch(order["task_id"]).result(20)
        self.load.history.note(OK, order["token"], value)
        return str(value)

    def _fork(self) -> str:
        """What the client does in the child of a fork: nothing, and it says so."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.load.client.function("chaos.work").submit("forked")
                os.write(writer, b"submitted")
            except evener.ClientClosed:
                os.write(writer, b"closed")
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = pipe.read()
        os.waitpid(child, 0)
        return told


def say(**facts: object) -> None:
    """One line for the run that listens."""
    sys.stdout.write(json.dumps(facts, default=repr) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(Program(json.loads(sys.argv[1])).run())
