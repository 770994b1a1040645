"""What a row of the table is, and how it is run: clusters, repetitions, and what comes of them.

Rules of this file: nothing of a row is left out in silence. A row that cannot run says why, a row
that went wrong keeps its histories and says where they are.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.chaos.cluster import Cluster
from tests.chaos.network import Network, NetworkError
from tests.chaos.parts import RowError

T = TypeVar("T")

IDLE, RATE, SATURATED = "idle", "rate", "saturated"
LOADS = (IDLE, RATE, SATURATED)

SUMMED = (
    "tasks", "answered", "executions", "reruns", "lost", "duplicates", "twice_without_verdict",
    "overlaps", "overlaps_after_verdict", "false_verdicts", "verdicts", "late",
)  # fmt: skip


class NotRun(Exception):
    """Raised by a row that finds it cannot run here; the text is the reason."""


@dataclass(slots=True)
class Tally:
    """What a row found, over all its loads and repetitions."""

    repetitions: int = 0
    figures: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    detection_s: list[float] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    by_load: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    not_run: str = ""
    broken_off: bool = False
    seconds: float = 0.0
    load_average: float = 0.0
    """Of the machine, over the last minute of the row."""

    def add(self, judgement: dict[str, Any], folder: Path) -> None:
        for name in SUMMED:
            self.figures[name] += judgement[name]
        if judgement["late"]:
            text = "tasks ran again, as their agents were late to a new broker"
            self.notes.append(f"{folder.name}: {judgement['late']} {text}")
        self.faults.update(judgement["faults"])
        self.violations.update(judgement["violations"])
        self.detection_s += judgement["detection_s"]
        self.recovery_s += judgement["recovery_s"]
        for rule, texts in judgement["examples"].items():
            self.examples += [f"{rule}: {text} (in {folder})" for text in texts[:2]]

    def failed(self) -> bool:
        return bool(self.violations or self.errors)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    name: str
    title: str
    run: Callable[[Run], None]
    loads: Sequence[str] = LOADS
    repeat: int = 30
    why_not: Callable[[], str | None] = lambda: None
    parts_not_run: Sequence[str] = ()
    """What else belongs to this row, and why it is not done."""


class Run:
    """One row with one load: its clusters and its decisions."""

    def __init__(
        self, row: Row, load: str, *, repeat: int, seed: int, folder: Path, until: float,
        tally: Tally, keep: bool, starve_s: float = 20.0,
    ) -> None:  # fmt: skip
        self.row = row
        self.starve_s = starve_s
        """How long each repetition of R13 has hardly any processor."""
        self.load = load
        self.repeat = repeat
        self.rng = random.Random(f"{seed} {row.name} {load}")
        self.tally = tally
        self._folder = folder
        self._until = until
        self._keep = keep
        self._clusters = 0
        self._bags: dict[str, list[Any]] = {}

    def repetitions(self) -> Iterator[int]:
        """As many as asked for, unless the time for this row is over."""
        for number in range(self.repeat):
            if number and time.monotonic() > self._until:
                name = self.row.name
                self.note(f"{name}: time for {number} of {self.repeat} with {self.load} load")
                return
            yield number
            self.tally.repetitions += 1

    def pick(self, kind: str, options: Sequence[T]) -> T:
        """One of them, at random, but none again before all had their turn."""
        bag = self._bags.setdefault(kind, [])
        if not bag:
            bag += self.rng.sample(options, len(options))
        picked: T = bag.pop()
        return picked

    def note(self, text: str) -> None:
        """A remark below the table."""
        if text not in self.tally.notes:
            self.tally.notes.append(text)

    def moment(self, longest_s: float) -> None:
        """Let a random time pass: when a fault strikes is the point of it."""
        time.sleep(self.rng.uniform(0.0, longest_s))

    @contextmanager
    def cluster(self, hosts: Sequence[str] = (), finish_s: float = 60.0) -> Iterator[Cluster]:
        """A cluster for this run, judged at its end. `hosts`: each in a namespace of its own."""
        self._clusters += 1
        folder = self._folder / f"{self.row.name}-{self.load}-{self._clusters}"
        if hosts:
            with (
                Network(hosts) as network,
                self._judged(Cluster(folder, network=network), finish_s) as cluster,
            ):
                yield cluster
        else:
            with self._judged(Cluster(folder), finish_s) as cluster:
                yield cluster

    @contextmanager
    def _judged(self, cluster: Cluster, finish_s: float) -> Iterator[Cluster]:
        whole = False
        broken_off: KeyboardInterrupt | None = None
        try:
            yield cluster
            cluster.finish(finish_s)
            whole = True
        except (RowError, NetworkError, OSError) as error:
            self.tally.errors.append(f"{self.load}: {error} (in {cluster.folder})")
        except KeyboardInterrupt as error:
            broken_off = error  # what was found until then counts
        finally:
            cluster.close()
        judgement = cluster.judge()
        if not whole:
            # Its clients were ended with all that they had open: the error says what is wrong.
            judgement["lost"] -= judgement["violations"].pop("C1 lost", 0)
            judgement["examples"].pop("C1 lost", None)
        self.tally.add(judgement, cluster.folder)
        if not self.tally.failed() and not self._keep:
            shutil.rmtree(cluster.folder, ignore_errors=True)
        if broken_off is not None:
            raise broken_off


def run_row(
    row: Row, loads: Sequence[str], *, repeat: int | None, seed: int, folder: Path,
    seconds: float, keep: bool = False, tally: Tally | None = None, starve_s: float = 20.0,
) -> Tally:  # fmt: skip
    """A row with each of its loads, and its share of the time for each.

    `tally`: takes what is found, also when this is broken off.
    """
    tally = tally or Tally()
    reason = row.why_not()
    if reason is not None:
        tally.not_run = reason
        return tally
    tally.notes += [f"{row.name}: not run: {part}" for part in row.parts_not_run]
    began = time.monotonic()
    chosen = [load for load in row.loads if load in loads] or list(row.loads[:1])
    try:
        _run_loads(row, chosen, repeat, seed, folder, seconds, keep, tally, starve_s)
    except KeyboardInterrupt:
        tally.broken_off = True
        raise
    finally:
        tally.seconds = time.monotonic() - began
        tally.load_average = os.getloadavg()[0]
    return tally


def _run_loads(
    row: Row, chosen: Sequence[str], repeat: int | None, seed: int, folder: Path, seconds: float,
    keep: bool, tally: Tally, starve_s: float,
) -> None:  # fmt: skip
    for load in chosen:
        until = time.monotonic() + seconds / len(chosen)
        run = Run(
            row, load, repeat=repeat or row.repeat, seed=seed, folder=folder, until=until,
            tally=tally, keep=keep, starve_s=starve_s,
        )  # fmt: skip
        try:
            known = len(tally.recovery_s)
            row.run(run)
            tally.by_load[load] = tally.recovery_s[known:]
        except NotRun as error:
            tally.not_run = str(error)
            break
        except (RowError, NetworkError, OSError) as error:
            tally.errors.append(f"{load}: {error}")
