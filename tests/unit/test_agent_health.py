"""Pings of workers, files that change, and what processes are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from evener_wire import messages as m
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.limits import PING_ROUNDS, QUESTIONS_MAX
from evener_worker.reloading import Changes, files_here
from tests.agent_harness import MS, SECOND, Bench, item, only
from tests.unit.test_agent_questions import answers

# --- Pings ----------------------------------------------------------------------------------------


def measure(bench: Bench, after_s: float = 1.0) -> list[f.Effect]:
    """The moment at which workers are looked at."""
    bench.now_ns += int(after_s * SECOND)
    bench.say(m.Heartbeat())
    return bench.step(e.Measured({}))


def pings(effects: list[f.Effect]) -> list[tuple[int, int]]:
    return [(ping.slot, ping.number) for ping in only(effects, f.Ping)]


def test_who_has_nothing_to_do_is_pinged_in_rounds() -> None:
    bench = Bench(2, ping_seconds=6.0).open()
    assert pings(measure(bench)) == [(1, 1), (2, 2)]
    bench.step(e.Ponged(1, 1), e.Ponged(2, 2))
    assert not pings(measure(bench))
    bench.say(m.Run([item(1)]))
    assert pings(measure(bench)) == [(2, 3)], "the other one runs something"


def test_who_does_not_answer_is_killed_and_replaced() -> None:
    bench = Bench(2, ping_seconds=30.0).open()
    measure(bench)
    bench.step(e.Ponged(2, 2))
    effects = [measure(bench, 10) for _ in range(PING_ROUNDS)]
    assert not any(only(them, f.Kill) for them in effects[:-1])
    bench.step(e.Ponged(2, 3))
    assert only(effects[-1], f.Kill) == [f.Kill(1)]
    (log,) = only(effects[-1], f.Log)
    assert log.text == ("worker n:1 (pid 101) runs nothing and does not answer for 30 s: killed")
    assert only(bench.die(1), f.StartWorker) == [f.StartWorker(1, "n:1")]


def test_a_machine_that_slept_kills_nobody() -> None:
    bench = Bench(1, ping_seconds=30.0).open()
    measure(bench)
    assert not only(measure(bench, 3600), f.Kill)
    bench.step(e.Ponged(1, 1))
    for _ in range(PING_ROUNDS - 1):
        assert not only(measure(bench, 10), f.Kill)


def test_who_runs_something_is_never_judged() -> None:
    bench = Bench(1, ping_seconds=3.0).open()
    measure(bench)
    bench.say(m.Run([item(1)]))
    bench.start(1, 1)
    for _ in range(100):
        assert not only(measure(bench), f.Kill)


def test_pings_can_be_turned_off() -> None:
    bench = Bench(1, ping_seconds=0.0).open()
    assert not pings(measure(bench))


def ask(bench: Bench, **about: Any) -> list[f.Effect]:
    return bench.say(m.Query(7, "ping", about))


def test_somebody_asks_for_a_worker() -> None:
    bench = Bench(2).open()
    assert pings(ask(bench, pid=102)) == [(2, 1)]
    bench.now_ns += MS
    ((number, ok, body),) = answers(bench.step(e.Ponged(2, 1)))
    assert (number, ok, body["worker"], body["busy"]) == (7, True, "n:2", False)
    assert body["round_trip_us"] == 1_000


def test_a_busy_worker_answers_when_its_task_ends() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    ((_, ok, body),) = answers(ask(bench, pid=101))
    assert ok
    assert (body["busy"], body["function"], body["round_trip_us"]) == (True, "t.f", None)


def test_a_silent_worker_is_told_of_and_a_strange_one_refused() -> None:
    bench = Bench(1).open()
    ask(bench, pid=101)
    ((_, ok, body),) = answers(measure(bench, 2))
    assert ok
    assert (body["busy"], body["round_trip_us"]) == (False, None)
    assert not answers(bench.step(e.Ponged(1, 1))), "too late"
    ((_, ok, body),) = answers(ask(bench, pid=1))
    assert (ok, body) == (False, "the agent on n has no worker with pid 1")


def test_many_who_ask_are_refused() -> None:
    bench = Bench(1).open()
    for _ in range(QUESTIONS_MAX):
        assert not answers(ask(bench, pid=101))
    ((_, ok, body),) = answers(ask(bench, pid=101))
    assert (ok, body) == (False, "the agent on n works on 64 questions, which is its limit")
    assert len(answers(measure(bench, 2))) == QUESTIONS_MAX
    assert not answers(ask(bench, pid=101))


# --- Files ----------------------------------------------------------------------------------------


def write(file: Path, text: str, time_ns: int) -> None:
    file.write_text(text)
    os.utime(file, ns=(time_ns, time_ns))


def test_changes_are_told_once_they_are_over(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    write(one, "1", SECOND)
    write(two, "1", SECOND)
    changes = Changes()
    changes.add([str(one), str(two)])
    now = 0

    def look() -> list[str]:
        nonlocal now
        now = max(now, changes.next_at())
        return [os.path.basename(file) for file in changes.look(now)]

    assert look() == []
    write(one, "2", 2 * SECOND)
    assert look() == [], "more may follow"
    write(two, "2", 2 * SECOND)
    assert look() == []
    assert look() == ["one.py", "two.py"]
    assert look() == []
    two.unlink()
    assert look() == []
    assert look() == ["two.py"]
    write(two, "3", 3 * SECOND)
    assert look() == []
    assert look() == ["two.py"]


def test_files_are_those_of_the_app_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import json, msgpack, evener\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    trace = f'  File "{tmp_path}/broken.py", line 1\n  File "{tmp_path}/gone.py", line 3\n'
    code = f"import mine; from evener_worker.reloading import *; print(files_here({trace!r}))"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert told == str([str(tmp_path / "broken.py"), str(tmp_path / "mine.py")])


def test_this_module_is_no_part_of_python() -> None:
    assert __file__ in files_here()
    assert os.__file__ not in files_here()


# --- Titles ---------------------------------------------------------------------------------------


def test_a_function_is_shown_from_its_first_run_or_when_it_took_long() -> None:
    code = (
        "from evener_worker.titles import Titles\n"
        "def name(): return open('/proc/self/comm').read().strip()\n"
        "titles = Titles('node:3')\n"
        "print(name())\n"
        "titles.running('jobs.images.resize')\n"
        "print(name())\n"
        "titles.ended('jobs.images.resize', 5)\n"
        "print(name(), titles.is_long)\n"
        "titles.running('jobs.a_function_with_a_long_name')\n"
        "print(name())\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert told == [
        "evener:3",
        "3:resize",
        "evener:3 {'jobs.images.resize': False}",
        "3:a_function_wi",
    ]
