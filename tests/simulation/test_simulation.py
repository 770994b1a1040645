"""A smoke run of the simulation: some seeds, the gate of determinism, and the checks of the checks.

Longer runs: `make sim SEEDS=5000`. Rules of this file: no seed is chosen because it passes.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.simulation.chart import chart
from tests.simulation.corpus import CORPUS
from tests.simulation.mutant_list import Mutant
from tests.simulation.mutants import MUTANTS, patched
from tests.simulation.points import RARE
from tests.simulation.report import summary
from tests.simulation.run import Choice, Outcome, Simulation, simulate
from tests.simulation.shrink import shrink
from tests.simulation.swarm import ALL
from tests.simulation.world import MS

ROOT = Path(__file__).resolve().parents[2]
CHOICES = [*map(Choice, range(1, 201)), *(Choice(seed, profile="long") for seed in (1, 2))]
PORTIONS = 20

SEEDS_COMPARED = (1, 2, 3, 4, 5)

_Outcomes = Callable[[Sequence[Choice]], list[Outcome]]


@pytest.fixture(scope="module")
def simulated() -> _Outcomes:
    """Outcomes of choices, each simulated once."""
    done: dict[Choice, Outcome] = {}

    def outcomes_of(choices: Sequence[Choice]) -> list[Outcome]:
        for choice in choices:
            if choice not in done:
                done[choice] = simulate(choice)
        return [done[choice] for choice in choices]

    return outcomes_of


@pytest.mark.slow
@pytest.mark.parametrize("portion", range(PORTIONS))
def test_seeds_hold_the_invariants(simulated: _Outcomes, portion: int) -> None:
    outcomes = simulated(CHOICES[portion::PORTIONS])
    failed = [f"{o.failure}: {o.choice.line()}\n{o.text[:3_000]}" for o in outcomes if o.failure]
    assert not failed, "\n".join(failed)


@pytest.mark.slow
@pytest.mark.timeout(900)  # alone it simulates all of them
def test_the_run_was_worth_it(simulated: _Outcomes) -> None:
    """Faults of every kind struck, and all points but the rare ones were reached."""
    outcomes = simulated(CHOICES)
    report = summary(outcomes, 1.0)
    quiet = [kind for kind in ALL if not report["faults_fired"][kind]]
    assert not quiet, f"never struck: {quiet}"
    assert set(report["never"]) <= RARE, set(report["never"]) - RARE
    assert not report["steps_never_made"], report["steps_never_made"]
    assert report["verdicts_true"] > 0
    assert report["verdicts_false"] == 0
    assert report["executions"] > 1_000
    assert len(outcomes) // 4 < report["with_journal"] < len(outcomes) * 3 // 4


@pytest.mark.slow
def test_another_hash_seed_sees_the_same(simulated: _Outcomes) -> None:
    """I30: what a seed says is the same in every process."""
    here = os.environ.get("PYTHONHASHSEED", "")
    there = {**os.environ, "PYTHONHASHSEED": "77" if here != "77" else "78"}
    first, last = SEEDS_COMPARED[0], SEEDS_COMPARED[-1]
    command = [sys.executable, "-m", "tests.simulation", "--digest", "--seed", str(first)]
    command += ["--seeds", str(last - first + 1)]
    found = subprocess.run(command, env=there, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [o.digest for o in simulated(CHOICES[: len(SEEDS_COMPARED)])]


@pytest.mark.parametrize("choice", CORPUS, ids=lambda choice: f"{choice.profile}-{choice.seed}")
def test_seeds_that_failed_once_hold(choice: Choice) -> None:
    """What each of them found stands beside it."""
    outcome = simulate(choice)
    assert not outcome.failure, f"{CORPUS[choice]}\n{outcome.text[:3_000]}"


def test_a_round_trip_may_be_longer_than_the_wait_for_an_answer() -> None:
    """Peers that repeated HELLO each second never got a session that lasted."""
    choice = Choice(3)
    swarm = choice.swarm()
    swarm.mean_s.clear()
    swarm.chances.clear()
    swarm.lasting.clear()
    swarm.agents, swarm.clients, swarm.tasks, swarm.durable = [1], 1, 5, False
    simulation = Simulation(choice, swarm)
    for host in ("agent0", "client0"):
        simulation.network.link(host).base_ns = 600 * MS
    simulation.run()
    assert simulation.checkers.accepted


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutants_still_fit_the_source(mutant: Mutant) -> None:
    """Whoever changes such a line mends the mutant, and runs it (`tests.simulation.mutants`)."""
    spec = importlib.util.find_spec(mutant.module)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    compile(patched(source, mutant), spec.origin, "exec")


def test_a_failure_shrinks_and_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker that is never content stands for a bug."""
    monkeypatch.setattr("tests.simulation.verdicts.SILENCE_NS", 1 << 60)
    found = next(o for o in map(simulate, CHOICES) if o.failure == "I18")
    small = shrink(found)
    assert small.failure == "I18"
    assert small.choice.omit
    assert small.choice.line().startswith(f"make sim SEED={small.choice.seed} ARGS=")
    lines = chart(small.trace)
    assert lines[0].startswith("time in s")
    assert len(lines) <= 60
