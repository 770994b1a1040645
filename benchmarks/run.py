"""All figures in one command: `python benchmarks/run.py` (or `make bench`).

Prints a table and writes JSON to `benchmarks/results/`. `--quick` takes few samples of small
sizes, to see that everything still runs; its figures mean nothing. `--only NAME` takes some,
`--list` names them. Exits 1 when a subject failed, never because of a figure: those depend on the
machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # started as a file: find the package beside it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.catalogue import comparisons
from benchmarks.measure import ROOT, Comparison, Goal, Outcome, Spread, compare, machine

# --- Showing --------------------------------------------------------------------------------------


def table(outcome: Outcome) -> str:
    """A comparison as text: median, and the range of all rounds."""
    lines = ["", f"{outcome.comparison.name}: {outcome.comparison.title}"]
    for subject, figures in outcome.results.items():
        for figure, spread in figures.items():
            low, high = min(spread.values), max(spread.values)
            shown = f"{_number(spread.median):>12}   ({_number(low)} to {_number(high)})"
            lines.append(f"  {subject:28} {figure:24} {shown}")
    for subject, failure in outcome.failures.items():
        lines.append(f"  {subject:28} FAILED: {failure}")
    for goal, value, reached in goals(outcome):
        word = "reached" if reached else "MISSED"
        lines.append(f"  {word}: {goal}: {_number(value)}")
    return "\n".join(lines)


def goals(outcome: Outcome) -> list[tuple[Goal, float, bool]]:
    """What was expected, what was measured, and whether that is enough."""
    found = []
    for goal in outcome.comparison.goals:
        value = goal.value(outcome.results)
        if value is not None:
            found.append((goal, value, goal.reached(value)))
    return found


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def as_json(outcomes: Sequence[Outcome], facts: dict[str, Any], quick: bool) -> dict[str, Any]:
    """The file of results."""

    def figures(results: dict[str, dict[str, Spread]]) -> dict[str, Any]:
        return {
            subject: {figure: spread.as_json() for figure, spread in spreads.items()}
            for subject, spreads in results.items()
        }

    return {
        "schema": 1,
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": facts,
        "comparisons": {
            outcome.comparison.name: {
                "title": outcome.comparison.title,
                "figures": figures(outcome.results),
                "failures": outcome.failures,
                "goals": [
                    {"goal": str(goal), "measured": value, "reached": reached}
                    for goal, value, reached in goals(outcome)
                ],
            }
            for outcome in outcomes
        },
    }


# --- Running --------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only see that everything runs")
    parser.add_argument("--only", action="append", metavar="NAME", help="one comparison")
    parser.add_argument("--list", action="store_true", help="name the comparisons")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    options = parser.parse_args(arguments)

    chosen = comparisons(options.quick)
    known = [comparison.name for comparison in chosen]
    if options.list:
        print("\n".join(f"{c.name:12} {c.title}" for c in chosen))
        return 0
    for name in options.only or ():
        if name not in known:
            parser.error(f'no comparison "{name}"; there are {", ".join(known)}')
    if options.quick:
        chosen = [replace(comparison, goals=()) for comparison in chosen]
    if options.only:
        chosen = [comparison for comparison in chosen if comparison.name in options.only]

    facts = machine()
    outcomes = [_measure(comparison, _progress()) for comparison in chosen]
    path = options.json or ROOT / "benchmarks/results" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(outcomes, facts, options.quick), indent=1) + "\n")
    print(f"\nwritten to {path}")
    return int(any(outcome.failures for outcome in outcomes))


def _measure(comparison: Comparison, say: Callable[[str], None]) -> Outcome:
    outcome = compare(comparison, say)
    say("")
    print(table(outcome), flush=True)
    return outcome


def _progress() -> Callable[[str], None]:
    if not sys.stderr.isatty():
        return lambda text: None
    return lambda text: print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
