"""Worker classes for the tests of pools. Each run imports this module anew, in a process."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from typing import Any

import evener


class Jack(evener.Worker[Any, Any]):
    """Does what an item says: `[verb, argument]`."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.heard: list[Any] = []

    def start(self) -> None:
        self.heard.append("start")

    def run(self, item: Any) -> Any:
        verb, argument = item
        return getattr(self, verb)(argument)

    def on_message(self, message: Any) -> Any:
        self.heard.append(message)
        return ["heard", message]

    def stop(self) -> None:
        if os.environ.get("STOP_NOTE"):
            with open(os.environ["STOP_NOTE"], "a", encoding="utf-8") as file:
                file.write(f"{self.id}\n")

    # --- Verbs ------------------------------------------------------------------------------------

    def echo(self, value: Any) -> Any:
        return value

    def tell(self, name: str) -> Any:
        return getattr(self, name)

    def pid(self, _: Any) -> int:
        return os.getpid()

    def leave(self, code: int) -> None:
        print(f"leaving with {code}")
        os._exit(code)

    def crash(self, depth: int) -> None:
        if depth:
            return self.crash(depth - 1)
        print("about to crash")
        ctypes.string_at(0)
        return None

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def exit(self, code: int) -> None:
        sys.exit(code)

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def wait_for(self, path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.005)

    def until_cancelled(self, _: Any) -> None:
        while not evener.cancelled():
            time.sleep(0.005)
        self.gave_up = True

    def ask(self, message: Any) -> Any:
        return self.request(message, timeout=5)

    def say(self, messages: list[Any]) -> None:
        for message in messages:
            self.send(message)

    def lock(self, _: Any) -> Any:
        import threading

        return threading.Lock()

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    def module(self, name: str) -> bool:
        return name in sys.modules


class Rude(Jack):
    """Fails to start, in the way that its environment says."""

    def start(self) -> None:
        how = os.environ["HOW"]
        print(f"about to {how}")
        if how == "raise":
            raise RuntimeError("no database")
        if how == "crash":
            os._exit(7)
        if how == "hang":
            time.sleep(600)


class Configured(evener.Worker[int, int]):
    """Asks the program what holds at the moment when its process starts."""

    def start(self) -> None:
        self.version: int = self.request("version", timeout=10)

    def run(self, item: int) -> int:
        return item + self.version


class Sleeper(evener.Worker[float, float]):
    """Many sleeps at once."""

    concurrency = 100

    async def start(self) -> None:
        self.most = self.now = 0
        self.cancelled = 0

    async def run(self, item: float) -> float:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(item)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1
        return item

    async def on_message(self, message: Any) -> Any:
        if message == "counts":
            return [self.most, self.now, self.cancelled]
        return await self.request_async(message)


def numbered(number: int) -> Jack:
    """A factory by worker id."""
    return Jack(100 + number)


def wrong(number: int) -> Any:
    """A factory that makes something else."""
    return number
