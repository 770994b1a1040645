"""What a worker process that ended leaves in its agent: nothing, also while nobody collects."""

from __future__ import annotations

import gc
import os
import select
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.config import AgentConfig
from evener_worker.crew import Crew
from evener_worker.process import WorkerProcess


class Loop:
    """As much of an agent as a crew needs."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.on_fd: dict[int, Callable[[int], None]] = {}
        self.events: list[e.Event] = []
        config = AgentConfig("crew_app:app", "tcp://127.0.0.1:1", workers=1, name="n")
        self.crew = Crew(config, self.epoll, self.on_fd, self.events, time.monotonic_ns)

    def live(self) -> None:
        """One process, from its start to its burial."""
        self.crew.start(f.StartWorker(1, "n:1"))
        self._until(e.Ready)
        self.crew.leave(f.Leave(1))
        self._until(e.Died)

    def _until(self, kind: type) -> None:
        deadline = time.monotonic() + 30
        while not any(isinstance(event, kind) for event in self.events):
            if time.monotonic() > deadline:
                pytest.fail(f"waited in vain for {kind.__name__}: {self.events}")
            for fd, mask in self.epoll.poll(1):
                handler = self.on_fd.get(fd)
                if handler is not None:
                    handler(mask)
        self.events.clear()


def test_a_dead_worker_waits_for_no_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crew_app.py").write_text('import evener\napp = evener.App("crew")\nprint("hello")')
    monkeypatch.chdir(tmp_path)
    loop = Loop()
    with loop.epoll:
        loop.live()
        gc.collect()
        gc.disable()
        try:
            files = len(os.listdir("/proc/self/fd"))
            for _ in range(3):
                loop.live()
            left = [thing for thing in gc.get_objects() if type(thing) is WorkerProcess]
            assert not left
            assert len(os.listdir("/proc/self/fd")) == files
        finally:
            gc.enable()
        loop.crew.bury_all()
