"""The app that good workers run beside bad peers, and functions that are themselves the bad input.

Rules of this file: what runs here runs in a worker of the test's own cluster, and reaches nothing
beyond it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import evener

app = evener.App("b")


@app.task
def echo(value: Any) -> Any:
    """What it gets."""
    return value


@app.task
def stay(name: str) -> str:
    """Run until a file is there."""
    wait_for(name)
    return name


def wait_for(name: str) -> None:
    """Say that it has begun, and wait for the file."""
    path = Path(os.environ["FAULT_FOLDER"]) / name
    path.with_suffix(".begun").touch()
    while not path.exists():
        time.sleep(0.002)


# --- Tasks that are the attack --------------------------------------------------------------------


@app.task
def kill_parent(name: str) -> None:
    """End the agent that started this worker, when a file is there."""
    wait_for(name)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@app.task
def close_everything() -> None:
    """Close all file descriptors, and stay."""
    os.closerange(0, 4_096)
    time.sleep(60)


@app.task
def write_everywhere() -> None:
    """Write rubbish into every descriptor that takes it, and die."""
    for number in range(3, 256):
        try:
            os.set_blocking(number, False)
            os.write(number, os.urandom(4_096))
        except OSError:
            continue
    os._exit(1)


@app.task
def multiply(count: int) -> list[int]:
    """Start children that sleep, and die without them."""
    code = "import time; time.sleep(600)"
    pids = [subprocess.Popen([sys.executable, "-c", code]).pid for _ in range(count)]
    Path(os.environ["FAULT_FOLDER"], "children").write_text(" ".join(map(str, pids)))
    os.kill(os.getpid(), signal.SIGKILL)
    return pids


@app.task
def shout(megabytes: int) -> int:
    """Write much to stdout and stderr, with what steers a terminal."""
    for _ in range(megabytes):
        sys.stdout.write("\x1b[2J\x07\r" * (1 << 18))
        sys.stderr.write("\x00\x1b]0;x\x07\n" * (1 << 17))
    return megabytes


@app.task
def hang() -> None:
    """Never come back."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(60)
