"""`python -m tests.simulation.mutants`: does the simulation find the mistakes it is for?

Each mutant is a core with one small mistake. It runs in a process of its own, where the patch is
applied as the module is imported; nothing on disk changes. A mutant that 200 seeds do not kill
means that a checker, a fault or a workload is missing.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.simulation.mutant_list import MUTANTS as CORE_MUTANTS
from tests.simulation.mutant_list import Mutant
from tests.simulation.mutant_list_journal import JOURNAL_MUTANTS
from tests.simulation.mutant_list_work import WORK_MUTANTS

MUTANTS: Final = (*CORE_MUTANTS, *JOURNAL_MUTANTS, *WORK_MUTANTS)

_SEEDS_MAX: Final = 200
_ROOT: Final = Path(__file__).resolve().parents[2]


class _Patched(importlib.machinery.SourceFileLoader):
    """Loads a module from its source with one text replaced."""

    def __init__(self, name: str, path: str, mutant: Mutant) -> None:
        super().__init__(name, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> types.CodeType:
        source = Path(self.path).read_text(encoding="utf-8")
        return compile(patched(source, self._mutant), self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Stands in for the usual search, for one module."""
        if fullname != self._mutant.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.origin is not None
        loader = _Patched(fullname, spec.origin, self._mutant)
        return importlib.util.spec_from_file_location(fullname, spec.origin, loader=loader)


def patched(source: str, mutant: Mutant) -> str:
    """The source with the mistake in it. Raises `ValueError` if the text is not there once."""
    count = source.count(mutant.old)
    if count != 1:
        raise ValueError(f"mutant {mutant.name!r}: its text stands {count} times in the source")
    return source.replace(mutant.old, mutant.new)


def run_one(mutant: Mutant, first: int, seeds: int) -> tuple[int, str] | None:
    """In this process, which must not have imported the cores: (seeds run, what failed)."""
    assert mutant.module not in sys.modules
    sys.meta_path.insert(0, _Finder(mutant))
    from tests.simulation.run import Choice, simulate

    for seed in range(first, first + seeds):
        outcome = simulate(Choice(seed))
        if outcome.failure:
            return seed - first + 1, outcome.failure
    return None


def main() -> int:
    """Exit code 1 if a mutant survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=_SEEDS_MAX, help="how many at most")
    parser.add_argument("--only", help="mutants with this in their name")
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.number is not None:
        killed = run_one(MUTANTS[options.number], options.seed, options.seeds)
        print("survived" if killed is None else f"{killed[0]} {killed[1]}")
        return 0
    survivors = 0
    for number, mutant in enumerate(MUTANTS):
        if options.only and options.only not in mutant.name:
            continue
        began = time.monotonic()
        command = [sys.executable, "-m", "tests.simulation.mutants", "--number", str(number)]
        command += ["--seed", str(options.seed), "--seeds", str(options.seeds)]
        found = subprocess.run(command, cwd=_ROOT, env=os.environ, capture_output=True, text=True)
        last = (found.stdout.strip() or found.stderr.strip() or "?").splitlines()[-1]
        was_killed = found.returncode == 0 and last != "survived"
        survivors += not was_killed
        seeds, _, by = last.partition(" ")
        text = f"killed by {by} at seed {seeds}" if was_killed else last.upper()
        print(f"{mutant.name}: {text} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
