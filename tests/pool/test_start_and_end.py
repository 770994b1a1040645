"""`WorkerPool` with real processes: its start and its end, good ones and others."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import evener
from evener import NotSendable, UsageError
from evener.pickling import dump_by_value
from evener_worker import (
    AsyncWorkerPool,
    PoolClosed,
    PoolError,
    PoolFuture,
    WorkerDied,
    WorkerPool,
    WorkerStartError,
)
from tests.pool.workers import Jack, Rude, Sleeper, wrong
from tests.support import Processes, children, is_running, wait_until


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("raise", r"start\(\) raised RuntimeError: no database\n(.|\n)*in start(.|\n)*about to"),
        ("crash", r"it ended with exit code 7\nits last output:\n  about to crash"),
        ("hang", r"was not ready within 4 s and was killed\nits last output:\n  about to hang"),
    ],
)
def test_a_worker_that_does_not_start_is_told_with_its_output(how: str, text: str) -> None:
    pool = WorkerPool(Rude, 2, environment={"HOW": how})
    with pytest.raises(WorkerStartError, match=text):
        pool.spawn_all(timeout=4 if how == "hang" else 30)
    with pytest.raises(PoolClosed):
        pool.spawn_all()


def test_a_factory_that_makes_no_worker() -> None:
    with pytest.raises(WorkerStartError, match=r"made a int, which is no evener\.Worker"):
        WorkerPool(wrong, 1).spawn_all()


def test_a_class_that_cannot_be_copied_says_what_to_do() -> None:
    lock = threading.Lock()

    class Local(evener.Worker[int, int]):
        def run(self, item: int) -> int:
            with lock:
                return item

    with pytest.raises(NotSendable, match=r"Local(.|\n)*Make such things in start\(\)"):
        WorkerPool(Local, 1).spawn_all()


@pytest.mark.parametrize("mode", ["r", "rb", "w", "r+b"])
def test_a_class_that_uses_an_open_file_is_refused(tmp_path: Path, mode: str) -> None:
    (tmp_path / "file").touch()
    with open(tmp_path / "file", mode) as file:

        class Reader(evener.Worker[int, Any]):
            def run(self, item: int) -> Any:
                return file.read()

        with pytest.raises(NotSendable, match=r"(?s)cannot pickle.*Make such things in start\(\)"):
            WorkerPool(Reader, 1).spawn_all(30)


def test_a_class_may_name_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)  # pytest's own is no file
        assert pickle.loads(dump_by_value([output])) == [output]


def test_a_local_class_is_copied() -> None:
    factor = 3

    class Times(evener.Worker[int, int]):
        def run(self, item: int) -> int:
            return item * factor

    with WorkerPool(Times, 1) as pool:
        assert pool.execute(2) == 6


def test_the_end_lets_everybody_finish(tmp_path: Path) -> None:
    note = tmp_path / "stopped"
    pool = WorkerPool(Jack, 2, environment={"STOP_NOTE": str(note)})
    pool.spawn_all()
    futures = [pool.submit(["sleep", 0.1]) for _ in range(4)]
    pool.shutdown()
    assert [future.result(0) for future in futures] == [0.1] * 4
    assert sorted(note.read_text().split()) == ["1", "2"]
    with pytest.raises(PoolClosed):
        pool.execute(["echo", 1])
    pool.shutdown()


def test_what_is_given_up_while_the_pool_ends_holds_up_nothing(gate: Path) -> None:
    pool = WorkerPool(Jack, 1)
    pool.spawn_all()
    running = pool.submit(["wait_for", gate])
    waiting = pool.submit(["sleep", 60])
    ending = threading.Thread(target=pool.shutdown)
    ending.start()
    wait_until(lambda: pool._closed)
    assert waiting.cancel()
    gate.touch()
    ending.join()
    assert running.result(0) is None


def test_the_end_waits_only_so_long(pool: WorkerPool[Any, Any]) -> None:
    future = pool.submit(["sleep", 60])
    pool.shutdown(timeout=0.2)
    with pytest.raises(WorkerDied, match="not done in time"):
        future.result(0)


def test_an_error_in_the_block_ends_all_at_once() -> None:
    futures: list[PoolFuture[Any]] = []

    def fail() -> None:
        with WorkerPool(Jack, 1) as pool:
            futures.append(pool.submit(["sleep", 60]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(WorkerDied):
        futures[0].result(0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_pool_ends_every_wait_and_every_process(
    pool: WorkerPool[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = pool.submit(["sleep", 60])
    pids = [handle.pid for handle in pool]

    def fail(now_ns: int, events: Any) -> Any:
        raise ArithmeticError("a bug")

    monkeypatch.setattr(pool._machine, "step", fail)
    with pytest.raises(PoolError, match=r"the pool failed, please report this: Arith"):
        pool.execute(["echo", 1])
    with pytest.raises(PoolError, match="the pool failed"):
        running.result(10)
    assert not any(map(is_running, pids))
    with pytest.raises(PoolClosed):
        pool.execute(["echo", 1])


def test_a_fork_of_the_program_leaves_the_pool_alone(pool: WorkerPool[Any, Any]) -> None:
    child = os.fork()
    if child == 0:
        try:
            pool.close_now()
            pool.execute(["echo", 1])
        except PoolClosed:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.execute(["echo", 1]) == 1


def test_without_its_guard_a_pool_works(pool: WorkerPool[Any, Any]) -> None:
    (guard,) = set(children()) - {handle.pid for handle in pool}
    os.kill(guard, signal.SIGKILL)
    wait_until(lambda: not is_running(guard))
    pool[1].restart()
    assert pool[1].execute(["echo", 1]) == 1


def test_settings_that_are_none() -> None:
    for size in (0, -1, "four", True):
        with pytest.raises(UsageError, match="size="):
            WorkerPool(Jack, size)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="ready_timeout=0"):
        WorkerPool(Jack, 1, ready_timeout=0)
    with pytest.raises(UsageError, match=r"call spawn_all\(\)"):
        WorkerPool(Jack, 1).execute(1)
    with pytest.raises(UsageError, match="ids are 1 to 2"):
        WorkerPool(Sleeper, 2)[3]


class Idle(evener.Worker[int, int]):
    """What nobody can give an item to."""


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        (["sh", "-c", "cat"], r"CommandWorker\(\['sh', '-c', 'cat'\], id=number\)"),
        ("ls -l", r"ItemPool\(lambda number: \w*CommandWorker\(\['ls', '-l'\]"),
        (Path("/bin/ls"), r"CommandWorker\(\['/bin/ls'\]"),
        (Jack(), r"give the class, \w*WorkerPool\(Jack, \.\.\.\)"),
        (Idle, r"Idle has no run\(item\)"),
        (int, "int is not a subclass of evener.Worker"),
        (7, "int makes no workers"),
    ],
)
def test_what_makes_no_workers_is_refused_at_once(factory: Any, text: str) -> None:
    for kind in (WorkerPool, AsyncWorkerPool):
        with pytest.raises(TypeError, match=text):
            kind(factory, 1)


def test_a_factory_that_makes_a_worker_without_run_is_refused_at_the_start() -> None:
    with pytest.raises(WorkerStartError, match=r"Idle has no run\(item\)"):
        WorkerPool(lambda _: Idle(), 1).spawn_all(30)


def test_ids_are_numbers() -> None:
    for kind in (WorkerPool, AsyncWorkerPool):
        with pytest.raises(TypeError, match="'a': ids are whole numbers, 1 to 2"):
            kind(Jack, 2)["a"]  # type: ignore[index]


_STARTS_A_POOL = """
import evener
from evener_worker import WorkerPool

class Echo(evener.Worker[int, int]):
    def run(self, item: int) -> int:
        print("echo", item)
        return item

with WorkerPool(Echo, 1, prefix=True) as pool:
    pool.execute(7)
"""


def test_a_module_that_starts_a_pool_as_a_script_and_when_it_is_imported(
    processes: Processes, tmp_path: Path
) -> None:
    (tmp_path / "starts.py").write_text(_STARTS_A_POOL, encoding="utf-8")
    script = processes.start(sys.executable, "starts.py", cwd=tmp_path)
    assert script.communicate(timeout=30) == ("worker-1 | echo 7\n", "")
    # Imported, the workers import it too: each would start a pool of its own.
    program = processes.start(sys.executable, "-c", "import starts", cwd=tmp_path)
    stdout, stderr = program.communicate(timeout=30)
    assert stdout == ""
    assert "WorkerStartError" in stderr
    assert 'put what starts it under if __name__ == "__main__":' in stderr
