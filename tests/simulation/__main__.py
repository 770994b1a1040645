"""`python -m tests.simulation`: run seeds, report, and print what replays a failure.

With `--shrink` a failing seed is made smaller first. With `--twice` each seed runs in two processes
with different hash seeds, which must agree on everything that happened.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.simulation.report import summary
from tests.simulation.run import Choice, Outcome, simulate
from tests.simulation.shrink import shrink

_TRACE_SHOWN = 40


def main() -> int:
    """Exit code 1 if a seed failed."""
    options = _parse()
    first = options.seed
    outcomes: list[Outcome] = []
    began = time.process_time()
    for seed in range(first, first + options.seeds):
        choice = Choice(
            seed,
            frozenset(options.omit),
            options.tasks,
            None if options.safety_ms is None else options.safety_ms * 1_000_000,
            options.verbose,
        )
        outcome = simulate(choice)
        outcomes.append(outcome)
        if options.twice and not outcome.failure:
            _compare(outcome)
        if outcome.failure:
            _tell(outcome, shrinking=options.shrink)
            if options.stop:
                break
    report = summary(outcomes, time.process_time() - began)
    if options.digest:
        print(" ".join(outcome.digest for outcome in outcomes))
        return 0
    text = json.dumps(report, indent=2)
    if options.report is not None:
        options.report.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 1 if report["failed"] else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--omit", action="append", default=[], help="a kind of fault to leave out")
    parser.add_argument("--tasks", type=int, help="at most so many tasks")
    parser.add_argument("--safety-ms", type=int, help="at most so long until it heals")
    parser.add_argument("--report", type=Path, help="where the JSON goes, beside standard output")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    parser.add_argument("--shrink", action="store_true", help="make a failing seed smaller")
    parser.add_argument("--twice", action="store_true", help="compare two hash seeds")
    parser.add_argument("--digest", action="store_true", help="print nothing but hashes")
    parser.add_argument("--verbose", action="store_true", help="print what happens")
    return parser.parse_args()


def _compare(outcome: Outcome) -> None:
    """I30: another process, with another hash seed, sees exactly the same."""
    here = os.environ.get("PYTHONHASHSEED", "")
    there = {**os.environ, "PYTHONHASHSEED": "77" if here != "77" else "78"}
    command = [sys.executable, "-m", "tests.simulation", "--digest"]
    command += ["--seed", str(outcome.choice.seed)]
    found = subprocess.run(command, env=there, capture_output=True, text=True, check=True)
    if found.stdout.strip() != outcome.digest:
        outcome.failure = "I30"
        outcome.text = f"{outcome.digest} here, {found.stdout.strip()} with another hash seed"


def _tell(outcome: Outcome, *, shrinking: bool) -> None:
    if shrinking:
        outcome = shrink(outcome)
    print("\n".join(outcome.trace[-_TRACE_SHOWN:]), file=sys.stderr)
    print(outcome.swarm, file=sys.stderr)
    print(outcome.text, file=sys.stderr)
    print(f"FAILED {outcome.failure}; replay: {outcome.choice.line()}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
