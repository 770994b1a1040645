"""A worker of the demo gets SIGKILL while it runs a task; what the cluster does about it is shown.

Rules of this file: only the broker's own lists say what happened, so that nothing is shown that did
not happen. The worker is killed by its pid, which the broker names.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Rows: TypeAlias = Sequence[Mapping[str, Any]]
Ask: TypeAlias = Callable[[str], Rows]
"""What the broker lists: `ask("workers")`, `ask("tasks")`, the oldest first."""

_POLL_S: Final = 0.002
_LOSS_S: Final = 1.0  # a verdict takes milliseconds; without one the worker was between two tasks
_REPLACEMENT_S: Final = 10.0  # the new worker's pid comes with a heartbeat, each second
_TRIES_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of a killed worker and its task; times are seconds since the kill."""

    worker: str
    pid: int
    task: str | None  # None: it was between two tasks, nothing had to run again
    lost_s: float
    again_s: float | None
    new_pid: int | None
    replaced_s: float


class Assassin:
    """Kills one busy worker and watches. `idle` is called often, and should be quick."""

    def __init__(self, ask: Ask, say: Callable[[str], None], idle: Callable[[], None]) -> None:
        self._ask: Final = ask
        self._say: Final = say
        self._idle: Final = idle

    def strike(self) -> list[Loss]:
        """Kill until one worker died while it ran a task; that is nearly always the first one."""
        losses: list[Loss] = []
        for _ in range(_TRIES_MAX):
            workers = {row["pid"]: row for row in self._ask("workers")}
            pid = _busiest(workers)
            if pid is None:
                self._say("no worker is busy: none was killed")
                break
            losses.append(self._kill(str(workers[pid]["name"]), pid, set(workers)))
            if losses[-1].task is not None:
                break
        return losses

    def _kill(self, worker: str, pid: int, pids: set[int]) -> Loss:
        charged = {row["id"] for row in self._ask("tasks") if row["starts"]}
        self._say(f"half-way: worker {worker} (pid {pid}) gets SIGKILL")
        start = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        row = self._wait(lambda: self._victim(charged), _LOSS_S)
        lost_s = time.monotonic() - start
        again_s = None
        if row is None:
            self._say("  it was between two tasks: none is lost, none has to run again")
        else:
            label = f"{row['function']}[{row['id'][:8]}]"
            self._say(f"  lost      {label}, which it was running, known after {_ms(lost_s)}")
            self._wait(lambda: self._left_the_queue(row["id"]), _REPLACEMENT_S)
            again_s = time.monotonic() - start
            self._say(f"  requeued  at its old place, and runs again after {_ms(again_s)}")
        new_pid = self._wait(lambda: self._newcomer(worker, pids), _REPLACEMENT_S)
        replaced_s = time.monotonic() - start
        if new_pid is None:
            self._say(f"  NOT replaced within {_REPLACEMENT_S:g} s")
        else:
            self._say(f"  replaced  by pid {new_pid}, seen after {_ms(replaced_s)}")
        task = None if row is None else str(row["id"])
        return Loss(worker, pid, task, lost_s, again_s, new_pid, replaced_s)

    def _victim(self, charged: set[str]) -> Mapping[str, Any] | None:
        """The task that a worker's death was charged to, and was not before."""
        rows = (r for r in self._ask("tasks") if r["starts"] and r["id"] not in charged)
        return next(rows, None)

    def _left_the_queue(self, task: str) -> bool:
        """Whether a worker has it again. What the broker lists no more has ended meanwhile."""
        states = [row["state"] for row in self._ask("tasks") if row["id"] == task]
        return states != ["queued"] and states != ["held"]

    def _newcomer(self, worker: str, pids: set[int]) -> int | None:
        for row in self._ask("workers"):
            if row["name"] == worker and row["pid"] not in pids and row["state"] == "ready":
                return int(row["pid"])
        return None

    def _wait(self, look: Callable[[], Any], seconds: float) -> Any:
        """The first true answer, or None when the time is over."""
        deadline = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > deadline:
                return None
            self._idle()
            time.sleep(_POLL_S)
        return found


def _busiest(workers: Mapping[int, Mapping[str, Any]]) -> int | None:
    """A worker that runs something, as of its last heartbeat: the one that has done the most."""
    busy = [row for row in workers.values() if row["running"]]
    return max(busy, key=lambda row: int(row["tasks"]))["pid"] if busy else None


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
