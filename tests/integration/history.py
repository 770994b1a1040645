"""What really ran, as the functions themselves wrote it down: the oracle of the fault tests.

Rules of this file: it imports nothing of evener, neither here nor at the caller's expense. A worker
appends one line when a function begins and one when it ends, each in a single write with O_APPEND,
so lines of processes that die do not mix and what was written stays written.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

BEGIN = "begin"
END = "end"

# A result may be lost with its worker, or with its agent while the broker is away; not later.
DELIVERY_NS = 5_000_000_000


def note(folder: str | os.PathLike[str], what: str, token: str) -> None:
    """Append one line: what happened, to which task, in which process, when."""
    line = f"{what} {token} {os.getpid()} {time.monotonic_ns()}\n".encode()
    fd = os.open(Path(folder) / "history", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        written = os.write(fd, line)
    finally:
        os.close(fd)
    if written != len(line):
        raise OSError("half a line in the history")


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of one task. `ended_ns` is None when it did not come to its end."""

    token: str
    pid: int
    began_ns: int
    ended_ns: int | None


@dataclass(frozen=True, slots=True)
class Death:
    """A worker process that the test ended, itself or by the end of its agent."""

    pid: int
    at_ns: int


class History:
    """The history of one folder. Reads the file anew each time it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def executions(self) -> list[Execution]:
        """All runs, in the order in which they began."""
        try:
            lines = (self.folder / "history").read_text().splitlines()
        except FileNotFoundError:
            return []
        found: list[Execution] = []
        running: dict[tuple[str, int], int] = {}
        for line in lines:
            what, token, pid, at_ns = line.split()
            key = token, int(pid)
            if what == BEGIN:
                running[key] = len(found)
                found.append(Execution(token, int(pid), int(at_ns), None))
            else:
                index = running.pop(key)
                began = found[index]
                found[index] = Execution(token, began.pid, began.began_ns, int(at_ns))
        return found

    def of(self, token: str) -> list[Execution]:
        """The runs of one task."""
        return [execution for execution in self.executions() if execution.token == token]

    def begun(self) -> set[str]:
        """The tasks that have begun at least once."""
        return {execution.token for execution in self.executions()}

    def order(self) -> list[str]:
        """The tasks in the order in which they began."""
        return [execution.token for execution in self.executions()]


def misdeeds(
    executions: Iterable[Execution],
    tokens: Collection[str],
    answered: Iterable[str],
    deaths: Iterable[Death],
) -> list[str]:
    """What broke a promise; empty when all is well.

    `tokens` were submitted; `answered` is one entry per result that a caller got. A task may begin
    again only when the process of its run before was killed, during that run or so soon after it
    that its result may have died with it.
    """
    died: defaultdict[int, list[int]] = defaultdict(list)
    for death in deaths:
        died[death.pid].append(death.at_ns)
    runs: defaultdict[str, list[Execution]] = defaultdict(list)
    for execution in executions:
        runs[execution.token].append(execution)
    answers: defaultdict[str, int] = defaultdict(int)
    for token in answered:
        answers[token] += 1
    found = [f"{token}: never asked for, but ran" for token in runs if token not in tokens]
    found += [f"{token}: never asked for, but answered" for token in answers if token not in tokens]
    for token in tokens:
        if answers[token] != 1:
            found.append(f"{token}: {answers[token]} answers")
        if answers[token] and not any(run.ended_ns is not None for run in runs[token]):
            found.append(f"{token}: answered, but never came to its end")
        for run, following in zip(runs[token], runs[token][1:], strict=False):
            if not any(_excuses(at_ns, run) for at_ns in died[run.pid]):
                found.append(f"{token}: {run} began again, unasked, as {following}")
    return found


def _excuses(died_ns: int, run: Execution) -> bool:
    return run.ended_ns is None or died_ns - run.ended_ns < DELIVERY_NS
