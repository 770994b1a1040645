"""Hooks: what may be one, in which order they run, what becomes of those that raise."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import evener
from evener.current import current_client
from evener.errors import UsageError
from evener.mains import MainProcess, main_process
from tests.support import ROOT

ROOTS = os.pathsep.join(str(ROOT / name) for name in ("wire", "broker", "client", "worker"))


class Book:
    """An app, and what its hooks wrote down."""

    def __init__(self) -> None:
        self.app = evener.App("book")
        self.seen: list[str] = []

    def noting(self, text: str) -> Callable[[], None]:
        return lambda: self.seen.append(text)

    def fill(self) -> None:
        for kind in ("main_start", "worker_start", "worker_stop", "shutdown"):
            for number in (1, 2):
                getattr(self.app, f"on_{kind}")(self.noting(f"{kind} {number}"))


@pytest.fixture
def book() -> Iterator[Book]:
    made = Book()
    yield made
    # Apps live until they are collected, and the next test has a main process too.
    for hooks in (made.app.main_starts, made.app.shutdowns):
        hooks.clear()


def test_starts_in_order_and_stops_in_reverse(book: Book) -> None:
    book.fill()
    with evener.LocalCluster(book.app, workers=0) as cluster:
        assert book.seen == ["main_start 1", "main_start 2", "worker_start 1", "worker_start 2"]
        book.seen.clear()
        # Clients of the cluster, and clusters beside it, are of the same main process.
        with cluster.client() as one, cluster.client() as two:
            assert one.submit(pow, 2, 3).result() == two.submit(pow, 2, 3).result() == 8
        with evener.LocalCluster(workers=0):
            pass
        assert book.seen == []
    assert book.seen == ["worker_stop 2", "worker_stop 1", "shutdown 2", "shutdown 1"]
    book.seen.clear()
    with evener.LocalCluster(book.app, workers=0):
        assert book.seen[0] == "main_start 1", "a program that begins anew"


def test_async_hooks_run_on_the_loop_of_the_tasks(book: Book) -> None:
    app = book.app
    loops: dict[str, asyncio.AbstractEventLoop] = {}

    async def note(name: str) -> None:
        await asyncio.sleep(0)
        loops[name] = asyncio.get_running_loop()

    app.on_main_start(lambda: note("main"))
    app.on_worker_start(lambda: note("start"))
    app.on_worker_stop(lambda: note("stop"))
    app.on_shutdown(lambda: note("shutdown"))

    @app.task
    async def task() -> None:
        await note("task")

    with evener.LocalCluster(app, workers=0) as cluster, cluster.client() as client:
        client.submit(task).result()
    assert loops["start"] is loops["task"] is loops["stop"]
    assert loops["main"] is loops["shutdown"] is not loops["task"]
    assert loops["main"].is_closed()
    assert loops["task"].is_closed()


def test_async_hooks_of_a_program_with_a_loop(book: Book) -> None:
    @book.app.on_main_start
    async def begin() -> None:
        await asyncio.sleep(0)
        book.seen.append("begun")

    async def program() -> None:
        with evener.LocalCluster(book.app, workers=0):
            assert book.seen == ["begun"]

    asyncio.run(program())


def test_a_main_start_that_raises_raises_where_the_cluster_is_opened(book: Book) -> None:
    book.fill()

    @book.app.on_main_start
    def broken() -> None:
        raise KeyError("no table")

    with pytest.raises(KeyError, match="no table"):
        evener.LocalCluster(book.app, workers=0)
    assert book.seen == ["main_start 1", "main_start 2"], "nothing of it has started"
    book.app.main_starts.remove(broken)
    book.seen.clear()
    with evener.LocalCluster(book.app, workers=0):
        assert book.seen[:2] == ["main_start 1", "main_start 2"]


def test_a_worker_start_that_raises_ends_the_cluster(book: Book) -> None:
    book.fill()
    book.app.on_worker_start(lambda: sys.exit(3))
    with pytest.raises(SystemExit):
        evener.LocalCluster(book.app, workers=0)
    assert book.seen[-2:] == ["shutdown 2", "shutdown 1"]
    assert "worker_stop 1" not in book.seen, "of a worker that never was ready"


def test_a_stop_that_raises_is_logged_and_the_others_run(
    book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ValueError("half closed")

    book.fill()
    book.app.on_worker_stop(broken)
    book.app.on_shutdown(broken)
    with caplog.at_level(logging.ERROR, "evener"), evener.LocalCluster(book.app, workers=0):
        book.seen.clear()
    assert book.seen == ["worker_stop 2", "worker_stop 1", "shutdown 2", "shutdown 1"]
    first, second = (record.getMessage() for record in caplog.records)
    name = "test_a_stop_that_raises_is_logged_and_the_others_run.<locals>.broken"
    assert first.startswith(f"on_worker_stop hook {name} failed: ValueError: half closed\nTrace")
    assert second.startswith(f"on_shutdown hook {name} failed: ValueError: half closed\nTraceback")
    assert "evener/hooks.py" not in first, "their frames, not ours"


def test_a_hook_may_use_a_client(book: Book) -> None:
    @book.app.on_main_start
    def begin() -> None:
        with evener.LocalCluster(workers=0) as cluster, cluster.client():
            book.seen.append(str(current_client().submit(pow, 2, 2).result()))

    with evener.LocalCluster(book.app, workers=0):
        assert book.seen == ["4"]


def test_what_is_no_hook_is_refused(book: Book) -> None:
    def wanting(path: str) -> None:
        raise AssertionError(path)

    with pytest.raises(UsageError, match=r"on_worker_start: .*wanting needs arguments"):
        book.app.on_worker_start(wanting)  # type: ignore[type-var]
    with pytest.raises(UsageError, match="on_shutdown takes a function, not 5"):
        book.app.on_shutdown(5)  # type: ignore[type-var]
    assert book.app.on_worker_stop(book.seen.clear) == book.seen.clear, "what it decorates stays"


def test_a_hook_may_be_entered_again_at_a_prompt(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    for number in (1, 2):
        scope = {"__name__": "__main__", "app": book.app, "note": book.noting(f"entered {number}")}
        exec("@app.on_main_start\ndef begin():\n    note()\n", scope)
    with evener.LocalCluster(book.app, workers=0):
        assert book.seen == ["entered 2"]


def test_hooks_of_an_app_that_workers_cannot_import(book: Book) -> None:
    app = evener.App("stray")
    app.module = "__main__"
    app.on_worker_start(book.noting("never"))
    with pytest.raises(UsageError, match=r'cannot import the app "stray", which __main__ defines'):
        evener.LocalCluster(app, workers=1)


# --- The main process -----------------------------------------------------------------------------


def test_a_worker_is_no_main_process(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    book.fill()
    monkeypatch.setattr("evener.whoami._info", None)
    from evener import whoami

    whoami.become_worker(3, "n:3")
    assert evener.current_worker() == evener.WorkerInfo(
        3, "n:3", os.getpid(), os.uname().nodename, "worker"
    )
    process = MainProcess()
    process.enter(book)
    process.leave(book)
    assert book.seen == []


def test_threads_wait_for_the_start_of_the_main_process(book: Book) -> None:
    reached, go_on = threading.Event(), threading.Event()

    @book.app.on_main_start
    def slow() -> None:
        reached.set()
        assert go_on.wait(30)
        book.seen.append("begun")

    holders = [object(), object()]
    entered: list[list[str]] = []

    def enter(holder: object) -> None:
        main_process.enter(holder)
        entered.append(list(book.seen))

    threads = [threading.Thread(target=enter, args=(holder,)) for holder in holders]
    for thread in threads:
        thread.start()
    assert reached.wait(30)
    assert entered == []
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert entered == [["begun"], ["begun"]]
    for holder in holders:
        main_process.leave(holder)


PROGRAM = """
import os, evener
app = evener.App("p")

@app.on_shutdown
def end():
    print("shutdown", os.getpid() == pid, evener.current_worker().role, flush=True)

pid = os.getpid()
cluster = evener.LocalCluster(app, workers=0)
if os.fork() == 0:
    raise SystemExit  # as multiprocessing ends its children, but with what atexit holds
os.wait()
print("end", flush=True)
"""


def test_what_was_not_closed_is_shut_down_when_the_program_ends() -> None:
    done = _python(PROGRAM)
    assert done.stdout.splitlines() == ["end", "shutdown True main"], done.stderr


def test_an_app_without_hooks_costs_no_event_loop() -> None:
    program = (
        "import evener, sys\n"
        "app = evener.App('a')\n"
        "with evener.LocalCluster(app, workers=0) as c, c.client() as d:\n"
        "    d.submit(pow, 1, 1).result()\n"
        "print('asyncio' in sys.modules)"
    )
    assert _python(program).stdout == "False\n"


def _python(program: str) -> subprocess.CompletedProcess[str]:
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": ROOTS}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


# --- Who am I -------------------------------------------------------------------------------------


def test_a_program_is_main() -> None:
    here = evener.current_worker()
    assert (here.id, here.name, here.pid, here.role) == (0, "main", os.getpid(), "main")
    assert evener.current_worker() is here, "no new object for each question"
    with pytest.raises(AttributeError):
        here.id = 1  # type: ignore[misc]


def test_tasks_of_a_cluster_without_workers_run_in_main() -> None:
    with evener.LocalCluster(workers=0) as cluster, cluster.client() as client:
        assert client.submit(evener.current_worker).result() == evener.current_worker()
