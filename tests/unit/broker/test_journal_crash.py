"""A process that writes a journal is killed at any instant: what it was told of is there (I5)."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from evener_wire import messages as m
from tests.unit.broker.journals import reopened

_WRITER = """
import os, sys
from pathlib import Path
from evener_wire import messages as m
from tests.unit.broker.journals import Writer, ended, open_journal, saved, tried

journal = open_journal(Path(sys.argv[1]), 1 << 30)
first = journal.take_contents().accepted + 1
writer = Writer(journal)
batch = 0
os.write(1, b"ready\\n")
while True:
    # Two turns may be under way. Each saves ten tasks and ends five of the ten before them.
    start = first + 10 * batch
    calls = {n: m.Frames((b"x" * 5_000,)) if n % 7 == 0 else b"c" for n in range(start, start + 10)}
    new = [saved(n, call) for n, call in calls.items()]
    old = [ended(n, keep_call=n % 2 == 0) for n in range(start - 10, start - 5) if n >= first]
    gone = [n for n in range(start - 40, start - 30) if n >= first]
    writer.append(saved=new, tried=[tried(start)], ended=old, forgotten=gone)
    batch += 1
    known = len(writer.committed)
    while writer.committed[-1:] < [writer.txn - 1] and writer.txn > 1:
        writer.take()
    if len(writer.committed) > known:
        os.write(1, b"%d\\n" % (first + 10 * writer.committed[-1] - 1))
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_writer_leaves_all_that_was_told(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "j"
    rng = random.Random(seed)
    for _ in range(4):
        told = _run_and_kill(path, rng.uniform(0.01, 0.5))
        contents = reopened(path, 1 << 30)
        tasks = {task.number: task for task in contents.tasks}
        last = contents.accepted
        assert last >= told
        assert last % 10 == 0, "a transaction is there as a whole or not at all"
        for number in range(max(1, last - 29), last + 1):
            if number > last - 10:
                assert tasks[number].state is None
                assert tasks[number].starts == (number % 10 == 1)
        ends = [task for task in tasks.values() if task.state is not None]
        assert all((task.call is not None) == (task.number % 2 == 0) for task in ends)
        assert all(task.result == b"result" for task in ends)


def _run_and_kill(path: Path, seconds: float) -> int:
    """The last task that the writer was told to be on disk."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    with process, process.stdout as lines:
        assert lines.readline() == b"ready\n"
        killer = threading.Timer(seconds, process.kill)
        killer.start()
        told = 0
        for line in lines:
            if line.endswith(b"\n"):
                told = int(line)
        killer.join()
    assert process.returncode == -9
    return told


def test_large_payloads_survive_too(tmp_path: Path) -> None:
    """`os._exit` right behind the commit: no close, no checkpoint, no goodbye."""
    path = tmp_path / "j"
    script = """
import os, sys
from pathlib import Path
from evener_wire import messages as m
from tests.unit.broker.journals import Writer, open_journal
journal = open_journal(Path(sys.argv[1]))
writer = Writer(journal)
writer.save([1], m.Frames((b"x" * 10_000_000, b"y" * 3)))
writer.settle()
os._exit(7)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 7
    (task,) = reopened(path).tasks
    assert task.call == m.Frames((b"x" * 10_000_000, b"y" * 3))
