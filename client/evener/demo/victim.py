"""A worker of the demo gets SIGKILL while it runs a task; what the cluster does about it is shown.

Rules of this file: only the broker's own lists say what happened, so that nothing is shown that did
not happen. The worker is killed by its pid, which the broker names.

Tasks are short, so the worker is held with SIGSTOP first: then the one task that does not end is
the one that it runs, and the kill certainly hits a running task.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

Row: TypeAlias = Mapping[str, Any]


class Ask(Protocol):
    """What the broker lists: `ask("workers")`, `ask("tasks", state="running")`."""

    def __call__(self, kind: str, **filters: Any) -> Sequence[Row]: ...


_POLL_S: Final = 0.002
_HELD_S: Final = 0.3  # longer than any other task takes; the broker hears of long ones after 50 ms
_HELD_WAIT_S: Final = 2.0
_AGAIN_S: Final = 30.0
_REPLACEMENT_S: Final = 10.0  # the new worker's pid comes with a heartbeat, each second
_TRIES_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of a killed worker and the task that it ran; times are seconds since the kill."""

    worker: str
    pid: int
    task: str
    lost_s: float
    again_s: float
    new_pid: int | None


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
        self._running_since: dict[str, float] = {}

    def strike(self) -> Loss | None:
        """Kill a worker in the middle of a task. None: nobody was busy any more."""
        for attempt in range(_TRIES_MAX):
            workers = self._workers()
            if not workers or not self._ask("tasks"):
                break
            likely = sorted(workers, key=lambda pid: _likelihood(workers[pid]), reverse=True)
            pid = likely[attempt % len(likely)]
            os.kill(pid, signal.SIGSTOP)
            held = self._wait(self._held_task, _HELD_WAIT_S)
            if held is not None:
                return self._kill(str(workers[pid]["name"]), pid, held, set(workers))
            os.kill(pid, signal.SIGCONT)  # it was between two tasks
        self._say("no worker is busy: none was killed")
        return None

    def _kill(self, worker: str, pid: int, task: str, pids: set[int]) -> Loss:
        self._say(f"half-way: worker {worker} (pid {pid}) gets SIGKILL")
        start = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        self._wait(lambda: self._is_lost(task), _AGAIN_S)
        lost_s = time.monotonic() - start
        self._say(f"  lost      {self._label(task)}, which it was running, after {_ms(lost_s)}")
        self._wait(lambda: self._is_under_way(task), _AGAIN_S)
        again_s = time.monotonic() - start
        self._say(f"  requeued  at its old place in line, runs again after {_ms(again_s)}")
        new_pid = self._wait(lambda: self._newcomer(worker, pids), _REPLACEMENT_S)
        if new_pid is None:
            self._say(f"  NOT replaced within {_REPLACEMENT_S:g} s")
        else:
            told = _ms(time.monotonic() - start)
            self._say(f"  replaced  by pid {new_pid}, told with a heartbeat after {told}")
        return Loss(worker, pid, task, lost_s, again_s, new_pid)

    def _workers(self) -> dict[int, Row]:
        return {int(row["pid"]): row for row in self._ask("workers") if row["pid"]}

    def _held_task(self) -> str | None:
        """The one task that has been running for long, once there is no other."""
        now = time.monotonic()
        running = [str(row["id"]) for row in self._ask("tasks", state="running")]
        self._running_since = {task: self._running_since.get(task, now) for task in running}
        long = [task for task, since in self._running_since.items() if now - since > _HELD_S]
        return long[0] if len(long) == 1 else None

    def _is_lost(self, task: str) -> bool:
        """Whether the death was charged to it. What the broker lists no more has ended since."""
        return all(row["starts"] for row in self._ask("tasks", id=task))

    def _is_under_way(self, task: str) -> bool:
        """Whether a worker has it again, or it has ended since."""
        return all(row["state"] not in ("queued", "held") for row in self._ask("tasks", id=task))

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


def _likelihood(worker: Row) -> tuple[bool, bool, int]:
    """How likely it runs something. Only likely: its last heartbeat may be a second old."""
    return worker["state"] == "ready", bool(worker["running"]), int(worker["tasks"])


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
