"""Each target for a short while: its corpus first, then changes of it that reach something new.

`FUZZ_SECONDS=600 pytest tests/fuzz` goes on for that long with each, and with new inputs;
`python -m tests.fuzz --keep` keeps what it found in the corpus.
"""

from __future__ import annotations

import os
import random
from typing import Final

import pytest

from tests.fuzz import core_target
from tests.fuzz.guided import Finding, Fuzzer, Target, Tracer, reached, read_corpus, shorten
from tests.fuzz.targets import TARGETS

SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "3"))


@pytest.mark.timeout(SECONDS * 2 + 120)
@pytest.mark.parametrize("name", TARGETS)
def test_target_stands_its_corpus_and_what_grows_from_it(name: str) -> None:
    target = TARGETS[name]
    corpus = read_corpus(name)
    assert corpus, "python -m tests.fuzz --keep writes it"
    # In the time of a test the same inputs come first each time; for longer runs, others.
    seed = 1 if "FUZZ_SECONDS" not in os.environ else random.SystemRandom().randrange(1 << 32)
    outcome = Fuzzer(target, seed).run(SECONDS, corpus)
    print(f"{name}: {outcome.executions} executions, {outcome.places} places, seed {seed}")
    assert outcome.executions > len(corpus)


def test_inputs_that_reach_new_places_are_kept_and_findings_are_told() -> None:
    """The fuzzer itself: it finds, step by step, what no single change would."""

    def run(data: bytes) -> None:
        # Each of these is a place of its own.
        if data[:1] != b"b":
            return
        if data[1:2] != b"u":
            return
        if data[2:3] == b"g":
            raise ValueError(data)

    def change(rng: random.Random, data: bytes, other: bytes) -> bytes:
        changed = bytearray(data)
        changed[rng.randrange(3)] = rng.randrange(256)
        return bytes(changed)

    target = Target("toy", run, lambda: [b"..."], change, ("tests/fuzz/test_guided.py",))
    with pytest.raises(Finding) as found:
        Fuzzer(target, 5).run(60)
    assert found.value.data[:3] == b"bug"
    assert isinstance(found.value.__cause__, ValueError)

    def parts(data: bytes) -> list[bytes]:
        return [data[:place] + data[place + 1 :] for place in range(len(data))]

    assert shorten(target, b"bug and more", parts) == b"bug"


def test_an_input_reaches_the_same_places_each_time() -> None:
    """Or what is kept would say nothing."""
    target = core_target.TARGET
    tracer = Tracer(target.files)
    for data in list(target.seeds())[:2]:
        first = {(code.co_name, *lines) for code, *lines in reached(target, tracer, data)}
        again = {(code.co_name, *lines) for code, *lines in reached(target, tracer, data)}
        assert first == again
        assert len(first) > 100
