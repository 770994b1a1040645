"""A program with a pool as the first process of a container: PID 1, to which all orphans go."""

from __future__ import annotations

import json

import pytest

from tests.cluster.engine import docker

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

_PROGRAM = """
import json, os, subprocess, sys, time
from pathlib import Path
import evener
from evener_worker import WorkerPool

class Starter(evener.Worker[int, int]):
    def run(self, item):
        return subprocess.Popen(["sleep", "600"]).pid

def others():
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return sorted(set(pids) - {1})

assert os.getpid() == 1
pool = WorkerPool(Starter, 2)
handles = pool.spawn_all()
for handle in handles:
    handle.execute(1)
busy = others()
for handle in handles:
    handle.kill()
deadline = time.monotonic() + 5
while len(others()) > 1 and time.monotonic() < deadline:
    time.sleep(0.01)
quiet = others()
handles[0].restart()
handles[0].execute(1)
print(json.dumps([len(busy), len(quiet)]))
"""


def test_pid_1_ends_with_its_workers_and_keeps_no_zombies(image: str) -> None:
    output = docker(
        "run", "--rm", "--read-only", "--entrypoint", "python", image, "-c", _PROGRAM, timeout=60
    )
    # Two workers, two processes of theirs and the guard; then the guard alone, and no zombie.
    assert json.loads(output) == [5, 1]
