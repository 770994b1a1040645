"""A worker of the demo gets SIGKILL while it runs a task; what the cluster does about it is shown.

Rules of this file: only the broker's own lists say what happened, so that nothing is shown that did
not happen. The worker is killed by its pid, which the broker names.

Tasks are short, so the worker is held with SIGSTOP first, until a heartbeat names the task that it
runs: then the kill certainly hits that one. How long a task takes tells nothing, for on a machine
that is busy those of other workers take long too. A worker that stood still just before it began
its task gives that back, uncharged: this is said, and another worker is killed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeAlias

Row: TypeAlias = Mapping[str, Any]


class Ask(Protocol):
    """What the broker lists: `ask("workers")`, `ask("tasks", state="running")`."""

    def __call__(self, kind: str, **filters: Any) -> Sequence[Row]: ...


_POLL_S: Final = 0.002
_HELD_S: Final = 0.3  # what the broker hears of a worker later than this was said after SIGSTOP
_HELD_WAIT_S: Final = 3.0  # heartbeats come each second
_AGAIN_S: Final = 30.0
_REPLACEMENT_S: Final = 10.0  # the new worker's pid comes with a heartbeat, each second
_TRIES_MAX: Final = 5
_STRICT_TRIES: Final = 1  # a second each; the work might be over before the right one is found
_AGAIN: Final = ("assigned", "running", "done", "failed")  # states of a task that was run again


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of a killed worker and the task that it ran; times are seconds since the kill.

    None stands for what was not seen. `killed`: how many it took until one had begun its task.
    """

    worker: str
    pid: int
    task: str
    lost_s: float | None
    again_s: float | None
    new_pid: int | None
    killed: int = 1


class Assassin:
    """Kills one busy worker and watches.

    `label` names a task by its id, for people. `idle` is called often, and should be quick.
    """

    def __init__(
        self,
        ask: Ask,
        say: Callable[[str], None],
        label: Callable[[str], str],
        idle: Callable[[], None],
    ) -> None:
        self._ask: Final = ask
        self._say: Final = say
        self._label: Final = label
        self._idle: Final = idle

    def strike(self) -> Loss | None:
        """Kill a worker in the middle of a task. None: nobody was busy any more."""
        loss: Loss | None = None
        killed = 0
        for attempt in range(_TRIES_MAX):
            workers = self._workers()
            if not workers or not self._ask("tasks"):
                break
            likely = sorted(workers, key=lambda pid: _likelihood(workers[pid]), reverse=True)
            pid = likely[attempt % len(likely)]
            os.kill(pid, signal.SIGSTOP)
            held = self._wait(self._watch(pid, strict=attempt < _STRICT_TRIES), _HELD_WAIT_S)
            if not held:
                os.kill(pid, signal.SIGCONT)  # it was between two tasks
                continue
            killed += 1
            loss = self._kill(str(workers[pid]["name"]), pid, held, set(workers))
            if loss.lost_s is not None:
                break
        if loss is None:
            self._say("no worker is busy: none was killed")
            return None
        return replace(loss, killed=killed)

    def _kill(self, worker: str, pid: int, held: Row, pids: set[int]) -> Loss:
        task = str(held["id"])
        self._say(f"half-way: worker {worker} (pid {pid}) gets SIGKILL")
        start = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        lost_s = self._see_lost(held, start)
        again_s = None if lost_s is None else self._see_again(task, start)
        new_pid = self._wait(lambda: self._newcomer(worker, pids), _REPLACEMENT_S)
        if new_pid is None:
            self._say(f"  NOT replaced within {_REPLACEMENT_S:g} s")
        else:
            told = _ms(time.monotonic() - start)
            self._say(f"  replaced  by pid {new_pid}, told with a heartbeat after {told}")
        return Loss(worker, pid, task, lost_s, again_s, new_pid)

    def _workers(self) -> dict[int, Row]:
        return {int(row["pid"]): row for row in self._ask("workers") if row["pid"]}

    def _watch(self, pid: int, *, strict: bool) -> Callable[[], Row | None]:
        """Finds the task that a worker runs which stands still since now; empty if there is none.

        `strict`: only one that it was given before that, or it might not have begun it.
        """
        stopped = time.monotonic()
        before = self._told(pid)

        def held() -> Row | None:
            nonlocal before
            told = self._told(pid)
            fresh, before = told != before, told
            # What was told before it stood still may have ended since.
            elapsed = time.monotonic() - stopped
            if told is None or not fresh or elapsed < _HELD_S:
                return None
            if strict and told[1] < elapsed * 1000:
                return {}
            row = self._row(told[0])
            return row if row and row["state"] == "running" and not row["starts"] else None

        return held

    def _told(self, pid: int) -> tuple[str, int] | None:
        """Which task a worker runs and for how long, as its last heartbeat says."""
        for row in self._ask("workers"):
            if row["pid"] == pid and row["task"]:
                return row["task"].hex(), int(row["running_ms"])
        return None

    def _see_lost(self, held: Row, start: float) -> float | None:
        """Wait until its worker's death is charged to it, and say so, or what was seen instead."""
        task = str(held["id"])
        label = self._label(task)

        def look() -> Row | None:
            row = self._row(task)
            return row if row and (row["starts"] or _is_another_attempt(row, held)) else None

        row = self._wait(look, _AGAIN_S)
        after = time.monotonic() - start
        if row and row["starts"]:
            self._say(f"  lost      {label}, which it was running, after {_ms(after)}")
            return after
        if row and _is_another_attempt(row, held):
            self._say(
                f"  NOT lost  {label}, which it had not begun: given back, now {row['state']}"
            )
        else:
            self._say(f"  NOT lost  {label}, {_instead(self._row(task))}")
        return None

    def _see_again(self, task: str, start: float) -> float | None:
        """Wait until a worker has it again, and say so, or what was seen instead."""

        def look() -> Row | None:
            row = self._row(task)
            return row if row and row["state"] in _AGAIN else None

        seen = self._wait(look, _AGAIN_S)
        after = time.monotonic() - start
        if seen:
            self._say(f"  requeued  at its old place in line, runs again after {_ms(after)}")
            return after
        self._say(f"  NOT seen to run again, {_instead(self._row(task))}")
        return None

    def _row(self, task: str) -> Row | None:
        return next(iter(self._ask("tasks", id=task)), None)

    def _newcomer(self, worker: str, pids: set[int]) -> int | None:
        for row in self._ask("workers"):
            if row["name"] == worker and row["pid"] not in pids and row["state"] == "ready":
                return int(row["pid"])
        return None

    def _wait(self, look: Callable[[], Any], seconds: float) -> Any:
        """The first answer, or None when the time is over."""
        deadline = time.monotonic() + seconds
        while (found := look()) is None:
            if time.monotonic() > deadline:
                return None
            self._idle()
            time.sleep(_POLL_S)
        return found


def _likelihood(worker: Row) -> tuple[bool, bool, int]:
    """How likely it runs something. Only likely: its last heartbeat may be a second old."""
    return worker["state"] == "ready", bool(worker["running"]), int(worker["tasks"])


def _is_another_attempt(row: Row, held: Row) -> bool:
    return bool(row["state"] == "queued" or row["attempt"] != held["attempt"])


def _instead(row: Row | None) -> str:
    """What the broker says of a task with which something else should have happened."""
    if row is None:
        return "which the broker lists no more"
    return f"which is {row['state']} as the broker says, after {_AGAIN_S:g} s"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
