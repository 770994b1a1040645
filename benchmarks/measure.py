"""How figures are taken: subjects side by side in one run, in turns, several rounds, medians.

Rules of this file: knows nothing of what is measured. A subject is opened once, then measured in
each round, in an order that rotates, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import psutil

ROOT = Path(__file__).resolve().parent.parent

Sample: TypeAlias = Mapping[str, float]
"""One round of one subject: figures by name, the unit being the last part of the name."""

Measure: TypeAlias = Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that is measured. `open` starts it and gives the function that takes one sample."""

    name: str
    open: Callable[[], AbstractContextManager[Measure]]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for one figure of one subject, or for its ratio to another subject's."""

    figure: str
    subject: str
    at_most: float | None = None
    at_least: float | None = None
    relative_to: str | None = None

    def value(self, results: Mapping[str, Mapping[str, Spread]]) -> float | None:
        """The figure, or the ratio of medians; None where one is missing."""
        own = results.get(self.subject, {}).get(self.figure)
        if own is None or self.relative_to is None:
            return None if own is None else own.median
        other = results.get(self.relative_to, {}).get(self.figure)
        return None if other is None or not other.median else own.median / other.median

    def reached(self, value: float) -> bool:
        """Whether the bound holds."""
        return (self.at_most is None or value <= self.at_most) and (
            self.at_least is None or value >= self.at_least
        )

    def __str__(self) -> str:
        sign, bound = ("<=", self.at_most) if self.at_most is not None else (">=", self.at_least)
        beside = f" x {self.relative_to}" if self.relative_to else ""
        return f"{self.subject} {self.figure} {sign} {bound:,g}{beside}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Subjects that are measured in turns, and what is expected of them."""

    name: str
    title: str
    subjects: Sequence[Subject]
    rounds: int = 5
    goals: Sequence[Goal] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over all rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one: what is compared."""
        return statistics.median(self.values)

    def as_json(self) -> dict[str, Any]:
        """For the file of results."""
        values = self.values
        return {"min": min(values), "median": self.median, "max": max(values), "rounds": values}


@dataclass(slots=True)
class Outcome:
    """What a comparison gave."""

    comparison: Comparison
    results: dict[str, dict[str, Spread]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def compare(comparison: Comparison, say: Callable[[str], None]) -> Outcome:
    """Open all subjects, measure them in turns, close them. A subject that fails is left out."""
    outcome = Outcome(comparison)
    samples: dict[str, list[Sample]] = {}
    with ExitStack() as stack:
        opened: list[tuple[str, Measure]] = []
        for subject in comparison.subjects:
            try:
                opened.append((subject.name, stack.enter_context(subject.open())))
            except Exception as error:  # a peer that is not there must not end the run
                outcome.failures[subject.name] = f"{type(error).__name__}: {error}"
        for number in range(comparison.rounds):
            turn = number % max(1, len(opened))
            for name, measure in opened[turn:] + opened[:turn]:
                if name in outcome.failures:
                    continue
                say(f"{comparison.name}: round {number + 1} of {comparison.rounds}, {name}")
                try:
                    samples.setdefault(name, []).append(measure())
                except Exception as error:
                    outcome.failures[name] = f"{type(error).__name__}: {error}"
    for name, taken in samples.items():
        figures = {figure: None for sample in taken for figure in sample}
        outcome.results[name] = {
            figure: Spread(tuple(sample[figure] for sample in taken if figure in sample))
            for figure in figures
        }
    return outcome


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the sorted values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


# --- Children -------------------------------------------------------------------------------------


@contextmanager
def child(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python process of ours, stopped at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        **options,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def environment() -> dict[str, str]:
    """The environment of children: they find what this process found."""
    paths = [str(ROOT), *filter(None, sys.path)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def cpu_us(process: psutil.Process) -> float:
    """CPU time that a process has used so far, user and system, all threads.

    From the scheduler where it tells (in nanoseconds); `cpu_times` counts in steps of 10 ms.
    """
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    try:
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e3
    except FileNotFoundError:
        times = process.cpu_times()
        return float(times.user + times.system) * 1e6


# --- The machine ----------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Where the figures come from: without this they mean nothing."""
    return {
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cpus_usable": len(os.sched_getaffinity(0)),
        "memory_mib": psutil.virtual_memory().total >> 20,
        "load_before": os.getloadavg(),
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in ("pyzmq", "msgpack", "psutil", "evener")},
        "libzmq": _libzmq(),
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain")),
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _libzmq() -> str:
    import zmq

    return zmq.zmq_version()


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
