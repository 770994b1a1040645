"""The demo's run, from the first line to the last.

Rules of this file: the order of things, and what goes to stdout (what was found) and to stderr (how
far it is, and what happens meanwhile).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import evener
from evener.demo import report
from evener.demo.app import app, index
from evener.demo.corpus import Source, common_folder, read, standard_library
from evener.demo.progress import Progress
from evener.demo.totals import Totals
from evener.demo.victim import Assassin, Loss, Row
from evener.texts import plural

_RESULT_S: Final = 300.0  # without any result for this long, something is wrong
_HEARD_S: Final = 5.0  # heartbeats name the workers, each second
_POLL_S: Final = 0.01
_ROWS_MAX: Final = 1_000


@dataclass(slots=True)
class Outcome:
    """What a cluster made of the work."""

    totals: Totals = field(default_factory=Totals)
    seconds: float = 0.0
    lost: dict[str, str] = field(default_factory=dict)
    killed: Loss | None = None


def run(*, workers: int, kill: bool, broker: str | None, paths: Sequence[Path] | None) -> int:
    """What `evener.demo.main` says."""
    chosen = standard_library() if paths is None else list(paths)
    if not chosen:
        _tell(["this Python has no source files of its standard library: nothing to index"])
        return 1
    sources = read(chosen)
    size = report.megabytes(sum(len(source.content) for source in sources))
    _print(
        [
            f"indexing the identifiers of {plural(len(sources), 'Python file')}, {size}",
            f"  below {common_folder(chosen)}",
        ]
    )
    with _connected(workers, broker) as (client, count):
        outcome = _index_there(client, sources, kill=kill and broker is None)
    alone, alone_s = _index_here(sources)
    _print(["", *report.top_identifiers(outcome.totals)])
    _print(["", *report.faults(outcome.totals)] if outcome.totals.faults else [])
    _print(["", *report.comparison(outcome.totals, outcome.seconds, alone, alone_s, count)])
    _print(f"LOST {name}: {why}" for name, why in outcome.lost.items())
    lost = len(outcome.lost)
    loss = outcome.killed
    killed, again = (loss.killed, loss.again_s is not None) if loss else (0, False)
    last = report.closing(outcome.totals, outcome.seconds, killed=killed, again=again, lost=lost)
    _print(["", last])
    return 1 if lost or outcome.totals.differences(alone) else 0


# --- On the cluster -------------------------------------------------------------------------------


@contextmanager
def _connected(workers: int, broker: str | None) -> Generator[tuple[evener.Client, int]]:
    """A client and how many workers there are: of a cluster of our own, or of one that runs."""
    if broker is not None:
        with evener.Client(broker) as client:
            _refuse_others(client, broker)
            ready = sum(row["slots"] for row in _rows(client, "hosts"))
            _print([f"  on the {plural(ready, 'worker')} of the broker at {broker}", ""])
            yield client, ready
        return
    start = time.monotonic()
    with evener.LocalCluster(app, workers=workers) as cluster, cluster.client() as client:
        took = time.monotonic() - start
        pids = ", ".join(map(str, _pids(client, workers)))
        ready = f"{plural(workers, 'worker')}, ready after {took:.2f} s: pids {pids}"
        _print([f"  on a broker and {ready}", ""])
        yield client, workers


def _refuse_others(client: evener.Client, broker: str) -> None:
    """Raises `UsageError`, before any task is lost, where no worker knows what is to be done."""
    known = _rows(client, "functions")
    serving = any(row["name"] == index.name and row["hosts"] for row in known)
    if not serving and len(known) < _ROWS_MAX:
        raise evener.UsageError(
            f"no worker of the broker at {broker} knows {index.name}; start some: "
            f"evener worker evener.demo.app:app --broker {broker}"
        )


def _pids(client: evener.Client, workers: int) -> list[int]:
    """The processes of the workers, as soon as the broker has heard of all of them."""
    deadline = time.monotonic() + _HEARD_S
    while True:
        pids = [int(row["pid"]) for row in _rows(client, "workers") if row["state"] == "ready"]
        if len(pids) >= workers or time.monotonic() > deadline:
            return sorted(pids)
        time.sleep(_POLL_S)


def _index_there(client: evener.Client, sources: Sequence[Source], *, kill: bool) -> Outcome:
    """Submit a task for each file, and sum up their results as they come."""
    outcome = Outcome()
    progress = Progress("indexed", len(sources), sys.stderr)
    ended: SimpleQueue[int] = SimpleQueue()

    def on_done(number: int) -> Callable[[Any], None]:
        return lambda _: ended.put(number)

    futures = [client.submit(index, source.content) for source in sources]
    for number, future in enumerate(futures):
        future.add_done_callback(on_done(number))
    for done in range(1, len(sources) + 1):
        number = ended.get(timeout=_RESULT_S)
        try:
            outcome.totals.add(sources[number], futures[number].result())
        except evener.EvenerError as error:
            outcome.lost[sources[number].name] = str(error)
        progress.show(done)
        if kill and done == (len(sources) + 1) // 2:
            names = {f.task_id: s.name for f, s in zip(futures, sources, strict=True)}
            outcome.killed = _kill_one(client, progress, names)
    progress.clear()
    outcome.seconds = progress.seconds()
    return outcome


def _kill_one(client: evener.Client, progress: Progress, names: Mapping[str, str]) -> Loss | None:
    """The work goes on meanwhile: what ends is counted, and summed up afterwards."""

    def say(line: str) -> None:
        progress.clear()
        _tell([line])

    def idle() -> None:
        progress.show(len(names) - client.open_tasks)

    def label(task: str) -> str:
        return f"{index.name}[{task[:8]}] ({names[task]})"

    return Assassin(partial(_rows, client), say, label, idle).strike()


def _rows(client: evener.Client, kind: str, **filters: Any) -> Sequence[Row]:
    rows: Sequence[Row] = client.query("ls", kind=kind, limit=_ROWS_MAX, **filters)["rows"]
    return rows


# --- Here -----------------------------------------------------------------------------------------


def _index_here(sources: Sequence[Source]) -> tuple[Totals, float]:
    """The same function in this process, one file after the other."""
    totals = Totals()
    progress = Progress("one process", len(sources), sys.stderr)
    for source in sources:
        totals.add(source, index(source.content))
        progress.show(totals.files)
    progress.clear()
    return totals, progress.seconds()


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
