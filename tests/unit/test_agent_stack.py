"""The stack of a worker process: both ends, with real processes, and a clock turned by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from evener_worker import events as e
from evener_worker.dumps import DUMP_NS, Dumps
from evener_worker.process import WorkerProcess
from evener_worker.stack import SIGNAL, STACK_BYTES_MAX, StackFile, kernel_facts, status_of
from tests.support import wait_until

PROGRAM = """
import os, signal, sys, threading, time
from evener_worker.stack import listen
fd = int(sys.argv[1])
listen(fd)
{code}
print("up", flush=True)
while True:
    time.sleep(60)
"""

# More than there is room for: deep stacks, in files with long names.
DEEP = """
import sys
name = "/" + "d" * 400
code = "def go(depth, do):\\n    go(depth - 1, do) if depth else do()"
scope = {}
exec(compile(code, name, "exec"), scope)
begun = threading.Barrier(11)
def hold():
    begun.wait()
    time.sleep(60)
for _ in range(10):
    threading.Thread(target=scope["go"], args=(90, hold), daemon=True).start()
begun.wait()
"""


@dataclass
class Child:
    """What `Dumps` wants of a worker process."""

    popen: subprocess.Popen[str]
    stack: StackFile
    pid: int
    pidfd: int


@dataclass
class Desk:
    """`Dumps`, what it told, and the time."""

    children: list[Child] = field(default_factory=list)
    events: list[e.Event] = field(default_factory=list)
    now_ns: int = 1_000

    def __post_init__(self) -> None:
        self.dumps = Dumps(lambda: self.now_ns, self.events)

    def start(self, code: str = "") -> Child:
        """A process that listens, and has run `code`."""
        stack = StackFile()
        popen = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(code=code), str(stack.fd)],
            pass_fds=[stack.fd],
            stdout=subprocess.PIPE,
            text=True,
        )
        child = Child(popen, stack, popen.pid, os.pidfd_open(popen.pid))
        self.children.append(child)
        assert popen.stdout is not None
        assert popen.stdout.readline() == "up\n"
        return child

    def ask(self, number: int, child: Child) -> None:
        self.dumps.ask(number, cast("WorkerProcess", child))

    def answers(self, count: int = 1) -> list[e.Dumped]:
        """The next answers, once they are there; the clock of `Dumps` goes on a little."""

        def look() -> bool:
            self.now_ns += 6_000_000 if self.now_ns < DUMP_NS // 2 else 0
            self.dumps.look()
            return len(self.events) >= count

        wait_until(look, why="a stack")
        found, self.events[:] = self.events[:], []
        return [cast("e.Dumped", event) for event in found]

    def close(self) -> None:
        for child in self.children:
            child.popen.kill()
            child.popen.wait()
            os.close(child.pidfd)
            child.stack.close()
            assert child.popen.stdout is not None
            child.popen.stdout.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.close()


def test_a_stack_comes_again_and_again(desk: Desk) -> None:
    child = desk.start()
    for number in range(3):
        desk.ask(number, child)
        (answer,) = desk.answers()
        assert (answer.number, answer.reason) == (number, "")
        assert answer.stack.startswith("Current thread 0x")
        assert answer.stack.count('File "<string>", line ') == 1
        assert answer.kernel["threads"] == 1
    assert desk.dumps.next_at() is None


def test_who_asks_meanwhile_gets_the_same_stack(desk: Desk) -> None:
    child = desk.start()
    for number in range(3):
        desk.ask(number, child)
    answers = desk.answers(3)
    assert [answer.number for answer in answers] == [0, 1, 2]
    assert len({answer.stack for answer in answers}) == 1


def test_what_is_too_long_is_cut_and_takes_no_more_memory(desk: Desk) -> None:
    child = desk.start(DEEP)
    desk.ask(1, child)
    (answer,) = desk.answers()
    assert answer.reason == "the stack was cut at 256 KiB"
    assert STACK_BYTES_MAX - 4_096 < len(answer.stack) <= STACK_BYTES_MAX
    assert os.fstat(child.stack.fd).st_size == STACK_BYTES_MAX
    with pytest.raises(PermissionError):
        os.ftruncate(child.stack.fd, 2 * STACK_BYTES_MAX)
    assert child.popen.poll() is None


def test_a_process_that_does_not_answer(desk: Desk) -> None:
    child = desk.start(f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(SIGNAL)}])")
    desk.ask(1, child)
    desk.now_ns += DUMP_NS - 1
    desk.dumps.look()
    assert desk.events == []
    desk.now_ns += 10_000_000
    (answer,) = desk.answers()
    assert (answer.stack, answer.reason) == ("", "the process did not handle SIGURG within 2 s")
    assert answer.kernel["state"] in ("S (sleeping)", "R (running)")


def test_a_process_whose_main_thread_blocks_the_signal_has_another_that_takes_it(
    desk: Desk,
) -> None:
    child = desk.start(
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(SIGNAL)}])"
    )
    desk.ask(1, child)
    (answer,) = desk.answers()
    assert answer.reason == ""
    assert answer.stack.count("(most recent call first)") == 2


def test_a_process_that_ends_meanwhile(desk: Desk) -> None:
    child = desk.start(f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(SIGNAL)}])")
    desk.ask(1, child)
    child.popen.kill()
    child.popen.wait()
    desk.dumps.forget(cast("WorkerProcess", child))
    (answer,) = desk.answers()
    assert answer.reason == "the process ended before its stack was complete"
    assert set(answer.kernel.values()) == {None}
    desk.ask(2, child)
    assert desk.answers()[0].reason == "the process has ended"


def test_a_zombie_is_not_asked(desk: Desk) -> None:
    child = desk.start()
    child.popen.send_signal(signal.SIGKILL)
    wait_until(lambda: (status_of(child.pid) or {}).get("State", "").startswith("Z"))
    desk.ask(1, child)
    assert desk.answers()[0].stack == ""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (f"signal.signal({int(SIGNAL)}, signal.SIG_IGN)", "does not take SIGURG"),
        (f"signal.signal({int(SIGNAL)}, signal.SIG_DFL)", "does not take SIGURG"),
        ("os.close(fd)", "has closed the descriptor"),
        ("os.dup2(os.open('/dev/null', os.O_RDWR), fd)", "has closed the descriptor"),
    ],
)
def test_a_process_that_was_changed_is_not_touched(desk: Desk, code: str, reason: str) -> None:
    child = desk.start(code)
    desk.ask(1, child)
    assert reason in desk.answers()[0].reason
    assert child.popen.poll() is None


def test_the_signal_does_nothing_to_a_process_that_does_not_know_it() -> None:
    """The reason why it is this signal: what user code starts, or what is not ready, lives on."""
    process = subprocess.Popen(["sleep", "60"])
    try:
        process.send_signal(SIGNAL)
        process.send_signal(SIGNAL)
        assert process.poll() is None
        assert kernel_facts(process.pid)["state"] is not None
    finally:
        process.kill()
        process.wait()


def test_facts_of_nobody() -> None:
    facts: dict[str, Any] = dict(kernel_facts(1 << 22))
    assert set(facts.values()) == {None}
