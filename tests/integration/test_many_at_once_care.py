"""Care of workers that run several tasks at once: drained, recycled, restarted, pinged."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evener
from tests.integration.care_cluster import (
    Start,
    care,
    client_of,
    pids_of,
    starting,
    workers,
    write_version,
)
from tests.integration.cli_cluster import Starter, Up
from tests.support import Processes, wait_until

MORE = '''
import asyncio
from pathlib import Path

@app.task(concurrency=20)
async def wait(begun: str, gate: str) -> tuple[int, int]:
    Path(begun).touch()
    while not os.path.exists(gate):
        await asyncio.sleep(0.005)
    return VERSION, os.getpid()

@app.task(threads=20)
def wait_thread(begun: str, gate: str) -> tuple[int, int]:
    Path(begun).touch()
    while not os.path.exists(gate):
        time.sleep(0.005)
    return VERSION, os.getpid()

@app.task(concurrency=20)
async def quick() -> tuple[int, int]:
    await asyncio.sleep(0.001)
    return VERSION, os.getpid()

@app.task(concurrency=20)
async def grow(mebibytes: int) -> int:
    kept.append(b"x" * (mebibytes << 20))
    return os.getpid()

@app.task(concurrency=20)
async def block(begun: str, gate: str) -> int:
    """Holds up its loop, until the gate is there."""
    Path(begun).touch()
    return hold.function(gate)
'''


@pytest.fixture
def start(starter: Starter) -> Iterator[Start]:
    with starting(starter, MORE) as starts:
        yield starts


class InHand:
    """Tasks that run side by side, on the loop and in threads, until they are let go."""

    def __init__(self, client: evener.Client, folder: Path, count: int = 8) -> None:
        folder.mkdir()
        self._client = client
        self._gate = folder / "gate"
        begun = [folder / f"begun-{number}" for number in range(count)]
        self.futures: list[evener.Future[Any]] = [
            client.submit(f"care.{name}", str(path), str(self._gate))
            for name, path in zip(["wait", "wait_thread"] * count, begun, strict=False)
        ]
        wait_until(lambda: all(path.exists() for path in begun), 60, "all to begin")

    def let_go(self) -> set[tuple[int, int]]:
        """Which versions they were, and in which processes."""
        self._gate.touch()
        return {tuple(future.result(60)) for future in self.futures}

    def starts(self) -> set[int]:
        """How many workers each lost."""
        return starts_of(self._client, self.futures)


def starts_of(client: evener.Client, futures: list[evener.Future[Any]]) -> set[int]:
    return {client.query("why", id=future.task_id)["starts"] for future in futures}


def states_of(client: evener.Client, futures: list[evener.Future[Any]]) -> list[str]:
    return [client.query("why", id=future.task_id)["state"] for future in futures]


def blocked(client: evener.Client, folder: Path) -> tuple[evener.Future[int], Path]:
    """A task that holds up its loop, and the gate at which it goes on."""
    begun, gate = folder / "block-begun", folder / "block-gate"
    future = client.function("care.block", max_starts=1).submit(str(begun), str(gate))
    wait_until(begun.exists, 60, "the loop to be held up")
    return future, gate


# --- Draining -------------------------------------------------------------------------------------


def drain(up: Up, client: evener.Client, *more: str) -> None:
    done = up.evener("drain", "here", *more, "-b", client.address)
    assert done.returncode == 0, done.stderr


def test_a_drained_host_finishes_what_runs_and_gives_back_the_rest(
    start: Start, tmp_path: Path
) -> None:
    up = start("-n", "1")
    with client_of(up) as client:
        in_hand = InHand(client, tmp_path / "hand", 20)
        waiting = [client.submit("care.quick") for _ in range(10)]
        waiting.append(client.submit("care.work"))
        drain(up, client)
        wait_until(lambda: states_of(client, waiting) == ["queued"] * 11, 60, "them to be back")
        assert care(client)["running"] == 20
        assert len({pid for _, pid in in_hand.let_go()}) == 1
        drain(up, client, "--wait")
        assert not any(future.done() for future in waiting)
        drain(up, client, "--undo")
        for future in waiting:
            future.result(60)
        assert in_hand.starts() | starts_of(client, waiting) == {0}


def test_what_a_blocked_loop_has_not_begun_goes_back_when_its_host_is_drained(
    start: Start, tmp_path: Path
) -> None:
    up = start("-n", "1")
    with client_of(up) as client:
        held, gate = blocked(client, tmp_path)
        waiting = [client.submit("care.quick") for _ in range(5)]
        wait_until(lambda: states_of(client, waiting) == ["assigned"] * 5, 60, "the agent")
        drain(up, client)
        wait_until(lambda: states_of(client, waiting) == ["queued"] * 5, 60, "them to be back")
        gate.touch()
        pid = held.result(60)
        drain(up, client, "--wait")
        assert not any(future.done() for future in waiting)
        drain(up, client, "--undo")
        assert {tuple(future.result(60)) for future in waiting} == {(1, pid)}
        assert starts_of(client, [held, *waiting]) == {0}


def test_an_agent_that_is_to_end_finishes_what_runs(
    start: Start, processes: Processes, tmp_path: Path
) -> None:
    """SIGTERM to the agent of a second host; what waits there runs on the first."""
    up = start("-n", "1")
    with client_of(up) as client:
        here = pids_of(client)
        drain(up, client)
        evener_worker = (sys.executable, "-m", "evener", "worker", "care_app:app")
        options = ("--name", "there", "-n", "1", "-b", client.address)
        other = processes.start(*evener_worker, *options, cwd=up.folder)
        wait_until(lambda: len(pids_of(client)) == 2, 60, "the second host")
        in_hand = InHand(client, tmp_path / "hand", 20)
        waiting = [client.submit("care.quick") for _ in range(10)]
        other.send_signal(signal.SIGTERM)
        drain(up, client, "--undo")
        assert {future.result(60)[1] for future in waiting} == here
        ((_, pid),) = in_hand.let_go()
        assert pid not in here
        assert other.wait(60) == 0
        assert in_hand.starts() | starts_of(client, waiting) == {0}


# --- Recycling ------------------------------------------------------------------------------------


def test_a_thousand_tasks_with_workers_that_live_for_fifty(start: Start) -> None:
    up = start("-n", "2", "--max-tasks-per-worker", "50")
    with client_of(up) as client:
        pids: set[int] = set()
        count = 0
        # Where processes start slowly, workers go on beyond their limit, so it may take more tasks.
        while count < 1_000 or len(pids) < 10:
            batch = [client.submit("care.quick") for _ in range(100)]
            pids |= {future.result(60)[1] for future in batch}
            count += 100
        wait_until(lambda: care(client)["ready"] == 2, 60, "both workers")
        assert care(client)["recycled"]["tasks"] >= len(pids) - 2
        assert sum(row["restarts"] for row in workers(client)) == 0


def test_one_that_is_too_old_finishes_what_it_has_and_gets_nothing_more(
    start: Start, tmp_path: Path
) -> None:
    up = start("-n", "2", "--max-worker-age", "2s")
    with client_of(up) as client:
        in_hand = InHand(client, tmp_path / "hand")

        def old() -> set[str]:
            return {row["state"] for row in workers(client) if row["running"]}

        wait_until(lambda: old() == {"retiring"}, 60, "its age to be reached")
        beside = {client.submit("care.quick").result(60)[1] for _ in range(20)}
        ((_, pid),) = in_hand.let_go()
        assert pid not in beside
        wait_until(lambda: pid not in pids_of(client), 60, "the old one to leave")
        assert in_hand.starts() == {0}


def test_one_that_grows_finishes_what_it_has_and_is_replaced(start: Start, tmp_path: Path) -> None:
    up = start("-n", "1", "--max-worker-memory", "150MiB")
    with client_of(up) as client:
        in_hand = InHand(client, tmp_path / "hand")
        large = client.submit("care.grow", 160).result(60)
        wait_until(lambda: care(client)["recycled"] == {"memory": 1}, 60, "its size to be seen")
        waiting = [client.submit("care.quick") for _ in range(10)]
        assert {pid for _, pid in in_hand.let_go()} == {large}
        after = {future.result(60)[1] for future in waiting}
        assert large not in after
        assert in_hand.starts() | starts_of(client, waiting) == {0}


# --- Restart --------------------------------------------------------------------------------------


def test_new_code_comes_in_beside_what_runs_and_nothing_is_lost(
    start: Start, tmp_path: Path
) -> None:
    up = start("-n", "2")
    with client_of(up) as client:
        before = pids_of(client)
        in_hand = InHand(client, tmp_path / "hand")
        write_version(up, 2, MORE)
        up.process.send_signal(signal.SIGHUP)
        came: list[evener.Future[Any]] = []

        def are_new() -> bool:
            """Tasks come all the time."""
            came.extend(client.submit("care.quick") for _ in range(20))
            return {future.result(60)[0] for future in came[-20:]} == {2}

        wait_until(are_new, 60, "the new code")
        wait_until(lambda: care(client)["restart"]["finishing"] == 1, 60, "only it is left")
        assert not any(future.done() for future in in_hand.futures)
        ((version, pid),) = in_hand.let_go()
        assert (version, pid in before) == (1, True)
        wait_until(lambda: care(client)["restart"]["state"] == "done", 60, "the end")
        wait_until(lambda: not pids_of(client) & before, 60, "the old ones to leave")
        assert {future.result(60)[0] for future in came} <= {1, 2}
        assert in_hand.starts() | starts_of(client, came) == {0}
        assert sum(row["restarts"] for row in workers(client)) == 0


# --- Whether they answer --------------------------------------------------------------------------


def test_one_that_runs_many_answers_until_its_loop_is_held_up(start: Start, tmp_path: Path) -> None:
    """Then others get what it has not begun; it is killed, and what had begun runs again."""
    up = start("-n", "2", "--ping-timeout", "3s")
    with client_of(up) as client:
        in_hand = InHand(client, tmp_path / "hand")

        def busy() -> list[int]:
            return [row["pid"] for row in workers(client) if row["running"]]

        (pid,) = wait_until(busy, 60, "word of it")
        done = up.evener("ping", "--worker", str(pid), "-b", client.address)
        assert (done.returncode, f"(pid {pid}) answered its agent in" in done.stdout) == (0, True)
        held, _ = blocked(client, tmp_path)
        late = [client.submit("care.quick") for _ in range(5)]
        assert pid not in {future.result(60)[1] for future in late}
        done = up.evener("ping", "--worker", f"here/{pid}", "-b", client.address)
        assert done.returncode == 69
        assert f"(pid {pid}) runs care.wait[" in done.stderr
        assert "with others or alone, and does not answer" in done.stderr
        with pytest.raises(evener.TaskLost):
            held.result(60)
        assert pid not in {now for _, now in in_hand.let_go()}
        assert in_hand.starts() == {1}
        assert starts_of(client, late) == {0}
        wait_until(lambda: pid not in pids_of(client), 60, "the next one")
        assert sorted(row["restarts"] for row in workers(client)) == [0, 1]
    assert f"(pid {pid}) runs 9 at once and does not answer for 3 s: killed" in up.text()
