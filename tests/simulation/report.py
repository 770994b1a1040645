"""What a run of many seeds found, as JSON: never only "passed".

Rules of this file: sums of outcomes, no judgement beyond what the seeds said.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from evener_broker.transitions import TRANSITIONS
from evener_wire import limits
from tests.simulation import swarm
from tests.simulation.points import SOMETIMES
from tests.simulation.run import Outcome
from tests.simulation.swarm import ALL
from tests.simulation.watch import IMPOSSIBLE

_ROOT: Final = Path(__file__).resolve().parents[2]

# Legal steps of a task, and those that are asserted never to happen.
STEPS: Final = frozenset(
    (state.value, cause.value) for state, causes in TRANSITIONS.items() for cause in causes
)


def summary(outcomes: Sequence[Outcome], cpu_s: float) -> dict[str, Any]:
    """All seeds together."""
    ends: Counter[str] = Counter()
    fired: Counter[str] = Counter()
    sometimes: Counter[str] = Counter()
    checked: Counter[str] = Counter()
    steps: Counter[tuple[str, str]] = Counter()
    lengths: dict[str, list[int]] = {}
    peaks: dict[str, int] = {}
    for outcome in outcomes:
        ends.update(outcome.ends)
        fired.update(outcome.fired)
        sometimes.update(outcome.sometimes)
        checked.update(outcome.checked)
        steps.update(outcome.steps)
        for what, taken in outcome.lengths.items():
            lengths.setdefault(what, []).extend(taken)
        for name, value in outcome.peaks.items():
            peaks[name] = max(value, peaks.get(name, 0))
    events = sum(outcome.events for outcome in outcomes)
    seeds = [outcome.choice.seed for outcome in outcomes]
    return {
        "git": _git(),
        "config": config_digest(),
        "profiles": dict(Counter(outcome.choice.profile for outcome in outcomes)),
        "with_journal": sum(" journal " in outcome.swarm for outcome in outcomes),
        "seeds": [min(seeds), max(seeds)] if seeds else [],
        "seeds_run": len(seeds),
        "simulated_hours": round(sum(o.simulated_ns for o in outcomes) / 3.6e12, 3),
        "of_these_nobody_connected": round(sum(o.alone_s for o in outcomes) / 3_600, 3),
        "cpu_seconds": round(cpu_s, 1),
        "events": events,
        "events_per_second": round(events / cpu_s) if cpu_s else 0,
        "tasks": sum(outcome.tasks for outcome in outcomes),
        "accepted": sum(outcome.accepted for outcome in outcomes),
        "tasks_by_end": dict(sorted(ends.items())),
        "executions": sum(outcome.executions for outcome in outcomes),
        "verdicts_true": sum(outcome.verdicts_true for outcome in outcomes),
        "verdicts_false": sum(outcome.verdicts_false for outcome in outcomes),
        "checks_done": dict(sorted(checked.items())),
        "steps_of_tasks": {f"{state} {cause}": n for (state, cause), n in sorted(steps.items())},
        "steps_never_made": sorted(" ".join(step) for step in STEPS - IMPOSSIBLE - steps.keys()),
        "milliseconds": {what: _quantiles(taken) for what, taken in sorted(lengths.items())},
        "faults_fired": {kind: fired[kind] for kind in ALL},
        "sometimes": {point: sometimes[point] for point in SOMETIMES},
        "never": [point for point in SOMETIMES if not sometimes[point]],
        "other_points": {p: n for p, n in sorted(sometimes.items()) if p not in SOMETIMES},
        "peaks": dict(sorted(peaks.items())),
        "failed": {o.choice.seed: o.failure for o in outcomes if o.failure},
    }


def _quantiles(taken: list[int]) -> dict[str, float]:
    """Of lengths in nanoseconds, in milliseconds."""
    taken.sort()
    last = len(taken) - 1
    places = {"median": last // 2, "90 %": last * 9 // 10, "99 %": last * 99 // 100, "most": last}
    found = {name: round(taken[place] / 1e6, 2) for name, place in places.items()}
    return {"count": len(taken), **found}


def config_digest() -> str:
    """Of all that a seed is drawn from: two reports with the same one ran the same seeds."""
    drawn = [*swarm.FAULTS.items(), *swarm.LATER.items(), *swarm.LASTING, *swarm.HOSTILE.items()]
    bounds = [(name, value) for name, value in vars(limits).items() if name.isupper()]
    return hashlib.sha256(repr((drawn, bounds)).encode()).hexdigest()[:16]


def _git() -> str:
    """Of which commit this tree is, and whether it was changed since."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
