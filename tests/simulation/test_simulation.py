"""A smoke run of the simulation: some seeds, the gate of determinism, and the checks of the checks.

Longer runs: `make sim SEEDS=5000`. Rules of this file: no seed is chosen because it passes.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutant_list import MUTANTS, Mutant
from tests.simulation.mutants import patched
from tests.simulation.report import SOMETIMES, summary
from tests.simulation.run import Choice, Outcome, simulate
from tests.simulation.shrink import shrink
from tests.simulation.swarm import ALL

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(1, 101)
SEEDS_COMPARED = (1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [simulate(Choice(seed)) for seed in SEEDS]


@pytest.mark.slow
def test_seeds_hold_the_invariants(outcomes: list[Outcome]) -> None:
    failed = [f"{o.failure}: {o.choice.line()}\n{o.text[:3_000]}" for o in outcomes if o.failure]
    assert not failed, "\n".join(failed)


@pytest.mark.slow
def test_the_run_was_worth_it(outcomes: list[Outcome]) -> None:
    """Faults of every kind struck, and nearly all points were reached."""
    report = summary(outcomes, 1.0)
    quiet = [kind for kind in ALL if not report["faults_fired"][kind]]
    assert not quiet, f"never struck: {quiet}"
    assert len(report["never"]) <= len(SOMETIMES) // 10, report["never"]
    assert report["verdicts_true"] > 0
    assert report["verdicts_false"] == 0
    assert report["executions"] > 1_000


@pytest.mark.slow
def test_another_hash_seed_sees_the_same(outcomes: list[Outcome]) -> None:
    """I30: what a seed says is the same in every process."""
    here = os.environ.get("PYTHONHASHSEED", "")
    there = {**os.environ, "PYTHONHASHSEED": "77" if here != "77" else "78"}
    for seed in SEEDS_COMPARED:
        command = [sys.executable, "-m", "tests.simulation", "--digest", "--seed", str(seed)]
        found = subprocess.run(
            command, env=there, cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert found.stdout.split() == [outcomes[seed - SEEDS.start].digest], f"seed {seed}"


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
    monkeypatch.setattr("tests.simulation.checkers.SILENCE_NS", 1 << 60)
    found = next(o for o in (simulate(Choice(seed)) for seed in SEEDS) if o.failure == "I18")
    small = shrink(found)
    assert small.failure == "I18"
    assert small.choice.omit
    assert small.choice.line().startswith(f"make sim SEED={small.choice.seed} ARGS=")
