"""The app of the tests of what tasks write: in every way, and however they end.

Rules of this file: nothing here decides how long it takes by itself.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import evener

app = evener.App("t")
log = logging.getLogger("t")


@app.task
def every_way(name: str) -> str:
    """Print, log, write from C and from another program."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", force=True)
    print(f"{name} prints")
    print(f"{name} complains", file=sys.stderr)
    log.info("%s logs", name)
    ctypes.CDLL(None).puts(f"{name} in C".encode())
    os.write(2, f"{name} writes past Python\n".encode())
    subprocess.run(["echo", f"{name} from a program"], check=True)
    print(f"{name} ends", end="")
    return name


@app.task(max_starts=1)
def dies(name: str) -> None:
    """Say something and be gone."""
    print(f"{name} says its last words")
    os.write(1, f"{name} half a line".encode())
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(retries=1, retry_delay=0)
def again(flag: str) -> str:
    """Fail the first time."""
    print("a line of", flag)
    if not os.path.exists(flag):
        Path(flag).touch()
        raise ValueError("not yet")
    return "done"


@app.task
def quiet(name: str) -> str:
    """What nobody asked for."""
    print(f"{name} prints")
    os.write(1, f"{name} half".encode())
    return name


@app.task
def many(count: int) -> int:
    """A line for each."""
    sys.stdout.write("".join(f"line {number}\n" for number in range(count)))
    return count


@app.task
def says_and_stays(name: str, gate: str) -> str:
    """Print, and wait for a file."""
    print(f"{name} is here")
    while not os.path.exists(gate):
        time.sleep(0.002)
    print(f"{name} goes on")
    return name
