"""`python -m tests.fuzz --seconds 600`: fuzz for longer than the tests do, and keep what is new."""

from __future__ import annotations

import argparse
import random
import sys

from tests.fuzz.guided import Finding, Fuzzer, Target, read_corpus, smallest_set, write_corpus
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--target", choices=[*TARGETS], action="append", help="default: all")
    parser.add_argument("--seed", type=int, default=None, help="default: another each time")
    parser.add_argument("--keep", action="store_true", help="write the corpus anew")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    return max(
        _fuzz(TARGETS[name], options.seconds, seed, options.keep)
        for name in options.target or TARGETS
    )


def _fuzz(target: Target, seconds: float, seed: int, keep: bool) -> int:
    print(f"{target.name}: seed {seed}, {seconds:g} s", flush=True)
    fuzzer = Fuzzer(target, seed)
    found = 0
    try:
        fuzzer.run(seconds, read_corpus(target.name))
    except Finding as finding:
        print(finding, finding.__cause__, sep="\n", file=sys.stderr)
        found = 1
    outcome = fuzzer.outcome
    print(
        f"{target.name}: {outcome.executions} executions in {outcome.seconds:.0f} s, "
        f"{outcome.places} places, {len(outcome.kept)} inputs kept",
        flush=True,
    )
    if keep and not found:
        write_corpus(target.name, smallest_set(target, outcome.kept))
    return found


if __name__ == "__main__":
    sys.exit(main())
