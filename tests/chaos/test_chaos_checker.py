"""The checker of the chaos runs: a good history passes, and each planted violation is found.

No cluster here: the histories are written by hand, in the form that the runs write.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

CHECKER = Path(__file__).with_name("checker.py")

A, B = 101, 202  # workers of host1 and host2
BROKER_TIME = "2026-01-31 12:00:"


class Planted:
    """A folder with a history; times are in seconds since the run began."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        wall = _wall_ns()
        self.fact("clock", wall_ns=wall, ns=0)
        self.fact("worker", pid=A, agent="host1")
        self.fact("worker", pid=B, agent="host2")

    def fact(self, what: str, **facts: Any) -> None:
        with (self.folder / "facts").open("a") as file:
            file.write(json.dumps({"what": what, **facts}) + "\n")

    def line(self, what: str, token: str, at: float, pid: int = 1, text: str = "") -> None:
        with (self.folder / "history").open("a") as file:
            file.write(f"{what} {token} {pid} {_ns(at)} {text}".rstrip() + "\n")

    def task(self, token: str, at: float = 1.0, pid: int = A, text: str = "") -> None:
        """A task that goes well."""
        self.line("invoke", token, at, text="ok")
        self.line("start", token, at + 0.1, pid)
        self.line("end", token, at + 0.2, pid)
        self.line("ok", token, at + 0.3, text=text or f"{token}!")

    def fault(self, kind: str, at: float, until: float, **facts: Any) -> None:
        self.fact("fault", kind=kind, ns=_ns(at), until_ns=_ns(until), **facts)

    def verdict(self, agent: str, at: float) -> None:
        with (self.folder / "broker.log").open("a") as file:
            file.write(f"{BROKER_TIME}{at:06.3f} broker WARNING ".replace(".", ","))
            file.write(f"agent {agent} is gone: it fell silent; tasks back in line: 1\n")

    def judge(self) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-S", str(CHECKER), str(self.folder)], capture_output=True, text=True
        )
        assert done.stderr == ""
        judgement: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (1 if judgement["violations"] else 0)
        return judgement


def _ns(at: float) -> int:
    return round(at * 1_000_000_000)


def _wall_ns() -> int:
    return int(datetime(2026, 1, 31, 12, 0, 0).timestamp()) * 1_000_000_000  # noqa: DTZ001  # local


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    made = Planted(tmp_path)
    made.task("good", 0.5)
    return made


def _rerun(planted: Planted, *, first_end: float | None = None, second: float = 8.0) -> None:
    """A task that begins on host1 at 1.0, and again on host2."""
    planted.line("invoke", "t", 0.9, text="ok")
    planted.line("start", "t", 1.0, A)
    if first_end is not None:
        planted.line("end", "t", first_end, A)
    planted.line("start", "t", second, B)
    planted.line("end", "t", second + 0.1, B)
    planted.line("ok", "t", second + 0.2, text="t!")


# --- What is allowed ------------------------------------------------------------------------------


def test_a_good_history(planted: Planted) -> None:
    planted.task("other", 2.0, B)
    found = planted.judge()
    assert found["violations"] == {}
    assert (found["tasks"], found["answered"], found["executions"]) == (2, 2, 2)


def test_a_worker_that_died_excuses_the_second_run(planted: Planted) -> None:
    planted.fact("death", pid=A, ns=_ns(2.0))
    planted.fault("kill worker", 2.0, 2.0, pids=[A])
    _rerun(planted, second=2.004)
    found = planted.judge()
    assert found["violations"] == {}
    assert found["recovery_s"] == [pytest.approx(0.004)]


def test_a_verdict_excuses_two_at_the_same_time(planted: Planted) -> None:
    planted.fault("pause agent", 2.0, 14.0, agents=["host1"])
    planted.verdict("host1", 6.0)
    _rerun(planted, first_end=14.1)
    found = planted.judge()
    assert found["violations"] == {}
    assert (found["overlaps"], found["overlaps_after_verdict"]) == (1, 1)
    assert found["detection_s"] == [pytest.approx(4.0)]


def test_detection_counts_from_the_last_fault_that_explains_it(planted: Planted) -> None:
    planted.fault("partition", 2.0, 3.0, agents=["host1"])
    planted.fault("partition", 4.0, 10.0, agents=["host1"])
    planted.verdict("host1", 8.0)
    assert planted.judge()["detection_s"] == [pytest.approx(4.0)]


def test_the_log_of_a_container_is_in_utc(planted: Planted) -> None:
    planted.fault("pause agent", 2.0, 14.0, agents=["host1"])
    at = datetime.fromtimestamp(_wall_ns() / 1e9 + 6.25, UTC).isoformat(timespec="milliseconds")
    (planted.folder / "broker.log").write_text(
        f"{at[:23]}456789Z 12:00 warning: agent host1 is gone: silent; tasks back in line: 1\n"
    )
    assert planted.judge()["detection_s"] == [pytest.approx(4.25)]


def test_what_a_broker_without_journal_knew_may_run_again(planted: Planted) -> None:
    planted.fault("kill broker", 2.0, 3.0)
    _rerun(planted, first_end=1.9, second=3.5)
    assert planted.judge()["violations"] == {}


def _restart(planted: Planted, ready: float, connected: float) -> None:
    planted.fault("kill broker", 2.0, ready)
    with (planted.folder / "broker.log").open("a") as file:
        for at, text in (
            (ready, "broker ready on tcp://h:1"),
            (connected, "agent host1 connected"),
        ):
            file.write(f"{BROKER_TIME}{at:06.3f} broker INFO ".replace(".", ",") + text + "\n")


def test_an_agent_that_is_late_to_a_new_broker_may_find_its_tasks_elsewhere(
    planted: Planted,
) -> None:
    planted.fact("clock", wall_ns=_wall_ns(), ns=0, durable=True)
    _restart(planted, ready=3.0, connected=4.8)
    _rerun(planted, first_end=4.9, second=4.6)
    found = planted.judge()
    assert found["violations"] == {}
    assert (found["late"], found["overlaps_after_verdict"]) == (1, 1)


# --- What is not ----------------------------------------------------------------------------------


def _lost(planted: Planted) -> None:
    planted.line("invoke", "t", 1.0, text="ok")


def _lost_in_time(planted: Planted) -> None:
    _lost(planted)
    planted.line("fail", "t", 2.0, text="poison")


def _answered_twice(planted: Planted) -> None:
    planted.task("t")
    planted.line("ok", "t", 2.0, text="t!")


def _never_submitted(planted: Planted) -> None:
    planted.line("start", "t", 1.0, A)


def _answer_without_question(planted: Planted) -> None:
    planted.line("ok", "t", 1.0, text="t!")


def _foreign_value(planted: Planted) -> None:
    planted.task("t", text="other!")


def _answered_without_a_run(planted: Planted) -> None:
    planted.line("invoke", "t", 1.0, text="ok")
    planted.line("ok", "t", 2.0, text="t!")


def _begun_after_its_answer(planted: Planted) -> None:
    planted.task("t")
    planted.fact("death", pid=A, ns=_ns(1.25))
    planted.line("start", "t", 2.0, B)
    planted.line("end", "t", 2.1, B)


def _begun_before_it_was_submitted(planted: Planted) -> None:
    planted.task("t")
    planted.line("start", "u", 0.5, A)
    planted.line("end", "u", 0.6, A)
    planted.line("invoke", "u", 1.0, text="ok")
    planted.line("ok", "u", 2.0, text="u!")


def _once_only_ran_twice(planted: Planted) -> None:
    planted.fact("death", pid=A, ns=_ns(1.15))
    planted.line("invoke", "t", 1.0, text="ok|unknown")
    for at, pid in ((1.1, A), (1.3, B)):
        planted.line("start", "t", at, pid)
    planted.line("end", "t", 1.4, B)
    planted.line("ok", "t", 1.5, text="t!")


def _twice_without_reason(planted: Planted) -> None:
    _rerun(planted, first_end=1.5)


def _twice_long_after_its_end(planted: Planted) -> None:
    planted.fact("death", pid=A, ns=_ns(7.9))
    _rerun(planted, first_end=1.5)


def _at_the_same_time_without_a_verdict(planted: Planted) -> None:
    _rerun(planted, first_end=9.0)


def _verdict_came_too_late(planted: Planted) -> None:
    planted.fault("pause agent", 2.0, 14.0, agents=["host1"])
    planted.verdict("host1", 8.5)
    _rerun(planted, first_end=14.1, second=8.0)


def _verdict_of_another_agent(planted: Planted) -> None:
    planted.fault("pause agent", 2.0, 14.0, agents=["host2"])
    planted.verdict("host2", 6.5)
    _rerun(planted, first_end=14.1)


def _verdict_without_a_fault(planted: Planted) -> None:
    planted.verdict("host1", 3.0)


def _verdict_too_early(planted: Planted) -> None:
    planted.fault("pause agent", 2.0, 14.0, agents=["host1"])
    planted.verdict("host1", 3.5)


def _verdict_while_the_broker_stood_still(planted: Planted) -> None:
    planted.fault("pause broker", 2.0, 14.0)
    planted.verdict("host1", 14.1)


def _came_in_time(planted: Planted) -> None:
    _restart(planted, ready=3.0, connected=4.2)
    _rerun(planted, second=4.6)


def _given_away_too_early(planted: Planted) -> None:
    _restart(planted, ready=3.0, connected=4.8)
    _rerun(planted, second=4.3)


def _ran_and_was_refused(planted: Planted) -> None:
    planted.line("invoke", "t", 1.0, text="ok|TaskRejected")
    planted.line("start", "t", 1.1, A)
    planted.line("fail", "t", 1.2, text="TaskRejected")


def _out_of_order_after_a_restart(planted: Planted) -> None:
    planted.fault("kill broker", 1.2, 1.9)
    _out_of_order(planted)


def _out_of_order(planted: Planted) -> None:
    for token, invoked, began in (("line.1", 1.0, 2.2), ("line.2", 1.1, 2.0)):
        planted.line("invoke", token, invoked, text="ok")
        planted.line("start", token, began, A)
        planted.line("end", token, began + 0.1, A)
        planted.line("ok", token, 3.0, text=f"{token}!")


def _half_a_line(planted: Planted) -> None:
    with (planted.folder / "history").open("a") as file:
        file.write("start t")


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (_half_a_line, "C0 unreadable"),
        (_lost, "C1 lost"),
        (_lost_in_time, "C1 lost"),
        (_answered_twice, "C1 duplicate"),
        (_never_submitted, "C1 unexpected"),
        (_answer_without_question, "C1 unexpected"),
        (_foreign_value, "C1 stray"),
        (_answered_without_a_run, "C2 steps"),
        (_begun_after_its_answer, "C2 steps"),
        (_begun_before_it_was_submitted, "C2 steps"),
        (_once_only_ran_twice, "C2 at most once"),
        (_twice_without_reason, "C3 twice without a verdict"),
        (_twice_long_after_its_end, "C3 twice without a verdict"),
        (_at_the_same_time_without_a_verdict, "C3 overlap without a verdict"),
        (_verdict_came_too_late, "C3 overlap without a verdict"),
        (_verdict_of_another_agent, "C3 overlap without a verdict"),
        (_verdict_without_a_fault, "C3 false verdict"),
        (_verdict_too_early, "C3 false verdict"),
        (_verdict_while_the_broker_stood_still, "C3 false verdict"),
        (_came_in_time, "C3 twice without a verdict"),
        (_given_away_too_early, "C3 twice without a verdict"),
        (_ran_and_was_refused, "C2 refused"),
        (_out_of_order, "C4 order"),
        (_out_of_order_after_a_restart, "C4 order"),
    ],
)
def test_a_planted_violation_is_found(
    planted: Planted, plant: Callable[[Planted], None], rule: str
) -> None:
    plant(planted)
    assert rule in planted.judge()["violations"]


def test_the_checker_imports_nothing_of_evener() -> None:
    for name in ("checker.py", "evidence.py", "history.py"):
        tree = ast.parse(CHECKER.with_name(name).read_text())
        modules = {
            alias.name if isinstance(node, ast.Import) else str(node.module)
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not [module for module in modules if module.startswith(("evener", "zmq"))]
