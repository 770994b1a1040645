"""What really happened: runs of tasks, ends at the caller, HELLOs; and whether that is right.

Rules of this file: it imports nothing of evener.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Run:
    """One execution of a task at one agent."""

    agent: int
    began_ns: int
    ended_ns: int | None = None


@dataclass
class Books:
    """Written by all peers of the process."""

    runs: dict[bytes, list[Run]] = field(default_factory=dict[bytes, list[Run]])
    ends: Counter[bytes] = field(default_factory=Counter[bytes])
    submitted: int = 0
    wrong: list[str] = field(default_factory=list[str])
    stopped: int = 0
    """Runs that the broker had stopped."""
    again: int = 0
    """Runs of tasks that had run to their end before: their results died with the broker."""
    overlaps: int = 0
    """Runs of tasks that still ran."""
    hellos: list[int] = field(default_factory=list[int])
    epoch: int = 0
    """Of the last broker."""
    dispatched_ns: int = 0
    """When the first task of a later broker came to an agent; 0 until then."""

    def begin(self, task_id: bytes, agent: int, now_ns: int) -> Run:
        """A worker starts."""
        before = self.runs.setdefault(task_id, [])
        if any(run.ended_ns is None for run in before):
            self.overlaps += 1
        elif before:
            self.again += 1
        run = Run(agent, now_ns)
        before.append(run)
        return run

    def end(self, task_id: bytes, right: bool) -> None:
        """A caller gets a result."""
        self.ends[task_id] += 1
        if not right:
            self.wrong.append(f"{task_id.hex()}: an end that is not its result")
        if self.ends[task_id] > 1:
            self.wrong.append(f"{task_id.hex()}: {self.ends[task_id]} ends")
        if not any(run.ended_ns is not None for run in self.runs.get(task_id, ())):
            self.wrong.append(f"{task_id.hex()}: an end without a run")

    def peak_hellos(self, since_ns: int, window_ns: int = 1_000_000_000) -> int:
        """The most HELLOs within any second since a moment."""
        window: deque[int] = deque()
        most = 0
        for at_ns in self.hellos:
            if at_ns < since_ns:
                continue
            window.append(at_ns)
            while window[0] <= at_ns - window_ns:
                window.popleft()
            most = max(most, len(window))
        return most
