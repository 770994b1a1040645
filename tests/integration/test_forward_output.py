"""What tasks write comes to the client that asked for it, from real workers, however they end."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import evener
from tests.integration import talking_app as app
from tests.integration.cli_cluster import READY, Starter
from tests.integration.fault_cluster import FaultCluster
from tests.integration.test_docs_later import stop
from tests.support import Processes, wait_until

APP = str(Path(app.__file__).resolve()) + ":app"


class Heard:
    """All lines that came to a client."""

    def __init__(self, client: evener.Client) -> None:
        self.lines: list[evener.OutputLine] = []
        self.came = threading.Condition()
        client.on_output(self.take)

    def take(self, line: evener.OutputLine) -> None:
        with self.came:
            self.lines.append(line)
            self.came.notify_all()

    def wait_for(self, count: int) -> list[evener.OutputLine]:
        """So many lines, and what is missing among them."""
        with self.came:
            assert self.came.wait_for(
                lambda: sum(line.left_out or 1 for line in self.lines) >= count, 20
            ), self.lines
            return [*self.lines]

    def texts(self, count: int, task_id: str | None = None) -> list[str]:
        lines = self.wait_for(count)
        return [it.text for it in lines if task_id in (None, it.task_id)]


def started(cluster: FaultCluster, workers: int = 1) -> evener.Client:
    cluster.start_broker()
    cluster.start_agent(workers, app=APP)
    client = cluster.client()
    cluster.wait_for_slots(client, workers)
    return client


def test_every_way_to_write_on_several_hosts(cluster: FaultCluster) -> None:
    cluster.start_broker()
    for _ in range(2):
        cluster.start_agent(1, app=APP)
    client = cluster.client()
    cluster.wait_for_slots(client, 2)
    heard = Heard(client)
    wanted = app.every_way.options(forward_output=True)
    futures = [client.submit(wanted, name) for name in "abcdef"]
    assert client.gather(futures, timeout=30) == [*"abcdef"]
    lines = heard.wait_for(6 * 7)
    for future, name in zip(futures, "abcdef", strict=True):
        mine = [line for line in lines if line.task_id == future.task_id]
        assert {(line.function, line.attempt, line.left_out) for line in mine} == {
            ("t.every_way", 1, 0)
        }
        assert len({line.worker for line in mine}) == 1
        assert [it.text for it in mine if it.stream == "stdout"] == [
            f"{name} prints",
            f"{name} in C",
            f"{name} from a program",
            f"{name} ends",
        ]
        assert [it.text for it in mine if it.stream == "stderr"] == [
            f"{name} complains",
            f"INFO {name} logs",
            f"{name} writes past Python",
        ]
    assert {line.worker for line in lines} == {"host1:1", "host2:1"}
    assert len(lines) == 6 * 7


def test_nothing_of_what_others_write(cluster: FaultCluster) -> None:
    client = started(cluster)
    heard = Heard(client)
    for name in ("a", "b", "c"):
        client.submit(app.quiet, f"quiet {name}").result(20)
        client.submit(app.every_way.options(forward_output=True), name).result(20)
    assert all(text.split()[0] in ("a", "b", "c", "INFO") for text in heard.texts(21))
    assert len(heard.lines) == 21


def test_last_words_of_a_task_that_is_killed_come_before_its_end(cluster: FaultCluster) -> None:
    client = started(cluster)
    heard = Heard(client)
    future = client.submit(app.dies.options(forward_output=True), "it")
    with pytest.raises(evener.TaskLost):
        future.result(20)
    assert heard.texts(2) == ["it says its last words", "it half a line"]


def test_each_try_says_which_it_is(cluster: FaultCluster, tmp_path: Path) -> None:
    client = started(cluster)
    heard = Heard(client)
    flag = str(tmp_path / "flag")
    assert client.submit(app.again.options(forward_output=True), flag).result(20) == "done"
    lines = heard.wait_for(2)
    assert [(it.attempt, it.text) for it in lines] == [
        (1, f"a line of {flag}"),
        (2, f"a line of {flag}"),
    ]


def test_of_a_flood_the_end_comes_and_the_rest_is_counted(cluster: FaultCluster) -> None:
    client = started(cluster)
    heard = Heard(client)
    count = 200_000
    assert client.submit(app.many.options(forward_output=True), count).result(60) == count
    lines = heard.wait_for(count)
    assert sum(it.left_out or 1 for it in lines) == count
    # Where the client is slow, of what still waits at the task's end only the count is told.
    assert lines[-1].left_out or lines[-1].text == f"line {count - 1}"
    numbers = [int(it.text.split()[1]) for it in lines if not it.left_out]
    assert numbers == sorted(set(numbers))


def test_a_client_that_stands_still_holds_nobody_up(
    cluster: FaultCluster, processes: Processes
) -> None:
    """It floods itself and is stopped: its tasks end, and others get theirs as ever."""
    client = started(cluster, 2)
    script = (
        "import evener, sys, threading\n"
        f"client = evener.Client({cluster.address!r})\n"
        "stand = threading.Event()\n"
        "client.on_output(lambda line: (print('begun', flush=True), stand.wait()))\n"
        "call = client.function('t.many', forward_output=True)\n"
        "futures = [call.submit(20_000) for _ in range(20)]\n"
        "print(client.gather(futures), flush=True)\n"
    )
    other = processes.start(sys.executable, "-c", script, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "begun\n"
    heard = Heard(client)
    for name in ("a", "b"):
        assert client.submit(app.every_way.options(forward_output=True), name).result(30) == name
    assert len(heard.wait_for(14)) == 14
    assert other.stdout.readline() == f"{[20_000] * 20}\n", "its results come all the same"
    other.kill()
    other.wait(10)
    other.stdout.close()


def test_over_a_restart_of_the_broker_it_goes_on(cluster: FaultCluster, tmp_path: Path) -> None:
    client = started(cluster)
    heard = Heard(client)
    gate = tmp_path / "gate"
    call = app.says_and_stays.options(forward_output=True)
    future = client.submit(call, "it", str(gate))
    assert heard.texts(1) == ["it is here"]
    cluster.restart_broker()
    wait_until(lambda: cluster.state(client, future) == "running", 20, "its adoption")
    gate.touch()
    assert future.result(20) == "it"
    assert [text for text in heard.texts(2) if text] == ["it is here", "it goes on"]
    assert sum(line.left_out for line in heard.lines) == 0


def test_by_default_it_is_shown_with_who_wrote_it(
    cluster: FaultCluster, processes: Processes
) -> None:
    started(cluster)
    script = (
        "import evener\n"
        f"with evener.Client({cluster.address!r}) as client:\n"
        "    call = client.function('t.every_way', forward_output=True)\n"
        "    print(call.submit('it').result(30), flush=True)\n"
    )
    done = processes.start(
        sys.executable, "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, err
    shown = [line.partition(" | ") for line in out.splitlines() if line != "it"]
    assert [text for _, _, text in shown] == [
        "it prints",
        "it in C",
        "it from a program",
        "it ends",
    ]
    assert all(who.startswith("t.every_way[") and who.endswith("] host1:1") for who, _, _ in shown)
    assert [line.partition(" | ")[2] for line in err.splitlines()] == [
        "it complains",
        "INFO it logs",
        "it writes past Python",
    ]


def test_on_the_command_line_it_goes_to_stderr(starter: Starter) -> None:
    up = starter.start("-n", "1", "--name", "shop", app=APP)
    wait_until(lambda: READY in up.text() or up.process.poll() is not None, 30, "the banner")
    done = up.evener("submit", "t.quiet", "it", "--wait", "--forward-output")
    assert (done.returncode, done.stdout) == (0, "it\n")
    lines = done.stderr.splitlines()
    assert [line.partition(" | ")[2] for line in lines] == ["it prints", "it half"]
    assert all("] shop:1 | " in line for line in lines)
    alone = up.evener("submit", "t.quiet", "it", "--forward-output")
    assert alone.returncode == 2
    assert "--forward-output goes with --wait" in alone.stderr
    stop(up)


def test_without_workers_tasks_write_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    with evener.LocalCluster(app.app, workers=0) as cluster, cluster.client() as client:
        assert client.submit(app.quiet.options(forward_output=True), "it").result() == "it"
    assert capsys.readouterr().out == "it prints\n"
