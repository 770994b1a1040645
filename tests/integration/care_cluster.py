"""A cluster whose workers are cared for: an app whose code changes, and questions about it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import evener
from tests.integration.cli_cluster import READY, Starter, Up
from tests.support import wait_until

APP = '''
"""An app whose code changes."""
import os, time
import evener

VERSION = 1
app = evener.App("care")
kept = []

@app.task
def work(seconds: float = 0.0) -> tuple[int, int]:
    time.sleep(seconds)
    return VERSION, os.getpid()

@app.task
def hold(path: str) -> int:
    while not os.path.exists(path):
        time.sleep(0.005)
    return os.getpid()

@app.task
def place() -> int:
    return int(os.environ["EVENER_WORKER_ID"])

@app.task
def leak(mebibytes: int) -> int:
    kept.append(b"x" * (mebibytes << 20))
    return os.getpid()
'''


Start: TypeAlias = Callable[..., Up]


@contextmanager
def starting(starter: Starter, more: str = "") -> Iterator[Start]:
    """Starts clusters with some workers; each is stopped in order at the end."""
    (starter.folder / "care_app.py").write_text(APP + more)
    running: list[Up] = []

    def started(*arguments: str) -> Up:
        up = starter.start("--name", "here", *arguments, app="care_app:app")
        wait_until(lambda: READY in up.text() or up.process.poll() is not None, 30, "the banner")
        assert up.process.poll() is None, up.text()
        running.append(up)
        return up

    yield started
    for up in running:
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(30) == 0, up.text()


def client_of(up: Up) -> evener.Client:
    return evener.Client(f"tcp://127.0.0.1:{up.port}")


def workers(client: evener.Client) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.query("ls", kind="workers")["rows"]
    return rows


def care(client: evener.Client) -> dict[str, Any]:
    state: dict[str, Any] = client.query("care", host="here")
    return state


def pids_of(client: evener.Client) -> set[int]:
    return {worker["pid"] for worker in workers(client)}


def write_version(up: Up, version: int, more: str = "") -> None:
    text = re.sub(r"VERSION = \d+", f"VERSION = {version}", APP)
    (up.folder / "new.py").write_text(text + more)
    os.replace(up.folder / "new.py", up.folder / "care_app.py")


def agent_of(up: Up) -> int:
    """The process that the workers are children of."""
    with client_of(up) as client:
        (worker, *_) = pids_of(client)
    status = Path(f"/proc/{worker}/status").read_text()
    return int(re.findall(r"^PPid:\s+(\d+)", status, re.MULTILINE)[0])
