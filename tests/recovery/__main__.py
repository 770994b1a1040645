"""Kills a broker under load and prints how its peers come back: `python -m tests.recovery`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.recovery.run import Outcome, Plan, idle, recover
from tests.support import Processes

_COUNTERS: Final = (
    "sessions_opened",
    "sessions_deferred",
    "sessions_refused",
    "sessions_silent",
    "agents_lost",
    "attempts_adopted",
    "attempts_stale",
    "results_stale",
    "stalls",
)


def main(arguments: list[str]) -> int:
    """Run once. 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.recovery", description=__doc__)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1, help="of each agent")
    parser.add_argument("--tasks", type=int, default=50, help="that each client keeps open")
    parser.add_argument("--most-ms", type=int, default=3_000, help="the longest run of a task")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--down", type=float, default=0.0, help="seconds without a broker")
    parser.add_argument("--journal", action="store_true", help="brokers with a journal")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--idle", type=float, default=0.0, help="only measure so many idle seconds")
    chosen = parser.parse_args(arguments)
    plan = Plan(
        agents=chosen.agents,
        clients=0 if chosen.idle else chosen.clients,
        workers=chosen.workers,
        tasks=chosen.tasks,
        most_ms=chosen.most_ms,
        kills=chosen.kills,
        down_s=chosen.down,
        seed=chosen.seed,
        journal=chosen.journal,
    )
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes({**os.environ, "EVENER_RUNTIME_DIR": folder})
        try:
            if chosen.idle:
                share = idle(plan, processes, Path(folder), chosen.idle)
                print(
                    f"{plan.agents} idle agents of {plan.workers} workers: the broker takes"
                    f" {share:.1%} of a processor"
                )
                return 0
            outcome = recover(plan, processes, Path(folder))
        finally:
            processes.close()
    print(table(outcome))
    return int(bool(outcome.faults()))


def table(outcome: Outcome) -> str:
    """The figures, for people."""
    plan, books = outcome.plan, outcome.books
    title = f"{plan.agents} agents of {plan.workers} workers, {plan.clients} clients"
    lines = [
        f"{title} with {plan.tasks} open tasks each, {plan.down_s:g} s without a broker",
        f"{'':12} {'all back':>9} {'dispatch':>9} {'HELLOs':>7} {'most in 1 s':>12} {'CPU':>7}",
    ]
    for c in outcome.comebacks:
        figures = f"{c.all_back_s:7.2f} s {c.dispatch_s:7.2f} s {c.hellos:7} {c.peak_hellos:12}"
        lines.append(f"{c.what:12} {figures} {c.cpu_s:5.2f} s")
    lines += [
        f"tasks: {books.submitted}, ended: {len(books.ends)}",
        f"began while they ran: {books.overlaps}, began after their end: {books.again}",
        "counters: " + ", ".join(f"{name} {outcome.counters[name]}" for name in _COUNTERS),
        f"this process was late by {outcome.late_s:.2f} s at most",
    ]
    lines += [f"BROKEN: {fault}" for fault in outcome.faults()[:20]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
