"""Makes a failing seed smaller: without each fault that is not needed, fewer tasks, less time.

Rules of this file: a smaller choice counts only if the same checker fails. Streams of chance are
independent, so what is left behaves mostly as before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tests.simulation.run import Outcome, simulate
from tests.simulation.swarm import draw
from tests.simulation.world import START_NS

_RUNS_MAX: Final = 60


def shrink(outcome: Outcome) -> Outcome:
    """The smallest failing outcome that was found."""
    best = outcome
    runs = 0
    wanted = outcome.failure

    def fails(omit: frozenset[str], tasks: int | None, safety_ns: int | None) -> bool:
        nonlocal best, runs
        if runs >= _RUNS_MAX:
            return False
        runs += 1
        choice = replace(best.choice, omit=omit, tasks=tasks, safety_ns=safety_ns)
        found = simulate(choice)
        if found.failure == wanted:
            best = found
            return True
        return False

    swarm = draw(outcome.choice.seed, outcome.choice.profile)
    for kind in swarm.kinds():
        choice = best.choice
        if kind not in choice.omit:
            fails(choice.omit | {kind}, choice.tasks, choice.safety_ns)
    tasks = best.choice.tasks or swarm.tasks
    while tasks > 1 and fails(best.choice.omit, tasks // 2, best.choice.safety_ns):
        tasks //= 2
    safety_ns = best.choice.safety_ns or swarm.safety_ns
    while safety_ns > START_NS // 2_000 and fails(
        best.choice.omit, best.choice.tasks, safety_ns // 2
    ):
        safety_ns //= 2
    return best
