"""Real workers that do not answer, files that change under them, and what `ps` shows."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.care_cluster import (
    Start,
    agent_of,
    care,
    client_of,
    pids_of,
    starting,
    workers,
    write_version,
)
from tests.integration.cli_cluster import READY, Starter
from tests.integration.test_docs_later import stop
from tests.support import command_line, skip_aloud, wait_until


@pytest.fixture
def start(starter: Starter) -> Iterator[Start]:
    with starting(starter) as starts:
        yield starts


def test_a_stopped_worker_is_told_of_and_then_replaced(start: Start) -> None:
    up = start("-n", "2", "--ping-timeout", "3s")
    with client_of(up) as client:
        first, second = sorted(pids_of(client))
        done = up.evener("ping", "--worker", str(second), "-b", client.address)
        assert done.returncode == 0, done.stderr
        assert f"(pid {second}) answered its agent in" in done.stdout
        os.kill(first, signal.SIGSTOP)
        done = up.evener("ping", "--worker", f"here/{first}", "-b", client.address)
        assert done.returncode == 69
        assert "runs nothing and does not answer" in done.stderr
        wait_until(lambda: first not in pids_of(client), 30, "the stopped one to be replaced")
        wait_until(lambda: care(client)["ready"] == 2, 30, "the new one")
        assert sorted(worker["restarts"] for worker in workers(client)) == [0, 1]
        assert second in pids_of(client)
    assert f"(pid {first}) runs nothing and does not answer for 3 s: killed" in up.text()


def test_a_busy_worker_is_in_order(start: Start, tmp_path: Path) -> None:
    up = start("-n", "1")
    with client_of(up) as client:
        gate = tmp_path / "go on"
        future = client.submit("care.hold", str(gate))
        wait_until(lambda: care(client)["running"] == 1, 30, "the task to start")
        (pid,) = pids_of(client)
        answer = client.query("ping", worker=str(pid))
        assert (answer["busy"], answer["function"]) == (True, "care.hold")
        gate.touch()
        assert future.result(60) == pid


def test_files_that_change_come_in_and_broken_ones_do_not(start: Start) -> None:
    up = start("-n", "2", "--reload")
    helper = up.folder / "care_helper.py"
    with client_of(up) as client:

        def version() -> int:
            got: int = client.submit("care.work").result(60)[0]
            return got

        assert version() == 1
        helper.write_text("VALUE = (\n")
        write_version(up, 2, "\nimport care_helper\n")
        wait_until(lambda: (care(client)["restart"] or {}).get("state") == "failed", 30, "no")
        assert version() == 1
        assert "SyntaxError" in up.text()
        # The file that was broken is looked at too, though nobody ever imported it.
        helper.write_text("VALUE = 1\n")
        wait_until(lambda: version() == 2, 30, "the mended code")
    assert "restart (changed: care_helper.py): 2 workers" in up.text()


def test_code_that_is_broken_at_the_start_is_waited_for(starter: Starter) -> None:
    (starter.folder / "care_app.py").write_text("def work(:\n")
    up = starter.start("-n", "2", "--name", "here", "--reload", app="care_app:app")
    wait_until(lambda: "waiting for its files to change" in up.text(), 30, "the word of it")
    assert up.text().count("cannot import care_app: SyntaxError") == 1
    write_version(up, 3, "\nundefined\n")
    wait_until(lambda: "restart stopped; no worker can start" in up.text(), 30, "the next word")
    assert "NameError" in up.text()
    assert up.process.poll() is None
    write_version(up, 4)
    wait_until(lambda: READY in up.text() or up.process.poll() is not None, 30, "the banner")
    with client_of(up) as client:
        assert client.submit("care.work").result(60)[0] == 4
        assert len(pids_of(client)) == 2
    stop(up)


@pytest.fixture(params=[True, False], ids=["setproctitle", "names-alone"])
def titles(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processes that a test starts after this can set their titles."""
    if not request.param:
        (tmp_path / "hidden").mkdir()
        (tmp_path / "hidden" / "setproctitle.py").write_text("raise ImportError\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"))
    elif find_spec("setproctitle") is None:
        skip_aloud("setproctitle is not installed: pip install 'evener[dev]'", expected_in_ci=True)
    return bool(request.param)


def test_processes_say_what_they_do(titles: bool, start: Start, tmp_path: Path) -> None:
    up = start("-n", "2")

    def name(pid: int) -> str:
        return Path(f"/proc/{pid}/comm").read_text().strip()

    def shown() -> dict[str, str]:
        """By their names, what `ps` shows of the agent and its workers."""
        return {name(pid): command_line(pid) for pid in (agent_of(up), *pids_of(client))}

    gate = tmp_path / "go on"
    with client_of(up) as client:
        assert shown().keys() == {"evener agent", "evener:1", "evener:2"}
        future = client.submit("care.hold", str(gate))
        wait_until(lambda: {"1:hold", "2:hold"} & shown().keys(), 30, "the task to be shown")
        busy = shown()
        gate.touch()
        pid = future.result(60)
        wait_until(lambda: name(pid) in ("evener:1", "evener:2"), 30, "it to be over")
    (index,) = [name[0] for name in busy if name.endswith(":hold")]
    if titles:
        other = {"1": "2", "2": "1"}[index]
        assert busy == {
            "evener agent": "evener agent here",
            f"{index}:hold": f"evener worker here:{index} care.hold",
            f"evener:{other}": f"evener worker here:{other}",
        }
    else:
        assert not any(line.startswith("evener") for line in busy.values()), busy
