"""`python -m tests.simulation`: run seeds, report, and print what replays a failure.

With `--shrink` a failing seed is made smaller first. With `--twice` each seed runs in two processes
with different hash seeds, which must agree on everything that happened.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.simulation.chart import chart
from tests.simulation.report import summary
from tests.simulation.run import Choice, Outcome, simulate
from tests.simulation.shrink import shrink
from tests.simulation.swarm import PROFILES

_REPORT_EVERY_S: Final = 60


def main() -> int:
    """Exit code 1 if a seed failed."""
    options = _parse()
    first = options.seed
    outcomes: list[Outcome] = []
    began, written = time.process_time(), time.monotonic()
    simulated_ns = 0
    for seed in itertools.count(first):
        if options.hours is None and seed >= first + options.seeds:
            break
        if options.hours is not None and simulated_ns >= options.hours * 3.6e12:
            break
        choice = Choice(
            seed,
            frozenset(options.omit),
            options.tasks,
            None if options.safety_ms is None else options.safety_ms * 1_000_000,
            options.profile,
            options.verbose,
        )
        outcome = simulate(choice)
        outcomes.append(outcome)
        simulated_ns += outcome.simulated_ns
        if options.twice and not outcome.failure:
            _compare(outcome)
        if outcome.failure:
            _tell(outcome, shrinking=options.shrink)
            if options.stop:
                break
        if options.report is not None and time.monotonic() > written + _REPORT_EVERY_S:
            # A long run that is ended before it is through has said what it found.
            _write(options.report, summary(outcomes, time.process_time() - began))
            written = time.monotonic()
    report = summary(outcomes, time.process_time() - began)
    if options.digest:
        print(" ".join(outcome.digest for outcome in outcomes))
        return 0
    if options.report is not None:
        _write(options.report, report)
    print(json.dumps(report, indent=2))
    return 1 if report["failed"] else 0


def _write(path: Path, report: dict[str, Any]) -> None:
    """All of it or what was there before."""
    half = path.with_name(path.name + ".new")
    half.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    half.replace(path)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--hours", type=float, help="as many seeds as fill so many simulated hours")
    parser.add_argument("--profile", choices=PROFILES, default=PROFILES[0])
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
    command += ["--seed", str(outcome.choice.seed), "--profile", outcome.choice.profile]
    found = subprocess.run(command, env=there, capture_output=True, text=True, check=True)
    if found.stdout.strip() != outcome.digest:
        outcome.failure = "I30"
        outcome.text = f"{outcome.digest} here, {found.stdout.strip()} with another hash seed"


def _tell(outcome: Outcome, *, shrinking: bool) -> None:
    if shrinking:
        outcome = shrink(outcome)
    print("\n".join(chart(outcome.trace)), file=sys.stderr)
    print(outcome.swarm, file=sys.stderr)
    print(outcome.text, file=sys.stderr)
    print(f"FAILED {outcome.failure}; replay: {outcome.choice.line()}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
