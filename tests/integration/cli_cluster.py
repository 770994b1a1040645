"""`evener up` with an app for tests, and other commands beside it, as real processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support import Processes, free_port, wait_until

APP = '''
"""An app for tests."""
import os, signal, time
import evener

app = evener.App("demo")

@app.task
def add(a: int, b: int) -> int:
    return a + b

@app.task
def hold(path: str) -> str:
    open(path, "w").close()
    while not os.path.exists(path + ".released"):
        time.sleep(0.005)
    return "held"

@app.task
def boom() -> None:
    raise ValueError("boom")

@app.task(max_starts=1)
def crash() -> None:
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)

@app.task
def pair() -> set:
    return {1 + 2j}

def double(x: int) -> int:
    return 2 * x
'''

READY = "stop        Ctrl-C"


@dataclass(slots=True)
class Up:
    """One `evener up`, with what it wrote to stderr so far."""

    process: subprocess.Popen[str]
    errors: Path
    folder: Path
    port: int

    def text(self) -> str:
        return self.errors.read_text()

    def evener(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Another `evener` command on this host, run to its end."""
        return subprocess.run(
            [sys.executable, "-m", "evener", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=60,
            check=False,
        )

    def start_held_task(self) -> str:
        """A task that runs until `release`; returns its id once it has started."""
        flag = self.folder / "held"
        done = self.evener("submit", "demo.hold", str(flag))
        assert done.returncode == 0, done.stderr
        wait_until(flag.exists, why="the task to start")
        return done.stdout.strip()

    def release(self) -> None:
        """Let the held task end."""
        (self.folder / "held.released").touch()


@dataclass(slots=True)
class Followed:
    """A command that prints lines as they come."""

    printed: Path

    def lines(self) -> list[str]:
        """What it printed so far."""
        return self.printed.read_text().splitlines()


class Starter:
    """Starts `evener up` in a folder with the app."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.processes = processes
        self.folder = folder
        (folder / "demo_app.py").write_text(APP)

    def start(self, *arguments: str, app: str = "demo_app:app", port: int | None = None) -> Up:
        errors = self.folder / f"errors-{len(self.processes.started)}.txt"
        port = free_port() if port is None else port
        with errors.open("w") as stderr:
            process = self.processes.start(
                sys.executable,
                "-m",
                "evener",
                "up",
                app,
                "--port",
                str(port),
                *arguments,
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        return Up(process, errors, self.folder, port)

    def follow(self, up: Up, *arguments: str) -> Followed:
        """Another `evener` command beside it, which goes on until it is stopped."""
        printed = self.folder / f"printed-{len(self.processes.started)}.txt"
        with printed.open("w") as stdout:
            self.processes.start(
                sys.executable, "-m", "evener", *arguments, cwd=up.folder, stdout=stdout
            )
        return Followed(printed)

    def ready(self, *arguments: str) -> Up:
        up = self.start("-n", "2", *arguments)
        wait_until(lambda: READY in up.text() or up.process.poll() is not None, 30, "the banner")
        assert up.process.poll() is None, up.text()
        return up
