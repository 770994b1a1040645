"""A part of evener as a child process: started, waited for until ready, stopped, never left behind.

Rules of this file: a child has a lifeline, a pipe whose other end only this process holds. When
this process ends, in whichever way, the pipe does, and the child with it. What a child prints is
shown at once by a thread that copies it, also where `sys.stderr` is no terminal (notebooks,
tests).
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import IO, Any, Final

from evener.errors import EvenerError

_TAIL_LINES: Final = 20
_READ_BYTES: Final = 65_536


class StartError(EvenerError):
    """Raised when a part of a local cluster did not become ready.

    `output`: its last lines. `code`: the exit code that it gave as its reason, or 1.
    """

    def __init__(self, text: str, output: str = "", code: int = 1) -> None:
        super().__init__(f"{text}\n{output}" if output else text)
        self.output = output
        self.code = code


class Child:
    """One `python -m <module> '<json>'`."""

    def __init__(self, module: str, config: Mapping[str, Any]) -> None:
        self.module = module
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._told = b""
        ready_out, ready_in = os.pipe()
        lifeline_out, self._lifeline = os.pipe()
        self._ready: int | None = ready_out
        settings = {**config, "ready_fd": ready_in, "lifeline_fd": lifeline_out}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(settings)],
                pass_fds=(ready_in, lifeline_out),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Ctrl-C in the terminal is for the program, which decides what becomes of us.
                start_new_session=True,
                env=_environment(),
            )
        except BaseException:
            os.close(ready_out)
            os.close(self._lifeline)
            raise
        finally:
            os.close(ready_in)
            os.close(lifeline_out)
        self._copier = threading.Thread(target=self._copy, name=f"{module}-output", daemon=True)
        self._copier.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    # --- Starting ---------------------------------------------------------------------------------

    def wait_for(self, event: str, deadline: float) -> dict[str, Any]:
        """The facts of an event that the child tells. Raises `StartError`."""
        while True:
            while b"\n" in self._told:
                line, _, self._told = self._told.partition(b"\n")
                facts: dict[str, Any] = json.loads(line)
                if facts.get("event") == "error":
                    raise StartError(str(facts.get("text")), "", int(facts.get("code") or 1))
                if facts.get("event") == event:
                    return facts
            left = deadline - time.monotonic()
            if left <= 0:
                raise StartError(f"{self.module} was not ready in time", self._output())
            if self._ready is not None and select.select([self._ready], [], [], left)[0]:
                part = os.read(self._ready, _READ_BYTES)
                if not part:
                    raise StartError(self._how_it_ended(), self._output())
                self._told += part

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(2)
        except subprocess.TimeoutExpired:
            return f"{self.module} closed its ready pipe without a word"
        self._copier.join(1)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{self.module} ended before it was ready ({how})"

    def _output(self) -> str:
        return "".join(self._tail).rstrip()

    # --- Stopping ---------------------------------------------------------------------------------

    def ask_to_end(self, seconds: float) -> bool:
        """SIGTERM; whether it has ended within `seconds`."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, seconds: float) -> None:
        """Cuts the lifeline, and kills what is still there after `seconds`."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # A grandchild that left the group may hold the pipes open; then nobody waits for it.
        self._copier.join(0.5)
        if self._ready is not None:
            os.close(self._ready)
            self._ready = None

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def exit_code(self) -> int | None:
        """How the process ended, negative for a signal; None while it runs."""
        return self._process.poll()

    # --- What it prints ---------------------------------------------------------------------------

    def _copy(self) -> None:
        pipes: dict[int, tuple[IO[bytes], str]] = {}
        poller = select.poll()
        for pipe, target in ((self._process.stdout, "stdout"), (self._process.stderr, "stderr")):
            assert pipe is not None
            pipes[pipe.fileno()] = (pipe, target)
            poller.register(pipe.fileno(), select.POLLIN)
        while pipes:
            for fd, _ in poller.poll():
                part = os.read(fd, _READ_BYTES)
                pipe, target = pipes[fd]
                if part:
                    self._show(part.decode("utf-8", "replace"), target)
                else:
                    poller.unregister(fd)
                    pipe.close()
                    del pipes[fd]

    def _show(self, text: str, target: str) -> None:
        self._tail.extend(text.splitlines(keepends=True))
        stream = getattr(sys, target)
        try:
            stream.write(text)
            stream.flush()
        except (AttributeError, OSError, ValueError):  # none there, closed, or gone
            return


def _environment() -> dict[str, str]:
    """Ours, with our import path, so that the child finds what we found."""
    paths = [os.path.abspath(path) if path else os.getcwd() for path in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
